"""The one function: a frozen T5 behind masked prompts.

    masked = prompt[row] * expand(masks)[row]          # [B, P, H]
    logits = T5([masked ; embed(tokens)])              # [B, L, V]

Training, scoring, evaluation and inference all call `logits` or `generate`;
they differ in what they differentiate and in which rows the examples name.
"""

from collections.abc import Mapping
import dataclasses

import jax
from jax import Array
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from xprompt_jax.t5 import beam_search, decoding
from xprompt_jax.t5.config import T5Config
from xprompt_jax.t5.network import T5
from xprompt_jax.types import Batch, PromptMasks


@dataclasses.dataclass(frozen=True, kw_only=True)
class PromptedT5:
  """What a compiled entry point needs to know; hashable, so it is static.

  Attributes:
    t5_config: the frozen network.
    pruned_tokens: `zero`, or `ignore` to hide pruned tokens from attention.
  """

  t5_config: T5Config
  pruned_tokens: str = "zero"

  def prompt_visible(self, masks: PromptMasks) -> Bool[Array, "B P"]:
    """Which prompt positions attention may see: masks of B rows -> [B, P]."""
    visible = jnp.ones(masks.token_mask.shape, bool)
    if self.pruned_tokens == "ignore":
      visible = masks.token_mask > 0
    return visible if masks.present is None else visible & (masks.present > 0)

  def _encode(
      self,
      frozen_params: Mapping,
      masked: Float[Array, "B P H"],
      prompt_visible: Bool[Array, "B P"],
      tokens: Int[Array, "B T"],
      dropout_key: Array | None,
  ) -> tuple[Array, Array]:
    t5 = T5(self.t5_config)
    variables = {"params": frozen_params}
    embedded = t5.apply(variables, tokens, method="embed")
    # [B, P, H] and [B, T, H] -> [B, S, H]
    embedded = jnp.concatenate(
        [masked.astype(embedded.dtype), embedded], axis=1
    )
    visible = jnp.concatenate([prompt_visible, tokens > 0], axis=1)
    encoded = t5.apply(
        variables,
        embedded,
        visible,
        dropout_key is None,
        method="encode",
        rngs=None if dropout_key is None else {"dropout": dropout_key},
    )
    return encoded, visible

  def logits(
      self,
      frozen_params: Mapping,
      masked: Float[Array, "B P H"],
      prompt_visible: Bool[Array, "B P"],
      batch: Batch,
      dropout_key: Array | None = None,
  ) -> Float[Array, "B L V"]:
    """Logits of every target position.

    Args:
      frozen_params: the T5's parameters.
      masked: [B, P, H], each example's prompt times its masks.
      prompt_visible: [B, P], from `self.prompt_visible`.
      batch: T5X's keys.
      dropout_key: dropout is off without one.

    Returns:
      [B, L, V] float32.
    """
    tokens = batch["encoder_input_tokens"]
    encoder_key = decoder_key = None
    if dropout_key is not None:
      encoder_key, decoder_key = jax.random.split(dropout_key)
    encoded, visible = self._encode(
        frozen_params, masked, prompt_visible, tokens, encoder_key
    )
    return T5(self.t5_config).apply(
        {"params": frozen_params},
        encoded,
        visible,
        batch["decoder_input_tokens"],
        dropout_key is None,
        method="decode",
        rngs=None if dropout_key is None else {"dropout": decoder_key},
    )

  def generate(
      self,
      frozen_params: Mapping,
      masked: Float[Array, "B P H"],
      prompt_visible: Bool[Array, "B P"],
      tokens: Int[Array, "B T"],
      max_length: int,
      num_beams: int = 1,
  ) -> Int[Array, "B L"]:
    """Predictions, greedy or by beam search.

    Args:
      frozen_params: the T5's parameters.
      masked: [B, P, H].
      prompt_visible: [B, P].
      tokens: [B, T], padded with 0.
      max_length: L, tokens to decode at most.
      num_beams: 1 takes the most likely token at each position.

    Returns:
      [B, L] token ids, padded with 0 after EOS.
    """
    encoded, visible = self._encode(
        frozen_params, masked, prompt_visible, tokens, None
    )
    t5 = T5(self.t5_config)
    if num_beams == 1:
      return decoding.greedy_decode(
          t5, frozen_params, encoded, visible, max_length
      )
    return beam_search.beam_decode(
        t5, frozen_params, encoded, visible, max_length, num_beams
    )

  def candidate_log_likelihoods(
      self,
      frozen_params: Mapping,
      masked: Float[Array, "B P H"],
      prompt_visible: Bool[Array, "B P"],
      tokens: Int[Array, "B T"],
      candidates: Int[Array, "B C L"],
      lengths: Int[Array, "B C"],
      num_candidates: Int[Array, ""],
  ) -> Float[Array, "B C"]:
    """Log-likelihood of each candidate answer; each example is encoded once.

    Args: as for `generate`, and `decoding.candidate_log_likelihoods`.

    Returns:
      [B, C] nats; -inf where there is no candidate.
    """
    encoded, visible = self._encode(
        frozen_params, masked, prompt_visible, tokens, None
    )
    return decoding.candidate_log_likelihoods(
        T5(self.t5_config),
        frozen_params,
        encoded,
        visible,
        candidates,
        lengths,
        num_candidates,
    )

  def first_log_probabilities(
      self,
      frozen_params: Mapping,
      masked: Float[Array, "B P H"],
      prompt_visible: Bool[Array, "B P"],
      tokens: Int[Array, "B T"],
  ) -> Float[Array, "B V"]:
    """Log-probability of each token at the first position of the answer.

    Args: as for `generate`.

    Returns:
      [B, V] nats.
    """
    start = jnp.full((tokens.shape[0], 1), decoding.PAD_ID, jnp.int32)
    batch = {"encoder_input_tokens": tokens, "decoder_input_tokens": start}
    logits = self.logits(frozen_params, masked, prompt_visible, batch)
    return jax.nn.log_softmax(logits[:, 0])


def target_losses(
    logits: Float[Array, "B L V"], batch: Batch, z_loss: float = 0.0
) -> Float[Array, "B"]:
  """Each example's negative log-likelihood, summed over its target tokens.

  Args:
    logits: [B, L, V].
    batch: T5X's keys; `decoder_loss_weights` is 1 on target tokens, EOS
      included, and 0 on padding.
    z_loss: weight of T5X's penalty log(Z)^2 on the normaliser.

  Returns:
    [B], nats.
  """
  log_likelihood = decoding.token_log_likelihood(
      logits, batch["decoder_target_tokens"]
  )
  losses = -log_likelihood
  if z_loss:
    losses += z_loss * jnp.square(jax.nn.logsumexp(logits, axis=-1))
  return jnp.sum(losses * batch["decoder_loss_weights"], axis=-1)
