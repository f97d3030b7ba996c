"""Whether one method is better than another, and how sure that is.

Rows are paired by task and seed, since a pair shares its initial prompt and the
order of its data; differences are in points of the metric. Nothing here needs
JAX. docs/evaluation.md says in words what is computed and printed when.
"""

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import math
from typing import Any
import warnings

from jaxtyping import Bool, UInt8
import numpy as np
from scipy import stats

from xprompt_jax import cells

RESAMPLES = 9999
_RNG_SEED = 0
# A bootstrap over fewer can hardly say more than that all seeds agree.
_LEAST_SEEDS = 5
_LEVEL = 0.95
# One pair alone is told apart by McNemar's test as well.
_ALPHA = 0.05
# The metrics that are shares of right answers; see `right_answers.py`.
_RIGHT = ("accuracy", "em")
# Numbers drawn at once.
_CHUNK = 4_000_000

# What an interval stands on, as tables and lines name it.
SEEDS = "seeds resampled"
STUDENT = "Student's over seeds"
BOTH = "examples and seeds resampled"
EXAMPLES = "examples resampled"

Row = Mapping[str, Any]
Rights = Sequence[np.ndarray | None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class McNemar:
  """Two rows on the same examples.

  Attributes:
    only_first: examples that the first alone answers right.
    only_second: examples that the second alone does.
    p: of the exact two-sided test that both are as likely.
  """

  only_first: int
  only_second: int
  p: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
  """One method minus another, pair by pair.

  Attributes:
    seeds: of the pairs.
    differences: in points, rounded to 6 digits.
    unpaired: rows of either method that have no partner.
    intervals: 95 % intervals of the mean by what they stand on; empty where
      nothing is known of examples, and one seed is all there is or all seeds
      differ by the same.
    tests: of each pair; None where it is not known which examples were right.
    shares: k/N of both over all pairs, such as ("222/312", "210/312"); None
      where the metric is no share.
  """

  seeds: tuple[int | None, ...]
  differences: tuple[float, ...]
  unpaired: int = 0
  intervals: Mapping[str, tuple[float, float]]
  tests: tuple[McNemar | None, ...]
  shares: tuple[str, str] | None = None

  @property
  def mean(self) -> float:
    """Mean difference."""
    return cells.mean_and_spread(self.differences)[0]

  @property
  def spread(self) -> float:
    """Sample standard deviation of the differences; 0 of one."""
    return cells.mean_and_spread(self.differences)[1]

  @property
  def better(self) -> int:
    """Pairs in which the first is better."""
    return sum(difference > 0 for difference in self.differences)

  @property
  def worse(self) -> int:
    """Pairs in which the first is worse."""
    return sum(difference < 0 for difference in self.differences)

  @property
  def how(self) -> str | None:
    """What the interval that counts stands on: the widest; None without one."""
    if not self.intervals:
      return None
    widths = {name: high - low for name, (low, high) in self.intervals.items()}
    return max(widths, key=widths.__getitem__)

  @property
  def interval(self) -> tuple[float, float] | None:
    """The 95 % interval that counts."""
    return None if self.how is None else self.intervals[self.how]

  @property
  def verdict(self) -> str:
    """`better`, `worse`, `no difference` or `no clear difference`.

    Without an interval no method is better; of one pair McNemar's test has to
    say so, too.
    """
    low, high = self.interval or (0.0, 0.0)
    if low == high and self.better == self.worse == 0:
      return "no difference"
    test = self.tests[0]
    unsure = len(self.seeds) == 1 and (test is None or test.p >= _ALPHA)
    if unsure or low <= 0 <= high:
      return "no clear difference"
    return "better" if low > 0 else "worse"

  @property
  def without_spread(self) -> str:
    """Why several seeds have no interval, in words; "" where they have one."""
    if len(self.seeds) == 1 or self.intervals:
      return ""
    return "the same in all seeds, no interval"


def _key(row: Row) -> tuple[Any, Any]:
  return row.get("task"), row.get("seed")


def seed_interval(differences: Sequence[float]) -> tuple[float, float]:
  """The paired bootstrap's 95 % interval of the mean, seeds resampled.

  Bias-corrected and accelerated (Efron 1987), or percentiles where that is not
  defined; equal differences have no width.

  Args:
    differences: one for each seed; two or more.
  """
  if len(set(differences)) == 1:
    return differences[0], differences[0]
  for method in ("BCa", "percentile"):
    with warnings.catch_warnings(), np.errstate(all="ignore"):
      # What it warns of is looked at below.
      warnings.simplefilter("ignore")
      found = stats.bootstrap(
          (np.array(differences),),
          np.mean,
          vectorized=True,
          n_resamples=RESAMPLES,
          confidence_level=_LEVEL,
          method=method,
          random_state=np.random.default_rng(_RNG_SEED),
      ).confidence_interval
    if math.isfinite(found.low) and math.isfinite(found.high):
      break
  return float(found.low), float(found.high)


def student_interval(differences: Sequence[float]) -> tuple[float, float]:
  """Student's 95 % interval of a mean of two differences or more."""
  mean, spread = cells.mean_and_spread(differences)
  quantile = float(stats.t.ppf((1 + _LEVEL) / 2, len(differences) - 1))
  half = quantile * spread / math.sqrt(len(differences))
  return mean - half, mean + half


def example_interval(
    first: UInt8[np.ndarray, "R N"], second: UInt8[np.ndarray, "R N"]
) -> tuple[float, float]:
  """The bootstrap's 95 % interval, examples and seeds resampled.

  Both axes are drawn with replacement, independently, both methods alike (Owen
  2007, the pigeonhole bootstrap); percentiles. With one seed, examples alone.

  Args:
    first: 1 where a row answers an example right; a row for each seed.
    second: the same of the other method.

  Returns:
    In percentage points.
  """
  gains = 100.0 * (first.astype(np.float64) - second)  # [R, N]
  num_seeds, num_examples = gains.shape
  rng = np.random.default_rng(_RNG_SEED)
  size = max(1, min(RESAMPLES, _CHUNK // num_examples))
  means = []
  for start in range(0, RESAMPLES, size):
    count = min(size, RESAMPLES - start)
    seeds = rng.integers(0, num_seeds, (count, num_seeds))
    examples = rng.integers(0, num_examples, (count, num_examples))
    weights = np.stack(
        [(seeds == seed).mean(axis=1) for seed in range(num_seeds)], axis=1
    )
    drawn = np.take_along_axis(weights @ gains, examples, axis=1)
    means.append(drawn.mean(axis=1))
  tail = (1 - _LEVEL) / 2
  low, high = np.quantile(np.concatenate(means), [tail, 1 - tail])
  return float(low), float(high)


def mcnemar(
    first: UInt8[np.ndarray, "N"] | Bool[np.ndarray, "N"],
    second: UInt8[np.ndarray, "N"] | Bool[np.ndarray, "N"],
) -> McNemar:
  """McNemar's exact test of two rows on the same N examples.

  The binomial test of the examples that one row alone answers right.
  """
  ours = int(np.sum((first == 1) & (second == 0)))
  theirs = int(np.sum((first == 0) & (second == 1)))
  p = 1.0
  if ours + theirs:
    p = float(stats.binomtest(ours, ours + theirs).pvalue)
  return McNemar(only_first=ours, only_second=theirs, p=p)


def reporting_split(rows: Iterable[Row]) -> str:
  """The split that reports: test, else the held-out half, else validation."""
  rows = list(rows)
  for split in ("test", "heldout"):
    if any(split in row for row in rows):
      return split
  return "validation"


def _own(row: Row, split: str, metric: str) -> str:
  """The metric; the score of a task with one metric is that metric."""
  names = [name for name in row[split] if name != "score"]
  return names[0] if metric == "score" and len(names) == 1 else metric


def _known(
    right: np.ndarray | None, row: Row, split: str, metric: str
) -> np.ndarray | None:
  """What a row answers right, if the metric is the share of that."""
  if right is None or not len(right) or _own(row, split, metric) not in _RIGHT:
    return None
  # A mixture's, or another way's, would differ.
  same = abs(100.0 * float(np.mean(right)) - row[split][metric]) < 1e-6
  return right if same else None


def _intervals(
    differences: Sequence[float], pairs: Sequence[tuple[Any, Any]]
) -> dict[str, tuple[float, float]]:
  found = {}
  # Equal differences say nothing of what other seeds would spread.
  if len(set(differences)) > 1:
    found[STUDENT] = student_interval(differences)
    if len(differences) >= _LEAST_SEEDS:
      found[SEEDS] = seed_interval(differences)
  known = [(a, b) for a, b in pairs if a is not None and b is not None]
  sizes = {len(part) for pair in known for part in pair}
  if len(known) == len(differences) and len(sizes) == 1:
    first, second = (np.stack(side) for side in zip(*known, strict=True))
    name = BOTH if len(differences) > 1 else EXAMPLES
    found[name] = example_interval(first, second)
  return found


def _check_one_task(rows: Sequence[Row]) -> None:
  tasks = {row.get("task") for row in rows}
  if len(tasks) > 1:
    names = ", ".join(sorted(map(str, tasks)))
    raise ValueError(f"rows to compare: found tasks {names}, expected one")


def _by_key(
    rows: Sequence[Row], right: Rights, split: str, metric: str
) -> dict[Any, tuple[Row, np.ndarray | None]]:
  """The rows that have the metric, each with what it answers right."""
  right = right if len(right) == len(rows) else [None] * len(rows)
  return {
      _key(row): (row, _known(answers, row, split, metric))
      for row, answers in zip(rows, right, strict=True)
      if row.get(split, {}).get(metric) is not None
  }


def compare(
    rows: Sequence[Row],
    base: Sequence[Row],
    *,
    split: str,
    metric: str = "score",
    right: Rights = (),
    base_right: Rights = (),
) -> Comparison | None:
  """Compares two methods on the seeds that both have.

  Args:
    rows: of the first method, as in `result.json`.
    base: of what it is compared with.
    split: `test`, `heldout` or `validation`.
    metric: of that split.
    right: which examples each of `rows` answers right, as
      `correctness.rows_of` gives them; counts where the metric is their share.
    base_right: the same of `base`.

  Returns:
    None where no seed has both.

  Raises:
    ValueError: rows of one method are of several tasks, whose examples differ.
  """
  _check_one_task(rows)
  _check_one_task(base)
  ours = _by_key(rows, right, split, metric)
  theirs = _by_key(base, base_right, split, metric)
  keys = [key for key in ours if key in theirs]
  if not keys:
    return None
  pairs = [(ours[key][1], theirs[key][1]) for key in keys]
  # Rounded: metrics are decimal fractions, binary floats are not.
  differences = tuple(
      round(ours[k][0][split][metric] - theirs[k][0][split][metric], 6)
      for k in keys
  )
  return Comparison(
      seeds=tuple(key[1] for key in keys),
      differences=differences,
      unpaired=len(rows) + len(base) - 2 * len(keys),
      intervals=_intervals(differences, pairs),
      tests=tuple(
          mcnemar(a, b)
          if a is not None and b is not None and len(a) == len(b)
          else None
          for a, b in pairs
      ),
      shares=both_shares(
          [ours[key][0] for key in keys],
          [theirs[key][0] for key in keys],
          split,
          metric,
      ),
  )


def both_shares(
    rows: Sequence[Row], base: Sequence[Row], split: str, metric: str
) -> tuple[str, str] | None:
  """k/N of two methods over all their rows; None for a metric that is no share."""
  found = []
  for side in (rows, base):
    name = _own(side[0], split, metric)
    values = [row[split].get(name) for row in side]
    found.append(cells.shares(values, cells.sizes_of(side, split, name)))
  first, second = found
  return None if first is None or second is None else (first, second)
