"""Metrics that are shares, as k of N: 71.15 is 74 of 104.

Results keep percentages alone; of how many they are shares follows from the
metric's name (those of `tasks/metrics.py`) and the split's targets.
"""

import collections
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

# Shares are exact up to the rounding of a double.
_ROUNDING = 1e-6


def metric_sizes(targets: Sequence[Any]) -> dict[str, int]:
  """Returns of how many the metrics that count shares are shares.

  Accuracy counts examples, MultiRC's exact match questions, and gender parity
  pairs that are whole.

  Args:
    targets: what the metrics compare with.
  """
  groups = collections.Counter(
      target["group"]
      for target in targets
      if isinstance(target, Mapping) and "group" in target
  )
  return {
      "accuracy": len(targets),
      "em": len(groups) or len(targets),
      "gender_parity": sum(size == 2 for size in groups.values()),
  }


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
