"""Predictions of SuperGLUE's test splits as the leaderboard's files.

One JSONL file a task, named and written as the leaderboard asks
(super.gluebenchmark.com, FAQ): one object for each row with `idx` and `label`,
for MultiRC one for each passage. Plain Python over the token cache's examples:
predictions come from `evaluation`, and `commands` says where to write.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import os
import pathlib
from typing import Any

from xprompt_jax import artifacts
from xprompt_jax.types import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Submission:
  """One file: where, how many predictions, how many of them were malformed.

  `replacement` is the label that stands in the place of those.
  """

  path: pathlib.Path
  num_predictions: int
  num_malformed: int
  replacement: str | int | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Format:
  """The file of a task: its name, how many predictions, a class's label.

  `passages` is how many of them the predictions are on, where rows nest.
  The leaderboard knows labels alone, so a malformed prediction is written as
  `malformed`: a class that claims nothing. ReCoRD has texts and no labels.
  """

  file: str
  count: int
  passages: int | None = None
  labels: tuple[str | int, ...] = ()
  malformed: int = 0


_LOWER = ("false", "true")
_ENTAILMENT = ("entailment", "not_entailment")
# The number of rows of the official test splits; answers for MultiRC, queries
# for ReCoRD.
FORMATS = {
    "boolq": _Format(file="BoolQ.jsonl", count=3_245, labels=_LOWER),
    "cb": _Format(
        file="CB.jsonl",
        count=250,
        labels=("entailment", "contradiction", "neutral"),
        malformed=2,
    ),
    "copa": _Format(file="COPA.jsonl", count=500, labels=(0, 1)),
    "multirc": _Format(
        file="MultiRC.jsonl", count=9_693, passages=166, labels=(0, 1)
    ),
    "record": _Format(file="ReCoRD.jsonl", count=10_000, passages=7_484),
    "rte": _Format(
        file="RTE.jsonl", count=3_000, labels=_ENTAILMENT, malformed=1
    ),
    "wic": _Format(file="WiC.jsonl", count=1_400, labels=_LOWER),
    "wsc": _Format(file="WSC.jsonl", count=146, labels=("False", "True")),
    "axb": _Format(
        file="AX-b.jsonl", count=1_104, labels=_ENTAILMENT, malformed=1
    ),
    "axg": _Format(
        file="AX-g.jsonl", count=356, labels=_ENTAILMENT, malformed=1
    ),
}
# T5's names of the same tasks.
_T5_NAMES = {
    f"super_glue_{name}_v102": name for name in FORMATS if name != "wsc"
} | {f"super_glue_wsc_v102_simple{ending}": "wsc" for ending in ("", "_eval")}


def check_task(task: str) -> None:
  """Refuses a task that the leaderboard does not know.

  Raises:
    UserError: names it and those that are known.
  """
  if _T5_NAMES.get(task, task) not in FORMATS:
    raise UserError(
        f"task {task}: has no file on SuperGLUE's leaderboard, expected one of"
        f" {', '.join(FORMATS)}"
    )


def check_split(
    task: str, examples: Sequence[Mapping[str, Any]]
) -> list[tuple[int, ...]]:
  """Refuses what the leaderboard does not take, whatever is predicted.

  Args:
    task: as for `write_submission`.
    examples: likewise.

  Returns:
    The official numbers of the rows.

  Raises:
    UserError: the task has no file on the leaderboard, or the examples are not
      the whole test split, each row once, under its official number.
  """
  check_task(task)
  expected = FORMATS[_T5_NAMES.get(task, task)]
  ids = [_row_id(example) for example in examples]
  if len(ids) != expected.count or len(set(ids)) != len(ids):
    raise UserError(
        f"task {task}: found {len(set(ids)):,} ids in {len(ids):,} examples,"
        f" expected each of the {expected.count:,} rows of the official test"
        " split once"
    )
  passages = len({number[0] for number in ids})
  if expected.passages not in (None, passages):
    raise UserError(
        f"task {task}: found {passages:,} passages, expected the"
        f" {expected.passages:,} of the official test split"
    )
  check_numbers(ids, f"task {task}")
  return ids


def check_numbers(ids: Sequence[tuple[int, ...]], where: str) -> None:
  """Refuses ids that are not the official ones, which count from 0.

  Nested ones run through the whole split: each passage, question and answer has
  a number of its own.

  Args:
    ids: of a split's rows, from the outermost number to the row's own.
    where: what holds them, for the message.

  Raises:
    UserError: names the first id that does not follow the one before.
  """
  for depth in range(1, len(ids[0]) + 1 if ids else 0):
    parts = {number[:depth] for number in ids}
    for expected, part in enumerate(sorted(parts, key=lambda p: p[::-1])):
      if part[-1] != expected:
        raise UserError(
            f"{where}: found idx {'-'.join(map(str, part))} in the place of"
            f" {expected}, expected the official rows, whose numbers run from 0"
            f" to {len(parts) - 1}"
        )


def write_submission(
    *,
    task: str,
    examples: Sequence[Mapping[str, Any]],
    predictions: Sequence[Any],
    folder: str | os.PathLike[str],
) -> Submission:
  """Writes the file of one task, whole or not at all.

  Args:
    task: seqio name, T5's or the one without the task's name in front.
    examples: the test split's, as the token cache has them: `fields` holds
      their ids.
    predictions: postprocessed, one for each example: a class id or -1; for
      MultiRC and AX-g a mapping with it as `value`; for ReCoRD a text.
    folder: made if it is not there.

  Raises:
    UserError: the task has no file on the leaderboard, or the examples are not
      the whole test split, each row once.
  """
  ids = check_split(task, examples)
  name = _T5_NAMES.get(task, task)
  expected = FORMATS[name]
  if len(predictions) != len(examples):
    raise ValueError(
        f"{len(predictions)} predictions, {len(examples)} examples"
    )
  values = [p["value"] if isinstance(p, Mapping) else p for p in predictions]
  labels = {
      number: _label(expected, value)
      for number, value in zip(ids, values, strict=True)
  }
  path = pathlib.Path(os.path.expanduser(folder)) / expected.file
  path.parent.mkdir(parents=True, exist_ok=True)
  artifacts.write_json_lines(
      path, _passages(labels) if name == "multirc" else _lines(labels)
  )
  return Submission(
      path=path,
      num_predictions=len(values),
      num_malformed=sum(value == -1 for value in values),
      replacement=expected.labels[expected.malformed]
      if expected.labels
      else None,
  )


def _row_id(example: Mapping[str, Any]) -> tuple[int, ...]:
  """Returns `(idx,)`, or the nested numbers from the outermost to the row's."""
  fields = example["fields"]
  for names in (
      ("idx",),
      ("idx/paragraph", "idx/question", "idx/answer"),
      ("idx/passage", "idx/query"),
  ):
    if all(name in fields for name in names):
      return tuple(int(fields[name]) for name in names)
  raise UserError(
      f"example {example['id']}: has no idx, expected the official rows'"
  )


def _label(expected: _Format, value: Any) -> str | int:
  if not expected.labels:
    return str(value)
  return expected.labels[expected.malformed if value == -1 else value]


def _lines(labels: Mapping[tuple[int, ...], Any]) -> list[dict[str, Any]]:
  """Returns one object for each row; ReCoRD's go by their query alone."""
  return [
      {"idx": number[-1], "label": label}
      for number, label in sorted(labels.items())
  ]


def _passages(labels: Mapping[tuple[int, ...], Any]) -> list[dict[str, Any]]:
  """Returns MultiRC's answers under their questions, under their passages."""
  nested: dict[int, dict[int, list[dict[str, Any]]]] = {}
  for (passage, question, answer), label in sorted(labels.items()):
    answers = nested.setdefault(passage, {}).setdefault(question, [])
    answers.append({"idx": answer, "label": label})
  return [
      {
          "idx": passage,
          "passage": {
              "questions": [
                  {"idx": question, "answers": answers}
                  for question, answers in questions.items()
              ]
          },
      }
      for passage, questions in nested.items()
  ]
