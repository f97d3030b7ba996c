"""Leaving pruned tokens out of a prompt, and what that changes.

A pruned token is a row of zeros that still has a position and takes attention.
Without its row the others move closer to the input, and T5 knows relative
positions: the model is another one. So it is done at export only, and the
difference is measured.
"""

from collections.abc import Mapping
import dataclasses
import functools

import jax
from jax import Array
import jax.numpy as jnp
from jaxtyping import Float, Int
import numpy as np

from xprompt_jax import masks as masks_lib
from xprompt_jax import partitioning, progress
from xprompt_jax.experiment import Experiment
from xprompt_jax.model import PromptedT5
from xprompt_jax.prompts import masked_prompts
from xprompt_jax.types import Batch, PromptMasks, UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Change:
  """What a shorter prompt changed on the validation split.

  Attributes:
    before: the task's metrics with pruned tokens in their places.
    after: without them.
    max_abs: largest absolute difference of a logit, over all target tokens and
      the whole vocabulary.
    mean_abs: the mean of these differences.
  """

  before: Mapping[str, float]
  after: Mapping[str, float]
  max_abs: float
  mean_abs: float


def without_pruned_tokens(
    prompt: Float[np.ndarray, "1 P H"], masks: PromptMasks, path: str
) -> tuple[np.ndarray, PromptMasks]:
  """The rows of one prompt whose token mask is 1: [1, P', H] and masks.

  Raises:
    UserError: no token is left.
  """
  kept = np.flatnonzero(np.asarray(masks.token_mask)[0])
  if not len(kept):
    raise UserError(
        f"{path}: token_mask: found every token pruned, expected one that is"
        " kept"
    )
  shorter = PromptMasks(
      token_mask=np.asarray(masks.token_mask)[:, kept],
      piece_mask=np.asarray(masks.piece_mask)[:, kept],
  )
  return prompt[:, kept], shorter


@functools.partial(jax.jit, static_argnames=("model",))
def _logits(
    prompt: Float[Array, "R P H"],
    masks: PromptMasks,
    frozen_params: Mapping,
    row_ids: Int[Array, "B"],
    batch: Batch,
    *,
    model: PromptedT5,
) -> Float[Array, "B L V"]:
  masked = masked_prompts(prompt, masks, row_ids)
  visible = model.prompt_visible(masks_lib.take_rows(masks, row_ids))
  return model.logits(frozen_params, masked, visible, batch)


@jax.jit
def _difference(
    one: Float[Array, "B L V"],
    other: Float[Array, "B L V"],
    weights: Float[Array, "B L"],
) -> tuple[Array, Array]:
  """Largest difference, and the sum of each target token's mean over V."""
  apart = jnp.abs(one - other) * weights[..., None]
  return jnp.max(apart), jnp.sum(jnp.mean(apart, axis=-1))


def logit_difference(
    experiment: Experiment,
    before: tuple[np.ndarray, PromptMasks],
    after: tuple[np.ndarray, PromptMasks],
    task: str | None = None,
) -> tuple[float, float]:
  """Largest and mean absolute difference of logits on validation.

  Args:
    experiment: what is loaded, the validation split among it.
    before: a prompt [1, P, H] and its masks.
    after: another, of any length.
    task: which member of a mixture; None means all that is configured.

  Returns:
    Over every target token (teacher-forced, EOS included) and the vocabulary.
  """
  rows = experiment.rows("validation", (0,), (task,))
  largest, total, count, done = 0.0, 0.0, 0.0, 0
  # As many as are scored at once: here, too, all logits are in memory.
  size = experiment.whole_batches(experiment.config.score_batch_size)
  with progress.Reporter("compare", rows.num_examples) as reporter:
    for batch in rows.every_example(size):
      arrays = {**batch.arrays, "rows": batch.row_ids}
      placed = dict(partitioning.shard_batch(arrays, experiment.mesh))
      row_ids = placed.pop("rows")
      one, other = (
          _logits(
              prompt,
              masks,
              experiment.frozen_params,
              row_ids,
              placed,
              model=experiment.model,
          )
          for prompt, masks in (before, after)
      )
      weights = placed["decoder_loss_weights"]
      batch_largest, batch_sum = _difference(one, other, weights)
      largest = max(largest, float(batch_largest))
      total += float(batch_sum)
      count += float(np.sum(batch.arrays["decoder_loss_weights"]))
      done += int(batch.valid.sum())
      reporter.update(done, {})
  return largest, total / count


def measure(
    experiment: Experiment,
    before: tuple[np.ndarray, PromptMasks],
    after: tuple[np.ndarray, PromptMasks],
    task: str | None = None,
) -> Change:
  """What becomes of metrics and logits on validation.

  Args: as for `logit_difference`.
  """
  metrics = [
      experiment.evaluate("validation", prompt, masks, (task,))[0]
      for prompt, masks in (before, after)
  ]
  max_abs, mean_abs = logit_difference(experiment, before, after, task)
  return Change(
      before=metrics[0], after=metrics[1], max_abs=max_abs, mean_abs=mean_abs
  )
