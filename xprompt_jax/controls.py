"""What the final tickets are compared with, all controls and seeds in one table.

- `reversed`: the complement of the ticket's piece mask (Ma et al. 2022, Reversed
  XPrompt).
- `random`: as many tokens and pieces as the ticket, chosen at random.
- `magnitude`: as many, those of the largest mean |value| in the tuned prompt.
- `length`: a plain prompt of as many tokens as the ticket keeps, from the
  initial values that a run of that PROMPT_LENGTH draws; it trains once, where
  tickets start from prompts that were trained as long before.
- `retrained`: the tuned prompt with nothing pruned, rewound and trained once
  more: what a ticket's second training gains by itself.
- `no_rewind`: the tuned prompt behind the ticket's masks, not trained again.

`reversed` prunes a token that the ticket keeps whole. `random` and `magnitude`
prune as many as the ticket does: a token that lost its pieces alone stays in sight
of attention (`pruned_tokens = "ignore"`), there as here.
"""

import dataclasses
import time
from typing import Any

import jax
import numpy as np

from xprompt_jax import artifacts, importance, stages, tickets
from xprompt_jax import masks as masks_lib
from xprompt_jax.experiment import Experiment
from xprompt_jax.tickets import Table
from xprompt_jax.types import PromptMasks

FOLDER = "controls"
NO_REWIND = "no_rewind"
LENGTH = "length"
RETRAINED = "retrained"
# Those that have nothing of the ticket's masks, and no ratios.
_UNPRUNED = (LENGTH, RETRAINED)


def reversed_masks(masks: PromptMasks) -> PromptMasks:
  """The complement of a row's pieces; tokens without any are pruned.

  Args:
    masks: [P] and [P, K].

  Returns:
    Masks of the same shapes, which keep what `masks` prune.
  """
  kept = np.asarray(masks.piece_mask) * np.asarray(masks.token_mask)[:, None]
  pieces = 1.0 - kept.astype(np.float32)
  return PromptMasks(
      token_mask=pieces.any(axis=-1).astype(np.float32), piece_mask=pieces
  )


def random_masks(masks: PromptMasks, seed: int, task: str) -> PromptMasks:
  """As many tokens and pieces as a row keeps, chosen by seed and task.

  Args:
    masks: [P] and [P, K].
    seed: of the draw.
    task: by its name.
  """
  length, num_pieces = np.shape(masks.piece_mask)
  scores = importance.random_scores(
      [seed], [task], length, num_pieces, importance.CONTROL_STREAMS
  )
  return _of_same_counts(masks, scores)


def magnitude_masks(masks: PromptMasks, prompt: np.ndarray) -> PromptMasks:
  """As many tokens and pieces as a row keeps, those of the largest |value|.

  Args:
    masks: [P] and [P, K].
    prompt: [P, H], tuned.
  """
  length, num_pieces = np.shape(masks.piece_mask)
  full = masks_lib.full_masks(1, length, num_pieces)
  return _of_same_counts(masks, importance.magnitude_scores(prompt[None], full))


def _of_same_counts(
    masks: PromptMasks, scores: dict[str, np.ndarray]
) -> PromptMasks:
  table = stages.stack_masks([masks])
  token_scores = scores[importance.TOKEN_SCORES][0]
  found = importance.masks_of_counts(
      token_scores,
      scores[importance.PIECE_SCORES][0],
      int(masks_lib.kept_tokens(table)[0]),
      int(masks_lib.kept_pieces(table)[0]),
  )
  # Those that follow have no piece, as many as in the ticket.
  count = int(np.asarray(masks.token_mask).sum())
  token_mask = np.zeros(len(token_scores), np.float32)
  token_mask[np.argsort(-token_scores, kind="stable")[:count]] = 1.0
  return dataclasses.replace(found, token_mask=token_mask)


def length_masks(masks: PromptMasks) -> PromptMasks:
  """A whole prompt of as many tokens as a row keeps, at the end of P.

  Args:
    masks: [P] and [P, K].

  Returns:
    Masks of the same shapes, with `present`.
  """
  length = int(masks_lib.kept_tokens(stages.stack_masks([masks]))[0])
  size = np.shape(masks.token_mask)[0]
  present = (np.arange(size) >= size - length).astype(np.float32)
  return PromptMasks(
      token_mask=present,
      piece_mask=np.repeat(present[:, None], np.shape(masks.piece_mask)[1], 1),
      present=present,
  )


def _masks(
    control: str, masks: PromptMasks, prompt: np.ndarray, seed: int, task: str
) -> PromptMasks:
  """The masks of one row of a control that is trained."""
  if control == "reversed":
    return reversed_masks(masks)
  if control == "random":
    return random_masks(masks, seed, task)
  if control == "magnitude":
    return magnitude_masks(masks, prompt)
  if control == RETRAINED:
    return jax.tree.map(np.ones_like, masks)
  return length_masks(masks)


def _why_not(experiment: Experiment, control: str, table: Table) -> str | None:
  """Why a control of one ticket, a table of one row, is left out."""
  pieces = np.asarray(table.masks.piece_mask)
  if control == "reversed" and pieces.all():
    return "nothing was pruned, so its complement is empty"
  config = experiment.config.prompt
  if control == LENGTH and config.init == "from_file":
    return (
        f"initial values come from a file of {config.length} tokens, which"
        " cannot be shorter"
    )
  return None


def _control_table(
    experiment: Experiment, control: str, tuned: Table, winners: Table
) -> Table:
  """Winners' prompts behind the masks of a control, all R rows."""
  masks = []
  names = stages.task_names(experiment, winners)
  for row, (seed, task) in enumerate(zip(winners.seeds, names, strict=True)):
    own = masks_lib.take_rows(winners.masks, np.array(row))
    masks.append(_masks(control, own, tuned.prompt[row], seed, task))
  as_tickets = [
      dataclasses.replace(
          ticket.unpruned if control in _UNPRUNED else ticket,
          control=control,
      )
      for ticket in winners.tickets
  ]
  return Table(
      tickets=tuple(as_tickets),
      prompt=tuned.prompt,
      masks=stages.stack_masks(masks),
  )


def _fresh(experiment: Experiment, table: Table) -> Table:
  """The table with the initial values that each row's own length draws."""
  prompt = np.zeros_like(table.prompt)
  lengths = masks_lib.kept_tokens(table.masks).tolist()
  for row, (seed, length) in enumerate(zip(table.seeds, lengths, strict=True)):
    prompt[row, -length:] = stages.initial_prompts(experiment, [seed], length)[
        0
    ]
  return dataclasses.replace(table, prompt=prompt)


def start_table(
    experiment: Experiment, tuned: Table, winners: Table
) -> tuple[Table | None, list[dict[str, Any]]]:
  """Where the controls that are trained start, all in one table.

  Args:
    experiment: what is loaded.
    tuned: R tuned prompts.
    winners: the ticket of each, row for row.

  Returns:
    The table, None without such a control, and what is left out and why.
  """
  parts: list[Table] = []
  left_out: list[dict[str, Any]] = []
  for control in experiment.config.search.controls:
    if control == NO_REWIND:
      continue
    rows = []
    for row, ticket in enumerate(winners.tickets):
      reason = _why_not(experiment, control, winners.take([row]))
      if reason is None:
        rows.append(row)
        continue
      task = {} if ticket.task is None else {"task": ticket.task}
      left_out.append(
          {"method": control, **task, "seed": ticket.seed, "reason": reason}
      )
    if rows:
      table = _control_table(
          experiment, control, tuned.take(rows), winners.take(rows)
      )
      start = _fresh if control == LENGTH else stages.rewound
      parts.append(start(experiment, table.untrained))
  return tickets.concatenate(parts) if parts else None, left_out


def _run_no_rewind(
    experiment: Experiment, tuned: Table, winners: Table
) -> Table:
  """The tuned prompts behind the winners' masks, evaluated."""
  table = dataclasses.replace(
      winners,
      tickets=tuple(
          dataclasses.replace(ticket, control=NO_REWIND)
          for ticket in winners.tickets
      ),
      prompt=np.asarray(masks_lib.apply_masks(tuned.prompt, winners.masks)),
      validation=(),
  )
  folder = experiment.workdir / NO_REWIND
  config = {
      **experiment.stage_config,
      "prompt": artifacts.digest_arrays({"prompt": table.prompt}),
      "masks": artifacts.digest_arrays(masks_lib.as_arrays(table.masks)),
  }
  result = artifacts.finished_result(folder, config)
  if result is None:
    started = time.monotonic()
    found = experiment.evaluate(
        "validation", table.prompt, table.masks, table.tasks
    )
    table = dataclasses.replace(table, validation=tuple(found))
    result = {
        "config": config,
        "rows": tickets.ticket_lines(table),
        "seconds": round(time.monotonic() - started, 3),
    }
    artifacts.write_json(folder / artifacts.RESULT, result)
  validation = tuple(row["validation"] for row in result["rows"])
  return dataclasses.replace(table, validation=validation)


def run_controls(
    experiment: Experiment, tuned: Table, winners: Table
) -> tuple[dict[str, Table], list[dict[str, Any]]]:
  """Trains and evaluates the configured controls of the final tickets.

  Args:
    experiment: what is loaded.
    tuned: R tuned prompts.
    winners: the ticket of each, row for row.

  Returns:
    The rows of each control, and a line for each row that is left out: its
    `method`, `seed` and the `reason`.
  """
  start, left_out = start_table(experiment, tuned, winners)
  found: dict[str, Table] = {}
  trained = start and stages.run_training(experiment, FOLDER, start)
  for control in experiment.config.search.controls:
    if control == NO_REWIND:
      found[control] = _run_no_rewind(experiment, tuned, winners)
    elif trained is not None:
      rows = [
          row
          for row, ticket in enumerate(trained.tickets)
          if ticket.control == control
      ]
      if rows:
        found[control] = trained.take(rows)
  return found, left_out
