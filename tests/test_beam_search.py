"""Beam search against plain Python, against every sequence, and T5X's own."""

import functools
import itertools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xprompt_jax.t5 import beam_search
from xprompt_jax.t5.config import T5Config
from xprompt_jax.t5.network import T5
from xprompt_jax.weights import loading

# B 6, S 4, L 3, V 5: pad, EOS and three pieces.
SMALL = T5Config(
    vocab_size=5,
    emb_dim=6,
    num_heads=2,
    head_dim=3,
    num_encoder_layers=1,
    num_decoder_layers=2,
    mlp_dim=7,
    logits_via_embedding=False,
)
T = T5(SMALL)
L = 3
INPUTS = np.array(
    [[2, 3, 4, 1], [4, 1, 0, 0], [3, 3, 1, 0], [2, 1, 0, 0], [1, 0, 0, 0]]
)


@functools.cache
def encoded():
  """A model whose answers have all lengths."""
  params = loading.load_frozen("random:3", SMALL).params
  params["decoder"]["logits_dense"]["kernel"] *= 4.0
  visible = jnp.array(INPUTS > 0)

  @jax.jit
  def encode(variables):
    embedded = T.apply(variables, jnp.array(INPUTS), method="embed")
    return T.apply(variables, embedded, visible, method="encode")

  return params, encode({"params": params}), visible


@jax.jit
def decode(params, states, visible, read):
  logits = T.apply({"params": params}, states, visible, read, method="decode")
  return jax.nn.log_softmax(logits)


@functools.cache
def log_probabilities(prefix):
  """Of the token after a prefix, teacher-forced: [B, V]."""
  read = np.zeros((len(INPUTS), 5), np.int32)
  read[:, 1 : len(prefix) + 1] = prefix
  found = decode(*encoded(), jnp.array(read))
  return np.asarray(found[:, len(prefix)], np.float64)


beam_decode = jax.jit(beam_search.beam_decode, static_argnums=(0, 4, 5, 6))


@functools.cache
def search(num_beams, alpha=0.6, length=L):
  found = beam_decode(T, *encoded(), length, num_beams, alpha)
  return np.asarray(found).tolist()


def padded(tokens, length=L):
  return [*tokens, *[0] * (length - len(tokens))]


def test_wide_enough_it_finds_the_best_of_all_sequences():
  """With room for every prefix nothing is lost on the way."""
  lengths = []
  for alpha in (0.0, 0.6, 2.0):
    expected = []
    for example in range(len(INPUTS)):
      best = (-np.inf, ())
      for size in range(L):
        for prefix in itertools.product((0, 2, 3, 4), repeat=size):
          tokens = (*prefix, 1)
          score = (
              sum(
                  log_probabilities(tokens[:i])[example, token]
                  for i, token in enumerate(tokens)
              )
              / ((5 + len(tokens)) / 6) ** alpha
          )
          best = max(best, (score, tokens))
      expected.append(padded(best[1]))
    assert search(40, alpha) == expected
    lengths.append([sum(token > 0 for token in row) for row in expected])
  # Long answers gain from the penalty.
  assert lengths == [[3, 3, 1, 1, 2], [3, 3, 2, 2, 3], [3, 3, 3, 3, 3]]


def by_hand(example, num_beams, alpha, length):
  """T5X's rules on lists, for one example."""
  live, finished = [(0.0, ())], []
  for size in range(1, length + 1):
    grown = [
        (score + log_probabilities(tokens)[example, token], tokens, token)
        for score, tokens in live
        for token in range(5)
    ]
    grown = sorted(grown, key=lambda g: -g[0])[: 2 * num_beams]
    penalty = ((5 + size) / 6) ** alpha
    finished += [(s / penalty, (*t, 1)) for s, t, token in grown if token == 1]
    live = [(s, (*t, token)) for s, t, token in grown if token != 1][:num_beams]
  return padded(max(finished or live)[1], length)


@pytest.mark.parametrize("num_beams", [2, 3])
@pytest.mark.parametrize("length", [2, 5])
def test_few_beams_keep_what_the_rules_say(num_beams, length):
  found = search(num_beams, length=length)
  expected = [
      by_hand(example, num_beams, 0.6, length) for example in range(len(INPUTS))
  ]
  assert found == expected
  assert found != search(40, length=length)


def test_the_encoders_keys_are_held_once_for_all_beams():
  params, states, visible = encoded()
  traced = str(
      jax.make_jaxpr(
          lambda s, v: beam_search.beam_decode(T, params, s, v, L, 5)
      )(states, visible)
  )
  # Keys of 5 examples, 4 positions, 2 heads of 3; own keys of 25 beams.
  assert "f32[5,4,2,3]" in traced
  assert "f32[25,3,2,3]" in traced
  assert "[25,4," not in traced


def test_a_batch_changes_no_answer():
  params, states, visible = encoded()
  alone = []
  for i in range(len(INPUTS)):
    one = states[i : i + 1], visible[i : i + 1]
    alone += beam_decode(T, params, *one, L, 2, 0.6).tolist()
  assert alone == search(2)


def test_without_an_end_the_best_live_beam_is_the_answer():
  """One beam looks at two tokens: where neither is EOS nothing has ended."""
  found = search(1, length=1)
  assert found == [by_hand(i, 1, 0.6, 1) for i in range(len(INPUTS))]
  assert found == [[2], [2], [2], [2], [3]]


@pytest.mark.interop
@pytest.mark.filterwarnings("ignore")
def test_t5x_finds_the_same():
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    t5x_decoding = pytest.importorskip(
        "t5x.decoding",
        reason="needs a checkout of google-research/t5x on PYTHONPATH",
        exc_type=ImportError,
    )
  params, states, visible = encoded()

  def run(num_beams, length):
    _, cache = T.apply(
        {"params": params},
        states,
        visible,
        length,
        method="start_cache",
        mutable=["cache"],
    )
    seen = jnp.repeat(visible, num_beams, axis=0)

    def step(state):
      logits, new = T.apply(
          {"params": params, **state.cache},
          seen,
          state.cur_token[:, 0],
          state.cur_index,
          length,
          method="decode_step",
          mutable=["cache"],
      )
      return logits, new

    sequences, _ = t5x_decoding.beam_search(
        inputs=jnp.zeros((len(INPUTS), length), jnp.int32),
        cache=cache,
        tokens_to_logits=step,
        eos_id=1,
        num_decodes=num_beams,
        alpha=0.6,
    )
    return np.asarray(sequences[:, -1]).tolist()

  for num_beams, length in itertools.product((2, 4), (2, 3, 6)):
    assert search(num_beams, length=length) == run(num_beams, length)
