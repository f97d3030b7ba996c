"""torch's own files, read for their tensors alone.

PEFT wrote `adapter_model.bin` so before it took to safetensors, and OpenPrompt
saves state dicts so. Such a file is a pickle, which may run anything: it is
opened by `torch.load(weights_only=True)` and by nothing else, and only where
torch is installed.
"""

from collections.abc import Mapping
import pathlib
from types import ModuleType
from typing import Any
import warnings
import zipfile

import numpy as np

from xprompt_jax import artifacts
from xprompt_jax.types import UserError

ZIP_MAGIC = b"PK\x03\x04"
# The older form: a pickle that starts with torch's own number.
PICKLE_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9"


def import_torch(what: str) -> ModuleType:
  """torch, or one line that says what it is needed for.

  Args:
    what: the file or the format, for the message.

  Raises:
    UserError: torch is not installed.
  """
  try:
    with warnings.catch_warnings():
      warnings.simplefilter("ignore")
      import torch
  except ImportError as e:
    raise UserError(
        f"{what}: needs torch, which is not installed, expected it from"
        " `pip install torch`; safetensors and .npy need none"
    ) from e
  return torch


def _check_archive(path: pathlib.Path) -> bool:
  """Checks the sums that torch itself leaves out; False for the older form."""
  with open(path, "rb") as f:
    if f.read(len(ZIP_MAGIC)) != ZIP_MAGIC:
      return False
  with zipfile.ZipFile(path) as archive:
    names = archive.namelist()
    if not any(name.endswith("/data.pkl") for name in names):
      raise ValueError("a zip archive that torch did not write")
    damaged = archive.testzip()
  if damaged is not None:
    raise ValueError(f"{damaged} does not have its checksum")
  return True


def read(path: pathlib.Path) -> Any:
  """What a torch file holds: a tensor, or dictionaries of tensors.

  Raises:
    UserError: torch is not installed; the file is missing, damaged, or holds
      other things than tensors.
  """
  torch = import_torch(str(path))
  try:
    mapped = _check_archive(path)
    return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
  except Exception as e:  # zipfile, pickle and torch raise nearly any type.
    if isinstance(e, OSError) and not path.exists():
      raise UserError(f"{path}: cannot read: {e.strerror or e}") from e
    # torch goes on for paragraphs, how to load it unsafely among them.
    message = (str(e).strip() or type(e).__name__).splitlines()[0]
    if "Weights only load failed" in message:
      message = "holds other things than tensors"
    message = message.partition(". ")[0]
    raise UserError(f"{path}: not a whole torch file: {message}") from e


def to_array(path: pathlib.Path, name: str, tensor: Any) -> np.ndarray:
  """A tensor as a NumPy array of its own memory; bfloat16 becomes float32.

  Raises:
    UserError: names file and tensor: no tensor, or not one of plain numbers.
  """
  torch = import_torch(str(path))
  if not isinstance(tensor, torch.Tensor):
    found = type(tensor).__name__
    raise UserError(f"{path}: {name}: found {found}, expected a tensor")
  try:
    tensor = tensor.detach()
    if tensor.dtype == torch.bfloat16:
      tensor = tensor.float()
    return np.array(tensor.numpy())
  except (RuntimeError, TypeError) as e:
    raise UserError(
        f"{path}: {name}: found {tensor.dtype} {tensor.layout} on"
        f" {tensor.device}, expected a dense tensor of numbers"
    ) from e


def write(path: pathlib.Path, tensors: Mapping[str, np.ndarray]) -> None:
  """Writes a plain dictionary of tensors, as `torch.save` does.

  Raises:
    UserError: torch is not installed, or the file cannot be written.
  """
  torch = import_torch(str(path))
  state = {k: torch.tensor(np.asarray(v)) for k, v in tensors.items()}
  with artifacts.replacing(path) as temporary, open(temporary, "wb") as f:
    torch.save(state, f)
