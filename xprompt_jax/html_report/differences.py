"""Whether one method was better than another, as `comparisons.py` says it."""

from collections.abc import Sequence
import functools

import numpy as np

from xprompt_jax import comparisons, correctness
from xprompt_jax.comparisons import Comparison
from xprompt_jax.html_report.reading import Part, Run


@functools.lru_cache(maxsize=64)
def _arrays(run: Run) -> dict[str, np.ndarray]:
  return correctness.load(run.path)


def _rights(part: Part, method: str, split: str) -> Sequence[np.ndarray | None]:
  """What each row of a part's method answers right, where that is known."""
  run = part.runs[method]
  counts = {m["method"]: len(m["rows"]) for m in run.summary["methods"]}
  own = part.names.get(method, method)
  rows = correctness.rows_of(_arrays(run), own, split, counts[own])
  return [rows[index] for index in part.indices[method]]


@functools.cache
def between(
    part: Part, first: str, second: str, split: str | None = None
) -> Comparison | None:
  """One method's scores minus another's.

  Args:
    part: one task of a run.
    first: the method that may be better.
    second: what it is compared with.
    split: None takes the one that is reported.

  Returns:
    None where one is lacking, or they share no seed.
  """
  if first == second or not {first, second} <= part.methods.keys():
    return None
  split = split or part.split
  return comparisons.compare(
      part.methods[first],
      part.methods[second],
      split=split,
      right=_rights(part, first, split),
      base_right=_rights(part, second, split),
  )


def signed(number: float) -> str:
  """Such as "+1.20", and never minus zero."""
  return f"{round(number, 2) + 0.0:+.2f}"


def interval(found: Comparison) -> str:
  """Such as "[-0.31, +2.10]"; a dash where there is none."""
  if found.interval is None:
    return "-"
  low, high = found.interval
  return f"[{signed(low)}, {signed(high)}]"


def verdict(found: Comparison) -> str:
  """The verdict, with what one seed is worth."""
  if len(found.seeds) > 1 or found.verdict == "no difference":
    return found.verdict
  return f"{found.verdict} with this seed"
