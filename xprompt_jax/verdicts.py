"""What a run's numbers say of XPrompt, in sentences.

`comparisons.py` computes; `report.py` prints these lines below its tables.
"""

from collections.abc import Mapping, Sequence
import math
from typing import Any

import numpy as np

from xprompt_jax import cells, comparisons, correctness
from xprompt_jax.comparisons import Comparison

TUNING = "prompt_tuning"
XPROMPT = "xprompt"
RANDOM = "xprompt_random"
RETRAINED = "retrained"
_NAMES = {
    TUNING: "prompt tuning",
    XPROMPT: "XPrompt",
    RANDOM: "random tickets",
    RETRAINED: "retrained, nothing pruned",
}
SPLITS = {
    "validation": "validation",
    "heldout": "held-out",
    "test": "test",
}

# What a row answers right, by method, split, task and seed.
Rights = Mapping[tuple[str, str, Any, Any], np.ndarray]
Summary = Mapping[str, Any]


def rights_of(summary: Summary, arrays: Mapping[str, np.ndarray]) -> Rights:
  """Finds the rows of a summary in `correct.safetensors`.

  Args:
    summary: the contents of `WORKDIR/result.json`.
    arrays: from `correctness.load`.
  """
  found = {}
  for method in summary["methods"]:
    name, rows = method["method"], method["rows"]
    for role in SPLITS:
      known = correctness.rows_of(arrays, name, role, len(rows))
      for row, right in zip(rows, known, strict=True):
        if right is not None:
          found[name, role, row.get("task"), row.get("seed")] = right
  return found


def _signed(number: float) -> str:
  text = f"{number:+.2f}"
  return "+0.00" if text == "-0.00" else text


def _notes(
    found: Comparison, pairs: Mapping[str, tuple[str, str]], what: str
) -> list[str]:
  """What stands in brackets behind the difference."""
  notes = [] if found.how is None else [found.how]
  if len(found.seeds) > 1:
    notes.append(f"better in {found.better}, worse in {found.worse}")
  for name, (first, second) in pairs.items():
    text = f"{first} against {second}"
    notes.append(text if name == what else f"{name} {text}")
  test, *others = found.tests
  if test is not None and not others:
    notes.append(
        f"right alone {test.only_first} against {test.only_second}, McNemar's"
        f" p = {test.p:.2g}"
    )
  if found.unpaired:
    rows = "row has" if found.unpaired == 1 else "rows have"
    notes.append(f"{found.unpaired} {rows} no partner")
  return notes


def _verdict(found: Comparison, first: str) -> str:
  text = found.verdict
  if text in ("better", "worse"):
    text = f"{_NAMES[first]} {'were' if first == RANDOM else 'was'} {text}"
  return text + (" with this seed" if len(found.seeds) == 1 else "")


def num_tickets(summary: Summary) -> int:
  """How many tickets of one seed validation chooses XPrompt's among.

  Those of one task and one kind of score that may win or, where tokens are
  chosen first, decide what wins; `levels` trains others besides.
  """
  search = summary.get("config", {}).get("search", {})
  counts = [
      len(search.get(f"{granularity}_ratios", ()))
      for granularity in search.get("granularities", ())
  ]
  if search.get("strategy") == "grid":
    return math.prod(counts)
  return sum(counts)


def choosing(summary: Summary, task: str | None = None) -> str | None:
  """States what choosing alone gains where scores are random.

  Args:
    summary: as `WORKDIR/result.json` has it.
    task: whose tickets; None for those of all rows.

  Returns:
    The chosen tickets minus the mean of those they were chosen among, on
    validation; None where no random tickets were searched.
  """
  rows = [
      row
      for row in summary.get("selection", ())
      if row["importance"] == "random" and task in (None, row.get("task", task))
  ]
  if not rows:
    return None
  gains = [row["chosen"] - row["mean"] for row in rows]
  mean, spread = cells.mean_and_spread(gains)
  over = f" ± {spread:.2f} over {len(rows)} seeds" if len(rows) > 1 else ""
  return (
      "What choosing gains: the random ticket that validation chose minus the"
      f" mean of the {rows[0]['tickets']} it was chosen among, on validation"
      f" score: {_signed(mean)}{over}."
  )


def _favoured(summary: Summary, first: str, second: str) -> str:
  """Who gains where nothing but the selecting split is there to report."""
  if second == RANDOM:
    return "; validation chose both"
  return (
      f"; validation also chose among {num_tickets(summary)} tickets of each"
      f" seed, which favours {_NAMES[first]}"
  )


def _shares(
    found: Comparison,
    ours: Sequence[Any],
    theirs: Sequence[Any],
    split: str,
) -> tuple[str, dict[str, tuple[str, str]]]:
  """What the score is called, and k/N of both by metric."""
  first, second = (
      [row for row in rows if split in row and row["seed"] in found.seeds]
      for rows in (ours, theirs)
  )
  metrics = [name for name in first[0][split] if name != "score"]
  pairs = {
      name: shares
      for name in metrics
      if (shares := comparisons.both_shares(first, second, split, name))
  }
  return metrics[0] if len(metrics) == 1 else "score", pairs


def difference(
    summary: Summary,
    first: str,
    second: str,
    rights: Rights | None = None,
    split: str | None = None,
) -> str | None:
  """States whether one method was better than another.

  Differences are taken seed by seed, on test, else on the held-out half, else
  on validation.

  Args:
    summary: of one task, as `WORKDIR/result.json` has it.
    first: a method.
    second: what it is compared with.
    rights: from `rights_of`.
    split: None for the one that reports.

  Returns:
    One line: mean and standard deviation of the differences in score (the
    mean of the task's metrics), the 95 % interval and what it stands on, in how
    many seeds each was better, k/N, and the verdict. None where no seed has
    both.
  """
  methods = {m["method"]: m["rows"] for m in summary["methods"]}
  ours, theirs = methods.get(first, ()), methods.get(second, ())
  if not ours or not theirs:
    return None
  split = split or comparisons.reporting_split([*ours, *theirs])
  found = comparisons.compare(
      ours,
      theirs,
      split=split,
      right=_right(rights, first, split, ours),
      base_right=_right(rights, second, split, theirs),
  )
  if found is None:
    return None
  what, pairs = _shares(found, ours, theirs, split)
  line = (
      f"{_NAMES[first]} minus {_NAMES[second]} on {SPLITS[split]} {what}:"
      f" {_signed(found.mean)}"
  )
  if len(found.seeds) > 1:
    line += f" ± {found.spread:.2f} over {len(found.seeds)} seeds"
  if found.interval is not None:
    low, high = map(_signed, found.interval)
    line += f", 95 % interval {low} to {high}"
  elif found.without_spread:
    line += f", {found.without_spread}"
  if notes := _notes(found, pairs, what):
    line += f" ({'; '.join(notes)})"
  line += f": {_verdict(found, first)}"
  if split == "validation":
    line += _favoured(summary, first, second)
  return f"{line}."


def _right(
    rights: Rights | None, name: str, split: str, rows: Sequence[Any]
) -> list[np.ndarray | None]:
  """Which examples each row of a method answers right, where known."""
  keys = [(name, split, row.get("task"), row.get("seed")) for row in rows]
  return [(rights or {}).get(key) for key in keys]


def comparison(summary: Summary, rights: Rights | None = None) -> str | None:
  """States whether XPrompt was better than prompt tuning; see `difference`."""
  return difference(summary, XPROMPT, TUNING, rights)


def lines(summary: Summary, rights: Rights | None = None) -> list[str]:
  """What is said of XPrompt, of training again, and of random tickets.

  What the same search over random tickets gains on prompt tuning is what
  training again and choosing do without importance. It is said on validation,
  which chose, as well as on the split that reports.

  Args: as for `difference`.
  """
  gained = [
      difference(summary, RANDOM, TUNING, rights, split)
      for split in (None, "validation")
  ]
  found = [
      comparison(summary, rights),
      difference(summary, XPROMPT, RETRAINED, rights),
      *(
          f"What the same search over random tickets gains: {line}"
          # Validation may be the split that reports.
          for line in dict.fromkeys(gained)
          if line
      ),
      choosing(summary),
      difference(summary, XPROMPT, RANDOM, rights),
  ]
  return [line for line in found if line]


def selection(summary: Summary) -> str:
  """Says what was selected how, in a sentence or two."""
  counts = summary["num_examples"]
  names = {method["method"] for method in summary["methods"]}
  chosen = "checkpoint"
  if names & {"token", "piece", XPROMPT}:
    chosen += " and the ticket"
  half = ", half of the split" if "heldout" in counts else ""
  text = (
      f"Trained and scored on {counts['train']} examples; of each seed the"
      f" {chosen} with the best score on validation"
      f" ({counts['validation']} examples{half}) "
      f"{'were' if ' and ' in chosen else 'was'} taken."
  )
  seen = [
      f"{name} ({counts[role]} examples)"
      for role, name in (("heldout", "the other half"), ("test", "test"))
      if role in counts
  ]
  if seen:
    shown = " and ".join(seen)
    text += f" Nothing was chosen on {shown}."
  return text
