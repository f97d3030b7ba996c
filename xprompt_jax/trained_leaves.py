"""Trees of trained leaves [R, ...]: their names in files, their rows.

`trainer.py` holds such trees and `baselines.py` reads and writes them.
"""

from collections.abc import Mapping, Sequence
import pathlib
from typing import Any

from flax import traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from xprompt_jax.types import require


def by_name(tree: Mapping[str, Any]) -> dict[str, Any]:
  """Leaves by path, as files have them: `prompt`, `mlp/out/kernel`."""
  return traverse_util.flatten_dict(tree, sep="/")


def filled(
    tree: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
    path: pathlib.Path,
    prefix: str = "",
) -> dict[str, Any]:
  """The leaves of a file in the shape of a tree.

  Args:
    tree: gives names and shapes.
    arrays: what the file holds.
    path: of the file.
    prefix: stands before each name there.

  Raises:
    UserError: a leaf is missing or has another shape.
  """
  leaves = by_name(tree)
  shapes = {prefix + name: leaf.shape for name, leaf in leaves.items()}
  check_shapes(path, arrays, shapes)
  return nested({name: arrays[prefix + name] for name in leaves})


def check_shapes(
    path: pathlib.Path,
    arrays: Mapping[str, np.ndarray],
    shapes: Mapping[str, tuple[int, ...] | None],
) -> None:
  """Refuses a file that lacks an array, or has one of another shape.

  Args:
    path: of the file.
    arrays: what it holds.
    shapes: by name; None where there should be no array.
  """
  for name, shape in shapes.items():
    found = arrays[name].shape if name in arrays else None
    expected = "no such array" if shape is None else f"shape {shape}"
    require(found == shape, f"{path}: {name}", found, expected)


@jax.jit
def finite_rows(tree: Any) -> Any:
  """For each leaf [R, ...] which rows are finite: [R]."""

  def finite(leaf):
    return jnp.isfinite(leaf).all(axis=tuple(range(1, leaf.ndim)))

  return jax.tree.map(finite, tree)


def best_of(best: Any, current: Any, rows: Sequence[int]) -> Any:
  """A tree in memory with some rows from one on a device; neither is changed."""

  def chosen(kept, leaf):
    if len(rows) == len(kept):
      return np.array(leaf)
    kept = np.array(kept)
    kept[list(rows)] = np.asarray(leaf)[list(rows)]
    return kept

  return jax.tree.map(chosen, best, current)


def row_of(tree: Any, row: int) -> Any:
  """One row of every leaf, without R."""
  return jax.tree.map(lambda leaf: leaf[row], tree)


def stacked(rows: Sequence[Any]) -> Any:
  """Rows without R as one tree of leaves [R, ...]."""
  return jax.tree.map(lambda *leaves: np.stack(leaves), *rows)


def nested(leaves: Mapping[str, Any]) -> dict[str, Any]:
  """The tree of leaves by path: `by_name` backwards."""
  return traverse_util.unflatten_dict(dict(leaves), sep="/")
