"""Greedy decoding with a key/value cache, and the score of given targets.

`beam_search.py` decodes with several beams.
"""

from collections.abc import Mapping

import jax
from jax import Array
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from xprompt_jax.t5.network import T5

PAD_ID = 0
EOS_ID = 1


def greedy_decode(
    t5: T5,
    params: Mapping,
    encoded: Float[Array, "B S H"],
    visible: Bool[Array, "B S"],
    max_length: int,
) -> Int[Array, "B L"]:
  """Takes the most likely token at each position until EOS.

  Args:
    t5: the network.
    params: its parameters.
    encoded: [B, S, H], the encoder's output.
    visible: [B, S], which of its positions may be seen.
    max_length: L, tokens to decode at most, EOS included.

  Returns:
    [B, L] token ids, EOS kept, PAD after it.
  """
  _, cache = t5.apply(
      {"params": params},
      encoded,
      visible,
      max_length,
      method="start_cache",
      mutable=["cache"],
  )
  batch_size = encoded.shape[0]

  def unfinished(carry):
    index, _, _, done, _ = carry
    return (index < max_length) & ~jnp.all(done)

  def step(carry):
    index, previous, tokens, done, cache = carry
    logits, cache = t5.apply(
        {"params": params, **cache},
        visible,
        previous,
        index,
        max_length,
        method="decode_step",
        mutable=["cache"],
    )
    best = jnp.argmax(logits, axis=-1).astype(jnp.int32)
    best = jnp.where(done, PAD_ID, best)
    tokens = jax.lax.dynamic_update_slice(tokens, best[:, None], (0, index))
    return index + 1, best, tokens, done | (best == EOS_ID), cache

  start = (
      jnp.zeros((), jnp.int32),
      jnp.full((batch_size,), PAD_ID, jnp.int32),
      jnp.full((batch_size, max_length), PAD_ID, jnp.int32),
      jnp.zeros((batch_size,), bool),
      cache,
  )
  return jax.lax.while_loop(unfinished, step, start)[2]


def token_log_likelihood(
    logits: Float[Array, "B L V"], targets: Int[Array, "B L"]
) -> Float[Array, "B L"]:
  """The log-probability of each target token: [B, L, V], [B, L] -> [B, L]."""
  picked = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
  return picked - jax.nn.logsumexp(logits, axis=-1)


def candidate_log_likelihoods(
    t5: T5,
    params: Mapping,
    encoded: Float[Array, "B S H"],
    visible: Bool[Array, "B S"],
    candidates: Int[Array, "B C L"],
    lengths: Int[Array, "B C"],
    num_candidates: Int[Array, ""],
) -> Float[Array, "B C"]:
  """The log-likelihood of each candidate as the whole answer.

  One candidate of every example is scored at a time: the logits of all at once
  would need C times the memory, and the encoder's keys are shared.

  Args:
    t5: the network.
    params: its parameters.
    encoded: [B, S, H], the encoder's output.
    visible: [B, S], which of its positions may be seen.
    candidates: [B, C, L] token ids, EOS included.
    lengths: [B, C], tokens of each; 0 where an example has fewer candidates.
    num_candidates: [], how many of the C are scored: traced, so that C may be
      the most of a whole split at no cost.

  Returns:
    [B, C] nats, summed over the tokens; -inf where there is no candidate.
  """
  _, cache = t5.apply(
      {"params": params},
      encoded,
      visible,
      1,
      method="start_cache",
      mutable=["cache"],
  )

  def score(i: Array, scores: Float[Array, "B C"]) -> Float[Array, "B C"]:
    targets = jax.lax.dynamic_index_in_dim(candidates, i, 1, keepdims=False)
    length = jax.lax.dynamic_index_in_dim(lengths, i, 1)  # [B, 1]
    # Teacher forcing: position t sees the tokens before t.
    shifted = jnp.pad(targets[:, :-1], ((0, 0), (1, 0)), constant_values=PAD_ID)
    logits = t5.apply(
        {"params": params, **cache}, visible, shifted, method="decode_cached"
    )
    inside = jnp.arange(targets.shape[1])[None, :] < length
    found = token_log_likelihood(logits, targets)
    total = jnp.sum(jnp.where(inside, found, 0.0), axis=1, keepdims=True)
    total = jnp.where(length > 0, total, -jnp.inf)
    return jax.lax.dynamic_update_slice_in_dim(scores, total, i, 1)

  start = jnp.full(lengths.shape, -jnp.inf, jnp.float32)
  return jax.lax.fori_loop(0, num_candidates, score, start)
