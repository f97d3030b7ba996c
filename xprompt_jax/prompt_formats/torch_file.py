"""Prompts in files of `torch.save`.

PEFT wrote `adapter_model.bin` so before it took to safetensors, and OpenPrompt
saves state dicts so. `torch_tensors.py` opens them, without running anything.
"""

from collections.abc import Mapping
import pathlib
from typing import Any

import numpy as np

from xprompt_jax import artifacts, torch_tensors

# The older form is a pickle that starts with torch's own number.
MAGICS = (
    torch_tensors.ARCHIVE_MAGIC,
    b"\x80\x02\x8a\nl\xfc\x9cF\xf9",
)


def read(path: pathlib.Path) -> Any:
  """What a torch file holds: a tensor, or dictionaries of tensors.

  Raises:
    UserError: torch is not installed; the file is missing, damaged, or holds
      other things than tensors.
  """
  torch_tensors.import_torch(str(path))
  is_archive = torch_tensors.is_archive(path)
  if is_archive:
    torch_tensors.check_archive(path)
  return torch_tensors.load(path, mmap=is_archive)


def to_array(path: pathlib.Path, name: str, tensor: Any) -> np.ndarray:
  """A tensor as a NumPy array of its own memory and of the same dtype.

  Raises:
    UserError: names file and tensor: no tensor, or not one of plain numbers.
  """
  return np.array(torch_tensors.to_array(path, name, tensor))


def write(path: pathlib.Path, tensors: Mapping[str, np.ndarray]) -> None:
  """Writes a plain dictionary of tensors, as `torch.save` does.

  Raises:
    UserError: torch is not installed, or the file cannot be written.
  """
  torch = torch_tensors.import_torch(str(path))
  state = {k: torch.tensor(np.asarray(v)) for k, v in tensors.items()}
  with artifacts.replacing(path) as temporary, open(temporary, "wb") as f:
    torch.save(state, f)
