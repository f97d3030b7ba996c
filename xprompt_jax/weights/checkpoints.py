"""Opens whatever `CHECKPOINT` names, without reading its weights.

    bundled        the small model that comes with the package
    a hub id       `google/t5-large-lm-adapt`, `t5-small@REVISION`: fetched
                   from the Hugging Face hub, or found in its cache (`hub.py`)
    a folder       of Hugging Face (`huggingface.py`) or of T5X
                   (`t5x_native.py`), or one with `model.safetensors` under
                   T5X's parameter names
    a file         T5X's `checkpoint`, its older single file, or safetensors
                   with T5X's names
    gs://...       T5X's format in a Google bucket

Readers return leaves by name; `loading.py` compares them with the network.
"""

from collections.abc import Iterator, Mapping
import dataclasses
import pathlib
import re
from typing import Any

import numpy as np
import safetensors

from xprompt_jax import artifacts
from xprompt_jax.t5.config import T5Config
from xprompt_jax.types import UserError
from xprompt_jax.weights import leaves
from xprompt_jax.weights.leaves import Checkpoint, Index, Leaf

WEIGHTS_FILE = "model.safetensors"
BUNDLED = pathlib.Path(__file__).parent.parent / "bundled"

_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?(@[\w./-]+)?")
# They say how a network is computed; a checkpoint has no say in them.
_SWITCHES = ("dropout_rate", "dtype", "float32_attention_logits", "remat")


def _is_huggingface(folder: pathlib.Path) -> bool:
  config = folder / "config.json"
  if not config.is_file():
    return False
  # The bundled model has a config.json as well, of T5Config's fields.
  return "model_type" in artifacts.read_json(config)


def huggingface_folder(name: str) -> pathlib.Path | None:
  """The local folder of a Hugging Face checkpoint, fetched if need be.

  Args:
    name: as for `open_checkpoint`.

  Returns:
    None if `name` is a checkpoint of another kind.

  Raises:
    UserError: neither a path that exists nor a hub id that can be had.
  """
  if name == "bundled" or name.startswith("gs://"):
    return None
  path = pathlib.Path(name)
  if path.exists():
    return path if path.is_dir() and _is_huggingface(path) else None
  if path.suffix == ".safetensors" or not _HUB_ID.fullmatch(name):
    raise UserError(
        f"CHECKPOINT: {name} is missing, expected a checkpoint of Hugging Face"
        " or T5X, a hub id such as google/t5-large-lm-adapt, 'bundled' or"
        " 'random:SEED'"
    )
  from xprompt_jax.weights import hub

  return hub.resolve(name)


def check_config(folder: pathlib.Path, config: T5Config) -> None:
  """Refuses a network of other sizes than a Hugging Face folder states.

  Raises:
    UserError: lists every field that differs.
  """
  from xprompt_jax.weights import huggingface

  stated = huggingface.read_config(folder)
  differing = [
      f"{field.name} {getattr(config, field.name)!r} for"
      f" {getattr(stated, field.name)!r}"
      for field in dataclasses.fields(T5Config)
      if field.name not in _SWITCHES
      and getattr(config, field.name) != getattr(stated, field.name)
  ]
  if differing:
    raise UserError(
        f"{folder / 'config.json'}: does not fit T5Config: found"
        f" {', '.join(differing)}; expected models/ of these sizes, or"
        " models/from_checkpoint.gin"
    )


class _Tensors(Mapping):
  """The arrays of a safetensors file, each read when it is asked for."""

  def __init__(self, file: safetensors.safe_open):
    self._file = file
    self._names = list(file.keys())

  def __getitem__(self, name: str) -> np.ndarray:
    return self._file.get_tensor(name)

  def __iter__(self) -> Iterator[str]:
    return iter(self._names)

  def __len__(self) -> int:
    return len(self._names)


def open_named(file: pathlib.Path) -> Checkpoint:
  """Opens safetensors with T5X's parameter names.

  Args:
    file: the file; the sha256 it states of itself is checked, if it does.

  Raises:
    UserError: the file is missing or damaged.
  """
  with artifacts.opened_arrays(file) as f:
    found = {}
    for name in f.keys():  # noqa: SIM118
      part = f.get_slice(name)
      found[name] = Leaf(
          shape=tuple(part.get_shape()),
          dtype=leaves.safetensors_dtype(str(file), name, part.get_dtype()),
          file=str(file),
          tensor=name,
          read=_reader(file, name),
      )
    artifacts.check_digest(file, (f.metadata() or {}), _Tensors(f))
  return found


def _reader(file: pathlib.Path, name: str) -> Any:
  def read(index: Index) -> np.ndarray:
    with artifacts.opened_arrays(file) as f:
      return f.get_slice(name)[index]

  return read


def open_checkpoint(name: str, config: T5Config) -> Checkpoint:
  """Opens a checkpoint and reads the names, shapes and dtypes in it.

  Args:
    name: see the module's text.
    config: the sizes it should have.

  Returns:
    Its parameters under T5X's names.

  Raises:
    UserError: a missing or damaged file, or another network's config.json.
  """
  folder = huggingface_folder(name)
  if folder is not None:
    check_config(folder, config)
    from xprompt_jax.weights import huggingface

    return huggingface.open_folder(folder, config)
  path = BUNDLED if name == "bundled" else pathlib.Path(name)
  if path.is_dir() and (path / WEIGHTS_FILE).exists():
    return open_named(path / WEIGHTS_FILE)
  if path.suffix == ".safetensors":
    return open_named(path)
  from xprompt_jax.weights import t5x_native

  return t5x_native.open_checkpoint(name, config)
