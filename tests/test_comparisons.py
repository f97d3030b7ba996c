"""How sure it is that one method is better: literal numbers, hand-made loops."""

import json
import math
import statistics
import subprocess
import sys

import numpy as np
import pytest
from scipy import special

from xprompt_jax import comparisons

# Differences of five seeds.
GAINS = [1.0, 0.0, 1.5, 3.0, -0.5]


def _rows(scores, sizes=None, split="test", **more):
  rows = []
  for seed, score in scores.items():
    row = {
        "seed": seed,
        split: {"accuracy": score, "score": score},
        **more,
    }
    if sizes:
      row["metric_sizes"] = {split: {"accuracy": sizes}}
    rows.append(row)
  return rows


def _compare(ours, theirs, **more):
  return comparisons.compare(_rows(ours), _rows(theirs), split="test", **more)


def test_seeds_resampled_are_a_loop_over_the_same_draws():
  """Efron's equations 14.10, 14.14 and 14.15, number by number."""
  rng = np.random.default_rng(0)
  means = [
      statistics.fmean(GAINS[i] for i in drawn)
      for drawn in rng.integers(0, 5, (9999, 5))
  ]
  mean = statistics.fmean(GAINS)
  below = sum(m < mean for m in means) + sum(m <= mean for m in means)
  bias = special.ndtri(below / (2 * 9999))
  # Without one seed each: the jackknife.
  left = [(sum(GAINS) - gain) / 4 for gain in GAINS]
  centred = [statistics.fmean(left) - value for value in left]
  acceleration = sum(c**3 for c in centred) / (
      6 * sum(c**2 for c in centred) ** 1.5
  )

  def end(z):
    shifted = bias + z
    share = special.ndtr(bias + shifted / (1 - acceleration * shifted))
    return np.percentile(means, 100 * share)

  quantile = special.ndtri(0.975)
  low, high = comparisons.seed_interval(GAINS)
  assert low == pytest.approx(end(-quantile), abs=1e-9)
  assert high == pytest.approx(end(quantile), abs=1e-9)
  assert (round(low, 2), round(high, 2)) == (0.1, 2.2)


def test_equal_differences_have_no_width():
  assert comparisons.seed_interval([2.0] * 6) == (2.0, 2.0)
  assert comparisons.student_interval([2.0, 2.0]) == (2.0, 2.0)


@pytest.mark.parametrize(
    "gains",
    [
        # All but one alike, huge and tiny, two values.
        [0.0] * 9 + [1.0],
        [1e-6] * 4 + [1e6],
        [1.0, -1.0] * 3,
    ],
)
def test_no_interval_is_nan(gains):
  low, high = comparisons.seed_interval(gains)
  assert math.isfinite(low) and math.isfinite(high)
  assert low <= statistics.fmean(gains) <= high


def test_percentiles_stand_where_bca_is_not_defined(monkeypatch):
  """scipy gives NaN and warns; the percentiles of the same draws stand in."""
  made = comparisons.stats.bootstrap
  methods = []

  def bootstrap(*args, method, **more):
    methods.append(method)
    if method == "percentile":
      return made(*args, method=method, **more)
    comparisons.warnings.warn("degenerate", stacklevel=1)
    nan = made(*args, method="percentile", **more)
    nan.confidence_interval = nan.confidence_interval._replace(low=math.nan)
    return nan

  monkeypatch.setattr(comparisons.stats, "bootstrap", bootstrap)
  rng = np.random.default_rng(0)
  means = [
      statistics.fmean(GAINS[i] for i in drawn)
      for drawn in rng.integers(0, 5, (9999, 5))
  ]
  assert comparisons.seed_interval(GAINS) == pytest.approx(
      tuple(np.percentile(means, [2.5, 97.5]))
  )
  assert methods == ["BCa", "percentile"]


def test_students_interval():
  """4.303 standard errors to each side of three differences."""
  low, high = comparisons.student_interval([5.0, 0.0, 7.0])
  half = 4.302653 * statistics.stdev([5.0, 0.0, 7.0]) / math.sqrt(3)
  assert (low, high) == pytest.approx((4 - half, 4 + half), abs=1e-5)


FIRST = np.array([[1, 1, 0, 1], [1, 0, 1, 1], [1, 1, 1, 1]], np.uint8)
SECOND = np.array([[0, 1, 0, 1], [1, 1, 0, 0], [0, 1, 0, 1]], np.uint8)


def test_examples_and_seeds_resampled_are_a_loop_over_the_same_draws():
  rng = np.random.default_rng(0)
  seeds = rng.integers(0, 3, (9999, 3))
  examples = rng.integers(0, 4, (9999, 4))
  means = []
  for drawn, chosen in zip(seeds.tolist(), examples.tolist(), strict=True):
    gains = [
        100.0 * (int(FIRST[s, e]) - int(SECOND[s, e]))
        for s in drawn
        for e in chosen
    ]
    means.append(statistics.fmean(gains))
  wanted = tuple(np.percentile(means, [2.5, 97.5]))
  found = comparisons.example_interval(FIRST, SECOND)
  assert found == pytest.approx(wanted, abs=1e-9)
  assert found[0] < 100 * 4 / 12 < found[1]


def test_memory_is_bounded_whatever_the_number_of_examples(monkeypatch):
  """Chunks of few resamples cover all of them."""
  monkeypatch.setattr(comparisons, "_CHUNK", 40)
  low, high = comparisons.example_interval(FIRST, SECOND)
  assert -100 <= low < 100 * 4 / 12 < high <= 100


def test_the_same_answers_have_no_interval_but_zero():
  assert comparisons.example_interval(FIRST, FIRST) == (0.0, 0.0)


def test_mcnemar():
  """6 against 16 discordant pairs: p = 2 (C(22, 0) + ... + C(22, 6)) / 2^22.

  The second example of Wikipedia's article on McNemar's test: 0.053.
  """
  both, only_first, only_second, neither = 59, 6, 16, 80
  first = np.array(
      [1] * both + [1] * only_first + [0] * (only_second + neither), np.uint8
  )
  second = np.array(
      [1] * both + [0] * only_first + [1] * only_second + [0] * neither,
      np.uint8,
  )
  found = comparisons.mcnemar(first, second)
  assert (found.only_first, found.only_second) == (6, 16)
  assert found.p == pytest.approx(2 * 110056 / 2**22)
  assert round(found.p, 4) == 0.0525
  assert comparisons.mcnemar(first, first) == comparisons.McNemar(
      only_first=0, only_second=0, p=1.0
  )
  assert comparisons.mcnemar(first == 1, second == 1) == found


def test_seeds_are_paired_and_what_has_no_partner_is_counted():
  ours = {4: 90.0, 1: 80.0, 2: 70.0}
  theirs = {1: 75.0, 2: 71.0, 3: 99.0}
  found = _compare(ours, theirs)
  assert found.seeds == (1, 2)
  assert found.differences == (5.0, -1.0)
  assert found.unpaired == 2
  assert (found.mean, found.better, found.worse) == (2.0, 1, 1)
  assert found.spread == pytest.approx(18**0.5)
  assert _compare(ours, {7: 1.0}) is None
  assert _compare({}, theirs) is None
  # A row without the split, or of another task, is no partner.
  assert (
      comparisons.compare(
          _rows({1: 2.0}), _rows({1: 1.0}, split="validation"), split="test"
      )
      is None
  )
  other = _rows({1: 2.0}, task="cb")
  assert comparisons.compare(other, _rows({1: 1.0}), split="test") is None


def test_differences_are_those_of_decimal_fractions():
  assert _compare({1: 0.3}, {1: 0.1}).differences == (0.2,)


@pytest.mark.parametrize(
    ("ours", "theirs", "verdict", "how"),
    [
        ([85, 86, 86], [80, 82, 81], "better", comparisons.STUDENT),
        ([78, 80, 78], [80, 82, 81], "worse", comparisons.STUDENT),
        # 4.303 standard errors are 1.43 here.
        (
            [79, 81, 79],
            [80, 82, 81],
            "no clear difference",
            comparisons.STUDENT,
        ),
        ([5, 5, 5, 5, 5], [1, 2, 3, 3, 4], "better", comparisons.STUDENT),
        # The bootstrap alone would leave out 0: +0.10 to +2.20.
        (GAINS, [0, 0, 0, 0, 0], "no clear difference", comparisons.STUDENT),
        (
            [5, 5, 5, 5, 5],
            [1, 9, 1, 9, 5],
            "no clear difference",
            comparisons.STUDENT,
        ),
        ([5] * 6, [5] * 6, "no difference", None),
        # Seeds that gain the same, or one seed, say nothing of another.
        ([6] * 2, [5] * 2, "no clear difference", None),
        ([6] * 9, [5] * 9, "no clear difference", None),
        ([6], [5], "no clear difference", None),
        ([4], [5], "no clear difference", None),
        ([5], [5], "no difference", None),
    ],
)
def test_verdicts(ours, theirs, verdict, how):
  found = _compare(
      dict(enumerate(map(float, ours))), dict(enumerate(map(float, theirs)))
  )
  assert found.verdict == verdict
  assert found.how == how


def test_of_several_intervals_the_widest_counts():
  found = _compare(dict(enumerate(GAINS)), dict.fromkeys(range(5), 0.0))
  assert found.intervals == {
      comparisons.STUDENT: comparisons.student_interval(GAINS),
      comparisons.SEEDS: comparisons.seed_interval(GAINS),
  }
  assert found.interval == comparisons.student_interval(GAINS)


def test_seeds_that_agree_leave_the_interval_to_examples():
  """Seeds agree to the point, but ten examples do not say much."""
  first = np.array([[1] * 6 + [0] * 4] * 6, np.uint8)
  second = np.array([[1] * 5 + [0] * 5] * 6, np.uint8)
  found = _compare(
      dict.fromkeys(range(6), 60.0),
      dict.fromkeys(range(6), 50.0),
      right=list(first),
      base_right=list(second),
  )
  assert found.intervals == {comparisons.BOTH: (0.0, 30.0)}
  assert found.without_spread == ""
  assert found.how == comparisons.BOTH
  assert found.verdict == "no clear difference"
  assert found.tests == (comparisons.mcnemar(first[0], second[0]),) * 6


def test_one_seed_has_its_examples():
  first, second = np.array([1, 1, 1, 0], np.uint8), np.zeros(4, np.uint8)
  found = _compare({3: 75.0}, {3: 0.0}, right=[first], base_right=[second])
  assert list(found.intervals) == [comparisons.EXAMPLES]
  assert found.interval == (25.0, 100.0)
  assert found.tests == (
      comparisons.McNemar(only_first=3, only_second=0, p=0.25),
  )
  assert found.verdict == "no clear difference"


@pytest.mark.parametrize(
    ("only_first", "only_second", "p", "verdict"),
    [
        # 2 / 2^5 and 2 / 2^6: both intervals leave out 0.
        (5, 0, 0.0625, "no clear difference"),
        (6, 0, 0.03125, "better"),
        (0, 6, 0.03125, "worse"),
    ],
)
def test_one_pair_needs_mcnemars_test(only_first, only_second, p, verdict):
  both = [1] * (10 - only_first - only_second)
  first = np.array(both + [1] * only_first + [0] * only_second, np.uint8)
  second = np.array(both + [0] * only_first + [1] * only_second, np.uint8)
  found = _compare(
      {3: 10.0 * first.sum()},
      {3: 10.0 * second.sum()},
      right=[first],
      base_right=[second],
  )
  low, high = found.interval
  assert low > 0 or high < 0
  assert found.tests[0].p == p
  assert found.verdict == verdict


def test_rows_of_several_tasks_are_refused():
  rows = [*_rows({1: 2.0}, task="cb"), *_rows({1: 2.0}, task="rte")]
  with pytest.raises(ValueError, match="found tasks cb, rte, expected one"):
    comparisons.compare(rows, rows, split="test")


@pytest.mark.parametrize(
    "right",
    [
        (),
        [None, None],
        # The share of these is not the metric: another metric counts.
        [np.array([1, 0], np.uint8), np.array([1, 0], np.uint8)],
        # Of a file that does not fit.
        [np.ones(2, np.uint8)],
    ],
)
def test_without_known_examples_seeds_decide(right):
  found = _compare({1: 100.0, 2: 100.0}, {1: 50.0, 2: 49.0}, right=right)
  assert list(found.intervals) == [comparisons.STUDENT]
  assert found.tests == (None, None)


def test_the_score_of_several_metrics_is_no_share():
  """Of none right, F1 and accuracy are both 0: only accuracy is their share."""
  metrics = {"mean_3class_f1": 0.0, "accuracy": 0.0, "score": 0.0}
  rows = [{"seed": 0, "test": metrics}]
  right = [np.zeros(6, np.uint8)]

  def intervals(metric):
    return comparisons.compare(
        rows, rows, split="test", metric=metric, right=right, base_right=right
    ).intervals

  assert intervals("score") == intervals("mean_3class_f1") == {}
  assert intervals("accuracy") == {comparisons.EXAMPLES: (0.0, 0.0)}


def test_shares_are_those_of_the_pairs():
  found = comparisons.compare(
      _rows({1: 75.0, 2: 50.0, 3: 0.0}, sizes=4),
      _rows({1: 25.0, 2: 25.0}, sizes=4),
      split="test",
  )
  assert found.shares == ("5/8", "2/8")
  assert _compare({1: 75.0}, {1: 25.0}).shares is None


@pytest.mark.parametrize(
    ("splits", "wanted"),
    [
        (("validation",), "validation"),
        (("validation", "heldout"), "heldout"),
        (("validation", "heldout", "test"), "test"),
    ],
)
def test_the_split_that_reports(splits, wanted):
  rows = [{"validation": {}}, {split: {} for split in splits}]
  assert comparisons.reporting_split(rows) == wanted


def test_comparing_needs_no_jax():
  code = (
      "import sys, json, xprompt_jax.comparisons, xprompt_jax.correctness;"
      "print(json.dumps([m for m in ('jax', 'flax') if m in sys.modules]))"
  )
  done = subprocess.run(
      [sys.executable, "-c", code], capture_output=True, text=True, check=True
  )
  assert json.loads(done.stdout) == []
