"""Opens whatever `CHECKPOINT` names, without reading its weights.

    bundled        the model that comes with the package; `bundled_small` is
                   a quarter of it
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
import functools
import pathlib
import re
from typing import Any

import numpy as np

from xprompt_jax import artifacts, vocabularies
from xprompt_jax.t5.config import T5Config
from xprompt_jax.types import UserError, require
from xprompt_jax.weights import (
    hub,
    huggingface,
    huggingface_tokenizer,
    safetensors_file,
    t5x_native,
)
from xprompt_jax.weights.leaves import Checkpoint

WEIGHTS_FILE = "model.safetensors"
BUNDLED = pathlib.Path(__file__).parent.parent / "bundled"
# Their CHECKPOINT, and the folder of each.
BUNDLED_MODELS = {"bundled": BUNDLED, "bundled_small": BUNDLED / "small"}

_HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?(@[\w./-]+)?")
# They say how a network is computed; a checkpoint has no say in them.
_SWITCHES = ("dropout_rate", "dtype", "float32_attention_logits", "remat")


def _is_huggingface(folder: pathlib.Path) -> bool:
  config = folder / "config.json"
  if not config.is_file():
    return False
  # Bundled models have a config.json as well, of T5Config's fields; that of
  # released umT5 has no model_type.
  return (
      not artifacts.read_json(config)
      .keys()
      .isdisjoint(("model_type", "architectures"))
  )


def huggingface_folder(name: str) -> pathlib.Path | None:
  """The local folder of a Hugging Face checkpoint, fetched if need be.

  Args:
    name: as for `open_checkpoint`.

  Returns:
    None if `name` is a checkpoint of another kind.

  Raises:
    UserError: neither a path that exists nor a hub id that can be had.
  """
  require(isinstance(name, str) and bool(name), "CHECKPOINT", name, "a name")
  if name in BUNDLED_MODELS or name.startswith(("gs://", "random:")):
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
  return hub.resolve(name)


@functools.lru_cache(maxsize=8)
def config_of(checkpoint: str) -> T5Config:
  """The sizes of a checkpoint's network, from the checkpoint itself.

  Args:
    checkpoint: as CHECKPOINT. config.json states the sizes of a Hugging Face
      folder; those of a T5X checkpoint are told from its names and shapes.

  Raises:
    UserError: a checkpoint that cannot be read, or does not tell its sizes.
  """
  folder = huggingface_folder(checkpoint)
  if folder is not None:
    return huggingface.read_config(folder)
  if checkpoint in BUNDLED_MODELS or checkpoint.startswith("random:"):
    raise UserError(
        f"CHECKPOINT: {checkpoint} does not tell the network's sizes, expected"
        " a file of models/ that does"
    )
  return t5x_native.guess_config(checkpoint)


def assumed(config: T5Config) -> str:
  """What T5X's names and shapes do not tell, in words."""
  return (
      "sizes told from names and shapes;"
      f" {' and '.join(config.mlp_activations)} and relpos_max_distance"
      f" {config.relpos_max_distance} are assumed, a file of models/ can state"
      " others"
  )


def size_of(checkpoint: str, field: str) -> Any:
  """One field of `T5Config`, as the checkpoint states it; for gin files.

  Args:
    checkpoint: as CHECKPOINT.
    field: the name in `T5Config`, none of those that say how to compute.

  Raises:
    UserError: as for `config_of`, or no such field.
  """
  names = [f.name for f in dataclasses.fields(T5Config)]
  names = [name for name in names if name not in _SWITCHES]
  require(field in names, "size_of.field", field, f"one of {', '.join(names)}")
  return getattr(config_of(checkpoint), field)


def vocabulary_of(checkpoint: str) -> str:
  """The vocabulary in a Hugging Face folder, as VOCABULARY names it.

  Args:
    checkpoint: as CHECKPOINT.

  Returns:
    The path of its `spiece.model`; `bytes` where its tokenizer is ByT5's.

  Raises:
    UserError: it has neither.
  """
  folder = huggingface_folder(checkpoint)
  if folder is not None:
    model = folder / huggingface_tokenizer.SENTENCEPIECE
    if model.is_file():
      return str(model)
    if huggingface_tokenizer.is_bytes(folder):
      return vocabularies.BYTES
  raise UserError(
      f"CHECKPOINT: {folder or checkpoint} holds no"
      f" {huggingface_tokenizer.SENTENCEPIECE}, expected VOCABULARY to name the"
      " vocabulary"
  )


def extra_ids_of(checkpoint: str) -> int:
  """How many sentinels the tokenizer in a Hugging Face folder adds.

  Args:
    checkpoint: as CHECKPOINT.

  Returns:
    `extra_ids` of tokenizer_config.json; where it says nothing, 125 of ByT5's
    class, 0 for a vocabulary that holds sentinels itself, and otherwise 100.

  Raises:
    UserError: the tokenizer is damaged.
  """
  return huggingface_tokenizer.extra_ids_of(huggingface_folder(checkpoint))


def check_config(folder: pathlib.Path, config: T5Config) -> None:
  """Refuses a network of other sizes than a Hugging Face folder states.

  Raises:
    UserError: lists every field that differs.
  """
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
  """The arrays of a file, each read when it is asked for."""

  def __init__(self, leaves: Checkpoint):
    self._leaves = leaves

  def __getitem__(self, name: str) -> np.ndarray:
    return self._leaves[name].whole()

  def __iter__(self) -> Iterator[str]:
    return iter(self._leaves)

  def __len__(self) -> int:
    return len(self._leaves)


def open_named(file: pathlib.Path) -> Checkpoint:
  """Opens safetensors with T5X's parameter names.

  Args:
    file: the file; the sha256 it states of itself is checked, if it does.

  Raises:
    UserError: the file is missing or damaged.
  """
  leaves = safetensors_file.open_file(file)
  with artifacts.opened_arrays(file) as f:
    artifacts.check_digest(file, f.metadata() or {}, _Tensors(leaves))
  return leaves


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
    return huggingface.open_folder(folder, config)
  path = BUNDLED_MODELS.get(name, pathlib.Path(name))
  if path.is_dir() and (path / WEIGHTS_FILE).exists():
    return open_named(path / WEIGHTS_FILE)
  if path.suffix == ".safetensors":
    return open_named(path)
  return t5x_native.open_checkpoint(name, config)
