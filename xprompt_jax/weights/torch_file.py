"""Reads `pytorch_model.bin`, the files of `torch.save`.

Only torch's weights-only reader unpickles anything. Since 2020 such a file is a
zip archive: torch says where each tensor lies, and the bytes are read by
`stored_arrays.py`, a slice at a time. torch does not look at the archive's
checksums, so they are checked here. Older files are a stream of pickles without
checksums, which torch can only read whole.
"""

from collections.abc import Callable, Iterator
import contextlib
import dataclasses
import pathlib
import re
import struct
from types import ModuleType
from typing import Any
import warnings
import zipfile

import numpy as np

from xprompt_jax.types import UserError
from xprompt_jax.weights import leaves, stored_arrays
from xprompt_jax.weights.leaves import Index, Leaf

_ZIP_MAGIC = b"PK\x03\x04"
# The part of a member's own header before its name: the lengths of the name and
# of the extra field end it.
_LOCAL_HEADER_BYTES = 30
_LOCAL_LENGTHS = struct.Struct("<HH")
_CHUNK_BYTES = 2**20
_STORAGE = re.compile(r"[^/]+/data/[^/]+")
_FORBIDDEN = re.compile(r"GLOBAL:?\s+(?:GLOBAL\s+)?([\w.]+)", re.IGNORECASE)


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
    _import_torch(file)
    try:
      with open(file, "rb") as f:
        is_zip = f.read(len(_ZIP_MAGIC)) == _ZIP_MAGIC
    except OSError as e:
      raise UserError(f"{file}: cannot read: {e.strerror or e}") from e
    if is_zip:
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
      self._arrays = {n: _as_array(file, n, t) for n, t in loaded.items()}
      self._loaded = file
    return self._arrays


def _import_torch(file: pathlib.Path) -> ModuleType:
  try:
    with warnings.catch_warnings():
      warnings.simplefilter("ignore")
      import torch
  except ImportError as e:
    raise UserError(
        f"{file}: reading it needs torch, which is not installed: pip install"
        " 'xprompt-jax[torch]', or use a safetensors copy of the weights"
    ) from e
  return torch


def _load_tensors(file: pathlib.Path, mmap: bool) -> dict[str, Any]:
  """What torch's weights-only reader returns, if it is a dict of tensors."""
  torch = _import_torch(file)
  try:
    with warnings.catch_warnings():
      warnings.simplefilter("ignore")
      loaded = torch.load(
          str(file), map_location="cpu", weights_only=True, mmap=mmap
      )
  except Exception as e:  # Whatever a damaged pickle leads to.
    raise UserError(f"{file}: {_reason(e)}") from e
  if not isinstance(loaded, dict):
    raise UserError(
        f"{file}: found a {type(loaded).__name__}, expected a dict of tensors"
    )
  for name, tensor in loaded.items():
    if not isinstance(tensor, torch.Tensor) or tensor.layout != torch.strided:
      raise UserError(
          f"{file}: {name}: found a {type(tensor).__name__}, expected a dense"
          " tensor"
      )
    leaves.check_dtype(str(file), str(name), _dtype_name(tensor))
  return {str(name): tensor for name, tensor in loaded.items()}


def _reason(error: Exception) -> str:
  """torch's error, which may run over many lines, in one."""
  text = " ".join(str(error).split())
  forbidden = _FORBIDDEN.search(text)
  kind = type(error).__name__
  if forbidden:
    what = forbidden[1].rstrip(".")
    return f"wants to unpickle {what}, expected nothing but tensors"
  first = re.split(r"(?<=[.!?])\s", text)[0]
  if kind == "UnpicklingError":
    # It begins with advice to read the file with fewer checks.
    first = "its pickle cannot be read"
  return f"not a whole file of torch.save: {f'{kind}: {first}'.rstrip(': ')}"


def _dtype_name(tensor: Any) -> str:
  return str(tensor.dtype).removeprefix("torch.")


def _as_array(file: pathlib.Path, name: str, tensor: Any) -> np.ndarray:
  tensor = tensor.detach()
  if _dtype_name(tensor) == "bfloat16":
    torch = _import_torch(file)
    return tensor.view(torch.int16).numpy().view("bfloat16")
  return tensor.numpy()


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
    raise UserError(_damaged_member(file, damaged[0]))
  return found


def _damaged_member(file: pathlib.Path, name: str) -> str:
  return (
      f"{file}: found another crc32 of {name} than the file states, expected"
      " the same: the file is damaged"
  )


def _members(
    file: pathlib.Path, checked: bool
) -> tuple[list[_Member], list[str]]:
  """The storages in an archive, and the names of those that are damaged."""
  members, damaged = [], []
  with _opened(file) as archive, open(file, "rb") as f:
    for info in archive.infolist():
      if info.compress_type != zipfile.ZIP_STORED:
        raise UserError(
            f"{file}: found {info.filename} compressed, expected it stored as"
            " torch.save stores it"
        )
      is_storage = _STORAGE.fullmatch(info.filename)
      if not checked and not _is_whole(archive, info):
        if not is_storage:
          raise UserError(_damaged_member(file, info.filename))
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


@contextlib.contextmanager
def _opened(file: pathlib.Path) -> Iterator[zipfile.ZipFile]:
  try:
    with zipfile.ZipFile(file) as archive:
      yield archive
  except (OSError, zipfile.BadZipFile, struct.error, NotImplementedError) as e:
    raise UserError(f"{file}: not a whole file of torch.save: {e}") from e


def _is_whole(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bool:
  """Reads a member through; zipfile compares its crc32 at the end."""
  try:
    with archive.open(info) as member:
      while member.read(_CHUNK_BYTES):
        pass
  except (zipfile.BadZipFile, EOFError):
    return False
  return True


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
  dtype = np.dtype(_dtype_name(tensor))
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
