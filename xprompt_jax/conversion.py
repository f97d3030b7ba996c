"""Converts checkpoints between Hugging Face and T5X, and measures the result.

What was written is read back by the reader of its own format and compared with
the source: tensor by tensor, and on the logits of a padded batch.
"""

from collections.abc import Iterator
import functools
import json
import pathlib
import re
import sys
from typing import Any

import jax
from jax import Array
import jax.numpy as jnp
from jaxtyping import Float, Int
import numpy as np

from xprompt_jax.t5.config import T5Config
from xprompt_jax.t5.network import T5
from xprompt_jax.types import UserError, require
from xprompt_jax.weights import (
    checkpoints,
    huggingface,
    leaves,
    loading,
    new_folders,
    t5x_native,
    t5x_writer,
    tokenizer_files,
)
from xprompt_jax.weights.leaves import Checkpoint
from xprompt_jax.weights.tokenizer_files import Tokenizer

# B = 2, T = 16, L = 8: the second input is padded from its tenth token on.
_INPUT_LENGTHS = (16, 9)
_TARGET_LENGTH = 8
# How many steps T5X counts from.
_STEP = 0


def compared(source: Checkpoint, written: Checkpoint) -> Iterator[dict]:
  """Compares two checkpoints of one network, a tensor at a time.

  Args:
    source: what was converted.
    written: what came of it; the same names and shapes.

  Yields:
    For each tensor its name, shape and dtype, whether all bits are the same,
    and the largest absolute difference.
  """
  for name in leaves.reading_order(source):
    old, new = source[name].whole(), written[name].whole()
    same = old.dtype == new.dtype and np.array_equal(
        np.ascontiguousarray(old).reshape(-1).view(np.uint8),
        np.ascontiguousarray(new).reshape(-1).view(np.uint8),
    )
    difference = 0.0
    if not same:
      apart = np.abs(old.astype(np.float32) - new.astype(np.float32))
      difference = float(apart.max(initial=0.0))
    yield {
        "tensor": name,
        "shape": list(new.shape),
        "dtype": str(new.dtype),
        "bit_identical": same,
        "max_difference": difference,
    }


@functools.partial(jax.jit, static_argnames="config")
def _apply(
    params: Any,
    inputs: Int[Array, "B T"],
    targets: Int[Array, "B L"],
    *,
    config: T5Config,
) -> Float[Array, "B L V"]:
  return T5(config).apply({"params": params}, inputs, targets)


def _logits(checkpoint: str, config: T5Config, dtype: str) -> np.ndarray:
  """Logits of a batch that is always the same: [B, L, V]."""
  rng = np.random.default_rng(0)
  tokens = rng.integers(3, config.vocab_size, (2, max(_INPUT_LENGTHS)))
  lengths = np.array(_INPUT_LENGTHS)
  inputs = np.where(np.arange(tokens.shape[1]) < lengths[:, None], tokens, 0)
  targets = rng.integers(3, config.vocab_size, (2, _TARGET_LENGTH))
  targets[:, 0] = 0

  params = loading.load_frozen(checkpoint, config, dtype=dtype).params
  arrays = jnp.asarray(inputs), jnp.asarray(targets)
  return np.asarray(_apply(params, *arrays, config=config))


def _free_place(output: pathlib.Path, output_format: str) -> pathlib.Path:
  """Where the weights will lie, refused before anything is computed."""
  require(
      not re.match(r"\w{2,}:/", str(output)),
      "--output",
      str(output),
      "a local folder",
  )
  if output_format == "t5x":
    return t5x_writer.new_checkpoint(output, _STEP)
  new_folders.check_free(output)
  return output


def _written(
    output: pathlib.Path,
    output_format: str,
    config: T5Config,
    opened: Checkpoint,
    tokenizer: Tokenizer | None,
) -> tuple[Checkpoint, dict[str, Any]]:
  """Writes a checkpoint: what its reader finds, and what became of the tokens."""
  told: dict[str, Any] = {"vocabulary": tokenizer and tokenizer.vocabulary}
  if output_format == "t5x":
    folder = t5x_writer.write_checkpoint(output, config, opened, step=_STEP)
    return t5x_native.open_checkpoint(str(folder), config), told
  contents = tokenizer.contents if tokenizer else {}
  huggingface.write_folder(output, config, opened, more_files=contents)
  told["tokenizer"] = sorted(contents)
  return huggingface.open_folder(output, config), told


def _summary(
    lines: list[dict], old: np.ndarray, new: np.ndarray
) -> dict[str, Any]:
  """Of all tensors and of the logits [B, L, V] of source and output."""
  return {
      "tensors": len(lines),
      "tensors_bit_identical": sum(line["bit_identical"] for line in lines),
      "max_difference": max(line["max_difference"] for line in lines),
      "logits_max": float(np.abs(old).max()),
      "logits_max_difference": float(np.abs(old - new).max()),
  }


def _dtype_to_compute_in(opened: Checkpoint) -> str:
  """A bfloat16 model is held in no more than it takes."""
  stored = {np.dtype(leaf.dtype).name for leaf in opened.values()}
  return "bfloat16" if stored == {"bfloat16"} else "float32"


def _tokenizer(
    source: str,
    output_format: str,
    vocabulary: str | None,
    extra_ids: int | None,
    vocab_size: int,
) -> Tokenizer | None:
  """The files to write, and where they are from; None where that is unknown."""
  if output_format == "t5x":
    found = tokenizer_files.place(source, vocabulary)
    return Tokenizer(found, {}) if found else None
  return tokenizer_files.find(source, vocabulary, extra_ids, vocab_size)


def _say_no_tokenizer(source: str, place: pathlib.Path) -> None:
  print(
      f"{place}: has no tokenizer: found none in {source}, expected"
      " spiece.model there, or VOCABULARY to name the vocabulary",
      file=sys.stderr,
  )


def convert(
    source: str,
    output: pathlib.Path,
    *,
    output_format: str,
    config: T5Config | None = None,
    vocabulary: str | None = None,
    extra_ids: int | None = None,
) -> None:
  """Writes a checkpoint in another format and prints the parity it measured.

  A JSON line for each tensor, and one for the whole with the logits. A Hugging
  Face folder gets the tokenizer's files, where the vocabulary is known.

  Args:
    source: as CHECKPOINT.
    output: the folder for it; Hugging Face's has to be new or empty.
    output_format: `t5x` or `huggingface`.
    config: the network's sizes; None takes them from config.json, or from the
      names and shapes of a T5X checkpoint.
    vocabulary: as VOCABULARY, for a source that has none in its folder.
    extra_ids: the sentinels of it, or of a folder's `spiece.model` alone; None
      is 125 for bytes, 0 where it holds sentinels itself, and otherwise 100.

  Raises:
    UserError: the source cannot be read or does not fit, the folder is taken,
      or what was written is not what was read.
  """
  told = config is None
  place = _free_place(output, output_format)
  config = config or checkpoints.config_of(source)
  opened = checkpoints.open_checkpoint(source, config)
  loading.check_tree(opened, config, source)
  tokenizer = _tokenizer(
      source, output_format, vocabulary, extra_ids, config.vocab_size
  )
  dtype = _dtype_to_compute_in(opened)
  # First of all: what cannot be loaded is not written either.
  old = _logits(source, config, dtype)
  written, tokens = _written(output, output_format, config, opened, tokenizer)
  lines = []
  for line in compared(opened, written):
    print(json.dumps(line))
    lines.append(line)
  new = _logits(str(place), config, dtype)
  summary: dict[str, Any] = {"source": source, "output": str(place)}
  summary |= _summary(lines, old, new) | tokens
  print(json.dumps(summary))
  if summary["tensors_bit_identical"] < len(lines) or not (old == new).all():
    raise UserError(
        f"{place}: read back other weights than were written, expected the"
        " same: the disk is not to be trusted"
    )
  if told and checkpoints.huggingface_folder(source) is None:
    print(f"{source}: {checkpoints.assumed(config)}", file=sys.stderr)
  if tokens.get("tokenizer") == [] and vocabulary is None:
    _say_no_tokenizer(source, place)
