"""Metrics of the tasks in plain numpy, T5's names and scale: 0 to 100.

The token cache names these functions; evaluation imports them on machines that
have no TensorFlow.
"""

from collections.abc import Sequence

import numpy as np


def accuracy(
    targets: Sequence[int], predictions: Sequence[int]
) -> dict[str, float]:
  """Returns the percentage of predictions that equal their target."""
  equal = np.asarray(targets) == np.asarray(predictions)
  return {"accuracy": 100.0 * float(np.mean(equal))}


def mean_3class_f1(
    targets: Sequence[int], predictions: Sequence[int]
) -> dict[str, float]:
  """Returns the unweighted mean of the three classes' F1, as a percentage.

  Always three classes (CB's): one that occurs neither among the targets nor
  among the predictions counts as 0. An invalid prediction (-1) misses its
  target and belongs to no class.
  """
  true, named = np.asarray(targets), np.asarray(predictions)
  scores = []
  for label in range(3):
    hits = np.sum((true == label) & (named == label))
    counted = np.sum(true == label) + np.sum(named == label)
    # F1 = 2 tp / (2 tp + fp + fn), and the denominator counts both sides.
    scores.append(2.0 * hits / counted if counted else 0.0)
  return {"mean_3class_f1": 100.0 * float(np.mean(scores))}
