"""Arrays that lie in a file as plain bytes, read in part.

safetensors files and the zip files of `torch.save` both hold their tensors so.
A read opens the file, reads the bytes of the slice and nothing else, and closes
it: a file that stayed mapped would count to the process's memory page by page,
and safetensors' own slices take twice the memory of what they return.
"""

from collections.abc import Iterator
import itertools
import math
import pathlib
from typing import Any

import numpy as np

from xprompt_jax.types import UserError
from xprompt_jax.weights.leaves import Index, Leaf

# A transposed array is filled in parts of this size.
_PART_BYTES = 64 * 2**20


def stored_leaf(
    file: pathlib.Path,
    tensor: str,
    offset: int,
    shape: tuple[int, ...],
    dtype: Any,
) -> Leaf:
  """A leaf whose bytes lie in a file, in C order and little-endian.

  Args:
    file: the file.
    tensor: its name there, for messages.
    offset: of its first byte in the file.
    shape: as stored.
    dtype: as stored.

  Returns:
    A leaf of the stored shape. Its `read` wants slices without steps, and
    raises `UserError` where the file has become unreadable or too short.
  """

  def read(index: Index) -> np.ndarray:
    bounds = [s.indices(size)[:2] for s, size in zip(index, shape, strict=True)]
    part = np.empty([max(0, stop - start) for start, stop in bounds], dtype)
    if part.size:
      # Bytes, because bfloat16 is no buffer of Python's.
      memory = part.reshape(-1).view(np.uint8).data
      _fill(memory, file, tensor, offset, _runs(shape, bounds, part.itemsize))
    return part

  return Leaf(
      shape=shape, dtype=dtype, file=str(file), tensor=tensor, read=read
  )


def _runs(
    shape: tuple[int, ...], bounds: list[tuple[int, int]], itemsize: int
) -> Iterator[tuple[int, int]]:
  """Where the contiguous runs of a part begin, and their length, in bytes."""
  strides = [itemsize * math.prod(shape[i + 1 :]) for i in range(len(shape))]
  axes = len(shape)
  # Trailing axes that are taken whole join the run.
  while axes and bounds[axes - 1] == (0, shape[axes - 1]):
    axes -= 1
  if axes == 0:
    yield 0, math.prod(shape) * itemsize
    return
  start, stop = bounds[axes - 1]
  length = (stop - start) * strides[axes - 1]
  for position in itertools.product(*(range(*b) for b in bounds[: axes - 1])):
    before = sum(i * s for i, s in zip(position, strides, strict=False))
    yield before + start * strides[axes - 1], length


def _fill(
    memory: memoryview,
    file: pathlib.Path,
    tensor: str,
    offset: int,
    runs: Iterator[tuple[int, int]],
) -> None:
  filled = 0
  try:
    with open(file, "rb", buffering=0) as f:
      for start, length in runs:
        f.seek(offset + start)
        end = filled + length
        # One call reads at most 2 GiB.
        while filled < end:
          count = f.readinto(memory[filled:end])
          if not count:
            raise UserError(
                f"{file}: {tensor}: the file ends within it, expected"
                f" {end - filled} bytes more"
            )
          filled += count
  except OSError as e:
    raise UserError(f"{file}: {tensor}: cannot read: {e.strerror or e}") from e


def transposed(leaf: Leaf) -> Leaf:
  """The same parameter with its two axes swapped.

  It is filled part by part: reading a slice takes the memory of the slice and
  a little more.

  Args:
    leaf: of any shape; one that has not two axes comes back as it is.
  """
  if len(leaf.shape) != 2:
    return leaf

  def read(index: Index) -> np.ndarray:
    columns, rows = index
    start, stop, _ = rows.indices(leaf.shape[0])
    width = len(range(*columns.indices(leaf.shape[1])))
    result = np.empty((width, max(0, stop - start)), leaf.dtype)
    step = max(1, _PART_BYTES // max(1, width * result.itemsize))
    for i in range(start, stop, step):
      part = leaf.read((slice(i, min(i + step, stop)), columns))
      result[:, i - start : i - start + len(part)] = part.T
    return result

  return Leaf(
      shape=leaf.shape[::-1],
      dtype=leaf.dtype,
      file=leaf.file,
      tensor=leaf.tensor,
      read=read,
  )
