"""The layers T5 is made of: norm, projections, attention, position bias.

Parameter names, shapes and logical axes are T5X's (`examples/t5/layers.py`),
so that its checkpoints fit leaf for leaf. `network.py` puts the layers
together.
"""

from collections.abc import Callable, Sequence

from flax import linen as nn
import jax
from jax import Array
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int
import numpy as np

from xprompt_jax.t5.config import T5Config

# Added to the attention logits of a position that must not be seen.
MASKED_LOGIT = -1e10

_FAN_IN = nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal")
_ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": nn.relu,
    "gelu": nn.gelu,  # The tanh approximation, as T5 1.1 was trained.
    "silu": nn.silu,
    "linear": lambda x: x,
}


def named_param(
    module: nn.Module,
    name: str,
    init: Callable[..., Array],
    shape: tuple[int, ...],
    axes: tuple[str, ...],
) -> Array:
  """Declares a parameter whose axes carry logical names for a mesh."""
  return module.param(name, nn.with_logical_partitioning(init, axes), shape)


class LayerNorm(nn.Module):
  """Root-mean-square norm: no mean is subtracted and there is no bias."""

  dtype: str

  @nn.compact
  def __call__(self, x: Float[Array, "B N H"]) -> Float[Array, "B N H"]:
    ones = nn.initializers.ones
    scale = named_param(self, "scale", ones, (x.shape[-1],), ("embed",))
    x = x.astype(jnp.float32)
    variance = jnp.mean(jnp.square(x), axis=-1, keepdims=True)
    x = (x * jax.lax.rsqrt(variance + 1e-6)).astype(self.dtype)
    return x * scale.astype(self.dtype)[None, None, :]


class Dense(nn.Module):
  """A projection of the last axis without bias."""

  features: int
  axes: tuple[str, str]
  dtype: str
  init_scale: float = 1.0

  @nn.compact
  def __call__(self, x: Float[Array, "... I"]) -> Float[Array, "... O"]:
    def init(key: Array, shape: Sequence[int]) -> Array:
      return _FAN_IN(key, shape) * self.init_scale

    shape = (x.shape[-1], self.features)
    kernel = named_param(self, "kernel", init, shape, self.axes)
    return jnp.dot(x.astype(self.dtype), kernel.astype(self.dtype))


def relative_position_bucket(
    relative_position: np.ndarray,
    *,
    bidirectional: bool,
    num_buckets: int,
    max_distance: int,
) -> np.ndarray:
  """Maps key position minus query position to a bucket of the bias table.

  Half the buckets hold one distance each, the other half grow logarithmically
  up to `max_distance`; all that lies beyond shares the last one (Raffel et al.
  2020, section 2.1).

  Args:
    relative_position: integers of any shape.
    bidirectional: whether keys after the query get buckets of their own; if
      not they share bucket 0, which the causal mask hides.
    num_buckets: size of the bias table.
    max_distance: the distance from which all positions share a bucket.

  Returns:
    int32 of the same shape, in [0, num_buckets).
  """
  distance = -relative_position
  offset = np.zeros_like(distance)
  if bidirectional:
    num_buckets //= 2
    offset = (distance < 0).astype(np.int32) * num_buckets
    distance = np.abs(distance)
  else:
    distance = np.maximum(distance, 0)
  max_exact = num_buckets // 2
  # In float32 with this epsilon: the bucket edges of released models depend
  # on the rounding.
  ratio = distance.astype(np.float32) / max_exact + np.finfo(np.float32).eps
  growth = np.log(ratio) / np.log(max_distance / max_exact)
  far = max_exact + (growth * (num_buckets - max_exact)).astype(np.int32)
  far = np.minimum(far, num_buckets - 1)
  bucket = offset + np.where(distance < max_exact, distance, far)
  return bucket.astype(np.int32)


class RelativePositionBias(nn.Module):
  """The learned bias of each head for each bucketed distance."""

  config: T5Config
  bidirectional: bool

  @nn.compact
  def __call__(self, length: int) -> Float[Array, "1 heads N N"]:
    cfg = self.config
    table = named_param(
        self,
        "rel_embedding",
        nn.initializers.variance_scaling(1.0, "fan_avg", "uniform"),
        (cfg.num_heads, cfg.relpos_num_buckets),
        ("heads", "relpos_buckets"),
    )
    position = np.arange(length, dtype=np.int32)
    bucket = relative_position_bucket(
        position[None, :] - position[:, None],
        bidirectional=self.bidirectional,
        num_buckets=cfg.relpos_num_buckets,
        max_distance=cfg.relpos_max_distance,
    )
    # [heads, N, N] -> [1, heads, N, N]
    return table.astype(cfg.dtype)[:, bucket][None]


class Attention(nn.Module):
  """Multi-head attention without scaling of its logits.

  T5 folds 1/sqrt(head_dim) into the initial query projection. For decoding
  one token at a time, `cache` keeps the keys and values: those of earlier
  positions in self-attention, those of the encoder in cross-attention. Beams
  of an example read the same encoder's keys, which are there once.

  A prefix of keys and values goes in front where the parameters hold one:
  `prefix_key` and `prefix_value` [P, heads, head_dim], the same for every
  example. `init` makes none and released models have none (`methods/`).
  """

  config: T5Config
  cross: bool = False  # Keys come from the encoder.

  @nn.compact
  def __call__(
      self,
      queries_from: Float[Array, "B Q H"],
      keys_from: Float[Array, "B N H"] | None,
      bias: Float[Array, "#E #heads #Q M"],
      *,
      cache_index: Int[Array, ""] | None = None,
      deterministic: bool = True,
  ) -> Float[Array, "B Q H"]:
    """Attends from `queries_from` to `keys_from`.

    Args:
      queries_from: [B, Q, H].
      keys_from: [B, N, H]; None reads the encoder's keys from the cache,
        those of E examples with B / E beams each.
      bias: added to the logits: position bias and `MASKED_LOGIT` where a key
        must not be seen. With a cache, the bias of the current query alone.
      cache_index: the position that is being decoded, for use of the cache.
      deterministic: no dropout.

    Returns:
      [B, Q, H].
    """
    cfg = self.config
    query = self._project(queries_from, "query", cfg.head_dim**-0.5)
    key: Array
    value: Array
    if keys_from is None:
      key = self.get_variable("cache", "cached_key")
      value = self.get_variable("cache", "cached_value")
    else:
      key = self._project(keys_from, "key")
      value = self._project(keys_from, "value")
    if cache_index is not None:
      key, value = self._update_cache(key, value, cache_index)
    if self.has_variable("params", "prefix_key"):
      key, value, bias = self._with_prefix(key, value, bias)
    if self.cross:
      # [E * k, Q, ...] -> [E, k * Q, ...]: beams are queries to the same keys.
      query = query.reshape(key.shape[0], -1, *query.shape[2:])
    if cfg.float32_attention_logits:
      query, key = query.astype(jnp.float32), key.astype(jnp.float32)
    logits = jnp.einsum("bqhd,bkhd->bhqk", query, key)
    weights = jax.nn.softmax(logits + bias.astype(logits.dtype))
    weights = weights.astype(cfg.dtype)
    # T5 drops whole keys for all queries at once.
    weights = nn.Dropout(cfg.dropout_rate, broadcast_dims=(-2,))(
        weights, deterministic=deterministic
    )
    x = jnp.einsum("bhqk,bkhd->bqhd", weights, value)
    # [B, Q, heads, head_dim] -> [B, Q, heads * head_dim]
    x = x.reshape(*queries_from.shape[:2], -1)
    axes = ("joined_kv", "embed")
    return Dense(queries_from.shape[-1], axes, cfg.dtype, name="out")(x)

  def _project(self, x: Array, name: str, init_scale: float = 1.0) -> Array:
    """Queries, keys or values of a module's inputs, by head."""
    cfg = self.config
    features = cfg.num_heads * cfg.head_dim
    axes = ("embed", "joined_kv")
    x = Dense(features, axes, cfg.dtype, init_scale, name=name)(x)
    # [B, N, heads * head_dim] -> [B, N, heads, head_dim]
    return x.reshape(*x.shape[:2], cfg.num_heads, cfg.head_dim)

  def _with_prefix(
      self, key: Array, value: Array, bias: Array
  ) -> tuple[Array, Array, Array]:
    """Puts the prefix in front of keys, values [E, M, ...] and their bias.

    Its position bias is 0, the cache does not hold it, and every query sees
    it. T5 knows positions as distances alone, and a prefix is at none: with
    one, the bias of its keys would move as decoding goes on and would differ
    between stacks whose bias the frozen model learned for words. What a bias
    could do, the trained keys can.
    """
    cfg = self.config
    joined = []
    for name, own in (("prefix_key", key), ("prefix_value", value)):
      prefix = self.get_variable("params", name).astype(cfg.dtype)
      # [P, heads, head_dim] -> [E, P, heads, head_dim]
      prefix = jnp.broadcast_to(prefix[None], (key.shape[0], *prefix.shape))
      joined.append(jnp.concatenate([prefix, own], axis=1))
    length = joined[0].shape[1] - key.shape[1]
    bias = jnp.pad(bias, [(0, 0)] * (bias.ndim - 1) + [(length, 0)])
    return joined[0], joined[1], bias

  def _update_cache(
      self, key: Array, value: Array, index: Array
  ) -> tuple[Array, Array]:
    """Keeps the encoder's keys, or adds one position to the decoder's own."""
    if self.cross:
      self.put_variable("cache", "cached_key", key)
      self.put_variable("cache", "cached_value", value)
      return key, value
    keys = self.variable("cache", "cached_key", jnp.zeros_like, key)
    values = self.variable("cache", "cached_value", jnp.zeros_like, value)
    if key.shape[1] == 1:
      start = (0, index, 0, 0)
      keys.value = jax.lax.dynamic_update_slice(keys.value, key, start)
      values.value = jax.lax.dynamic_update_slice(values.value, value, start)
    return keys.value, values.value


class MlpBlock(nn.Module):
  """The feed-forward block, gated when it has two activations."""

  config: T5Config

  @nn.compact
  def __call__(
      self, x: Float[Array, "B N H"], *, deterministic: bool = True
  ) -> Float[Array, "B N H"]:
    cfg = self.config
    gated = len(cfg.mlp_activations) > 1
    hidden = None
    for i, activation in enumerate(cfg.mlp_activations):
      name = f"wi_{i}" if gated else "wi"
      y = Dense(cfg.mlp_dim, ("embed", "mlp"), cfg.dtype, name=name)(x)
      y = _ACTIVATIONS[activation](y)
      hidden = y if hidden is None else hidden * y
    hidden = nn.Dropout(cfg.dropout_rate, broadcast_dims=(-2,))(
        hidden, deterministic=deterministic
    )
    return Dense(x.shape[-1], ("mlp", "embed"), cfg.dtype, name="wo")(hidden)


def padding_bias(
    visible: Bool[Array, "B N"] | Int[Array, "B N"], dtype: str
) -> Float[Array, "B 1 1 N"]:
  """The attention bias that hides the keys where `visible` is 0. [B, N]."""
  bias = jnp.where(visible > 0, 0.0, MASKED_LOGIT).astype(dtype)
  return bias[:, None, None, :]
