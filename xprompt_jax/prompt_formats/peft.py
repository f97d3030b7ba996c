"""PEFT's adapter folder: adapter_config.json beside `prompt_embeddings`.

PEFT's prompt tuning on T5 puts the first P rows in front of the encoder's
embedded inputs. Unless its user asks otherwise it holds twice as many, P for a
decoder that never uses them (`num_transformer_submodules` 2): those are read
past, and what is written here has none.
"""

from collections.abc import Iterable, Mapping
import dataclasses
import json
import os
import pathlib
import struct
from typing import Any

import numpy as np

from xprompt_jax import artifacts
from xprompt_jax.prompt_formats import torch_file
from xprompt_jax.prompt_formats.arrays import listed
from xprompt_jax.types import UserError, require, require_int

CONFIG = "adapter_config.json"
FILE = "adapter_model.safetensors"
TORCH_FILE = "adapter_model.bin"
TENSOR = "prompt_embeddings"


@dataclasses.dataclass(frozen=True, kw_only=True)
class BaseModel:
  """What an adapter's config says of the model it belongs to.

  Attributes:
    name: a hub id or a folder that transformers can load, or None.
    revision: of the hub id, or None.
    num_layers: of the encoder.
    num_heads: attention heads.
  """

  name: str | None
  revision: str | None
  num_layers: int
  num_heads: int


def _num_rows(file: pathlib.Path, config: Mapping[str, Any]) -> tuple[int, int]:
  """P, and how many rows the tensor has by the config (0 if it is silent)."""
  kind = config.get("peft_type")
  require(
      kind == "PROMPT_TUNING",
      f"{file}: peft_type",
      kind,
      "'PROMPT_TUNING', the one adapter that is a prompt and nothing else",
  )
  task = config.get("task_type")
  require(task == "SEQ_2_SEQ_LM", f"{file}: task_type", task, "'SEQ_2_SEQ_LM'")
  length: Any = config.get("num_virtual_tokens")
  require_int(f"{file}: num_virtual_tokens", length, 1)
  modules: Any = config.get("num_transformer_submodules")
  require(
      modules is None or (type(modules) is int and modules in (1, 2)),
      f"{file}: num_transformer_submodules",
      modules,
      "1 (encoder) or 2 (encoder and decoder)",
  )
  return length, length * (modules or 0)


def _encoder_rows(path: pathlib.Path, array: np.ndarray) -> np.ndarray:
  """The first P rows, P and the rest as the config beside the file has it."""
  file = path.with_name(CONFIG)
  if not file.exists():
    raise UserError(
        f"{file}: missing, expected PEFT's config beside {path.name}: it says"
        " how many rows of prompt_embeddings are the encoder's"
    )
  config = artifacts.read_json(file)
  length, rows = _num_rows(file, config)
  fits = array.ndim == 2 and len(array) in (
      (rows,) if rows else (length, 2 * length)
  )
  require(
      fits,
      f"{path}: {TENSOR}",
      array.shape,
      f"{rows or f'{length} or {2 * length}'} rows, as {CONFIG} says",
  )
  width = config.get("token_dim")
  require(
      width is None or width == array.shape[1],
      f"{file}: token_dim",
      width,
      f"{array.shape[1]}, the width of {TENSOR} in {path.name}",
  )
  return array[:length]


def _only_prompt(path: pathlib.Path, names: Iterable[str]) -> None:
  found = set(names)
  if found != {TENSOR}:
    raise UserError(
        f"{path}: found {listed(found)}, expected {TENSOR!r} alone: another"
        " tensor would change the model"
    )


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
  """Reads `prompt` [P, H] from `adapter_model.safetensors`.

  Args:
    path: the file; its config stands beside it.

  Raises:
    UserError: file or config is missing or damaged, they do not fit each
      other, or the adapter is no prompt for an encoder and decoder.
  """
  arrays = artifacts.load_arrays(path)
  _only_prompt(path, arrays)
  return {"prompt": _encoder_rows(path, arrays[TENSOR])}


def from_state(path: pathlib.Path, state: Mapping) -> dict[str, np.ndarray]:
  """The same from what `torch_file.read` found in `adapter_model.bin`."""
  _only_prompt(path, state)
  array = torch_file.to_array(path, TENSOR, state[TENSOR])
  return {"prompt": _encoder_rows(path, array)}


def file_in(folder: pathlib.Path) -> pathlib.Path:
  """The weights in an adapter folder, safetensors first.

  Raises:
    UserError: there are none, or the config names another kind of adapter.
  """
  # First, so that a LoRA folder is refused for what it is.
  _num_rows(folder / CONFIG, artifacts.read_json(folder / CONFIG))
  for name in (FILE, TORCH_FILE):
    if (folder / name).exists():
      return folder / name
  raise UserError(
      f"{folder}: holds {CONFIG} alone, expected {FILE} or {TORCH_FILE} beside"
      " it"
  )


def _safetensors(prompt: np.ndarray) -> bytes:
  """The file, by hand: the library writes metadata in a random order."""
  header = {
      # transformers' readers look for the format; the sum is for ours.
      "__metadata__": {
          "format": "pt",
          **artifacts.digest_metadata({TENSOR: prompt}),
      },
      TENSOR: {
          "dtype": "F32",
          "shape": prompt.shape,
          "data_offsets": (0, prompt.nbytes),
      },
  }
  text = json.dumps(header, separators=(",", ":")).encode()
  # Tensors begin at a multiple of 8.
  text = text.ljust(-(-len(text) // 8) * 8)
  return struct.pack("<Q", len(text)) + text + prompt.tobytes()


def write(folder: pathlib.Path, prompt: np.ndarray, base: BaseModel) -> None:
  """Writes one prompt [P, H] as an adapter of PEFT 0.4 or newer.

  The config has no field that a version this old does not know: those refuse
  what they do not know.

  Args:
    folder: where to.
    prompt: [P, H], masked.
    base: the frozen model.
  """
  prompt = np.asarray(prompt, "<f4")
  with artifacts.replacing(folder / FILE) as temporary:
    temporary.write_bytes(_safetensors(prompt))
  artifacts.write_json(
      folder / CONFIG,
      {
          "base_model_name_or_path": base.name,
          "inference_mode": True,
          "num_attention_heads": base.num_heads,
          "num_layers": base.num_layers,
          "num_transformer_submodules": 1,
          "num_virtual_tokens": prompt.shape[0],
          "peft_type": "PROMPT_TUNING",
          "prompt_tuning_init": "RANDOM",
          "revision": base.revision,
          "task_type": "SEQ_2_SEQ_LM",
          "token_dim": prompt.shape[1],
      },
  )


def is_folder(folder: str | os.PathLike[str]) -> bool:
  """Whether a folder is a PEFT adapter, of whatever kind."""
  return (pathlib.Path(folder) / CONFIG).exists()
