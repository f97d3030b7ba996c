"""Masks tokens of the tuned prompts and trains nothing (Figure 2 of the paper).

If some tokens do harm, masking those that importance ranks lowest costs less
than masking as many at random, or helps. All rows go through one evaluation of
each split.
"""

from collections.abc import Sequence
import dataclasses
import time
from typing import Any

import numpy as np

from xprompt_jax import artifacts, importance, pruning, stages
from xprompt_jax import masks as masks_lib
from xprompt_jax.experiment import Experiment
from xprompt_jax.tickets import Table
from xprompt_jax.types import PromptMasks

FOLDER = "masking"
# The splits that are evaluated, where a run has them.
ROLES = ("validation", "heldout", "test")


def token_order(scores: np.ndarray) -> list[int]:
  """Tokens in the order in which pruning removes them, lowest score first.

  Args:
    scores: [P]; among equal ones the higher index goes first.
  """
  return np.lexsort((-np.arange(len(scores)), scores)).tolist()


def random_order(
    seed: int, task: str, draw: int, prompt_length: int
) -> list[int]:
  """Tokens in an order that a seed, a task and a draw choose."""
  words = importance.uniform(
      seed, task, prompt_length, importance.MASKING_STREAM, draw
  )
  return np.argsort(words, kind="stable").tolist()


def masked(order: list[int], num_masked: int, num_pieces: int) -> PromptMasks:
  """Masks of one row without the first tokens of an order.

  Args:
    order: P tokens.
    num_masked: how many of them are masked.
    num_pieces: K.

  Returns:
    [P] and [P, K].
  """
  token_mask = np.ones(len(order), np.float32)
  token_mask[order[:num_masked]] = 0.0
  return PromptMasks(
      token_mask=token_mask,
      piece_mask=np.repeat(token_mask[:, None], num_pieces, axis=1),
  )


def masked_rows(
    config: pruning.SearchConfig,
    tuned: Table,
    scores: np.ndarray,
    tasks: Sequence[str],
) -> tuple[list[dict[str, Any]], Table]:
  """Every row of the figure.

  Args:
    config: the counts and the number of random draws.
    tuned: R tuned prompts.
    scores: [R, P].
    tasks: R names.

  Returns:
    What result files say of each row, and the rows: for each tuned prompt and
    count that by importance, then the random draws. Masks of one draw grow
    with the count.
  """
  _, length, num_pieces = np.shape(tuned.masks.piece_mask)
  lines, rows, masks = [], [], []
  for row, ticket in enumerate(tuned.tickets):
    orders = [("importance", 0, token_order(scores[row]))]
    for draw in range(config.masking_draws):
      order = random_order(ticket.seed, tasks[row], draw, length)
      orders.append(("random", draw, order))
    for count in config.masking_counts:
      for name, draw, order in orders:
        line = {"seed": ticket.seed, "order": name, "draw": draw}
        task = {} if ticket.task is None else {"task": ticket.task}
        lines.append({**task, **line, "num_masked": count})
        rows.append(row)
        masks.append(masked(order, count, num_pieces))
  table = dataclasses.replace(
      tuned.untrained.take(rows), masks=stages.stack_masks(masks)
  )
  return lines, table


def run_masking(experiment: Experiment, tuned: Table) -> None:
  """Evaluates the tuned prompts with some of their tokens masked.

  Writes `WORKDIR/masking/result.json`; docs/files.md describes it. Does nothing
  unless counts are configured.

  Args:
    experiment: what is loaded.
    tuned: R tuned prompts.
  """
  search = experiment.config.search
  if not search.masking_counts:
    return
  scores = stages.run_score(experiment, "token", tuned)[importance.TOKEN_SCORES]
  lines, table = masked_rows(
      search, tuned, scores, stages.task_names(experiment, tuned)
  )
  folder = experiment.workdir / FOLDER
  config = {
      **experiment.stage_config,
      "prompt": artifacts.digest_arrays({"prompt": table.prompt}),
      "masks": artifacts.digest_arrays(masks_lib.as_arrays(table.masks)),
      "counts": search.masking_counts,
      "draws": search.masking_draws,
      "test": experiment.split_fingerprints("heldout", "test"),
  }
  if artifacts.finished_result(folder, config) is not None:
    return
  started = time.monotonic()
  for role in ROLES:
    if role in experiment.splits:
      found = experiment.evaluate(role, table.prompt, table.masks, table.tasks)
      for line, metrics in zip(lines, found, strict=True):
        line[role] = metrics
  result = {
      "config": config,
      "rows": lines,
      "seconds": round(time.monotonic() - started, 3),
  }
  artifacts.write_json(folder / artifacts.RESULT, result)
