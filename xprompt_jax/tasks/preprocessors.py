"""T5's text of a SuperGLUE row: what the model reads and what it should say.

The functions turn one row (`rows.py`) into one example, in plain Python. The
task's name in front, which T5 was fine-tuned with, is left out by default: a
prompt takes its place. The formats are those of T5's `super_glue_*_v102` tasks.
"""

from collections.abc import Mapping, Sequence
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
    row: text fields, `idx`, and `label` as a class id or -1.
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
      "idx": row["idx"],
      "label": label,
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
