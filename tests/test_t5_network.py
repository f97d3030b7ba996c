"""The T5 network: its parameters, its masks, its cache and its dtypes."""

import functools

from flax import linen as nn
from flax import traverse_util
import jax
from jax import Array
import jax.numpy as jnp
from jax.sharding import PartitionSpec
import numpy as np
import pytest

from tests import examples
from xprompt_jax.t5.config import T5Config
from xprompt_jax.t5.decoding import greedy_decode, token_log_likelihood
from xprompt_jax.t5.network import T5

# V, H, heads, head_dim, layers and mlp_dim all differ.
SIZES = {
    "vocab_size": 13,
    "emb_dim": 6,
    "num_heads": 2,
    "head_dim": 5,
    "num_encoder_layers": 1,
    "num_decoder_layers": 2,
    "mlp_dim": 7,
    "relpos_num_buckets": 8,
    "relpos_max_distance": 16,
}
GATED = {"mlp_activations": ("gelu", "linear"), "logits_via_embedding": False}
TIED = {"mlp_activations": ("relu",), "logits_via_embedding": True}
VARIANTS = [pytest.param(GATED, id="1.1"), pytest.param(TIED, id="1.0")]

# B = 3, T = 4, L = 5. The inputs hold 4, 3 and 1 tokens.
INPUTS = np.array([[7, 3, 9, 1], [5, 12, 1, 0], [1, 0, 0, 0]], np.int32)
VISIBLE = INPUTS > 0
DECODER_INPUTS = np.array(
    [[0, 4, 8, 2, 11], [0, 6, 6, 10, 3], [0, 12, 5, 7, 9]], np.int32
)


def make_t5(**overrides) -> T5:
  return T5(T5Config(**{**SIZES, **overrides}))


def make_params(t5: T5, seed: int = 0) -> dict:
  return examples.random_params(t5.config, seed)


@functools.partial(jax.jit, static_argnums=(0, 2))
def _apply(t5, params, method, args):
  return t5.apply({"params": params}, *args, method=method)


def run(t5: T5, params: dict, method: str, *args: np.ndarray | Array) -> Array:
  return _apply(t5, params, method, tuple(map(jnp.asarray, args)))


def encode(t5: T5, params: dict, tokens: np.ndarray) -> Array:
  return run(t5, params, "encode", run(t5, params, "embed", tokens), tokens > 0)


def logits_of(
    t5: T5, params: dict, inputs: np.ndarray, decoder_inputs: np.ndarray
) -> Array:
  return run(t5, params, "__call__", inputs, decoder_inputs)


def assert_close(found: Array, expected: Array) -> None:
  """Equal to 1e-5 of the largest: sums of another order, nothing else."""
  error = jnp.abs(found - expected).max() / jnp.abs(expected).max()
  assert error < 1e-5, error


_ATTENTION = {
    "query/kernel": ((6, 10), ("embed", "joined_kv")),
    "key/kernel": ((6, 10), ("embed", "joined_kv")),
    "value/kernel": ((6, 10), ("embed", "joined_kv")),
    "out/kernel": ((10, 6), ("joined_kv", "embed")),
}
_NORM = ((6,), ("embed",))
_BIAS_TABLE = ((2, 8), ("heads", "relpos_buckets"))
_SHARED = {
    "token_embedder/embedding": ((13, 6), ("vocab", "embed")),
    "encoder/relpos_bias/rel_embedding": _BIAS_TABLE,
    "encoder/layers_0/pre_attention_layer_norm/scale": _NORM,
    "encoder/layers_0/pre_mlp_layer_norm/scale": _NORM,
    "encoder/encoder_norm/scale": _NORM,
    "decoder/relpos_bias/rel_embedding": _BIAS_TABLE,
    "decoder/layers_0/pre_self_attention_layer_norm/scale": _NORM,
    "decoder/layers_0/pre_cross_attention_layer_norm/scale": _NORM,
    "decoder/layers_0/pre_mlp_layer_norm/scale": _NORM,
    "decoder/decoder_norm/scale": _NORM,
    **{f"encoder/layers_0/attention/{k}": v for k, v in _ATTENTION.items()},
    **{
        f"decoder/layers_0/self_attention/{k}": v for k, v in _ATTENTION.items()
    },
    **{
        f"decoder/layers_0/encoder_decoder_attention/{k}": v
        for k, v in _ATTENTION.items()
    },
}
TREES = {
    "1.1": {
        **_SHARED,
        "encoder/layers_0/mlp/wi_0/kernel": ((6, 7), ("embed", "mlp")),
        "encoder/layers_0/mlp/wi_1/kernel": ((6, 7), ("embed", "mlp")),
        "encoder/layers_0/mlp/wo/kernel": ((7, 6), ("mlp", "embed")),
        "decoder/layers_0/mlp/wi_0/kernel": ((6, 7), ("embed", "mlp")),
        "decoder/layers_0/mlp/wi_1/kernel": ((6, 7), ("embed", "mlp")),
        "decoder/layers_0/mlp/wo/kernel": ((7, 6), ("mlp", "embed")),
        "decoder/logits_dense/kernel": ((6, 13), ("embed", "vocab")),
    },
    "1.0": {
        **_SHARED,
        "encoder/layers_0/mlp/wi/kernel": ((6, 7), ("embed", "mlp")),
        "encoder/layers_0/mlp/wo/kernel": ((7, 6), ("mlp", "embed")),
        "decoder/layers_0/mlp/wi/kernel": ((6, 7), ("embed", "mlp")),
        "decoder/layers_0/mlp/wo/kernel": ((7, 6), ("mlp", "embed")),
    },
}


@pytest.mark.parametrize(("variant", "tree"), [(GATED, "1.1"), (TIED, "1.0")])
def test_parameters_have_t5x_names_shapes_and_logical_axes(variant, tree):
  t5 = make_t5(**{**variant, "num_decoder_layers": 1})
  variables = jax.eval_shape(t5.init, jax.random.key(0), INPUTS, DECODER_INPUTS)
  shapes = traverse_util.flatten_dict(nn.unbox(variables)["params"], sep="/")
  specs = nn.get_partition_spec(variables)["params"]
  axes = traverse_util.flatten_dict(
      specs, sep="/", is_leaf=lambda _, x: isinstance(x, PartitionSpec)
  )
  found = {name: (shapes[name].shape, tuple(axes[name])) for name in shapes}
  assert found == TREES[tree]
  assert {leaf.dtype for leaf in shapes.values()} == {jnp.dtype("float32")}


# Parameters sin(k^2), k = 0, 1, 2 ... through the leaves in the order of their
# names; logits of T5X's own network (google-research/t5x, commit cc342d4).
_T5X_LOGITS = {
    "1.1": [
        [-0.475373, -1.5152, -1.088112, 0.370768, -1.081592],
        [-0.13171, -1.324919, -1.097491, -0.074751, -0.941433],
        [-0.225536, -1.274903, -1.007176, 0.018147, -0.874159],
    ],
    "1.0": [
        [0.072574, -0.014054, -0.44896, 0.729988, -0.443644],
        [0.036586, -0.065353, -0.51382, 0.710807, -0.504701],
        [0.075406, -0.041998, -0.466449, 0.719573, -0.474204],
    ],
}


@pytest.mark.parametrize(("variant", "name"), [(GATED, "1.1"), (TIED, "1.0")])
def test_logits_are_those_of_t5x(variant, name):
  config = T5Config(
      vocab_size=5,
      emb_dim=6,
      num_heads=2,
      head_dim=3,
      num_encoder_layers=2,
      num_decoder_layers=2,
      mlp_dim=7,
      **variant,
  )
  t5 = T5(config)
  flat = traverse_util.flatten_dict(make_params(t5), sep="/")
  sizes = [flat[leaf].size for leaf in sorted(flat)]
  values = np.sin(np.arange(sum(sizes), dtype=np.float64) ** 2)
  pieces = np.split(values.astype(np.float32), np.cumsum(sizes)[:-1])
  for leaf, piece in zip(sorted(flat), pieces, strict=True):
    flat[leaf] = jnp.asarray(piece.reshape(flat[leaf].shape))
  params = traverse_util.unflatten_dict(flat, sep="/")
  # 26 tokens 1 2 3 4 1 2 ... and 4 of padding; distances reach shared buckets.
  inputs = np.where(np.arange(30) < 26, np.arange(30) % 4 + 1, 0)[None]
  logits = logits_of(t5, params, inputs, np.array([[0, 2, 4]]))
  np.testing.assert_allclose(logits[0], _T5X_LOGITS[name], atol=5e-6)


def test_embedding_gathers_rows_of_the_table():
  t5 = make_t5()
  params = make_params(t5)
  table = params["token_embedder"]["embedding"]
  embedded = run(t5, params, "embed", INPUTS)
  assert embedded.shape == (3, 4, 6)
  np.testing.assert_array_equal(embedded, np.asarray(table)[INPUTS])


def test_tied_logits_are_scaled_products_with_the_embedding_table():
  t5 = make_t5(**TIED)
  params = make_params(t5)
  forward = functools.partial(
      t5.apply,
      capture_intermediates=lambda module, _: module.name == "decoder_norm",
      mutable=["intermediates"],
  )
  logits, state = jax.jit(forward)(
      {"params": params}, jnp.asarray(INPUTS), jnp.asarray(DECODER_INPUTS)
  )
  (normed,) = state["intermediates"]["decoder"]["decoder_norm"]["__call__"]
  table = np.asarray(params["token_embedder"]["embedding"])
  expected = np.einsum("blh,vh->blv", normed, table) / 6**0.5
  np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("variant", VARIANTS)
def test_hidden_positions_change_nothing(variant):
  t5 = make_t5(**variant)
  params = make_params(t5)
  embedded = run(t5, params, "embed", INPUTS)
  noise = jnp.where(VISIBLE[..., None], 0.0, 3.0)
  a = run(t5, params, "encode", embedded, VISIBLE)
  b = run(t5, params, "encode", embedded + noise, VISIBLE)
  np.testing.assert_array_equal(np.asarray(a)[VISIBLE], np.asarray(b)[VISIBLE])
  hidden_changed = a + noise
  np.testing.assert_array_equal(
      run(t5, params, "decode", a, VISIBLE, DECODER_INPUTS),
      run(t5, params, "decode", hidden_changed, VISIBLE, DECODER_INPUTS),
  )


@pytest.mark.parametrize("variant", VARIANTS)
def test_an_example_alone_equals_it_in_a_padded_batch(variant):
  t5 = make_t5(**variant)
  params = make_params(t5)
  together = logits_of(t5, params, INPUTS, DECODER_INPUTS)
  for row, length in [(1, 3), (2, 1)]:
    alone = logits_of(
        t5,
        params,
        INPUTS[row : row + 1, :length],
        DECODER_INPUTS[row : row + 1],
    )
    assert_close(together[row], alone[0])


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_longer_bucket_gives_the_same_logits(variant):
  t5 = make_t5(**variant)
  params = make_params(t5)
  short = logits_of(t5, params, INPUTS, DECODER_INPUTS)
  # Beyond T = 20 distances share buckets; beyond L = 5 all is padding.
  longer = logits_of(
      t5,
      params,
      np.pad(INPUTS, ((0, 0), (0, 20))),
      np.pad(DECODER_INPUTS, ((0, 0), (0, 3))),
  )
  assert longer.shape == (3, 8, 13)
  assert_close(short, longer[:, :5])


def test_the_decoder_does_not_look_ahead():
  t5 = make_t5()
  params = make_params(t5)
  changed = DECODER_INPUTS.copy()
  changed[:, 3] = [1, 2, 3]
  a = np.asarray(logits_of(t5, params, INPUTS, DECODER_INPUTS))
  b = np.asarray(logits_of(t5, params, INPUTS, changed))
  np.testing.assert_array_equal(a[:, :3], b[:, :3])
  assert (a[:, 3:] != b[:, 3:]).any(axis=-1).all()


# With these seeds one row ends early and another goes on to the limit.
@pytest.mark.parametrize(("variant", "seed"), [(GATED, 18), (TIED, 18)])
@pytest.mark.parametrize("max_length", [1, 9])
def test_cached_decoding_equals_teacher_forced_argmax(
    variant, seed, max_length
):
  t5 = make_t5(**variant)
  params = make_params(t5, seed)
  encoded = encode(t5, params, INPUTS)
  decode = jax.jit(greedy_decode, static_argnums=(0, 4))
  tokens = np.asarray(
      decode(t5, params, encoded, jnp.asarray(VISIBLE), max_length)
  )
  assert tokens.shape == (3, max_length)
  decoder_inputs = np.pad(tokens[:, :-1], ((0, 0), (1, 0)))
  logits = run(t5, params, "decode", encoded, VISIBLE, decoder_inputs)
  best = np.asarray(logits).argmax(axis=-1)
  ended = np.cumsum(tokens == 1, axis=-1) - (tokens == 1) > 0
  np.testing.assert_array_equal(tokens, np.where(ended, 0, best))
  if max_length > 1:
    assert len(np.unique(tokens, axis=0)) == 3
    assert ended[:, -1].any() and not ended[:, -1].all()


@pytest.mark.parametrize("variant", VARIANTS)
def test_cached_logits_equal_the_teacher_forced_ones(variant):
  t5 = make_t5(**variant)
  params = make_params(t5)
  encoded = encode(t5, params, INPUTS)
  expected = run(t5, params, "decode", encoded, VISIBLE, DECODER_INPUTS)
  visible = jnp.asarray(VISIBLE)
  variables = {"params": params}
  start = functools.partial(t5.apply, method="start_cache", mutable=["cache"])
  _, cache = jax.jit(start, static_argnums=3)(variables, encoded, visible, 5)
  step = functools.partial(t5.apply, method="decode_step", mutable=["cache"])
  step = jax.jit(step, static_argnums=4)
  for i in range(5):
    tokens = jnp.asarray(DECODER_INPUTS[:, i])
    variables = {"params": params, **cache}
    logits, cache = step(variables, visible, tokens, jnp.asarray(i), 5)
    assert_close(logits, expected[:, i])


def test_rematerialisation_changes_no_gradient():
  params = make_params(make_t5(num_decoder_layers=1))

  def loss(params, t5):
    logits = logits_of(t5, params, INPUTS, DECODER_INPUTS)
    return -token_log_likelihood(logits, jnp.asarray(DECODER_INPUTS)).sum()

  gradient = jax.jit(jax.grad(loss), static_argnums=1)
  stored = gradient(params, make_t5(num_decoder_layers=1))
  remade = gradient(params, make_t5(num_decoder_layers=1, remat=True))
  assert all((leaf != 0).any() for leaf in jax.tree.leaves(stored))
  jax.tree.map(assert_close, remade, stored)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("float32_attention_logits", [False, True])
def test_bfloat16_is_near_float32(variant, float32_attention_logits):
  params = make_params(make_t5(**variant))
  exact = logits_of(make_t5(**variant), params, INPUTS, DECODER_INPUTS)
  t5 = make_t5(
      **variant,
      dtype="bfloat16",
      float32_attention_logits=float32_attention_logits,
  )
  assert encode(t5, params, INPUTS).dtype == jnp.bfloat16
  rounded = logits_of(t5, params, INPUTS, DECODER_INPUTS)
  assert rounded.dtype == jnp.float32
  # The root mean square error: eight bits of mantissa, three layers.
  error = jnp.linalg.norm(rounded - exact) / jnp.linalg.norm(exact)
  assert 0 < error < 0.05


def test_dropout_acts_only_where_it_is_asked_for():
  t5 = make_t5(dropout_rate=0.5)
  params = make_params(t5)
  embedded = run(t5, params, "embed", INPUTS)
  visible = jnp.asarray(VISIBLE)
  plain = run(make_t5(), params, "encode", embedded, visible)
  np.testing.assert_array_equal(
      run(t5, params, "encode", embedded, visible), plain
  )

  @jax.jit
  def drop(params, key):
    args = {"params": params}, embedded, visible, False
    return t5.apply(*args, method="encode", rngs={"dropout": key})

  dropped = drop(params, jax.random.key(1))
  # The last dropout acts on the encoder's output, whole features at a time.
  zero = np.asarray(dropped) == 0
  assert 0 < zero.mean() < 1
  np.testing.assert_array_equal(zero, zero[:, :1].repeat(4, axis=1))


def test_token_log_likelihood_of_known_probabilities():
  # B = 1, L = 2, V = 3.
  probability = np.array([[[0.5, 0.25, 0.25], [0.1, 0.2, 0.7]]], np.float32)
  logits = jnp.log(probability) + jnp.array([[[4.0], [-3.0]]])
  found = token_log_likelihood(logits, jnp.array([[1, 2]]))
  np.testing.assert_allclose(found, np.log([[0.25, 0.7]]), rtol=1e-5)
