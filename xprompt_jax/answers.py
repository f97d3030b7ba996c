"""What the rows of a table answer, by every way that their splits allow.

PREDICT_BY selects checkpoints and tickets by one way; final rows are measured
by all of them here, once. The stages and `t5x eval` turn the answers into
results, votes among rows and submissions.
"""

import collections
from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any

from jax import Array
import numpy as np

from xprompt_jax import candidates, counts, evaluation, right_answers
from xprompt_jax import masks as masks_lib
from xprompt_jax.experiment import Experiment
from xprompt_jax.mixtures import MixedSplit
from xprompt_jax.tables import TableRows
from xprompt_jax.task_config import HELDOUT
from xprompt_jax.token_cache import CachedSplit
from xprompt_jax.types import PromptMasks


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answers:
  """Predictions of R rows on their splits.

  Attributes:
    predict_by: the way that counts.
    splits: what each row read.
    texts: by way and row, N predictions; rows that a way is not possible for
      are left out.
    scores: by way and row, [N, C] nats of the candidates.
    not_possible: by way and row, why.
    partial: by way and row, the metrics of those members of a mixture that the
      way is possible for, where it is not for all. They have no score, which
      would be that of another mixture.
  """

  predict_by: str
  splits: tuple[CachedSplit, ...]
  texts: Mapping[str, Mapping[int, list[str]]]
  scores: Mapping[str, Mapping[int, np.ndarray]]
  not_possible: Mapping[str, Mapping[int, str]]
  partial: Mapping[str, Mapping[int, dict[str, float]]]

  def result(self, row: int) -> dict[str, float]:
    """The metrics of one row by the way that counts."""
    return evaluation.measure(
        self.splits[row], self.texts[self.predict_by][row]
    )

  def by_other_ways(self, row: int) -> dict[str, dict[str, float]]:
    """The metrics of one row by the other ways that are possible.

    Of a mixture, those of the members that a way is possible for.
    """
    found: dict[str, dict[str, float]] = {}
    for way, texts in self.texts.items():
      if way == self.predict_by:
        continue
      if row in texts:
        found[way] = evaluation.measure(self.splits[row], texts[row])
      elif row in self.partial.get(way, {}):
        found[way] = self.partial[way][row]
    return found

  def reasons(self, row: int) -> dict[str, str]:
    """Why the ways that are missing are not possible."""
    return {
        way: found[row]
        for way, found in self.not_possible.items()
        if row in found
    }


def answer(
    experiment: Experiment,
    rows: TableRows,
    prompt: np.ndarray | Array,
    masks: PromptMasks,
    ways: Sequence[str] = evaluation.WAYS,
) -> Answers:
  """Predicts every example of every row.

  Args:
    experiment: what is loaded.
    rows: the split of each row.
    prompt: [R, P, H], unmasked.
    masks: [R, P] and [R, P, K].
    ways: which ways to predict by, apart from PREDICT_BY.

  Raises:
    UserError: PREDICT_BY is not possible.
  """
  predict_by = experiment.config.predict_by
  texts: dict[str, dict[int, list[str]]] = {}
  scores: dict[str, dict[int, np.ndarray]] = {}
  not_possible: dict[str, dict[int, str]] = {}
  partial: dict[str, dict[int, dict[str, float]]] = {}
  for way in dict.fromkeys((predict_by, *ways)):
    if way == evaluation.GENERATE:
      found = evaluation.predict_table(
          prompt,
          masks,
          rows,
          **experiment.predicting,
          num_beams=experiment.config.num_beams,
      )
      texts[way] = dict(enumerate(found))
      continue
    not_possible[way] = _not_possible(experiment, rows, way)
    if way == predict_by:
      for split in rows.splits:
        candidates.check_possible(way, split, experiment.vocabulary)
    kept = [r for r in range(len(rows.splits)) if r not in not_possible[way]]
    scores[way] = _scores(experiment, rows, prompt, masks, way, kept)
    texts[way] = {
        row: candidates.best(rows.splits[row], found)
        for row, found in scores[way].items()
    }
    partial[way] = _partial(experiment, rows, prompt, masks, way)
  return Answers(
      predict_by=predict_by,
      splits=rows.splits,
      texts=texts,
      scores=scores,
      not_possible=not_possible,
      partial=partial,
  )


def _not_possible(
    experiment: Experiment, rows: TableRows, way: str
) -> dict[int, str]:
  """By row, why it cannot be predicted in a way."""
  why = {
      id(split): candidates.why_not(way, split, experiment.vocabulary)
      for split in rows.splits
  }
  reasons = [why[id(split)] for split in rows.splits]
  return {row: reason for row, reason in enumerate(reasons) if reason}


def _partial(
    experiment: Experiment,
    rows: TableRows,
    prompt: np.ndarray | Array,
    masks: PromptMasks,
    way: str,
) -> dict[int, dict[str, float]]:
  """Metrics of rows whose mixture has members that a way is possible for."""
  allowed: dict[int, CachedSplit] = {}
  for split in dict.fromkeys(rows.splits):
    if not isinstance(split, MixedSplit):
      continue
    members = [
        member
        for member in split.members
        if not candidates.why_not(way, member, experiment.vocabulary)
    ]
    if 0 < len(members) < len(split.members):
      allowed[id(split)] = split.only(members)
  found = _scores(
      experiment,
      dataclasses.replace(
          rows,
          splits=tuple(allowed.get(id(split), split) for split in rows.splits),
      ),
      prompt,
      masks,
      way,
      [row for row, split in enumerate(rows.splits) if id(split) in allowed],
  )
  measured = {}
  for row, scores in found.items():
    split = allowed[id(rows.splits[row])]
    metrics = evaluation.measure(split, candidates.best(split, scores))
    measured[row] = {k: v for k, v in metrics.items() if k != "score"}
  return measured


def _scores(
    experiment: Experiment,
    rows: TableRows,
    prompt: np.ndarray | Array,
    masks: PromptMasks,
    way: str,
    kept: Sequence[int],
) -> dict[int, np.ndarray]:
  """The candidates' scores of those rows that a way is possible for."""
  if not kept:
    return {}
  index = np.array(kept, np.int64)
  found = candidates.score_table(
      np.asarray(prompt)[index],
      masks_lib.take_rows(masks, index),
      dataclasses.replace(
          rows,
          seeds=tuple(rows.seeds[row] for row in kept),
          splits=tuple(rows.splits[row] for row in kept),
      ),
      way,
      **experiment.predicting,
  )
  return dict(zip(kept, found, strict=True))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finals:
  """What is said of final rows.

  Attributes:
    lines: for each row `heldout` and `test` (if configured) as
      `Experiment.evaluate` gives them, and what docs/files.md has under `ways`,
      `not_possible`, `other_tasks` and `metric_sizes`.
    right: by split that reports, what each row answers right; see
      `right_answers`.
  """

  lines: list[dict[str, Any]]
  right: Mapping[str, Sequence[np.ndarray | None]]

  def rows(self, start: int, stop: int) -> "Finals":
    """Some rows, one after another."""
    return Finals(
        lines=self.lines[start:stop],
        right={role: rows[start:stop] for role, rows in self.right.items()},
    )


def join(parts: Sequence[Finals]) -> Finals:
  """The rows of several, one after another."""
  return Finals(
      lines=[line for part in parts for line in part.lines],
      right={
          role: [row for part in parts for row in part.right[role]]
          for role in parts[0].right
      },
  )


def finals(
    experiment: Experiment,
    prompt: np.ndarray | Array,
    masks: PromptMasks,
    tasks: Sequence[str | None],
) -> Finals:
  """Measures final rows on the splits that report.

  Those are the held-out half and test, or validation where there is neither.
  Every way is measured on the last of them.

  Args:
    experiment: what is loaded.
    prompt: [R, P, H], unmasked.
    masks: [R, P] and [R, P, K].
    tasks: R tasks, as for `Experiment.rows`.
  """
  roles = [role for role in (HELDOUT, "test") if role in experiment.splits]
  seeds = [experiment.config.seeds[0]] * len(tasks)
  lines: list[dict[str, Any]] = [{} for _ in tasks]
  right: dict[str, list[np.ndarray | None]] = {}
  sizes: list[dict[str, Any]] = [{} for _ in tasks]
  for role in roles or ["validation"]:
    last = role == (roles or ["validation"])[-1]
    rows = experiment.rows(role, seeds, tasks)
    ways = evaluation.WAYS if last else ()
    found = answer(experiment, rows, prompt, masks, ways)
    right[role] = _right(found)
    for row, line in enumerate(lines):
      result = found.result(row)
      sizes[row][role] = _sizes(rows.splits[row], result)
      if role != "validation":
        line[role] = result
        whole = experiment.data.split("validation", seeds[row], tasks[row])
        sizes[row]["validation"] = _sizes(whole, result)
      if last:
        line["ways"] = {found.predict_by: result, **found.by_other_ways(row)}
        line["not_possible"] = found.reasons(row)
        line["metric_sizes"] = sizes[row]
  for name, split in experiment.others.items():
    others = experiment.rows_of([split] * len(seeds), seeds)
    shifted = answer(experiment, others, prompt, masks, ways=())
    for row, line in enumerate(lines):
      result = shifted.result(row)
      line.setdefault("other_tasks", {})[name] = result
      line["metric_sizes"][name] = _sizes(split, result)
  return Finals(lines=lines, right=right)


def final_lines(
    experiment: Experiment,
    prompt: np.ndarray | Array,
    masks: PromptMasks,
    tasks: Sequence[str | None],
) -> list[dict[str, Any]]:
  """The lines of `finals` alone; arguments as there."""
  return finals(experiment, prompt, masks, tasks).lines


def _right(found: Answers) -> list[np.ndarray | None]:
  """What each row answers right, by the way that counts."""
  rows: list[np.ndarray | None] = [None] * len(found.splits)
  texts = found.texts[found.predict_by]
  for split in dict.fromkeys(found.splits):
    own = [row for row, read in enumerate(found.splits) if read is split]
    right = right_answers.right_answers(split, [texts[row] for row in own])
    if right is not None:
      for row, answered in zip(own, right, strict=True):
        rows[row] = answered
  return rows


def _sizes(split: CachedSplit, metrics: Mapping[str, float]) -> dict[str, int]:
  """Of how many those of the metrics are shares that are shares at all."""
  sizes = split.metric_sizes()
  return {name: sizes[name] for name in metrics if name in sizes}


def majority_vote(predictions: Sequence[Sequence[str]]) -> list[str]:
  """What most rows say of each example; ties go to the lowest row's answer.

  Args:
    predictions: for each row N texts.
  """
  voted = []
  for texts in zip(*predictions, strict=True):
    votes = collections.Counter(texts)
    most = max(votes.values())
    voted.append(next(text for text in texts if votes[text] == most))
  return voted


def with_counts(
    metrics: Mapping[str, float], split: CachedSplit
) -> dict[str, Any]:
  """Metrics, and the shares among them as {"accuracy": "74/104"}."""
  shares = counts.of_metrics(metrics, split.metric_sizes())
  return {**metrics, **({"counts": shares} if shares else {})}
