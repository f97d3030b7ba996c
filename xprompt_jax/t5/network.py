"""T5's encoder and decoder; the encoder starts from embedded inputs.

The parameter tree is that of T5X's `examples/t5/network.py`:
`token_embedder`, `encoder/layers_N/...`, `decoder/layers_N/...`. Encoder
inputs arrive embedded, because a prompt is put in front of them first
(`xprompt_jax/model.py`).
"""

from flax import linen as nn
import jax
from jax import Array
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from xprompt_jax.t5 import layers
from xprompt_jax.t5.config import T5Config


def position_bias(
    config: T5Config, bidirectional: bool, length: int
) -> Float[Array, "1 heads N N"]:
  """The position bias of the stack or layer that calls this."""
  bias = layers.RelativePositionBias(config, bidirectional, name="relpos_bias")
  return bias(length)


def queries_of(
    bias: Float[Array, "1 #heads L L"],
    num_queries: int,
    cache_index: Int[Array, ""] | None,
) -> Float[Array, "1 #heads Q L"]:
  """The rows of a bias for the queries that are being decoded."""
  if cache_index is None or num_queries == bias.shape[-1]:
    return bias
  # [1, heads, L, L] -> [1, heads, 1, L]
  return jax.lax.dynamic_slice_in_dim(bias, cache_index, 1, 2)


class EncoderLayer(nn.Module):
  """Self-attention and feed-forward, each behind a norm and a residual."""

  config: T5Config

  @nn.compact
  def __call__(
      self,
      x: Float[Array, "B S H"],
      bias: Float[Array, "#B #heads #S S"],
      deterministic: bool,
  ) -> Float[Array, "B S H"]:
    cfg = self.config
    drop = nn.Dropout(cfg.dropout_rate, broadcast_dims=(-2,))
    if cfg.relpos_per_layer:
      bias = bias + position_bias(cfg, True, x.shape[1])
    y = layers.LayerNorm(cfg.dtype, name="pre_attention_layer_norm")(x)
    y = layers.Attention(cfg, name="attention")(
        y, y, bias, deterministic=deterministic
    )
    x = x + drop(y, deterministic=deterministic)
    y = layers.LayerNorm(cfg.dtype, name="pre_mlp_layer_norm")(x)
    y = layers.MlpBlock(cfg, name="mlp")(y, deterministic=deterministic)
    return x + drop(y, deterministic=deterministic)


class DecoderLayer(nn.Module):
  """Causal self-attention, attention to the encoder, feed-forward."""

  config: T5Config

  @nn.compact
  def __call__(
      self,
      x: Float[Array, "B Q H"],
      encoded: Float[Array, "B S H"] | None,
      self_bias: Float[Array, "#B #heads #Q M"],
      cross_bias: Float[Array, "E 1 1 S"],
      cache_index: Int[Array, ""] | None,
      deterministic: bool,
  ) -> Float[Array, "B Q H"]:
    cfg = self.config
    drop = nn.Dropout(cfg.dropout_rate, broadcast_dims=(-2,))
    if cfg.relpos_per_layer:
      own_bias = position_bias(cfg, False, self_bias.shape[-1])
      self_bias = self_bias + queries_of(own_bias, x.shape[1], cache_index)
    y = layers.LayerNorm(cfg.dtype, name="pre_self_attention_layer_norm")(x)
    y = layers.Attention(cfg, name="self_attention")(
        y, y, self_bias, cache_index=cache_index, deterministic=deterministic
    )
    x = x + drop(y, deterministic=deterministic)
    y = layers.LayerNorm(cfg.dtype, name="pre_cross_attention_layer_norm")(x)
    y = layers.Attention(cfg, cross=True, name="encoder_decoder_attention")(
        y,
        encoded,
        cross_bias,
        cache_index=cache_index,
        deterministic=deterministic,
    )
    x = x + drop(y, deterministic=deterministic)
    y = layers.LayerNorm(cfg.dtype, name="pre_mlp_layer_norm")(x)
    y = layers.MlpBlock(cfg, name="mlp")(y, deterministic=deterministic)
    return x + drop(y, deterministic=deterministic)


class Encoder(nn.Module):
  """A stack of encoder layers, which share one position bias in most T5s."""

  config: T5Config

  @nn.compact
  def __call__(
      self,
      embedded: Float[Array, "B S H"],
      visible: Bool[Array, "B S"],
      deterministic: bool,
  ) -> Float[Array, "B S H"]:
    cfg = self.config
    drop = nn.Dropout(cfg.dropout_rate, broadcast_dims=(-2,))
    bias = layers.padding_bias(visible, cfg.dtype)
    if not cfg.relpos_per_layer:
      bias = position_bias(cfg, True, embedded.shape[1]) + bias
    layer = (
        nn.remat(EncoderLayer, static_argnums=(3,))
        if cfg.remat
        else EncoderLayer
    )
    x = drop(embedded, deterministic=deterministic).astype(cfg.dtype)
    for i in range(cfg.num_encoder_layers):
      x = layer(cfg, name=f"layers_{i}")(x, bias, deterministic)
    x = layers.LayerNorm(cfg.dtype, name="encoder_norm")(x)
    return drop(x, deterministic=deterministic)


class Decoder(nn.Module):
  """A stack of decoder layers and the output layer."""

  config: T5Config

  @nn.compact
  def __call__(
      self,
      embedded: Float[Array, "B Q H"],
      encoded: Float[Array, "B S H"] | None,
      visible: Bool[Array, "E S"],
      table: Float[Array, "V H"],
      length: int,
      cache_index: Int[Array, ""] | None,
      deterministic: bool,
  ) -> Float[Array, "B Q V"]:
    cfg = self.config
    drop = nn.Dropout(cfg.dropout_rate, broadcast_dims=(-2,))
    position = jnp.arange(length)
    future = position[None, :] > position[:, None]
    causal_bias = jnp.where(future, layers.MASKED_LOGIT, 0.0)[None, None]
    self_bias = causal_bias.astype(cfg.dtype)
    if not cfg.relpos_per_layer:
      self_bias = position_bias(cfg, False, length) + self_bias
    self_bias = queries_of(self_bias, embedded.shape[1], cache_index)
    cross_bias = layers.padding_bias(visible, cfg.dtype)
    layer = (
        nn.remat(DecoderLayer, static_argnums=(6,))
        if cfg.remat and cache_index is None
        else DecoderLayer
    )
    x = drop(embedded, deterministic=deterministic).astype(cfg.dtype)
    for i in range(cfg.num_decoder_layers):
      x = layer(cfg, name=f"layers_{i}")(
          x, encoded, self_bias, cross_bias, cache_index, deterministic
      )
    x = layers.LayerNorm(cfg.dtype, name="decoder_norm")(x)
    x = drop(x, deterministic=deterministic)
    # The output layer is float32 whatever the computation dtype, as in T5X.
    x = x.astype(jnp.float32)
    if cfg.logits_via_embedding:
      return x @ table.astype(jnp.float32).T * cfg.emb_dim**-0.5
    return layers.Dense(
        cfg.vocab_size, ("embed", "vocab"), "float32", name="logits_dense"
    )(x)


class T5(nn.Module):
  """An encoder-decoder whose encoder reads embeddings.

  `embed`, `encode` and `decode` are the three calls; `__call__` joins them
  for initialisation. Cached decoding keeps a `cache` collection, which
  `start_cache` makes and `decode_step` extends by one token; `decode_cached`
  takes the encoder's keys from it for other targets.
  """

  config: T5Config

  def setup(self):
    cfg = self.config
    self.token_embedder = nn.Embed(
        cfg.vocab_size,
        cfg.emb_dim,
        embedding_init=nn.with_logical_partitioning(
            nn.initializers.normal(1.0), ("vocab", "embed")
        ),
    )
    self.encoder = Encoder(cfg)
    self.decoder = Decoder(cfg)

  def __call__(
      self,
      encoder_input_tokens: Int[Array, "B T"],
      decoder_input_tokens: Int[Array, "B L"],
  ) -> Float[Array, "B L V"]:
    """Plain T5, no prompt: [B, T], [B, L] -> logits [B, L, V]."""
    visible = encoder_input_tokens > 0
    encoded = self.encode(self.embed(encoder_input_tokens), visible)
    return self.decode(encoded, visible, decoder_input_tokens)

  def embed(self, tokens: Int[Array, "B N"]) -> Float[Array, "B N H"]:
    """Looks tokens up: [B, N] -> [B, N, H], gathered."""
    return self.token_embedder(tokens).astype(self.config.dtype)

  def encode(
      self,
      embedded: Float[Array, "B S H"],
      visible: Bool[Array, "B S"],
      deterministic: bool = True,
  ) -> Float[Array, "B S H"]:
    """Encodes embedded inputs; where `visible` is False nothing looks."""
    return self.encoder(embedded, visible, deterministic)

  def decode(
      self,
      encoded: Float[Array, "B S H"],
      visible: Bool[Array, "B S"],
      decoder_input_tokens: Int[Array, "B L"],
      deterministic: bool = True,
  ) -> Float[Array, "B L V"]:
    """Reads all target tokens at once and returns float32 logits [B, L, V]."""
    embedded = self.embed(decoder_input_tokens)
    return self.decoder(
        embedded,
        encoded,
        visible,
        self.token_embedder.embedding,
        embedded.shape[1],
        None,
        deterministic,
    )

  def decode_cached(
      self,
      visible: Bool[Array, "B S"],
      decoder_input_tokens: Int[Array, "B L"],
  ) -> Float[Array, "B L V"]:
    """As `decode`, with the encoder's keys from the cache: [B, L, V]."""
    embedded = self.embed(decoder_input_tokens)
    return self.decoder(
        embedded,
        None,
        visible,
        self.token_embedder.embedding,
        embedded.shape[1],
        None,
        True,
    )

  def start_cache(
      self,
      encoded: Float[Array, "B S H"],
      visible: Bool[Array, "B S"],
      length: int,
  ) -> None:
    """Fills `cache` with the encoder's keys and room for `length` tokens."""
    shape = (encoded.shape[0], length, self.config.emb_dim)
    self.decoder(
        jnp.zeros(shape, encoded.dtype),
        encoded,
        visible,
        self.token_embedder.embedding,
        length,
        jnp.zeros((), jnp.int32),
        True,
    )

  def decode_step(
      self,
      visible: Bool[Array, "E S"],
      tokens: Int[Array, "B"],
      index: Int[Array, ""],
      length: int,
  ) -> Float[Array, "B V"]:
    """Reads the token at `index` and returns the next one's logits [B, V].

    Args:
      visible: [E, S], as given to `start_cache`.
      tokens: [B], the decoder's input at this position. B may be k E where
        the cache of self-attention is B's: k beams of each example.
      index: the position, counted from 0.
      length: the cache's length, as given to `start_cache`.
    """
    embedded = self.embed(tokens[:, None])
    logits = self.decoder(
        embedded,
        None,
        visible,
        self.token_embedder.embedding,
        length,
        index,
        True,
    )
    return logits[:, 0]
