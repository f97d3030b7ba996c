"""Translates between `config.json` of Hugging Face and `T5Config`.

The fields that decide what a network computes have changed their meaning over
the versions of transformers; `ties_output` has what each writes and means.
`huggingface.py` has the weights.
"""

from collections.abc import Mapping
import json
import pathlib
import re
from typing import Any

from xprompt_jax import artifacts
from xprompt_jax.t5.config import T5Config
from xprompt_jax.types import UserError, require, require_int

CONFIG = "config.json"
GENERATION_CONFIG = "generation_config.json"

_MODEL_TYPES = ("t5", "mt5", "umt5")
# T5WithLMHeadModel is what the first versions called it.
_ARCHITECTURE = re.compile(
    r"((?:|M|UM)T5)(?:ForConditionalGeneration|WithLMHeadModel|Model)"
)
_EPSILON = 1e-6
_MAJOR = re.compile(r"([0-9]{1,4})(?:\.|$)")
# transformers' names of activations; its "gelu" is another function, without
# the tanh approximation that T5 1.1 was trained with.
_ACTIVATIONS = {
    "relu": "relu",
    "gelu_new": "gelu",
    "gelu_pytorch_tanh": "gelu",
    "silu": "silu",
    "swish": "silu",
    "linear": "linear",
}
_PROJECTIONS = {
    "relu": "relu",
    "gelu": "gelu_new",
    "silu": "silu",
    "linear": "linear",
}


def read_fields(folder: pathlib.Path) -> dict[str, Any]:
  """What `config.json` states, once it is known to be of a T5.

  Args:
    folder: of Hugging Face.

  Returns:
    Its fields, with a `model_type`: released umT5 has none.

  Raises:
    UserError: the file is missing or not JSON, or it is another model's.
  """
  path = folder / CONFIG
  fields = artifacts.read_json(path)
  architectures: Any = fields.get("architectures") or []
  is_list = isinstance(architectures, list)
  require(is_list, f"{path}: architectures", architectures, "a list of names")
  if architectures:
    name = architectures[0]
    known = _ARCHITECTURE.fullmatch(name) if isinstance(name, str) else None
    if known is None:
      raise UserError(
          f"{path}: architectures: found {name!r}, expected an encoder-decoder"
          " such as T5ForConditionalGeneration"
      )
    fields.setdefault("model_type", known[1].lower())
  require(
      fields.get("model_type") in _MODEL_TYPES,
      f"{path}: model_type",
      fields.get("model_type"),
      f"one of {', '.join(_MODEL_TYPES)}",
  )
  return fields


def is_tied_in_file(fields: Mapping[str, Any]) -> bool:
  """Whether an output layer that is not in the file is the embedding table.

  transformers up to 4 writes `tie_word_embeddings: false` where there is an
  output layer; 5 always writes true and leaves out what is tied.
  """
  default = fields["model_type"] != "mt5"
  return fields.get("tie_word_embeddings", default) is not False


def _major_version(fields: Mapping[str, Any]) -> int:
  """Of the transformers that wrote the file; 0 if it does not say."""
  first = _MAJOR.match(str(fields.get("transformers_version")))
  return int(first[1]) if first else 0


def _bool(path: pathlib.Path, fields: Mapping[str, Any], name: str) -> Any:
  found = fields.get(name)
  is_bool = found is None or isinstance(found, bool)
  require(is_bool, f"{path}: {name}", found, "true or false")
  return found


def ties_output(path: pathlib.Path, fields: Mapping[str, Any]) -> bool | None:
  """Whether logits come from the embedding table, scaled by d_model**-0.5.

  T5 1.0 does so; everything later has an output layer of its own and no scale.
  transformers up to 4 says which in `tie_word_embeddings`, whose default is
  false in mT5 alone. From 5 on it writes true there whatever the model; T5 then
  has the scale in `scale_decoder_outputs`, mT5 never scales.

  transformers 5 scales umT5 always, also released ones, which were trained
  without: their logits here are sqrt(d_model) times transformers 5's, and
  those of transformers 4 and T5X.

  Args:
    path: the file, for messages.
    fields: from `read_fields`.

  Returns:
    None for a umT5 by transformers 5: it ties unless its file has an output
    layer with other weights than the table.

  Raises:
    UserError: a field that is neither true nor false.
  """
  tied = _bool(path, fields, "tie_word_embeddings")
  scaled = _bool(path, fields, "scale_decoder_outputs")
  is_new = _major_version(fields) >= 5
  kind = fields["model_type"]
  if kind == "t5":
    return tied is not False if scaled is None else scaled
  if kind == "mt5":
    return tied is True and not is_new
  if tied is False:
    return False
  return None if is_new else True


def _activations(
    path: pathlib.Path, fields: Mapping[str, Any]
) -> tuple[str, ...]:
  default = "relu" if fields["model_type"] == "t5" else "gated-gelu"
  projection = fields.get("feed_forward_proj", default)
  name = f"{path}: feed_forward_proj"
  require(isinstance(projection, str), name, projection, "a string")
  gate, _, activation = projection.rpartition("-")
  known = "relu, gated-gelu, gated-silu or the like"
  require(gate in ("", "gated"), name, projection, known)
  if projection == "gated-gelu":
    # In T5 1.1 it means the approximation.
    activation = "gelu_new"
  if "dense_act_fn" in fields:
    name, activation = f"{path}: dense_act_fn", fields["dense_act_fn"]
    known = f"one of {', '.join(_ACTIVATIONS)}"
  is_known = isinstance(activation, str) and activation in _ACTIVATIONS
  require(is_known, name, activation, known)
  is_gated = _bool(path, fields, "is_gated_act")
  if is_gated is None:
    is_gated = gate == "gated"
  first = _ACTIVATIONS[activation]
  return (first, "linear") if is_gated else (first,)


def config_of_fields(
    path: pathlib.Path, fields: Mapping[str, Any], *, tied: bool
) -> T5Config:
  """The sizes and switches that `config.json` states.

  Args:
    path: the file, for messages.
    fields: from `read_fields`.
    tied: from `ties_output`.

  Raises:
    UserError: a field is missing, ill-typed or of a network that is not built
      here.
  """

  def size(name: str, default: int | None = None) -> int:
    found: Any = fields.get(name)
    if found is None:
      found = default
    require_int(f"{path}: {name}", found, 1)
    return found

  epsilon = fields.get("layer_norm_epsilon", _EPSILON)
  require(epsilon == _EPSILON, f"{path}: layer_norm_epsilon", epsilon, "1e-06")
  num_layers = size("num_layers")
  try:
    return T5Config(
        vocab_size=size("vocab_size"),
        emb_dim=size("d_model"),
        num_heads=size("num_heads"),
        head_dim=size("d_kv"),
        num_encoder_layers=num_layers,
        num_decoder_layers=size("num_decoder_layers", num_layers),
        mlp_dim=size("d_ff"),
        mlp_activations=_activations(path, fields),
        logits_via_embedding=tied,
        relpos_num_buckets=size("relative_attention_num_buckets", 32),
        relpos_max_distance=size("relative_attention_max_distance", 128),
        relpos_per_layer=fields["model_type"] == "umt5",
    )
  except UserError as e:
    message = str(e)
    if not message.startswith(str(path)):
      message = f"{path}: {message}"
    raise UserError(message) from e


def config_json(config: T5Config, dtype: str | None) -> str:
  """A `config.json` that transformers reads the same way in all versions.

  Args:
    config: sizes; those with a position bias in every layer become umT5, all
      others T5.
    dtype: of the weights, such as float32; None where they have several.

  Raises:
    UserError: a gate that transformers does not have.
  """
  first, *gate = config.mlp_activations
  require(
      gate in ([], ["linear"]),
      "T5Config.mlp_activations",
      config.mlp_activations,
      "one activation, or one and 'linear': transformers has no other gate",
  )
  activation = _PROJECTIONS[first]
  projection = activation
  if gate:
    projection = f"gated-{first}"
  per_layer = config.relpos_per_layer
  architecture = f"{'UMT5' if per_layer else 'T5'}ForConditionalGeneration"
  fields: dict[str, Any] = {
      "architectures": [architecture],
      "model_type": "umt5" if per_layer else "t5",
      "vocab_size": config.vocab_size,
      "d_model": config.emb_dim,
      "d_kv": config.head_dim,
      "d_ff": config.mlp_dim,
      "num_heads": config.num_heads,
      "num_layers": config.num_encoder_layers,
      "num_decoder_layers": config.num_decoder_layers,
      "feed_forward_proj": projection,
      "dense_act_fn": activation,
      "is_gated_act": bool(gate),
      "relative_attention_num_buckets": config.relpos_num_buckets,
      "relative_attention_max_distance": config.relpos_max_distance,
      "layer_norm_epsilon": _EPSILON,
      "dropout_rate": 0.1,
      "tie_word_embeddings": config.logits_via_embedding,
      "is_encoder_decoder": True,
      "decoder_start_token_id": 0,
      "eos_token_id": 1,
      "pad_token_id": 0,
      "use_cache": True,
  }
  if dtype:
    fields["torch_dtype"] = dtype
  return json.dumps(fields, indent=2) + "\n"


def generation_config_json() -> str:
  """T5's special ids: decoding starts with padding and ends with EOS."""
  ids = {"decoder_start_token_id": 0, "eos_token_id": 1, "pad_token_id": 0}
  return json.dumps(ids, indent=2) + "\n"
