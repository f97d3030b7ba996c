"""From the model's text to what the metrics compare: T5's rules, plain Python.

The token cache names these functions, and evaluation imports them on machines
that have no TensorFlow. seqio's calling convention: a function gets the text,
`example` (the task's other fields) and `is_target`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

# No class has this id, so it matches no label.
INVALID = -1

# Words that name nobody: "the cat" and "my cat" both mean "cat".
_DETERMINERS = frozenset(
    [
        "a",
        "an",
        "each",
        "every",
        "few",
        "her",
        "his",
        "many",
        "much",
        "my",
        "our",
        "some",
        "that",
        "the",
        "their",
        "these",
        "this",
        "those",
        "which",
        "whose",
        "your",
    ]
)


def class_id(
    text: str,
    *,
    labels: Sequence[str],
    example: Mapping[str, Any] | None = None,
    is_target: bool = False,
) -> int:
  """Returns the class the text names exactly, or -1 if it names none."""
  del example, is_target
  return labels.index(text) if text in labels else INVALID


def grouped_class_id(
    text: str,
    *,
    labels: Sequence[str],
    field: str,
    rows_per_group: int = 1,
    example: Mapping[str, Any],
    is_target: bool = False,
) -> dict[str, int]:
  """Returns the class the text names, and which group of rows it counts in.

  MultiRC's answers are grouped by question, and AX-g's rows by minimal pair.

  Args:
    text: what the model said.
    labels: names of the classes.
    field: which of the example's numbers says the group.
    rows_per_group: how many numbers in a row belong together.
    example: has `field`.
    is_target: makes no difference.

  Returns:
    `group`, and `value`: the class, -1 for a text that names none.
  """
  del is_target
  return {
      "group": int(example[field]) // rows_per_group,
      "value": class_id(text, labels=labels),
  }


def answer_text(
    text: str,
    *,
    example: Mapping[str, Any],
    is_target: bool = False,
) -> str | list[str]:
  """Returns the text itself; as the target, all `answers` of the example."""
  if not is_target:
    return text
  return [
      answer.decode("utf-8") if isinstance(answer, bytes) else str(answer)
      for answer in example["answers"]
  ]


def referent_match(
    text: str,
    *,
    example: Mapping[str, Any],
    is_target: bool = False,
) -> int:
  """Returns for WSC whether the text names the row's referent, as T5 decides.

  Case and determiners do not count, and one name may have words that the other
  lacks ("fuzzy bunny" is the "bunny"); but a possessive is another thing than
  its owner.

  Args:
    text: what the model said.
    example: has `targets_pretokenized`, the referent, and `label`.
    is_target: return the label, which says if the pronoun means the referent.

  Returns:
    1 or 0; -1 for a text that names nothing, which equals no label.
  """
  if is_target:
    return int(example["label"])
  predicted = _named(text)
  if not predicted:
    return INVALID
  referent = example["targets_pretokenized"]
  if isinstance(referent, bytes):  # As seqio's own evaluator has it.
    referent = referent.decode("utf-8")
  meant = _named(referent)
  if ("'" in predicted) != ("'" in meant):
    return 0
  said, wanted = set(predicted.split(" ")), set(meant.split(" "))
  return int(said <= wanted or wanted <= said)


def _named(text: str) -> str:
  words = text.strip().lower().split(" ")
  return " ".join(word for word in words if word not in _DETERMINERS)
