"""A position bias in every layer: umT5, and the networks of scalable T5."""

from flax import traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.test_t5_network import (
    DECODER_INPUTS,
    GATED,
    INPUTS,
    TIED,
    VISIBLE,
    encode,
    logits_of,
    make_params,
    make_t5,
    run,
)
from xprompt_jax.t5.decoding import greedy_decode

VARIANTS = [pytest.param(GATED, id="1.1"), pytest.param(TIED, id="1.0")]


def spread(shared: dict) -> dict:
  """The same weights with each stack's bias laid into its layers."""
  flat = traverse_util.flatten_dict(shared, sep="/")
  found = {}
  for name, leaf in flat.items():
    stack, _, rest = name.partition("/")
    if rest == "relpos_bias/rel_embedding":
      layers = (k for k in shared[stack] if k.startswith("layers_"))
      found |= {f"{stack}/{layer}/{rest}": leaf for layer in layers}
    else:
      found[name] = leaf
  return traverse_util.unflatten_dict(found, sep="/")


def test_the_bias_moves_into_the_layers():
  names = {
      flag: set(
          traverse_util.flatten_dict(
              make_params(make_t5(**GATED, relpos_per_layer=flag)), sep="/"
          )
      )
      for flag in (False, True)
  }
  assert names[False] - names[True] == {
      "encoder/relpos_bias/rel_embedding",
      "decoder/relpos_bias/rel_embedding",
  }
  assert names[True] - names[False] == {
      "encoder/layers_0/relpos_bias/rel_embedding",
      "decoder/layers_0/relpos_bias/rel_embedding",
      "decoder/layers_1/relpos_bias/rel_embedding",
  }


@pytest.mark.parametrize("variant", VARIANTS)
def test_one_bias_in_all_layers_is_the_shared_one(variant):
  shared, own = make_t5(**variant), make_t5(**variant, relpos_per_layer=True)
  params = make_params(shared)
  expected = logits_of(shared, params, INPUTS, DECODER_INPUTS)
  found = logits_of(own, spread(params), INPUTS, DECODER_INPUTS)
  # The sum of position bias and mask is taken in another order.
  np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("layer", ["encoder/layers_0", "decoder/layers_1"])
def test_every_layer_reads_its_own_bias(layer):
  t5 = make_t5(**GATED, relpos_per_layer=True)
  params = traverse_util.flatten_dict(make_params(t5), sep="/")
  before = logits_of(
      t5, traverse_util.unflatten_dict(params, sep="/"), INPUTS, DECODER_INPUTS
  )
  name = f"{layer}/relpos_bias/rel_embedding"
  # A constant would not change the softmax.
  params[name] = params[name] + jnp.arange(8.0)[None, :]
  after = logits_of(
      t5, traverse_util.unflatten_dict(params, sep="/"), INPUTS, DECODER_INPUTS
  )
  assert np.abs(np.asarray(after - before)).max() > 1e-2


@pytest.mark.parametrize("remat", [False, True])
def test_cached_decoding_equals_teacher_forced_argmax(remat):
  t5 = make_t5(**GATED, relpos_per_layer=True, remat=remat)
  params = make_params(t5, seed=18)
  encoded = encode(t5, params, INPUTS)
  decode = jax.jit(greedy_decode, static_argnums=(0, 4))
  tokens = np.asarray(decode(t5, params, encoded, jnp.asarray(VISIBLE), 9))
  decoder_inputs = np.pad(tokens[:, :-1], ((0, 0), (1, 0)))
  logits = run(t5, params, "decode", encoded, VISIBLE, decoder_inputs)
  best = np.asarray(logits).argmax(axis=-1)
  ended = np.cumsum(tokens == 1, axis=-1) - (tokens == 1) > 0
  np.testing.assert_array_equal(tokens, np.where(ended, 0, best))
  assert len(np.unique(tokens)) > 3
