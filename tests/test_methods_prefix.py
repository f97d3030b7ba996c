"""A prefix of keys and values: against a network in NumPy, and in the cache."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from tests import examples
from xprompt_jax import trained_leaves
from xprompt_jax.methods import prefixes
from xprompt_jax.methods.p_tuning_v2 import PTuningV2
from xprompt_jax.model import PromptedT5, target_losses
from xprompt_jax.t5 import beam_search, decoding, layers
from xprompt_jax.t5.config import T5Config
from xprompt_jax.t5.network import T5

# Every axis another size; P 3.
CONFIG = T5Config(
    vocab_size=19,
    emb_dim=6,
    num_heads=2,
    head_dim=5,
    num_encoder_layers=2,
    num_decoder_layers=3,
    mlp_dim=7,
    relpos_num_buckets=8,
    relpos_max_distance=16,
)
METHOD = PTuningV2(length=3)
MODEL = PromptedT5(t5_config=CONFIG)
# B 3, T 4, L 5.
INPUTS = np.array([[7, 3, 9, 1], [5, 12, 1, 0], [1, 0, 0, 0]], np.int32)
DECODER_INPUTS = np.array(
    [[0, 4, 8, 2, 11], [0, 6, 6, 10, 3], [0, 12, 5, 7, 9]], np.int32
)


@functools.cache
def params_and_prefix():
  """Parameters with a prefix, and its leaves [layers, 2, P, kv]."""
  # Large enough that attention is far from even.
  frozen = examples.random_params(CONFIG, 5)
  leaves = METHOD.initial(jax.random.key(1), CONFIG, None)
  adapted = METHOD.adapt(leaves, {}, MODEL, frozen)
  assert adapted.prompt.shape == (0, 6) and adapted.visible.shape == (0,)
  return frozen, adapted.params, leaves


def norm(x, scale):
  return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * scale


def attend(weights, queries, keys, bias, prefix):
  """One head after another; the prefix's keys and values come first."""
  out = []
  for head in range(2):
    part = slice(5 * head, 5 * head + 5)
    q = queries @ weights["query"]["kernel"][:, part]
    k = np.concatenate(
        [prefix[0][:, part], keys @ weights["key"]["kernel"][:, part]]
    )
    v = np.concatenate(
        [prefix[1][:, part], keys @ weights["value"]["kernel"][:, part]]
    )
    own = np.zeros((len(q), len(k)))
    own[:, len(prefix[0]) :] = bias[head]
    logits = q @ k.T + own
    share = np.exp(logits - logits.max(-1, keepdims=True))
    out.append(share / share.sum(-1, keepdims=True) @ v)
  return np.concatenate(out, axis=1) @ weights["out"]["kernel"]


def feed_forward(weights, x):
  gate = x @ weights["wi_0"]["kernel"]
  gate = (
      0.5
      * gate
      * (1 + np.tanh((2 / np.pi) ** 0.5 * (gate + 0.044715 * gate**3)))
  )
  return gate * (x @ weights["wi_1"]["kernel"]) @ weights["wo"]["kernel"]


def position(stack, length, bidirectional):
  at = np.arange(length)
  bucket = layers.relative_position_bucket(
      at[None] - at[:, None],
      bidirectional=bidirectional,
      num_buckets=8,
      max_distance=16,
  )
  return stack["relpos_bias"]["rel_embedding"][:, bucket]


def network(params, prefix, inputs, decoder_inputs):
  """A T5 1.1 in float64 for one example without padding: logits [L, V]."""
  table = params["token_embedder"]["embedding"]
  stack, x = params["encoder"], table[inputs]
  bias = position(stack, len(inputs), True)
  for i in range(2):
    layer = stack[f"layers_{i}"]
    y = norm(x, layer["pre_attention_layer_norm"]["scale"])
    x = x + attend(layer["attention"], y, y, bias, prefix["encoder"][i])
    y = norm(x, layer["pre_mlp_layer_norm"]["scale"])
    x = x + feed_forward(layer["mlp"], y)
  encoded = norm(x, stack["encoder_norm"]["scale"])
  stack, x = params["decoder"], table[decoder_inputs]
  length = len(decoder_inputs)
  bias = position(stack, length, False)
  bias = np.where(np.tri(length, dtype=bool), bias, -np.inf)
  for i in range(3):
    layer = stack[f"layers_{i}"]
    y = norm(x, layer["pre_self_attention_layer_norm"]["scale"])
    x = x + attend(layer["self_attention"], y, y, bias, prefix["decoder"][i])
    y = norm(x, layer["pre_cross_attention_layer_norm"]["scale"])
    x = x + attend(
        layer["encoder_decoder_attention"],
        y,
        encoded,
        np.zeros((2, length, len(inputs))),
        prefix["cross"][i],
    )
    y = norm(x, layer["pre_mlp_layer_norm"]["scale"])
    x = x + feed_forward(layer["mlp"], y)
  x = norm(x, stack["decoder_norm"]["scale"])
  return x @ stack["logits_dense"]["kernel"]


@functools.partial(jax.jit, static_argnums=0)
def _logits(config, params, inputs, decoder_inputs):
  return T5(config).apply({"params": params}, inputs, decoder_inputs)


def logits_of(
    params, inputs=INPUTS, decoder_inputs=DECODER_INPUTS, config=CONFIG
):
  found = _logits(config, params, jnp.array(inputs), jnp.array(decoder_inputs))
  return np.asarray(found)


def test_the_network_with_a_prefix_is_the_one_in_numpy():
  frozen, params, leaves = params_and_prefix()
  exact = jax.tree.map(lambda x: np.asarray(x, np.float64), frozen)
  prefix = {k: np.asarray(v, np.float64) for k, v in leaves.items()}
  found = logits_of(params)
  for row, length in enumerate((4, 3, 1)):
    expected = network(exact, prefix, INPUTS[row, :length], DECODER_INPUTS[row])
    np.testing.assert_allclose(found[row], expected, rtol=1e-4, atol=2e-5)
  nothing = {k: v[:, :, :0] for k, v in prefix.items()}
  plain = network(exact, nothing, INPUTS[0], DECODER_INPUTS[0])
  np.testing.assert_allclose(logits_of(frozen)[0], plain, rtol=1e-4, atol=2e-5)
  assert np.abs(plain - found[0]).max() > 0.1


def test_each_layer_has_the_keys_and_values_of_its_own():
  frozen, params, leaves = params_and_prefix()
  old, new = map(trained_leaves.by_name, (frozen, params))
  added = {name: leaf for name, leaf in new.items() if name not in old}
  assert all(new[name] is leaf for name, leaf in old.items())
  assert sorted(added) == sorted(
      f"{stack}/layers_{i}/{attention}/prefix_{kind}"
      for part, (stack, attention) in prefixes.PARTS.items()
      for i in range(2 if part == "encoder" else 3)
      for kind in ("key", "value")
  )
  # heads 2, head_dim 5: the second head of position 1 is entries 5 to 9.
  value = added["decoder/layers_2/encoder_decoder_attention/prefix_value"]
  assert value.shape == (3, 2, 5)
  np.testing.assert_array_equal(value[1, 1], leaves["cross"][2, 1, 1, 5:])


def encoded_with(params):
  visible = jnp.array(INPUTS > 0)

  @jax.jit
  def encode(params):
    t5, variables = T5(CONFIG), {"params": params}
    embedded = t5.apply(variables, jnp.array(INPUTS), method="embed")
    return t5.apply(variables, embedded, visible, method="encode")

  return encode(params), visible


def test_cached_decoding_with_a_prefix_equals_teacher_forcing():
  _, params, _ = params_and_prefix()
  encoded, visible = encoded_with(params)
  decode = jax.jit(decoding.greedy_decode, static_argnums=(0, 4))
  tokens = np.asarray(decode(T5(CONFIG), params, encoded, visible, 6))
  assert len(np.unique(tokens, axis=0)) > 1
  shifted = np.pad(tokens[:, :-1], ((0, 0), (1, 0)))
  best = logits_of(params, INPUTS, shifted).argmax(axis=-1)
  ended = np.cumsum(tokens == 1, axis=-1) - (tokens == 1) > 0
  np.testing.assert_array_equal(tokens, np.where(ended, 0, best))

  t5, variables = T5(CONFIG), {"params": params}
  start = functools.partial(t5.apply, method="start_cache", mutable=["cache"])
  _, cache = jax.jit(start, static_argnums=3)(variables, encoded, visible, 5)
  expected = logits_of(params)
  step = jax.jit(
      lambda variables, token, i: t5.apply(
          variables,
          visible,
          token,
          i,
          5,
          method="decode_step",
          mutable=["cache"],
      )
  )
  for i in range(5):
    found, cache = step(
        {**variables, **cache}, jnp.array(DECODER_INPUTS[:, i]), jnp.array(i)
    )
    np.testing.assert_allclose(found, expected[:, i], rtol=1e-4, atol=1e-5)


def test_candidates_and_beams_see_the_prefix():
  _, params, _ = params_and_prefix()
  encoded, visible = encoded_with(params)
  # C 2, L 3; EOS is 1.
  candidates = np.array([[[5, 8, 1], [9, 1, 0]]] * 3, np.int32)
  score = jax.jit(decoding.candidate_log_likelihoods, static_argnums=0)
  found = score(
      T5(CONFIG),
      params,
      encoded,
      visible,
      jnp.array(candidates),
      jnp.array([[3, 2]] * 3),
      jnp.array(2),
  )
  for c in range(2):
    targets = candidates[:, c]
    logits = logits_of(
        params, INPUTS, np.pad(targets[:, :-1], ((0, 0), (1, 0)))
    )
    batch = {
        "decoder_target_tokens": jnp.array(targets),
        "decoder_loss_weights": jnp.array(targets > 0, jnp.float32),
    }
    expected = -target_losses(jnp.array(logits), batch)
    np.testing.assert_allclose(found[:, c], expected, rtol=1e-4)
  # Beams of several examples are those of each example alone.
  beams = jax.jit(beam_search.beam_decode, static_argnums=(0, 4, 5))
  together = beams(T5(CONFIG), params, encoded, visible, 4, 2)
  for row in range(3):
    one = slice(row, row + 1)
    alone = beams(T5(CONFIG), params, encoded[one], visible[one], 4, 2)
    np.testing.assert_array_equal(alone[0], together[row])


def test_a_prefix_is_rounded_to_the_computation_dtype():
  _, params, _ = params_and_prefix()
  rounded = dataclasses.replace(CONFIG, dtype="bfloat16")
  found = logits_of(params, config=rounded)
  exact = logits_of(params)
  error = np.linalg.norm(found - exact) / np.linalg.norm(exact)
  assert 0 < error < 0.1
