"""T5's text of a SuperGLUE row: what the model reads and what it should say.

The functions turn one row (`rows.py`) into one example, in plain Python. The
task's name in front, which T5 was fine-tuned with, is left out by default: a
prompt takes its place. The formats are those of T5's `super_glue_*_v102` tasks.
An example of a task with a closed set of answers carries it as `candidates`.
"""

from collections.abc import Mapping, Sequence
import re
from typing import Any

from xprompt_jax.types import UserError

# What stands for the target of a row without a label.
UNLABELLED_TARGET = "<unk>"

Example = dict[str, Any]


def classification(
    row: Mapping[str, Any],
    *,
    fields: Sequence[str],
    labels: Sequence[str],
    name: str = "",
) -> Example:
  """Returns `field: text field: text` and the label's name.

  Args:
    row: text fields, `idx` or its nested parts, and `label` as a class id or
      -1.
    fields: which fields, in the order of the text.
    labels: names of the classes.
    name: T5's task name, to stand in front; empty leaves it out.
  """
  parts = [name] if name else []
  for field in fields:
    parts += [f"{field}:", row[field]]
  label = row["label"]
  return {
      "inputs": " ".join(parts),
      "targets": labels[label] if label >= 0 else UNLABELLED_TARGET,
      **_ids(row),
      "label": label,
      "candidates": list(labels),
  }


def multirc(
    row: Mapping[str, Any],
    *,
    fields: Sequence[str],
    labels: Sequence[str],
    name: str = "",
) -> Example:
  """Returns what `classification` does, without MultiRC's HTML tags.

  The paragraphs of the older release number their sentences with `<b>` and
  part them with `<br>`; a few of today's texts still hold tags.
  """
  example = classification(row, fields=fields, labels=labels, name=name)
  spaced = example["inputs"].replace("<br>", " ")
  example["inputs"] = re.sub("</?b>", "", spaced)
  return example


def diagnostic(
    row: Mapping[str, Any],
    *,
    labels: Sequence[str],
    name: str = "",
) -> Example:
  """Returns AX-b's sentences as RTE's premise and hypothesis."""
  return classification(
      {**row, "premise": row["sentence1"], "hypothesis": row["sentence2"]},
      fields=("hypothesis", "premise"),
      labels=labels,
      name=name,
  )


def record(row: Mapping[str, Any], *, name: str = "") -> Example:
  """Returns `query: Q entities: A, B passage: P` and one answer.

  The target is the row's `answer`, or the first of its `answers`; evaluation
  compares with all of them. A highlight becomes a sentence of the passage.

  Args:
    row: `query`, `entities`, `passage`, `answers`, `idx/passage`, `idx/query`;
      for training also `answer` and `idx/answer`.
    name: T5's task name, to stand in front; empty leaves it out.
  """
  answers = row["answers"]
  passage = re.sub(r"([.?!\"'])\n@highlight\n", r"\1 ", row["passage"])
  passage = passage.replace("\n@highlight\n", ". ")
  parts = [name] if name else []
  parts += ["query:", row["query"], "entities:", ", ".join(row["entities"])]
  return {
      "inputs": " ".join([*parts, "passage:", passage]),
      "targets": row.get("answer") or next(iter(answers), UNLABELLED_TARGET),
      **_ids(row),
      "answers": list(answers),
      "candidates": list(row["entities"]),
  }


def _ids(row: Mapping[str, Any]) -> dict[str, int]:
  return {
      name: value
      for name, value in row.items()
      if name == "idx" or name.startswith("idx/")
  }


def wsc(row: Mapping[str, Any], *, name: str = "") -> Example:
  """Returns the text with its pronoun between asterisks, and the referent.

  The target is span 1 whether or not the pronoun means it; `label` says so.

  Args:
    row: `text`, `span1_text`, `span2_text`, `span2_index`, `idx`, `label`.
    name: T5's task name, to stand in front; empty leaves it out.

  Raises:
    UserError: the pronoun is not in the text.
  """
  marked = _mark_pronoun(row)
  return {
      "inputs": f"{name}: {marked}" if name else marked,
      "targets": row["span1_text"],
      "idx": row["idx"],
      "label": row["label"],
  }


def _mark_pronoun(row: Mapping[str, Any]) -> str:
  words = row["text"].split(" ")
  pronoun, index = row["span2_text"], row["span2_index"]
  if not 0 <= index < len(words):
    raise UserError(
        f"WSC row {row['idx']}: span2_index is {index}, expected a word of a"
        f" text of {len(words)}"
    )
  if words[index] == pronoun:
    words[index] = f"*{pronoun}*"
    return " ".join(words)
  # Four official rows: three write `him,"` in one word (T5 parts it), in one
  # the index misses the pronoun by one word.
  rest = words[index].removeprefix(pronoun)
  if rest != words[index] and not rest[0].isalnum():
    words[index] = f"*{pronoun}* {rest}"
    return " ".join(words).rstrip()
  places = [i for i, word in enumerate(words) if word == pronoun]
  if not places:
    raise UserError(
        f"WSC row {row['idx']}: word {index} of the text is {words[index]!r},"
        f" expected span2_text {pronoun!r}"
    )
  words[min(places, key=lambda i: abs(i - index))] = f"*{pronoun}*"
  return " ".join(words)
