"""Few-shot: a handful of training examples, chosen by seed.

The choice is a pure function of the cached split, the seed and the count, so
any machine makes the same one.
"""

import json
from typing import Any

from jaxtyping import Int64
import numpy as np

from xprompt_jax import batches, mixtures
from xprompt_jax.mixtures import MixedSplit
from xprompt_jax.token_cache import CachedSplit
from xprompt_jax.types import require

# Another stream than that of the data order.
_STREAM = 2


def chosen(
    split: CachedSplit, count: int, seed: int, *, balanced: bool
) -> Int64[np.ndarray, "M"]:
  """Which examples of a split a seed chooses, in the order of the split.

  Args:
    split: N examples, with `label` among their fields or without.
    count: how many.
    seed: of the draw.
    balanced: take from each label in turn, labels in their order, until there
      are enough; a label that runs out leaves its turn to the others. Without
      labels this draws as if it were False.

  Raises:
    UserError: the split is smaller.
  """
  require(
      count <= len(split),
      "TaskConfig.few_shot",
      count,
      f"at most the {len(split)} examples of task {split.task}, split"
      f" {split.split}",
  )
  order = batches.epoch_permutation(seed, 0, len(split), stream=_STREAM)
  if balanced:
    labels = [
        _place(example["fields"].get("label", 0)) for example in split.examples
    ]
    turns = dict.fromkeys(sorted(set(labels)), 0)
    ranks = []
    for index in order.tolist():
      ranks.append((turns[labels[index]], labels[index]))
      turns[labels[index]] += 1
    order = order[sorted(range(len(order)), key=ranks.__getitem__)]
  return np.sort(order[:count])


def _place(label: Any) -> tuple[int, float, str]:
  """Tells labels apart and orders them: numbers, texts, then the rest.

  A label is whatever JSON holds: a user's task may mix kinds.
  """
  if isinstance(label, (int, float)):
    return 0, label, ""
  if isinstance(label, str):
    return 1, 0, label
  return 2, 0, json.dumps(label, sort_keys=True)


def subset(
    split: CachedSplit, count: int, seed: int, *, balanced: bool
) -> CachedSplit:
  """The examples that a seed chooses; of each member of a mixture as many.

  Args: as for `chosen`.
  """
  if isinstance(split, MixedSplit):
    members = [
        subset(member, count, seed, balanced=balanced)
        for member in split.members
    ]
    return mixtures.mix(split.task, members, split.rates)
  return mixtures.take(split, chosen(split, count, seed, balanced=balanced))
