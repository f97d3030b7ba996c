"""What every checkpoint reader returns: parameters by name, not read yet.

`loading.py` compares a `Checkpoint` with the network and reads each leaf, or
the slice of it that a device holds, when it is needed. So neither a reader nor
the host's memory ever holds a whole model.
"""

from collections.abc import Callable, Mapping
import dataclasses
import math
from typing import Any

import ml_dtypes  # noqa: F401 - gives NumPy its bfloat16.
import numpy as np

from xprompt_jax.types import UserError

# bfloat16 is a dtype of ml_dtypes, none of NumPy's own.
_DTYPES = ("float32", "bfloat16", "float16")

Index = tuple[slice, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Leaf:
  """One parameter in a checkpoint.

  Attributes:
    shape: as the network wants it, after transposition.
    dtype: as it is stored.
    file: which file holds it; leaves of a file are read one after another.
    tensor: its name there, for messages.
    read: gives the part at an index, one slice for each axis of `shape`, as an
      array of `dtype`.
  """

  shape: tuple[int, ...]
  dtype: Any
  file: str
  tensor: str
  read: Callable[[Index], np.ndarray]

  @property
  def size(self) -> int:
    """How many numbers it has."""
    return math.prod(self.shape)

  def whole(self) -> np.ndarray:
    """Reads all of it."""
    return self.read((slice(None),) * len(self.shape))


# By T5X's names joined with '/', such as `encoder/layers_0/mlp/wo/kernel`.
Checkpoint = Mapping[str, Leaf]


def check_dtype(file: str, tensor: str, found: object) -> None:
  """Refuses what no T5 is stored in: integers, booleans, float64, ...

  Args:
    file: for the message.
    tensor: likewise.
    found: the stored dtype.

  Raises:
    UserError: another dtype than float32, bfloat16 and float16.
  """
  if str(found) not in _DTYPES:
    raise UserError(
        f"{file}: {tensor}: found dtype {found}, expected one of"
        f" {', '.join(_DTYPES)}"
    )


def safetensors_dtype(file: str, tensor: str, found: str) -> Any:
  """The dtype that a safetensors header calls `F32`, `BF16` or `F16`.

  Raises:
    UserError: any other.
  """
  name = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}.get(found)
  check_dtype(file, tensor, name or found)
  return np.dtype(name)


def reading_order(checkpoint: Checkpoint) -> list[str]:
  """Names in the order in which readers are asked.

  File by file and, within it, array by array: a reader may keep what it has
  opened until another one is asked for. What is large comes first, while there
  is room for it.
  """
  largest: dict[str, int] = {}
  for leaf in checkpoint.values():
    largest[leaf.file] = max(leaf.size, largest.get(leaf.file, 0))

  def key(name: str) -> tuple:
    leaf = checkpoint[name]
    return -largest[leaf.file], leaf.file, -leaf.size, leaf.tensor, name

  return sorted(checkpoint, key=key)
