"""Metrics that are shares, as k of N: 71.15 is 74 of 104.

Results keep percentages alone; of how many they are shares follows from the
function that measured (as the token cache names it) and the split's targets.
Only functions that are known to give percentages count: a user's own accuracy
may be in 0 to 1, where 0.75 of 400 would look like 3/400.
"""

import collections
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

# Shares are exact up to the rounding of a double.
_ROUNDING = 1e-6
# Where functions give percentages, and under which name the shares among them.
_MODULES = ("xprompt_jax.tasks.metrics", "t5.evaluation.metrics")
_SHARES = {
    "accuracy": "accuracy",
    "grouped_accuracy": "accuracy",
    "grouped_em": "em",
    "squad": "em",
    "trivia_qa": "em",
    "gender_parity": "gender_parity",
}


def _known_shares(metrics: Sequence[Mapping[str, Any]]) -> set[str]:
  found = set()
  for metric in metrics:
    module, _, name = metric.get("function", "").partition(":")
    if module in _MODULES and name in _SHARES:
      found.add(_SHARES[name])
  return found


def metric_sizes(
    targets: Sequence[Any], metrics: Sequence[Mapping[str, Any]]
) -> dict[str, int]:
  """Returns of how many the metrics that count shares are shares.

  Accuracy counts examples, MultiRC's exact match questions, and gender parity
  pairs that are whole.

  Args:
    targets: what the metrics compare with.
    metrics: the task's functions, as the token cache describes them.
  """
  groups = collections.Counter(
      target["group"]
      for target in targets
      if isinstance(target, Mapping) and "group" in target
  )
  sizes = {
      "accuracy": len(targets),
      "em": len(groups) or len(targets),
      "gender_parity": sum(size == 2 for size in groups.values()),
  }
  known = _known_shares(metrics)
  return {name: size for name, size in sizes.items() if name in known}


def count(percentage: float, size: int) -> int | None:
  """Returns k of "k of `size`", or None if the percentage is no such share."""
  found = percentage * size / 100.0
  whole = round(found)
  return whole if size and abs(found - whole) < _ROUNDING * size else None


def as_text(shares: Iterable[tuple[float, int]]) -> str | None:
  """Returns "74/104", summed over rows; None where one is no share.

  Args:
    shares: percentage and size of each row.
  """
  hits, total = 0, 0
  for percentage, size in shares:
    found = count(percentage, size)
    if found is None:
      return None
    hits, total = hits + found, total + size
  return f"{hits}/{total}" if total else None


def of_metrics(
    metrics: Mapping[str, float], sizes: Mapping[str, int]
) -> dict[str, str]:
  """Returns the metrics that are shares, such as {"accuracy": "74/104"}.

  Args:
    metrics: of one row, percentages.
    sizes: from `metric_sizes`.
  """
  found = {
      name: as_text([(value, sizes[name])])
      for name, value in metrics.items()
      if name in sizes
  }
  return {name: text for name, text in found.items() if text is not None}
