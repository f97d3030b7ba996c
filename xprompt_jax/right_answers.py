"""Which examples a row answers right.

What counts is the task's own share (accuracy, MultiRC's em by question) of one
example alone; F1 and correlations have no such thing. `correctness.py` keeps
what is found here.
"""

from collections.abc import Mapping, Sequence
import dataclasses

from jaxtyping import UInt8
import numpy as np

from xprompt_jax import counts
from xprompt_jax.mixtures import MixedSplit
from xprompt_jax.token_cache import CachedSplit

# Which metric counts where a task has several; the first that there is.
_SHARES = ("accuracy", "em")


def _units(split: CachedSplit, metric: str) -> list[list[int]]:
  """Places of the examples that count together: a question's answers, or one."""
  if metric != "em":
    return [[i] for i in range(len(split))]
  groups: dict[object, list[int]] = {}
  for i, target in enumerate(split.targets_for_metrics()):
    grouped = isinstance(target, Mapping) and "group" in target
    groups.setdefault(target["group"] if grouped else ("alone", i), []).append(
        i
    )
  return list(groups.values())


def right_answers(
    split: CachedSplit, texts: Sequence[Sequence[str]]
) -> UInt8[np.ndarray, "R N"] | None:
  """Which examples of a split each row answers right.

  Args:
    split: what all rows read.
    texts: for each row its predictions, in the order of the split.

  Returns:
    [R, N], 1 where the share of the example alone is 100. N counts examples;
    where the share is MultiRC's em, questions, in the order they first stand
    in. The members of a mixture follow one another. None where the task, or a
    member, has no share.
  """
  if isinstance(split, MixedSplit):
    parts, start = [], 0
    for member in split.members:
      end = start + len(member)
      part = right_answers(member, [row[start:end] for row in texts])
      if part is None:
        return None
      parts.append(part)
      start = end
    return np.concatenate(parts, axis=1)
  metric = next((n for n in _SHARES if n in split.metric_sizes()), None)
  if metric is None:
    return None
  # Other metrics may have nothing to say of one example.
  functions = [
      described
      for described in split.info["metrics"]
      if metric in counts.metric_sizes((), [described])
  ]
  rows: list[list[bool]] = [[] for _ in texts]
  for unit in _units(split, metric):
    alone = dataclasses.replace(
        split,
        examples=[split.examples[i] for i in unit],
        info={**split.info, "metrics": functions},
    )
    for row, predicted in zip(rows, texts, strict=True):
      said = [split.postprocess(predicted[i], i) for i in unit]
      row.append(alone.compute_metrics(said)[metric] == 100.0)
  return np.array(rows, np.uint8)
