"""Beam search with a key/value cache: T5X's rules, for one answer an example.

As `t5x/decoding.py`'s `beam_search`: of `2 k` continuations those that end go
to the finished, ranked by log-probability over ((5 + length) / 6)^alpha (Wu et
al. 2016, equation 14), and the k best of the others stay live. One beam is not
`decoding.greedy_decode`: an answer that went on may overtake one that ended.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
from jax import Array
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from xprompt_jax.t5.decoding import EOS_ID, PAD_ID
from xprompt_jax.t5.network import T5

BREVITY_ALPHA = 0.6
# The score of a beam that is not there; sums with it stay finite.
_NOTHING = -1e7


class _Beams(NamedTuple):
  """What the loop carries; k beams, the best first."""

  index: Any  # Array [], tokens decoded so far
  live: Any  # Array [B, k], log-probabilities
  live_tokens: Any  # Array [B, k, L]
  finished: Any  # Array [B], log-probability over brevity penalty
  finished_tokens: Any  # Array [B, L]
  previous: Any  # Array [B, k], what the decoder reads next
  cache: Any  # of B * k sequences; the encoder's keys of B examples


def brevity_penalty(
    length: Float[Array, ""] | float, alpha: float
) -> Float[Array, ""] | float:
  """What a log-probability is divided by; length counts EOS."""
  return ((5.0 + length) / 6.0) ** alpha


def beam_decode(
    t5: T5,
    params: Mapping,
    encoded: Float[Array, "B S H"],
    visible: Bool[Array, "B S"],
    max_length: int,
    num_beams: int,
    alpha: float = BREVITY_ALPHA,
) -> Int[Array, "B L"]:
  """The best sequence that beam search finds for each example.

  Args:
    t5: the network.
    params: its parameters.
    encoded: [B, S, H], the encoder's output.
    visible: [B, S], which of its positions may be seen.
    max_length: L, tokens to decode at most, EOS included.
    num_beams: k.
    alpha: exponent of the brevity penalty; 0 ranks by log-probability.

  Returns:
    [B, L] token ids, EOS kept, PAD after it. Where no beam has ended, the live
    one with the highest log-probability.
  """
  _, cache = t5.apply(
      {"params": params},
      encoded,
      visible,
      max_length,
      method="start_cache",
      mutable=["cache"],
  )
  cache = _of_beams(cache, lambda x: jnp.repeat(x, num_beams, axis=0))

  def unfinished(beams: _Beams) -> Bool[Array, ""]:
    # A live beam can only fall; at best it ends here, at full length.
    reachable = beams.live[:, 0] / brevity_penalty(max_length, alpha)
    settled = beams.finished > reachable
    return (beams.index < max_length) & ~jnp.all(settled)

  def step(beams: _Beams) -> _Beams:
    logits, cache = t5.apply(
        {"params": params, **beams.cache},
        visible,
        beams.previous.reshape(-1),
        beams.index,
        max_length,
        method="decode_step",
        mutable=["cache"],
    )
    return _extend(beams, logits, cache, alpha)

  found = jax.lax.while_loop(
      unfinished, step, _start(encoded.shape[0], max_length, num_beams, cache)
  )
  ended = found.finished > _NOTHING
  return jnp.where(
      ended[:, None], found.finished_tokens, found.live_tokens[:, 0]
  )


def _start(
    batch_size: int, max_length: int, num_beams: int, cache: Any
) -> _Beams:
  """One empty live beam for each example."""
  first = jnp.arange(num_beams) == 0
  live = jnp.where(first, 0.0, _NOTHING).astype(jnp.float32)
  shape = (batch_size, num_beams)
  return _Beams(
      index=jnp.zeros((), jnp.int32),
      live=jnp.broadcast_to(live, shape),
      live_tokens=jnp.full((*shape, max_length), PAD_ID, jnp.int32),
      finished=jnp.full((batch_size,), _NOTHING, jnp.float32),
      finished_tokens=jnp.full((batch_size, max_length), PAD_ID, jnp.int32),
      previous=jnp.full(shape, PAD_ID, jnp.int32),
      cache=cache,
  )


def _extend(
    beams: _Beams,
    logits: Float[Array, "N V"],
    cache: Any,
    alpha: float,
) -> _Beams:
  """One more token: what ends is finished, the k best of the rest live on."""
  batch_size, num_beams = beams.live.shape
  # [B * k, V] -> [B, k, V]
  logits = logits.reshape(batch_size, num_beams, -1)
  vocab_size = logits.shape[-1]
  scores = beams.live[..., None] + jax.nn.log_softmax(logits)
  # Twice as many as beams: k of them may end at once.
  scores, place = jax.lax.top_k(
      scores.reshape(batch_size, -1), min(2, vocab_size) * num_beams
  )
  parent, token = place // vocab_size, (place % vocab_size).astype(jnp.int32)
  # [B, k, L] -> [B, 2k, L]
  tokens = jnp.take_along_axis(beams.live_tokens, parent[..., None], axis=1)
  tokens = jax.lax.dynamic_update_slice(
      tokens, token[..., None], (0, 0, beams.index)
  )
  ended = token == EOS_ID

  penalty = brevity_penalty((beams.index + 1).astype(jnp.float32), alpha)
  new = jnp.where(ended & (scores > _NOTHING), scores / penalty, _NOTHING)
  best = jnp.argmax(new, axis=1)[:, None]
  new_score = jnp.take_along_axis(new, best, axis=1)[:, 0]
  new_tokens = jnp.take_along_axis(tokens, best[..., None], axis=1)[:, 0]
  better = new_score > beams.finished

  live, kept = jax.lax.top_k(jnp.where(ended, _NOTHING, scores), num_beams)
  parent = jnp.take_along_axis(parent, kept, axis=1)
  return _Beams(
      index=beams.index + 1,
      live=live,
      live_tokens=jnp.take_along_axis(tokens, kept[..., None], axis=1),
      finished=jnp.where(better, new_score, beams.finished),
      finished_tokens=jnp.where(
          better[:, None], new_tokens, beams.finished_tokens
      ),
      previous=jnp.take_along_axis(token, kept, axis=1),
      cache=_follow(cache, parent),
  )


def _follow(cache: Any, parent: Int[Array, "B k"]) -> Any:
  """Each beam takes over its parent's keys and values."""
  batch_size, num_beams = parent.shape

  def taken(x: Array) -> Array:
    # [B * k, ...] -> [B, k, ...] and back
    y = x.reshape(batch_size, num_beams, *x.shape[1:])
    y = jax.vmap(lambda one, order: one[order])(y, parent)
    return y.reshape(x.shape)

  return _of_beams(cache, taken)


def _of_beams(cache: Any, change: Callable[[Array], Array]) -> Any:
  """Changes what each beam has of its own; the encoder's keys are shared."""

  def changed(path: Any, x: Array) -> Array:
    shared = "encoder_decoder_attention" in jax.tree_util.keystr(path)
    return x if shared else change(x)

  return jax.tree_util.tree_map_with_path(changed, cache)
