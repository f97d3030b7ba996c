"""Whether one method was better than another, and how sure that is."""

from collections.abc import Mapping, Sequence
import dataclasses
import math
from typing import Any

from scipy import stats

from xprompt_jax import cells
from xprompt_jax.html_report.reading import Part


@dataclasses.dataclass(frozen=True, kw_only=True)
class Difference:
  """One method minus another, row by row.

  Attributes:
    mean: of the differences in score, in points.
    low: lower end of the 95 % interval; None where one seed leaves none.
    high: its upper end.
    num_seeds: pairs of rows.
    better: pairs in which the first was better.
    worse: pairs in which it was worse.
    how: where the interval comes from.
  """

  mean: float
  low: float | None
  high: float | None
  num_seeds: int
  better: int
  worse: int
  how: str

  @property
  def verdict(self) -> str:
    """`better`, `worse`, `no difference` or `no clear difference`."""
    if self.better == self.worse == 0:
      return "no difference"
    if self.low is None or self.high is None:
      return "one seed says nothing"
    if self.low > 0:
      return "better"
    return "worse" if self.high < 0 else "no clear difference"

  @property
  def interval(self) -> str:
    """Such as "[-0.31, +2.10]"; a dash where there is none."""
    if self.low is None or self.high is None:
      return "-"
    return f"[{self.low:+.2f}, {self.high:+.2f}]"


def _pairs(
    first: Sequence[Mapping[str, Any]],
    second: Sequence[Mapping[str, Any]],
    split: str,
) -> list[tuple[float, float]]:
  """Scores of the seeds that both have."""
  others = {row["seed"]: row[split]["score"] for row in second if split in row}
  return [
      (row[split]["score"], others[row["seed"]])
      for row in first
      if split in row and row["seed"] in others
  ]


def between(
    part: Part, first: str, second: str, other: Part | None = None
) -> Difference | None:
  """One method's scores minus another's, on the split that is reported.

  The interval is Student's of the mean over seeds.

  Args:
    part: has the first method.
    first: the method that may be better.
    second: what it is compared with.
    other: has the second method; None takes `part`.

  Returns:
    None where they share no seed.
  """
  rows = (other or part).methods.get(second, ())
  pairs = _pairs(part.methods.get(first, ()), rows, part.split)
  if not pairs:
    return None
  # Rounded: metrics are decimal fractions, binary floats are not.
  gains = [round(a - b, 6) for a, b in pairs]
  mean, spread = cells.mean_and_spread(gains)
  low = high = None
  if len(gains) > 1:
    quantile = float(stats.t.ppf(0.975, len(gains) - 1))
    half = quantile * spread / math.sqrt(len(gains))
    low, high = mean - half, mean + half
  return Difference(
      mean=mean,
      low=low,
      high=high,
      num_seeds=len(gains),
      better=sum(gain > 0 for gain in gains),
      worse=sum(gain < 0 for gain in gains),
      how="Student's interval over seeds",
  )
