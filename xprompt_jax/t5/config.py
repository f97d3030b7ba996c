"""The sizes and switches of a T5, under the names T5X gives them."""

import dataclasses

from xprompt_jax.types import UserError

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
    dropout_rate: used only where a caller asks for dropout.
    dtype: computation dtype; parameters keep their own.
    float32_attention_logits: compute attention logits and softmax in float32.
    remat: recompute each layer in the backward pass instead of storing it.

  Raises:
    UserError: a size below 1, an unknown activation or dtype.
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
        "relpos_num_buckets",
        "relpos_max_distance",
    )
    for name in sizes:
      value = getattr(self, name)
      if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UserError(
            f"T5Config.{name}: found {value!r}, expected an integer >= 1"
        )
    activations = tuple(self.mlp_activations)
    if len(activations) not in (1, 2) or any(
        name not in _ACTIVATIONS for name in activations
    ):
      raise UserError(
          f"T5Config.mlp_activations: found {self.mlp_activations!r}, expected"
          f" one or two of {', '.join(_ACTIVATIONS)}"
      )
    # gin hands lists over; flax needs something hashable.
    object.__setattr__(self, "mlp_activations", activations)
    if self.dtype not in _DTYPES:
      raise UserError(
          f"T5Config.dtype: found {self.dtype!r}, expected one of"
          f" {', '.join(_DTYPES)}"
      )
    if not 0.0 <= self.dropout_rate < 1.0:
      raise UserError(
          f"T5Config.dropout_rate: found {self.dropout_rate!r}, expected a"
          " number in [0, 1)"
      )
