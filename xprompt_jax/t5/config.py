"""The sizes and switches of a T5, under the names T5X gives them."""

import dataclasses

from xprompt_jax.types import require, require_int, require_number

_DTYPES = ("float32", "bfloat16")
_ACTIVATIONS = ("relu", "gelu", "silu", "linear")


@dataclasses.dataclass(frozen=True, kw_only=True)
class T5Config:
  """Hyperparameters of one T5-family network.

  T5 1.0 is `mlp_activations=("relu",)` with `logits_via_embedding=True`; T5
  1.1, its LM-adapted form, Flan-T5, mT5 and ByT5 are `("gelu", "linear")`
  with an output layer of their own (Raffel et al. 2020; Shazeer 2020).

  Attributes:
    vocab_size: V, rows of the embedding table.
    emb_dim: H, the width of the residual stream.
    num_heads: attention heads in every layer.
    head_dim: width of one head; num_heads * head_dim need not equal emb_dim.
    num_encoder_layers: encoder layers.
    num_decoder_layers: decoder layers.
    mlp_dim: width inside the feed-forward block.
    mlp_activations: one activation, or two for a gated block.
    logits_via_embedding: tie the output layer to the embedding table, with
      T5's 1/sqrt(emb_dim) scale.
    relpos_num_buckets: rows of the relative position bias.
    relpos_max_distance: distance from which all positions share a bucket.
    relpos_per_layer: a position bias in every layer, as umT5 and the networks
      of T5X's `scalable_t5` have it; else one for each stack.
    dropout_rate: used only where a caller asks for dropout.
    dtype: computation dtype; parameters keep their own.
    float32_attention_logits: compute attention logits and softmax in float32.
    remat: recompute each layer in the backward pass instead of storing it.

  Raises:
    UserError: a size below 1, a bias table too small to be cut in two, an
      unknown activation or dtype, a dropout rate outside [0, 1).
  """

  vocab_size: int
  emb_dim: int
  num_heads: int
  head_dim: int
  num_encoder_layers: int
  num_decoder_layers: int
  mlp_dim: int
  mlp_activations: tuple[str, ...] = ("gelu", "linear")
  logits_via_embedding: bool = False
  relpos_num_buckets: int = 32
  relpos_max_distance: int = 128
  relpos_per_layer: bool = False
  dropout_rate: float = 0.0
  dtype: str = "float32"
  float32_attention_logits: bool = False
  remat: bool = False

  def __post_init__(self):
    sizes = (
        "vocab_size",
        "emb_dim",
        "num_heads",
        "head_dim",
        "num_encoder_layers",
        "num_decoder_layers",
        "mlp_dim",
    )
    for name in sizes:
      require_int(f"T5Config.{name}", getattr(self, name), 1)
    self._check_buckets()
    for name in (
        "logits_via_embedding",
        "relpos_per_layer",
        "float32_attention_logits",
        "remat",
    ):
      found = getattr(self, name)
      is_bool = isinstance(found, bool)
      require(is_bool, f"T5Config.{name}", found, "True or False")
    found = self.mlp_activations
    require(
        isinstance(found, (list, tuple))
        and len(found) in (1, 2)
        and all(name in _ACTIVATIONS for name in found),
        "T5Config.mlp_activations",
        found,
        f"one or two of {', '.join(_ACTIVATIONS)}",
    )
    # gin hands lists over; flax needs something hashable.
    object.__setattr__(self, "mlp_activations", tuple(found))
    require(
        self.dtype in _DTYPES,
        "T5Config.dtype",
        self.dtype,
        f"one of {', '.join(_DTYPES)}",
    )
    rate = self.dropout_rate
    require_number("T5Config.dropout_rate", rate, 0)
    require(rate < 1, "T5Config.dropout_rate", rate, "a number < 1")

  def _check_buckets(self) -> None:
    """Both halves of the bias table need a bucket near and a bucket far."""
    buckets = self.relpos_num_buckets
    require_int("T5Config.relpos_num_buckets", buckets, 4)
    # The decoder's first half of the table holds one distance a bucket.
    distance = self.relpos_max_distance
    require_int("T5Config.relpos_max_distance", distance, buckets // 2 + 1)
