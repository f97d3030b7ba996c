"""Files of `torch.save`, opened for their tensors alone.

Such a file is a pickle, which may run anything: torch's weights-only reader
opens it and nothing else does, and only where torch is installed. Since 2020 it
lies in a zip archive, whose checksums torch does not look at: they are compared
here. `weights/torch_file.py` reads models so, a slice at a time, and
`prompt_formats/torch_file.py` prompts.
"""

from collections.abc import Iterator
import contextlib
import pathlib
import re
import struct
from types import ModuleType
from typing import Any
import warnings
import zipfile

import ml_dtypes
import numpy as np

from xprompt_jax.types import UserError

ARCHIVE_MAGIC = b"PK\x03\x04"
# Before it the weights-only reader could be made to run code.
_LEAST_VERSION = (2, 6)
_VERSION = re.compile(r"(\d{1,4})\.(\d{1,4})")
_CHUNK_BYTES = 2**20
_FORBIDDEN = re.compile(r"GLOBAL:?\s+(?:GLOBAL\s+)?([\w.]+)", re.IGNORECASE)
# What zipfile raises of a damaged archive; RuntimeError if it seems encrypted.
_ZIP_ERRORS = (
    OSError,
    zipfile.BadZipFile,
    struct.error,
    NotImplementedError,
    RuntimeError,
    ValueError,
)


def import_torch(what: str) -> ModuleType:
  """torch, or one line that says what it is needed for.

  Args:
    what: the file or the format, for the message.

  Raises:
    UserError: torch is not installed, or older than 2.6.
  """
  try:
    with warnings.catch_warnings():
      warnings.simplefilter("ignore")
      import torch
  except ImportError as e:
    raise UserError(
        f"{what}: needs torch, which is not installed: pip install"
        " 'xprompt-jax[torch]'; safetensors need none"
    ) from e
  found = _VERSION.match(torch.__version__)
  if found and (int(found[1]), int(found[2])) < _LEAST_VERSION:
    raise UserError(
        f"{what}: found torch {torch.__version__}, expected 2.6 or newer: a"
        " file can make older ones run code (CVE-2025-32434)"
    )
  return torch


def is_archive(file: pathlib.Path) -> bool:
  """Whether it is a zip archive; False for the older form.

  Raises:
    UserError: it cannot be read.
  """
  try:
    with open(file, "rb") as f:
      return f.read(len(ARCHIVE_MAGIC)) == ARCHIVE_MAGIC
  except OSError as e:
    raise UserError(f"{file}: cannot read: {e.strerror or e}") from e


@contextlib.contextmanager
def opened_archive(file: pathlib.Path) -> Iterator[zipfile.ZipFile]:
  """Opens an archive whose members are those of torch, stored as they are.

  Raises:
    UserError: it is damaged, there or within the block, or torch did not write
      it.
  """
  try:
    with zipfile.ZipFile(file) as archive:
      _check_members(file, archive)
      yield archive
  except _ZIP_ERRORS as e:
    raise UserError(f"{file}: not a whole file of torch.save: {e}") from e


def _check_members(file: pathlib.Path, archive: zipfile.ZipFile) -> None:
  if not any(name.endswith("/data.pkl") for name in archive.namelist()):
    raise UserError(
        f"{file}: found a zip archive without data.pkl, expected a file of"
        " torch.save"
    )
  for info in archive.infolist():
    if info.compress_type != zipfile.ZIP_STORED:
      raise UserError(
          f"{file}: found {info.filename} compressed, expected it stored as"
          " torch.save stores it"
      )


def is_whole(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bool:
  """Reads a member through; zipfile compares its crc32 at the end."""
  try:
    with archive.open(info) as member:
      while member.read(_CHUNK_BYTES):
        pass
  except (zipfile.BadZipFile, EOFError):
    return False
  return True


def damaged(file: pathlib.Path, member: str) -> UserError:
  """The error of a member whose checksum is another."""
  return UserError(
      f"{file}: found another crc32 of {member} than the file states, expected"
      " the same: the file is damaged"
  )


def check_archive(file: pathlib.Path) -> None:
  """Compares all checksums of an archive; one pass over it.

  Raises:
    UserError: names the first member that is damaged.
  """
  with opened_archive(file) as archive:
    for info in archive.infolist():
      if not is_whole(archive, info):
        raise damaged(file, info.filename)


def load(file: pathlib.Path, *, mmap: bool) -> Any:
  """What torch's weights-only reader returns: tensors, and what holds them.

  Args:
    file: the file.
    mmap: whether tensors are slices of the mapped file; for archives only.

  Raises:
    UserError: torch is missing; the file is damaged, or wants to unpickle
      something else.
  """
  torch = import_torch(str(file))
  try:
    with warnings.catch_warnings():
      warnings.simplefilter("ignore")
      return torch.load(
          str(file), map_location="cpu", weights_only=True, mmap=mmap
      )
  except Exception as e:  # Whatever a damaged pickle leads to.
    raise UserError(f"{file}: {_reason(e)}") from e


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


def check_tensor(file: pathlib.Path, name: str, found: Any) -> None:
  """Refuses what is no tensor, or one that does not hold its own numbers.

  Args:
    file: for the message.
    name: likewise.
    found: from `load`.

  Raises:
    UserError: no tensor, a sparse one, one without contents, or one whose
      numbers are stored with the other sign.
  """
  torch = import_torch(str(file))
  expected = "expected a dense tensor"
  if not isinstance(found, torch.Tensor):
    kind = type(found).__name__
    raise UserError(f"{file}: {name}: found a {kind}, {expected}")
  layout = str(found.layout).removeprefix("torch.")
  if layout != "strided" or found.device.type != "cpu":
    raise UserError(
        f"{file}: {name}: found a {layout} tensor on {found.device}, {expected}"
    )
  if found.is_neg() or found.is_conj():
    raise UserError(
        f"{file}: {name}: found a tensor that torch negates or conjugates when"
        " it is used, expected the numbers themselves, as resolve_neg() and"
        " resolve_conj() give them"
    )


def dtype_name(tensor: Any) -> str:
  """Such as bfloat16."""
  return str(tensor.dtype).removeprefix("torch.")


def to_array(file: pathlib.Path, name: str, tensor: Any) -> np.ndarray:
  """A tensor as a NumPy array of the same dtype, which shares its memory.

  Raises:
    UserError: as `check_tensor`, or a dtype that NumPy has not.
  """
  check_tensor(file, name, tensor)
  tensor = tensor.detach()
  try:
    if dtype_name(tensor) == "bfloat16":
      torch = import_torch(str(file))
      return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()
  except (RuntimeError, TypeError) as e:
    raise UserError(
        f"{file}: {name}: found dtype {dtype_name(tensor)}, expected one that"
        " NumPy has"
    ) from e
