"""The `heldout` protocol: one half of validation selects, the other reports.

A checkpoint and a ticket that were chosen on validation look better there than
they are. The division is a pure function of the examples' ids and of the texts
that they share, so it is the same on every machine and for every seed.
"""

from collections.abc import Mapping, Sequence
import hashlib
import re
from typing import Any

import numpy as np

from xprompt_jax import mixtures
from xprompt_jax.mixtures import MixedSplit
from xprompt_jax.token_cache import CachedSplit
from xprompt_jax.types import UserError

# What examples share that belong together, the widest first: a paragraph has
# questions, a question has answers.
_TOGETHER = ("idx/paragraph", "idx/passage", "idx/question", "idx/query")
# BoolQ, RTE, CB and WSC number no passages: the text of the input itself tells
# them apart.
_LONG_TEXT = re.compile(
    r"(?:^|\s)(passage|premise|paragraph): (.*?)(?=\squestion: |$)", re.DOTALL
)
# WSC marks the pronoun, which differs among examples of one text.
_NOT_COUNTED = re.compile(r"[\s*]")


def _digest(example: Mapping[str, Any]) -> str:
  return hashlib.sha256(str(example["id"]).encode()).hexdigest()


def _shared(example: Mapping[str, Any]) -> list[tuple[str, str]]:
  """What ties an example to others; metrics may group by their target's."""
  found = []
  fields, target = example["fields"], example["target"]
  name = next((name for name in _TOGETHER if name in fields), None)
  if name is not None:
    found.append((name, str(fields[name])))
  if "inputs_pretokenized" in example:
    text = example["inputs_pretokenized"]
    long_text = _LONG_TEXT.search(text)
    shared = long_text.group(2) if long_text else text
    found.append(("text", _NOT_COUNTED.sub("", shared)))
  if isinstance(target, Mapping) and "group" in target:
    found.append(("group", str(target["group"])))
  return found


def groups(examples: Sequence[Mapping[str, Any]]) -> list[list[int]]:
  """Places of the examples that must stay together, in a fixed order.

  Those are the answers to a question, and what is asked of one passage, premise
  or paragraph; where the input names none, of one input (WSC's text).

  Args:
    examples: as `CachedSplit.examples`.

  Returns:
    Groups by the least sha256 of their examples' ids; each in the order of the
    split. Examples that share nothing are groups of one.
  """
  parent = list(range(len(examples)))

  def root(i: int) -> int:
    while parent[i] != i:
      parent[i] = parent[parent[i]]
      i = parent[i]
    return i

  first: dict[tuple[str, str], int] = {}
  for i, example in enumerate(examples):
    for key in _shared(example):
      parent[root(i)] = root(first.setdefault(key, i))
  members: dict[int, list[int]] = {}
  for i in range(len(examples)):
    members.setdefault(root(i), []).append(i)
  digests = [_digest(example) for example in examples]
  return sorted(
      members.values(), key=lambda group: min(digests[i] for i in group)
  )


def divide(split: CachedSplit) -> tuple[CachedSplit, CachedSplit]:
  """The half that selects and the half that is only reported.

  Groups go, one after another, to the half that is smaller so far (to the first
  where both are equal): sizes differ by at most the largest group.

  Args:
    split: validation; of a mixture each member is divided.

  Raises:
    UserError: all examples stand in one group.
  """
  if isinstance(split, MixedSplit):
    pairs = [divide(member) for member in split.members]
    selects, reports = (
        mixtures.mix(split.task, members, split.rates)
        for members in zip(*pairs, strict=True)
    )
    return selects, reports
  found = groups(split.examples)
  if len(found) < 2:
    raise UserError(
        f"PROTOCOL = 'heldout': task {split.task}, split {split.split}: found"
        f" {len(found)} group of examples that share a question or passage,"
        " expected two or more to divide"
    )
  halves: tuple[list[int], list[int]] = ([], [])
  for group in found:
    halves[len(halves[1]) < len(halves[0])].extend(group)
  first, second = (
      mixtures.take(split, np.array(sorted(half), np.int64)) for half in halves
  )
  return first, second
