"""Numbers as tables show them: mean and spread over seeds, k of N.

`report.py` and `scoreboard.py` put them into tables.
"""

from collections.abc import Mapping, Sequence
import statistics
from typing import Any

from xprompt_jax import counts


def mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
  """Mean and sample standard deviation (0 for one value)."""
  spread = statistics.stdev(values) if len(values) > 1 else 0.0
  return statistics.fmean(values), spread


def cell(values: Sequence[float | None], digits: int) -> str:
  """Mean and spread of one number over seeds; one number where all agree.

  A dash stands for a number that some seed, or all, lack.
  """
  known = [value for value in values if value is not None]
  if not known or len(known) < len(values):
    return "-"
  if len(set(known)) == 1:
    whole = isinstance(known[0], int)
    return str(known[0]) if whole else f"{known[0]:.{digits}f}"
  mean, spread = mean_and_spread(known)
  return f"{mean:.{digits}f} ± {spread:.{digits}f}"


def shares(
    values: Sequence[float | None], sizes: Sequence[int | None]
) -> str | None:
  """Such as "222/312", over all rows; None where a value is no share."""
  found = [
      (value, size)
      for value, size in zip(values, sizes, strict=True)
      if value is not None and size is not None
  ]
  return counts.as_text(found) if len(found) == len(values) else None


def sizes_of(
    rows: Sequence[Mapping[str, Any]], split: str, metric: str
) -> list[int | None]:
  """Of how many the metric of each row is a share; older files do not say."""
  return [
      row.get("metric_sizes", {}).get(split, {}).get(metric) for row in rows
  ]


def score_cell(
    values: Sequence[float | None], sizes: Sequence[int | None], between: str
) -> str:
  """Mean and spread over seeds, and k/N of all of them together."""
  found = shares(values, sizes)
  return cell(values, 2) + (f"{between}({found})" if found else "")
