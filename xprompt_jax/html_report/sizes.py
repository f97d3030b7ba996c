"""How many numbers a T5 has, from its config alone."""

from collections.abc import Mapping
from typing import Any

from xprompt_jax.errors import UserError

_SIZES = (
    "vocab_size",
    "emb_dim",
    "num_heads",
    "head_dim",
    "num_encoder_layers",
    "num_decoder_layers",
    "mlp_dim",
)


def model_parameters(model: Mapping[str, Any], where: str) -> int:
  """Numbers in a T5, as T5X has them (Raffel et al. 2020, section 2.1).

  With H = emb_dim, A = num_heads * head_dim and F = mlp_dim: an attention block
  has 4 H A, a feed-forward block H F for each activation and F H, each block
  and each stack's end a norm of H. Nothing has a bias; each stack (or layer)
  has a table of position biases. The output layer is the embedding table's
  transpose or a matrix of its own.

  Args:
    model: `config.model` of a result file.
    where: the file, for errors.

  Raises:
    UserError: a size that is missing or no integer.
  """
  for name in _SIZES:
    if not isinstance(model.get(name), int):
      raise UserError(
          f"{where}: config.model.{name}: found {model.get(name)!r}, expected"
          " an integer"
      )
  width = model["emb_dim"]
  attention = 4 * width * model["num_heads"] * model["head_dim"]
  num_inputs = len(model.get("mlp_activations", ("gelu", "linear")))
  feed_forward = (num_inputs + 1) * width * model["mlp_dim"]
  encoder = model["num_encoder_layers"]
  decoder = model["num_decoder_layers"]
  bias = model.get("relpos_num_buckets", 32) * model["num_heads"]
  biases = encoder + decoder if model.get("relpos_per_layer") else 2
  tables = 1 if model.get("logits_via_embedding") else 2
  return (
      tables * model["vocab_size"] * width
      + encoder * (attention + feed_forward + 2 * width)
      + decoder * (2 * attention + feed_forward + 3 * width)
      + 2 * width
      + biases * bias
  )


def short(count: int) -> str:
  """A number of parameters as people name models: 783M, 2.8B."""
  for size, letter in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
    if count >= size:
      return f"{count / size:.3g}{letter}"
  return str(count)


def share(count: float, whole: int) -> str:
  """A share in percent, with two digits that count: 0.0014 %."""
  percent = 100 * count / whole
  if percent >= 10 or percent == 0:
    return f"{percent:.0f} %"
  text = f"{percent:.2g}"
  if "e" in text:
    text = f"{float(text):.12f}".rstrip("0")
  return f"{text} %"
