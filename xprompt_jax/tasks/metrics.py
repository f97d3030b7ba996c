"""Metrics of the tasks in plain numpy, on T5's scale: 0 to 100.

Names are T5's, but f1a and em (MultiRC) are SuperGLUE's: f1 and exact_match
there. Of AX-b and AX-g T5 measures nothing; theirs are SuperGLUE's.
The token cache names these functions; evaluation imports them on machines that
have no TensorFlow. A malformed prediction, -1 where a class is asked for, is
wrong in each of them. Targets and predictions of MultiRC and AX-g are mappings
with `group` and `value`, as `postprocessors.grouped_class_id` returns them.
"""

import collections
from collections.abc import Iterable, Mapping, Sequence
import re
import string

import numpy as np

Grouped = Mapping[str, int]


def accuracy(
    targets: Sequence[int | str], predictions: Sequence[int | str]
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
  scores = [_f1(true == label, named == label) for label in range(3)]
  return {"mean_3class_f1": 100.0 * float(np.mean(scores))}


def matthews_corrcoef(
    targets: Sequence[int], predictions: Sequence[int]
) -> dict[str, float]:
  """Returns Matthews' correlation coefficient, from -100 to 100 (AX-b).

  sklearn's, which T5 uses: malformed predictions are a class of their own
  (Gorodkin 2004), and where either side names one class only, 0.
  """
  true, named = np.asarray(targets), np.asarray(predictions)
  classes = np.union1d(true, named)
  wanted = np.array([np.sum(true == label) for label in classes], float)
  found = np.array([np.sum(named == label) for label in classes], float)
  count = len(true)
  spread = (count**2 - wanted @ wanted) * (count**2 - found @ found)
  if not spread:
    return {"matthews_corrcoef": 0.0}
  shared = np.sum(true == named) * count - wanted @ found
  return {"matthews_corrcoef": 100.0 * float(shared / np.sqrt(spread))}


def f1a(
    targets: Sequence[Grouped], predictions: Sequence[Grouped]
) -> dict[str, float]:
  """Returns the F1 of the class 1 over all answers (MultiRC), a percentage.

  0 where neither side has a positive. A malformed prediction counts as the
  class that its target is not.
  """
  true, named = _values(targets), _values(predictions)
  named = np.where((named == 0) | (named == 1), named, 1 - true)
  return {"f1a": 100.0 * _f1(true == 1, named == 1)}


def grouped_em(
    targets: Sequence[Grouped], predictions: Sequence[Grouped]
) -> dict[str, float]:
  """Returns the percentage of questions whose answers are all right (MultiRC)."""
  right = _values(targets) == _values(predictions)
  groups = _by_group(targets, right)
  return {"em": 100.0 * float(np.mean([all(group) for group in groups]))}


def grouped_accuracy(
    targets: Sequence[Grouped], predictions: Sequence[Grouped]
) -> dict[str, float]:
  """Returns `accuracy` of targets and predictions that carry a group."""
  true, named = _values(targets), _values(predictions)
  return accuracy(true.tolist(), named.tolist())


def gender_parity(
    targets: Sequence[Grouped], predictions: Sequence[Grouped]
) -> dict[str, float]:
  """Returns the percentage of pairs that get one class twice (AX-g).

  Right or wrong does not count, but malformed predictions are no class. A row
  whose other half is not there is left out.
  """
  pairs = [
      pair
      for pair in _by_group(targets, _values(predictions))
      if len(pair) == 2
  ]
  same = [first == second >= 0 for first, second in pairs]
  return {"gender_parity": 100.0 * float(np.mean(same)) if same else 0.0}


def squad(
    targets: Sequence[Sequence[str]], predictions: Sequence[str]
) -> dict[str, float]:
  """Returns SQuAD's exact match and word F1, as percentages (ReCoRD).

  Case, punctuation and articles do not count; of several answers the one that
  suits the prediction best does.

  Args:
    targets: all right answers of each example.
    predictions: texts.
  """
  exact, shared = [], []
  for answers, prediction in zip(targets, predictions, strict=True):
    said = _normalized(prediction)
    wanted = [_normalized(answer) for answer in answers]
    exact.append(max((said == answer for answer in wanted), default=False))
    shared.append(max((_word_f1(a, said) for a in wanted), default=0.0))
  return {
      "em": 100.0 * float(np.mean(exact)),
      "f1": 100.0 * float(np.mean(shared)),
  }


def _f1(true: np.ndarray, named: np.ndarray) -> float:
  # F1 = 2 tp / (2 tp + fp + fn), and the denominator counts both sides.
  counted = np.sum(true) + np.sum(named)
  return 2.0 * float(np.sum(true & named)) / float(counted) if counted else 0.0


def _values(grouped: Sequence[Grouped]) -> np.ndarray:
  return np.array([one["value"] for one in grouped])


def _by_group(
    targets: Sequence[Grouped], values: np.ndarray
) -> Iterable[list[int]]:
  groups = collections.defaultdict(list)
  for target, value in zip(targets, values.tolist(), strict=True):
    groups[target["group"]].append(value)
  return groups.values()


def _normalized(text: str) -> str:
  kept = "".join(c for c in text.lower() if c not in string.punctuation)
  return " ".join(re.sub(r"\b(a|an|the)\b", " ", kept).split())


def _word_f1(answer: str, said: str) -> float:
  wanted, found = answer.split(), said.split()
  common = collections.Counter(wanted) & collections.Counter(found)
  # As in SQuAD's script: two texts without words have nothing in common.
  return 2.0 * common.total() / (len(wanted) + len(found)) if common else 0.0
