"""The layers of T5 with numbers small enough to follow by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from xprompt_jax.t5 import layers
from xprompt_jax.t5.config import T5Config


def make_config(**overrides) -> T5Config:
  return T5Config(
      **{
          "vocab_size": 3,
          "emb_dim": 2,
          "num_heads": 1,
          "head_dim": 2,
          "num_encoder_layers": 1,
          "num_decoder_layers": 1,
          "mlp_dim": 1,
          **overrides,
      }
  )


@pytest.mark.parametrize(
    ("bidirectional", "buckets"),
    [
        # Of 32 buckets: after the query from 16 on, before it below 16.
        (True, [15, 15, 14, 10, 8, 7, 1, 0, 17, 23, 24, 26, 29, 31]),
        # All that follows the query is in bucket 0.
        (False, [31, 29, 29, 16, 8, 7, 1, 0, 0, 0, 0, 0, 0, 0]),
    ],
)
def test_relative_position_buckets(bidirectional, buckets):
  key_minus_query = [-200, -91, -90, -16, -8, -7, -1, 0, 1, 7, 8, 16, 50, 127]
  found = layers.relative_position_bucket(
      np.array(key_minus_query),
      bidirectional=bidirectional,
      num_buckets=32,
      max_distance=128,
  )
  assert found.tolist() == buckets


def test_layer_norm_divides_by_the_root_mean_square():
  x = jnp.array([[[3.0, 4.0]]])  # Its mean square is 12.5.
  params = {"scale": jnp.array([1.0, 10.0])}
  y = layers.LayerNorm("float32").apply({"params": params}, x)
  root = 12.5**0.5
  np.testing.assert_allclose(y, [[[3 / root, 40 / root]]], rtol=1e-6)


def test_gated_block_multiplies_a_tanh_gelu_with_a_line():
  params = {
      "wi_0": {"kernel": jnp.array([[1.0], [0.0]])},
      "wi_1": {"kernel": jnp.array([[0.0], [1.0]])},
      "wo": {"kernel": jnp.array([[1.0, 3.0]])},
  }
  config = make_config(mlp_activations=("gelu", "linear"))
  x = jnp.array([[[1.0, -2.0]]])
  y = layers.MlpBlock(config).apply({"params": params}, x)
  # gelu(1) is 0.841192 with tanh (0.841345 without); times -2; times 1 and 3.
  np.testing.assert_allclose(y, [[[-1.682384, -5.047152]]], rtol=1e-6)


def test_plain_block_is_a_relu():
  params = {
      "wi": {"kernel": jnp.array([[1.0, 0.0, -1.0], [0.0, 1.0, 2.0]])},
      "wo": {"kernel": jnp.array([[1.0, 3.0], [5.0, 7.0], [1.0, 2.0]])},
  }
  config = make_config(mlp_dim=3, mlp_activations=("relu",))
  x = jnp.array([[[4.0, -2.0], [-1.0, 1.0]]])
  y = layers.MlpBlock(config).apply({"params": params}, x)
  # Hidden: [4, 0, 0] and [0, 1, 3].
  np.testing.assert_array_equal(y, [[[4.0, 12.0], [8.0, 13.0]]])


@pytest.mark.parametrize(
    ("bias", "attended"),
    [
        # Logits 2 and 0, not divided by sqrt(head_dim).
        ([0.0, 0.0], [1.7615942, 0.8807971]),
        # A bias of 2 on the second key makes both alike.
        ([0.0, 2.0], [1.0, 0.5]),
        ([layers.MASKED_LOGIT, 0.0], [0.0, 0.0]),
    ],
)
def test_attention_weighs_values_by_unscaled_products(bias, attended):
  identity = {"kernel": jnp.eye(2)}
  params = dict.fromkeys(("query", "key", "value", "out"), identity)
  y = layers.Attention(make_config()).apply(
      {"params": params},
      jnp.array([[[1.0, 0.0]]]),
      jnp.array([[[2.0, 1.0], [0.0, 0.0]]]),
      jnp.array(bias)[None, None, None, :],
  )
  np.testing.assert_allclose(y, [[attended]], rtol=1e-6)
