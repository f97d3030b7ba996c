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
  found = {}
  for name, leaf in by_name(tree).items():
    key = prefix + name
    shape = arrays[key].shape if key in arrays else None
    expected = f"shape {leaf.shape}"
    require(shape == leaf.shape, f"{path}: {key}", shape, expected)
    found[name] = arrays[key]
  return nested(found)


@jax.jit
def finite_rows(tree: Any) -> Any:
  """For each leaf [R, ...] which rows are finite: [R]."""

  def finite(leaf):
    return jnp.isfinite(leaf).all(axis=tuple(range(1, leaf.ndim)))

  return jax.tree.map(finite, tree)


def best_of(best: Any, current: Any, rows: Sequence[int]) -> None:
  """Copies some rows of a tree on a device over those of one in memory."""
  for kept, leaf in zip(
      jax.tree.leaves(best), jax.tree.leaves(current), strict=True
  ):
    kept[list(rows)] = np.asarray(leaf)[list(rows)]


def row_of(tree: Any, row: int) -> Any:
  """One row of every leaf, without R."""
  return jax.tree.map(lambda leaf: leaf[row], tree)


def stacked(rows: Sequence[Any]) -> Any:
  """Rows without R as one tree of leaves [R, ...]."""
  return jax.tree.map(lambda *leaves: np.stack(leaves), *rows)


def nested(leaves: Mapping[str, Any]) -> dict[str, Any]:
  """The tree of leaves by path: `by_name` backwards."""
  return traverse_util.unflatten_dict(dict(leaves), sep="/")
