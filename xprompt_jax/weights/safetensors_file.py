"""Reads and writes safetensors files tensor by tensor, in any size.

`artifacts.py` has the small files of a run, which are held in memory whole;
these are the shards of a model. The library checks a header; the bytes are
read by `stored_arrays.py` and written here, a part of a tensor at a time.
"""

from collections.abc import Iterator, Mapping
import json
import math
import os
import pathlib

import numpy as np

from xprompt_jax import artifacts
from xprompt_jax.types import UserError
from xprompt_jax.weights import leaves, stored_arrays
from xprompt_jax.weights.leaves import Leaf

_NAMES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}
_METADATA = "__metadata__"
# The length of the header comes first.
_LENGTH_BYTES = 8
# A larger tensor is written in parts: readers decompress whole chunks, so the
# parts should not be many.
_PART_BYTES = 512 * 2**20


def open_file(file: pathlib.Path) -> dict[str, Leaf]:
  """Opens a safetensors file and reads its header.

  The format has no checksum: a file that is too short or whose header is
  damaged is refused, a changed weight is not noticed.

  Args:
    file: the file.

  Returns:
    Its tensors by name, shaped as stored.

  Raises:
    UserError: the file is missing, not whole, or holds another dtype than
      float32, bfloat16 and float16.
  """
  with artifacts.opened_arrays(file), open(file, "rb") as f:
    length = int.from_bytes(f.read(_LENGTH_BYTES), "little")
    header = json.loads(f.read(length))
  header.pop(_METADATA, None)
  return {
      name: stored_arrays.stored_leaf(
          file,
          name,
          _LENGTH_BYTES + length + entry["data_offsets"][0],
          tuple(entry["shape"]),
          leaves.safetensors_dtype(str(file), name, entry["dtype"]),
      )
      for name, entry in header.items()
  }


def leaf_bytes(leaf: Leaf) -> int:
  """The size of its contents."""
  return math.prod(leaf.shape) * np.dtype(leaf.dtype).itemsize


def write_file(
    file: pathlib.Path, tensors: Mapping[str, Leaf], metadata: dict[str, str]
) -> None:
  """Writes a safetensors file, holding at most a part of a tensor in memory.

  Args:
    file: is overwritten.
    tensors: by the names they get.
    metadata: for the header.

  Raises:
    UserError: the file cannot be written, or a leaf cannot be read.
  """
  # Wider dtypes first, so that every tensor begins at a multiple of its own.
  names = sorted(tensors, key=lambda n: -np.dtype(tensors[n].dtype).itemsize)
  header: dict[str, object] = {_METADATA: metadata}
  end = 0
  for name in names:
    leaf = tensors[name]
    start, end = end, end + leaf_bytes(leaf)
    header[name] = {
        "dtype": _NAMES[np.dtype(leaf.dtype).name],
        "shape": leaf.shape,
        "data_offsets": [start, end],
    }
  text = json.dumps(header, separators=(",", ":")).encode()
  text += b" " * (-len(text) % _LENGTH_BYTES)
  try:
    with open(file, "wb") as f:
      f.write(len(text).to_bytes(_LENGTH_BYTES, "little") + text)
      for name in names:
        for part in _parts(tensors[name]):
          f.write(np.ascontiguousarray(part).reshape(-1).view(np.uint8).data)
      f.flush()
      os.fsync(f.fileno())
  except OSError as e:
    raise UserError(f"{file}: cannot write: {e.strerror or e}") from e


def _parts(leaf: Leaf) -> Iterator[np.ndarray]:
  """The contents in slices of the first axis."""
  if leaf_bytes(leaf) <= _PART_BYTES:
    yield leaf.whole()
    return
  step = max(1, _PART_BYTES * leaf.shape[0] // leaf_bytes(leaf))
  rest = (slice(None),) * (len(leaf.shape) - 1)
  for i in range(0, leaf.shape[0], step):
    yield leaf.read((slice(i, min(i + step, leaf.shape[0])), *rest))
