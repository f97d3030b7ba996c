"""The summary of a run as a table: what each method reached with how much.

Reads `result.json` alone: neither the model nor an accelerator is needed.
Everything fits into 80 columns, so that it reads the same in a log file.
"""

from collections.abc import Mapping, Sequence
import math
import pathlib
import statistics
from typing import Any

import rich.box
import rich.console
import rich.table
from scipy import stats

from xprompt_jax import artifacts, progress

WIDTH = 80
TITLES = {
    "no_prompt": "no prompt",
    "prompt_tuning": "prompt tuning",
    "token": "token pruning",
    "piece": "piece pruning",
    "xprompt": "XPrompt",
}
SPLITS = {"validation": "val", "test": "test"}
# Title, key in a row, digits after the point where seeds differ.
_SIZES = (
    ("tokens", "kept_tokens", 1),
    ("pieces", "kept_pieces", 0),
    ("parameters", "tunable_parameters", 0),
)


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


def _splits_and_metrics(
    summary: Mapping[str, Any],
) -> tuple[list[str], list[str]]:
  first = summary["methods"][0]["rows"][0]
  splits = [name for name in SPLITS if name in first]
  return splits, [name for name in first["validation"] if name != "score"]


def plain_table(
    title: str | None = None, first: str = "method"
) -> rich.table.Table:
  """An empty table with its first column; it fits into a log file."""
  table = rich.table.Table(
      title=title,
      title_justify="left",
      box=rich.box.SIMPLE_HEAD,
      show_edge=False,
      pad_edge=False,
      padding=(0, 0, 0, 1),
  )
  table.add_column(first, no_wrap=True)
  return table


def _add_scores(table: rich.table.Table, summary: Mapping[str, Any]) -> None:
  splits, metrics = _splits_and_metrics(summary)
  for split in splits:
    for metric in metrics:
      # Two lines where there are more columns, or long names.
      short = len(metrics) == 1 and len(metric) < 10
      title = f"{SPLITS[split]}{' ' if short else chr(10)}{metric}"
      table.add_column(title, justify="right", no_wrap=True)


def _scores(summary: Mapping[str, Any], method: Mapping[str, Any]) -> list[str]:
  splits, metrics = _splits_and_metrics(summary)
  return [
      cell([row.get(split, {}).get(metric) for row in method["rows"]], 2)
      for split in splits
      for metric in metrics
  ]


def summary_tables(summary: Mapping[str, Any]) -> list[rich.table.Table]:
  """The tables that end a run.

  Args:
    summary: the contents of `WORKDIR/result.json`.

  Returns:
    One table with a row for each method: metrics on validation and test, kept
    tokens, kept pieces and trained numbers, as mean and standard deviation
    over seeds. With several metrics the sizes have a table of their own.
  """
  methods = summary["methods"]
  _, metrics = _splits_and_metrics(summary)
  num_seeds = len(methods[-1]["rows"])
  over = f"{num_seeds} seed{'s' if num_seeds > 1 else ''}"
  spread = ", mean ± standard deviation" if num_seeds > 1 else ""
  scores = plain_table(f"{summary['task']}: {over}{spread}")
  sizes = scores if len(metrics) == 1 else plain_table()
  _add_scores(scores, summary)
  for title, _, _ in _SIZES:
    sizes.add_column(title, justify="right", no_wrap=True)
  for method in methods:
    name = TITLES[method["method"]]
    found = _scores(summary, method)
    counts = [
        cell([row[key] for row in method["rows"]], digits)
        for _, key, digits in _SIZES
    ]
    if sizes is scores:
      scores.add_row(name, *found, *counts)
    else:
      scores.add_row(name, *found)
      sizes.add_row(name, *counts)
  return [scores] if sizes is scores else [scores, sizes]


def selection(summary: Mapping[str, Any]) -> str:
  """Says what was selected how, in a sentence or two."""
  counts = summary["num_examples"]
  text = (
      f"Trained and scored on {counts['train']} examples; of each seed the"
      " checkpoint and the ticket with the best score on validation"
      f" ({counts['validation']} examples) were taken."
  )
  if "test" in counts:
    text += f" Test ({counts['test']} examples) was looked at once, at the end."
  return text


def _half_interval(spread: float, count: int) -> float:
  """Half of Student's 95 % interval of a mean over `count` seeds."""
  quantile = float(stats.t.ppf(0.975, count - 1))
  return quantile * spread / math.sqrt(count)


def comparison(summary: Mapping[str, Any]) -> str:
  """States whether XPrompt was better than prompt tuning.

  Differences are taken seed by seed, on the test split where there is one.

  Args:
    summary: the contents of `WORKDIR/result.json`.

  Returns:
    One line: mean and standard deviation of the differences in score (the
    mean of the task's metrics), in how many seeds each was better, and the
    verdict, which wants Student's 95 % interval of the mean to leave out 0.
  """
  splits, metrics = _splits_and_metrics(summary)
  split = splits[-1]
  scores = {
      method["method"]: {
          row["seed"]: row[split]["score"] for row in method["rows"]
      }
      for method in summary["methods"]
  }
  tuned = scores["prompt_tuning"]
  # Rounded: metrics are decimal fractions, binary floats are not.
  gains = [round(s - tuned[k], 6) for k, s in scores["xprompt"].items()]
  mean, spread = mean_and_spread(gains)
  better = sum(gain > 0 for gain in gains)
  worse = sum(gain < 0 for gain in gains)
  what = metrics[0] if len(metrics) == 1 else "score"
  line = f"XPrompt minus prompt tuning on {split} {what}: {mean:+.2f}"
  if len(gains) > 1:
    line += (
        f" ± {spread:.2f} over {len(gains)} seeds (better in {better}, worse in"
        f" {worse})"
    )
  if len(gains) > 1 and abs(mean) <= _half_interval(spread, len(gains)):
    verdict = "no clear difference"
  elif mean == 0:
    verdict = "no difference"
  else:
    verdict = f"XPrompt was {'better' if mean > 0 else 'worse'}"
  line += f": {verdict}" + (" with this seed" if len(gains) == 1 else "")
  if split == "validation":
    line += (
        f"; validation also chose among {summary['tickets_tried']} tickets,"
        " which favours XPrompt"
    )
  return f"{line}."


def console() -> rich.console.Console:
  """Where tables go; a narrower terminal wraps lines and drops nothing."""
  found = rich.console.Console(highlight=False)
  found.width = max(found.width, WIDTH)
  return found


def print_scores(summary: Mapping[str, Any]) -> None:
  """Prints the tables of one task, and what they say of XPrompt."""
  output = console()
  for table in summary_tables(summary):
    output.print(table)
    output.print()
  for text in (comparison(summary), selection(summary)):
    output.print(text, width=WIDTH)


def print_files(summary: Mapping[str, Any], workdir: pathlib.Path) -> None:
  """Prints the time each stage took, and where the files are."""
  output = console()
  seconds = summary["seconds"]
  parts = [f"{k} {progress.duration(v)}" for k, v in seconds.items()]
  total = progress.duration(sum(seconds.values()))
  output.print(f"Time: {total} ({', '.join(parts)}).", width=WIDTH)
  output.print()
  files = (
      (artifacts.RESULT, "this summary"),
      (artifacts.TICKETS, f"all {summary['tickets_tried']} tickets tried"),
      (f"{artifacts.REWIND}/{artifacts.PROMPT}", "XPrompt, with its masks"),
      (f"{artifacts.TUNE}/{artifacts.PROMPT}", "the tuned prompts"),
      (artifacts.TENSORBOARD, "curves, for `tensorboard --logdir`"),
  )
  for name, what in files:
    output.print(f"{workdir / name}: {what}", soft_wrap=True, markup=False)


def print_summary(summary: Mapping[str, Any], workdir: pathlib.Path) -> None:
  """Prints the tables, the time each stage took, and where the files are."""
  print_scores(summary)
  print_files(summary, workdir)
