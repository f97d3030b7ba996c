"""Tiny Hugging Face folders made with NumPy alone."""

import json
import pathlib

import ml_dtypes
import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

from xprompt_jax.t5.config import T5Config
from xprompt_jax.types import UserError

# T5 1.1 of one encoder and one decoder layer: H = 4, 2 heads of size 3, V = 10.
FIELDS = {
    "architectures": ["T5ForConditionalGeneration"],
    "model_type": "t5",
    "vocab_size": 10,
    "d_model": 4,
    "d_kv": 3,
    "d_ff": 5,
    "num_heads": 2,
    "num_layers": 1,
    "num_decoder_layers": 1,
    "feed_forward_proj": "gated-gelu",
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 20,
    "layer_norm_epsilon": 1e-06,
    "tie_word_embeddings": False,
}
# The same as it is called here.
CONFIG = T5Config(
    vocab_size=10,
    emb_dim=4,
    num_heads=2,
    head_dim=3,
    num_encoder_layers=1,
    num_decoder_layers=1,
    mlp_dim=5,
    mlp_activations=("gelu", "linear"),
    logits_via_embedding=False,
    relpos_num_buckets=8,
    relpos_max_distance=20,
)

_ATTENTION = {"q": (6, 4), "k": (6, 4), "v": (6, 4), "o": (4, 6)}
_MLP = {"wi_0": (5, 4), "wi_1": (5, 4), "wo": (4, 5)}


def _layer(prefix: str, part: str, matrices: dict) -> dict[str, tuple]:
  shapes = {f"{prefix}.{part}.{n}.weight": s for n, s in matrices.items()}
  return {**shapes, f"{prefix}.layer_norm.weight": (4,)}


def shapes() -> dict[str, tuple]:
  """What transformers calls the tensors of `FIELDS`, and their shapes."""
  encoder, decoder = "encoder.block.0.layer", "decoder.block.0.layer"
  bias = "0.SelfAttention.relative_attention_bias.weight"
  return {
      "shared.weight": (10, 4),
      **_layer(f"{encoder}.0", "SelfAttention", _ATTENTION),
      f"{encoder}.{bias}": (8, 2),
      **_layer(f"{encoder}.1", "DenseReluDense", _MLP),
      "encoder.final_layer_norm.weight": (4,),
      **_layer(f"{decoder}.0", "SelfAttention", _ATTENTION),
      f"{decoder}.{bias}": (8, 2),
      **_layer(f"{decoder}.1", "EncDecAttention", _ATTENTION),
      **_layer(f"{decoder}.2", "DenseReluDense", _MLP),
      "decoder.final_layer_norm.weight": (4,),
      "lm_head.weight": (10, 4),
  }


def tensors(dtype: str = "float32") -> dict[str, np.ndarray]:
  """Tensor n holds n, n + 1/64, n + 2/64, ...: all differ."""
  return {
      name: (n + np.arange(np.prod(shape)) / 64)
      .reshape(shape)
      .astype(np.dtype(getattr(ml_dtypes, dtype, dtype)))
      for n, (name, shape) in enumerate(shapes().items())
  }


def write(
    folder: pathlib.Path,
    found: dict[str, np.ndarray] | None = None,
    *,
    without: tuple[str, ...] = (),
    **fields,
) -> pathlib.Path:
  """Writes `config.json` and `model.safetensors`.

  Args:
    folder: is made.
    found: the tensors; `tensors()` without them.
    without: fields of `config.json` to leave out.
    **fields: fields that differ.
  """
  folder.mkdir(parents=True, exist_ok=True)
  write_config(folder, without=without, **fields)
  file = folder / "model.safetensors"
  safetensors_numpy.save_file(tensors() if found is None else found, file)
  return folder


def write_config(
    folder: pathlib.Path, *, without: tuple[str, ...] = (), **fields
) -> None:
  config = {k: v for k, v in {**FIELDS, **fields}.items() if k not in without}
  (folder / "config.json").write_text(json.dumps(config))


def write_shards(
    folder: pathlib.Path, weight_map: dict[str, str] | None = None
) -> pathlib.Path:
  """Writes `config.json`, two shards and an index; `weight_map` goes in it."""
  folder.mkdir(parents=True, exist_ok=True)
  write_config(folder)
  found = tensors()
  stated = {}
  for i in range(2):
    shard = f"model-0000{i + 1}-of-00002.safetensors"
    part = {name: found[name] for name in sorted(found)[i::2]}
    safetensors_numpy.save_file(part, folder / shard)
    stated |= dict.fromkeys(part, shard)
  index = {"metadata": {}, "weight_map": {**stated, **(weight_map or {})}}
  (folder / "model.safetensors.index.json").write_text(json.dumps(index))
  return folder


def refused(function, *args, **kwargs) -> str:
  """The one line with which a call is refused."""
  with pytest.raises(UserError) as refusal:
    function(*args, **kwargs)
  message = str(refusal.value)
  assert "\n" not in message
  return message
