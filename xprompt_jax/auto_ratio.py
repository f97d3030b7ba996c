"""Chooses ratios without training, which the paper leaves open.

Two rules, each for tokens first and then for the pieces behind their masks:

- `scores`: the units before the knee of the sorted scores' cumulative curve,
  from the importance scores alone;
- `loss`: the ratio of the search space, or 0, whose masked prompt has the
  lowest training loss, nothing retrained.

Either may choose to prune nothing.

The tickets chosen are trained once, all rules, granularities and seeds in one
table, where the search trains one for each ratio.
"""

from collections.abc import Mapping
import dataclasses
import time
from typing import Any

import numpy as np

from xprompt_jax import artifacts, scoring, stages, tickets
from xprompt_jax import masks as masks_lib
from xprompt_jax.experiment import Experiment
from xprompt_jax.tickets import Table

FOLDER = "auto_ratio"
RULES = ("scores", "loss")
# The table in which the tickets are trained.
_TRAINED = "tickets"
# Distances from the diagonal that differ by rounding are equal.
_DIGITS = 12


def knee_ratio(scores: np.ndarray) -> float:
  """The share of units before the knee of the cumulative curve.

  Scores are sorted, lowest first. The knee is where the share of units is
  furthest ahead of their share of the total score (the largest distance from
  the diagonal, as in Satopaa et al. 2011), which is where scores reach their
  mean. It has no threshold to choose, and the scale of scores does not matter.

  Args:
    scores: [N] of the kept units, >= 0.

  Returns:
    A ratio in [0, 1); 0 where all scores are equal.
  """
  total, count = scores.sum(), len(scores)
  if total == 0.0:
    return 0.0
  cumulative = np.concatenate([[0.0], np.cumsum(np.sort(scores)) / total])
  ahead = np.arange(count + 1) / count - cumulative
  return int(np.round(ahead, _DIGITS).argmax()) / count


def _kept_scores(
    granularity: str, table: Table, scores: Mapping[str, np.ndarray], row: int
) -> np.ndarray:
  """The scores of the units that a row keeps: [N]."""
  mask = getattr(table.masks, f"{granularity}_mask")
  return scores[f"{granularity}_scores"][row][np.asarray(mask)[row] > 0]


def _tried_ratios(experiment: Experiment, granularity: str) -> list[float]:
  """What the losses choose among, 0 first: among equal losses it is taken."""
  return sorted({0.0, *experiment.config.search.ratios(granularity)})


def _masked_losses(
    experiment: Experiment,
    granularity: str,
    table: Table,
    scores: Mapping[str, np.ndarray],
) -> np.ndarray:
  """Training loss of each row behind the masks of each ratio: [R, ratios]."""
  ratios = _tried_ratios(experiment, granularity)
  rows = [row for row in range(len(table.tickets)) for _ in ratios]
  masks = stages.stack_masks(
      [
          stages.prune_row(experiment, granularity, table, row, ratio, scores)
          for row in range(len(table.tickets))
          for ratio in ratios
      ]
  )
  tried = table.take(rows)
  losses = scoring.loss_table(
      tried.prompt,
      masks,
      experiment.rows("train", tried.seeds, tried.tasks),
      **stages.scoring_settings(experiment),
  )
  return losses.reshape(len(table.tickets), len(ratios))


def _choices(
    experiment: Experiment,
    granularity: str,
    rules: list[str],
    table: Table,
    scores: dict[str, np.ndarray],
) -> list[dict[str, Any]]:
  """For each row its `rule`, its `ratio` and what that was chosen by."""
  ratios = _tried_ratios(experiment, granularity)
  by_loss = [row for row, rule in enumerate(rules) if rule == "loss"]
  losses = _masked_losses(
      experiment,
      granularity,
      table.take(by_loss),
      {name: array[by_loss] for name, array in scores.items()},
  )
  lines = []
  for row, (ticket, rule) in enumerate(zip(table.tickets, rules, strict=True)):
    line = {**ticket.as_json(), "rule": rule}
    if rule == "loss":
      found = losses[by_loss.index(row)]
      line["ratio"] = ratios[int(found.argmin())]
      line["losses"] = dict(zip(map(str, ratios), found.tolist(), strict=True))
    else:
      line["ratio"] = knee_ratio(_kept_scores(granularity, table, scores, row))
    lines.append(line)
  return lines


def _run_choose(
    experiment: Experiment,
    granularity: str,
    rules: list[str],
    table: Table,
    scores: dict[str, np.ndarray],
) -> list[float]:
  """The ratio of each row; writes `auto_ratio/GRANULARITY/result.json`."""
  folder = experiment.workdir / FOLDER / granularity
  search = experiment.config.search
  config = {
      **experiment.stage_config,
      "ratios": _tried_ratios(experiment, granularity),
      "piece_scope": search.piece_scope if granularity == "piece" else None,
      "prompt": artifacts.digest_arrays({"prompt": table.prompt}),
      "masks": artifacts.digest_arrays(masks_lib.as_arrays(table.masks)),
      "scores": artifacts.digest_arrays(scores),
  }
  result = artifacts.finished_result(folder, config)
  if result is None:
    started = time.monotonic()
    lines = _choices(experiment, granularity, rules, table, scores)
    result = {
        "config": config,
        "rows": lines,
        "seconds": round(time.monotonic() - started, 3),
    }
    artifacts.write_json(folder / artifacts.RESULT, result)
  return [line["ratio"] for line in result["rows"]]


def _chosen_tables(
    experiment: Experiment, rules: list[str], tuned: Table
) -> list[Table]:
  """The tickets that each rule chooses, a table for each granularity.

  Args:
    experiment: what is loaded.
    rules: the rule of each row.
    tuned: the tuned prompts, once for each rule.
  """
  once = tuned.take(range(len(tuned.tickets) // len(RULES)))
  scores = {
      name: np.concatenate([array] * len(RULES))
      for name, array in stages.run_score(experiment, "token", once).items()
  }
  levels: list[Table] = []
  table = tuned
  for granularity in experiment.config.search.granularities:
    if levels:
      folder = f"{FOLDER}/{artifacts.score_folder(granularity)}"
      scores = stages.run_score(experiment, granularity, table, folder)
    ratios = _run_choose(experiment, granularity, rules, table, scores)
    masks = [
        stages.prune_row(experiment, granularity, table, row, ratio, scores)
        for row, ratio in enumerate(ratios)
    ]
    table = dataclasses.replace(
        table,
        tickets=tuple(
            ticket.pruned(granularity, ratio)
            for ticket, ratio in zip(table.tickets, ratios, strict=True)
        ),
        masks=stages.stack_masks(masks),
    )
    levels.append(table)
  return levels


def _write_result(
    experiment: Experiment, rules: list[str], trained: Table
) -> None:
  """Evaluates the trained tickets on the splits that report."""
  folder = experiment.workdir / FOLDER
  config = {
      **experiment.stage_config,
      "prompt": artifacts.digest_arrays({"prompt": trained.prompt}),
      "masks": artifacts.digest_arrays(masks_lib.as_arrays(trained.masks)),
      "test": experiment.split_fingerprints("heldout", "test"),
  }
  if artifacts.finished_result(folder, config) is not None:
    return
  started = time.monotonic()
  granularities = experiment.config.search.granularities
  lines = tickets.ticket_lines(trained)
  for row, line in enumerate(lines):
    granularity = granularities[row // len(rules)]
    line["granularity"] = granularity
    line["rule"] = rules[row % len(rules)]
    line["ratio"] = line[f"{granularity}_ratio"]
  for role in ("heldout", "test"):
    if role in experiment.splits:
      found = experiment.evaluate(
          role, trained.prompt, trained.masks, trained.tasks
      )
      for line, metrics in zip(lines, found, strict=True):
        line[role] = metrics
  # The stages that chose and trained stand in folders of their own.
  parts = [
      artifacts.read_json(path)["seconds"]
      for path in sorted(folder.glob(f"*/{artifacts.RESULT}"))
  ]
  seconds = sum(parts) + time.monotonic() - started
  result = {"config": config, "rows": lines, "seconds": round(seconds, 3)}
  artifacts.write_json(folder / artifacts.RESULT, result)


def run_auto_ratio(experiment: Experiment, tuned: Table) -> dict[str, Table]:
  """Chooses, trains and evaluates tickets whose ratios no training chose.

  Writes `WORKDIR/auto_ratio/result.json`; docs/files.md describes it. Does
  nothing unless it is configured.

  Args:
    experiment: what is loaded.
    tuned: R tuned prompts.

  Returns:
    The R tickets of each rule at the finest granularity, as methods
    `auto_scores` and `auto_loss`.
  """
  if not experiment.config.search.auto_ratio:
    return {}
  count = len(tuned.tickets)
  rules = [rule for rule in RULES for _ in range(count)]
  once_each = tuned.untrained.take([*range(count)] * len(RULES))
  levels = _chosen_tables(experiment, rules, once_each)
  start = stages.rewound(experiment, tickets.concatenate(levels))
  trained = stages.run_training(experiment, f"{FOLDER}/{_TRAINED}", start)
  _write_result(experiment, rules, trained)
  finest = len(trained.tickets) - len(rules)
  return {
      f"auto_{rule}": trained.take(
          range(finest + i * count, finest + (i + 1) * count)
      )
      for i, rule in enumerate(RULES)
  }
