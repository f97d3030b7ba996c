"""Reads `pytorch_model.bin`, the files of `torch.save`.

`torch_tensors.py` opens them. Since 2020 such a file is a zip archive: torch
says where each tensor lies, and the bytes are read by `stored_arrays.py`, a
slice at a time. Older files are a stream of pickles without checksums, which
torch can only read whole.
"""

from collections.abc import Callable
import dataclasses
import pathlib
import re
import struct
from typing import Any

import numpy as np

from xprompt_jax import torch_tensors
from xprompt_jax.types import UserError
from xprompt_jax.weights import leaves, stored_arrays
from xprompt_jax.weights.leaves import Index, Leaf

# The part of a member's own header before its name: the lengths of the name and
# of the extra field end it.
_LOCAL_HEADER_BYTES = 30
_LOCAL_LENGTHS = struct.Struct("<HH")
_STORAGE = re.compile(r"[^/]+/data/[^/]+")


class Reader:
  """Opens files of `torch.save`; at most one of the old format stays loaded."""

  def __init__(self):
    self._loaded: pathlib.Path | None = None
    self._arrays: dict[str, np.ndarray] = {}

  def open_file(
      self, file: pathlib.Path, *, checked: bool = False
  ) -> dict[str, Leaf]:
    """Opens a file and reads what tensors it holds.

    Args:
      file: a dict of tensors, as `torch.save(model.state_dict(), file)` writes.
      checked: its contents are known to be right: the checksums of a zip
        archive need not be compared. Otherwise that takes one pass over it.

    Returns:
      Its tensors by name, shaped as stored.

    Raises:
      UserError: torch or the file is missing; the file is damaged, holds
        something else than tensors, or wants to unpickle something else.
    """
    torch_tensors.import_torch(str(file))
    if torch_tensors.is_archive(file):
      return _open_zip(file, checked)
    return {
        name: Leaf(
            shape=array.shape,
            dtype=array.dtype,
            file=str(file),
            tensor=name,
            read=self._reader(file, name),
        )
        for name, array in self._load(file).items()
    }

  def _reader(
      self, file: pathlib.Path, name: str
  ) -> Callable[[Index], np.ndarray]:
    def read(index: Index) -> np.ndarray:
      # A copy, or it would keep the file in memory after its turn.
      return np.array(self._load(file)[name][index])

    return read

  def _load(self, file: pathlib.Path) -> dict[str, np.ndarray]:
    if self._loaded != file:
      # The last file leaves before the next one comes.
      self._loaded, self._arrays = None, {}
      loaded = _load_tensors(file, mmap=False)
      self._arrays = {
          n: torch_tensors.to_array(file, n, t) for n, t in loaded.items()
      }
      self._loaded = file
    return self._arrays


def _load_tensors(file: pathlib.Path, mmap: bool) -> dict[str, Any]:
  """What torch's weights-only reader returns, if it is a dict of tensors."""
  loaded = torch_tensors.load(file, mmap=mmap)
  if not isinstance(loaded, dict):
    raise UserError(
        f"{file}: found a {type(loaded).__name__}, expected a dict of tensors"
    )
  for name, tensor in loaded.items():
    torch_tensors.check_tensor(file, str(name), tensor)
    leaves.check_dtype(str(file), str(name), torch_tensors.dtype_name(tensor))
  return {str(name): tensor for name, tensor in loaded.items()}


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Member:
  """A storage in the archive: its name, size, and where its bytes begin."""

  name: str
  size: int
  offset: int


def _open_zip(file: pathlib.Path, checked: bool) -> dict[str, Leaf]:
  members, damaged = _members(file, checked)
  # Storages are slices of the mapped file.
  tensors = _load_tensors(file, mmap=True)
  base = _base(file, tensors, members)
  by_offset = {member.offset: member for member in members}
  found = {}
  for name, tensor in tensors.items():
    storage = tensor.untyped_storage()
    start = storage.data_ptr() - base if storage.nbytes() else 0
    if start in by_offset and by_offset[start].name in damaged:
      raise UserError(
          f"{file}: {name}: found another crc32 than the file states of it,"
          " expected the same: the file is damaged"
      )
    found[name] = _zip_leaf(file, name, tensor, start)
  if damaged:
    raise torch_tensors.damaged(file, damaged[0])
  return found


def _members(
    file: pathlib.Path, checked: bool
) -> tuple[list[_Member], list[str]]:
  """The storages in an archive, and the names of those that are damaged."""
  members, damaged = [], []
  with torch_tensors.opened_archive(file) as archive, open(file, "rb") as f:
    for info in archive.infolist():
      is_storage = _STORAGE.fullmatch(info.filename)
      if not checked and not torch_tensors.is_whole(archive, info):
        if not is_storage:
          raise torch_tensors.damaged(file, info.filename)
        damaged.append(info.filename)
      if info.filename.endswith("/byteorder"):
        order = archive.read(info)
        if order != b"little":
          raise UserError(
              f"{file}: found the byte order {order.decode('latin-1')!r},"
              " expected 'little'"
          )
      if is_storage:
        f.seek(info.header_offset + _LOCAL_HEADER_BYTES - _LOCAL_LENGTHS.size)
        lengths = _LOCAL_LENGTHS.unpack(f.read(_LOCAL_LENGTHS.size))
        offset = info.header_offset + _LOCAL_HEADER_BYTES + sum(lengths)
        members.append(
            _Member(name=info.filename, size=info.file_size, offset=offset)
        )
  return members, damaged


def _base(
    file: pathlib.Path, tensors: dict[str, Any], members: list[_Member]
) -> int:
  """The address at which torch mapped the file.

  torch does not tell it; it is the one from which every storage begins where a
  member of its size does.
  """
  storages = {
      storage.data_ptr(): storage.nbytes()
      for storage in (t.untyped_storage() for t in tensors.values())
      if storage.nbytes()
  }
  if not storages:
    return 0
  sizes = {member.offset: member.size for member in members}
  first = min(storages)
  bases = [
      first - offset
      for offset in sizes
      if all(
          sizes.get(address - first + offset) == size
          for address, size in storages.items()
      )
  ]
  if len(bases) != 1:
    raise UserError(
        f"{file}: found tensors elsewhere than the archive's members, expected"
        " a file of torch.save"
    )
  return bases[0]


def _zip_leaf(file: pathlib.Path, name: str, tensor: Any, start: int) -> Leaf:
  """A leaf of a tensor whose storage begins at `start` in the file."""
  dtype = np.dtype(torch_tensors.dtype_name(tensor))
  offset = start + tensor.storage_offset() * dtype.itemsize
  shape = tuple(tensor.shape)
  if tensor.is_contiguous():
    return stored_arrays.stored_leaf(file, name, offset, shape, dtype)
  if tensor.dim() == 2 and tensor.t().is_contiguous():
    leaf = stored_arrays.stored_leaf(file, name, offset, shape[::-1], dtype)
    return stored_arrays.transposed(leaf)
  raise UserError(
      f"{file}: {name}: found the strides {tuple(tensor.stride())} of a view,"
      " expected a contiguous tensor"
  )
