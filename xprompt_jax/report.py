"""The summary of a run as a table: what each method reached with how much.

Reads `result.json` alone: neither the model nor an accelerator is needed.
Everything fits into 80 columns, so that it reads the same in a log file.
"""

from collections.abc import Mapping, Sequence
import functools
import math
import pathlib
from typing import Any

import rich.table
from scipy import stats

from xprompt_jax import artifacts, cells, progress, text_tables
from xprompt_jax.text_tables import WIDTH

TITLES = {
    "no_prompt": "no prompt",
    "prompt_tuning": "prompt tuning",
    "token": "token pruning",
    "piece": "piece pruning",
    "xprompt": "XPrompt",
    "xprompt_magnitude": "by magnitude",
    "xprompt_signed": "by sign",
    "xprompt_random": "by chance",
    "reversed": "reversed",
    "random": "random units",
    "magnitude": "magnitude",
    "length": "length only",
    "no_rewind": "no rewind",
    "auto_scores": "auto, scores",
    "auto_loss": "auto, loss",
}
SPLITS = {"validation": "val", "test": "test"}
_WAYS = {
    "generate": "generate",
    "rank": "rank",
    "first_token": "first token",
}
# Title, key in a row, digits after the point where seeds differ.
_SIZES = (
    ("tokens", "kept_tokens", 1),
    ("pieces", "kept_pieces", 0),
    ("parameters", "tunable_parameters", 0),
)


def _splits_and_metrics(
    summary: Mapping[str, Any],
) -> tuple[list[str], list[str]]:
  first = summary["methods"][0]["rows"][0]
  splits = [name for name in SPLITS if name in first]
  return splits, [name for name in first["validation"] if name != "score"]


def _add_scores(table: rich.table.Table, summary: Mapping[str, Any]) -> None:
  splits, metrics = _splits_and_metrics(summary)
  for split in splits:
    for metric in metrics:
      # Two lines where there are more columns, or long names.
      short = len(metrics) == 1 and len(metric) < 10
      title = f"{SPLITS[split]}{' ' if short else chr(10)}{metric}"
      table.add_column(title, justify="right", no_wrap=True)


def _one_table_or_two(
    summary: Mapping[str, Any], *, split_up: bool, between: str
) -> list[rich.table.Table]:
  """Scores and sizes of each method, side by side or one below the other."""
  splits, metrics = _splits_and_metrics(summary)
  methods = summary["methods"]
  num_seeds = max(len(method["rows"]) for method in methods)
  over = f"{num_seeds} seed{'s' if num_seeds > 1 else ''}"
  spread = ", mean ± standard deviation" if num_seeds > 1 else ""
  scores = text_tables.plain_table(f"{summary['task']}: {over}{spread}")
  sizes = text_tables.plain_table() if split_up else scores
  _add_scores(scores, summary)
  for title, _, _ in _SIZES:
    sizes.add_column(title, justify="right", no_wrap=True)
  for method in methods:
    name, rows = TITLES[method["method"]], method["rows"]
    found = [
        cells.score_cell(
            [row.get(split, {}).get(metric) for row in rows],
            cells.sizes_of(rows, split, metric),
            between,
        )
        for split in splits
        for metric in metrics
    ]
    kept = [
        cells.cell([row[key] for row in rows], digits)
        for _, key, digits in _SIZES
    ]
    if split_up:
      scores.add_row(name, *found)
      sizes.add_row(name, *kept)
    else:
      scores.add_row(name, *found, *kept)
  return [scores, sizes] if split_up else [scores]


def _by_metric(summary: Mapping[str, Any]) -> list[rich.table.Table]:
  """A row for each metric, for those of a mixture's many tasks."""
  splits, metrics = _splits_and_metrics(summary)

  def table(
      split: str, methods: Sequence[Mapping[str, Any]], between: str
  ) -> rich.table.Table:
    made = text_tables.titled_table(
        f"{summary['task']}: {split}", first="metric"
    )
    for method in methods:
      title = TITLES[method["method"]]
      made.add_column(title, justify="right", no_wrap=True)
    for metric in (*metrics, "score"):
      found = [
          cells.score_cell(
              [row.get(split, {}).get(metric) for row in method["rows"]],
              cells.sizes_of(method["rows"], split, metric),
              between,
          )
          for method in methods
      ]
      made.add_row(metric, *found)
    return made

  return [
      made
      for split in splits
      for made in text_tables.fitting_tables(
          functools.partial(table, split), summary["methods"]
      )
  ]


def summary_tables(summary: Mapping[str, Any]) -> list[rich.table.Table]:
  """The tables that end a run.

  Args:
    summary: the contents of `WORKDIR/result.json`.

  Returns:
    One table with a row for each method: metrics on validation and test with
    their k/N, kept tokens, kept pieces and trained numbers, as mean and
    standard deviation over seeds. With several metrics, or where it would be
    too wide, the sizes have a table of their own; with so many metrics that it
    still is, each split has a table with a row for each metric.
  """
  _, metrics = _splits_and_metrics(summary)
  layouts = [(True, " "), (True, "\n")]
  if len(metrics) == 1:
    layouts.insert(0, (False, " "))
  for split_up, between in layouts:
    tables = _one_table_or_two(summary, split_up=split_up, between=between)
    if all(text_tables.width(table) <= WIDTH for table in tables):
      return tables
  return [*_by_metric(summary), tables[-1]]


def _apart_tables(
    summary: Mapping[str, Any], key: str, columns: Mapping[str, str], what: str
) -> list[rich.table.Table]:
  """Scores of each method for each way, or each other task.

  Args:
    summary: the contents of `WORKDIR/result.json`.
    key: `ways` or `other_tasks` of a row.
    columns: titles by name.
    what: stands in the title behind the metric.
  """
  splits, _ = _splits_and_metrics(summary)
  first = summary["methods"][-1]["rows"][0][key]
  metrics = list(
      dict.fromkeys(metric for name in columns for metric in first[name])
  )
  metrics.remove("score")
  # Where there are several, each has a line below their mean.
  shown = metrics if len(metrics) == 1 else ["score", *metrics]
  title = f"{summary['task']}: {shown[0]} {what}"

  def build(names: Sequence[str], between: str) -> rich.table.Table:
    table = text_tables.titled_table(title)
    for name in names:
      table.add_column(columns[name], justify="right", no_wrap=True)
    for method in summary["methods"]:
      rows = method["rows"]
      for metric in shown:
        found = [
            cells.score_cell(
                [row.get(key, {}).get(name, {}).get(metric) for row in rows],
                cells.sizes_of(
                    rows, splits[-1] if key == "ways" else name, metric
                ),
                between,
            )
            for name in names
        ]
        own = TITLES[method["method"]]
        table.add_row(own if metric == shown[0] else f"  {metric}", *found)
    return table

  return text_tables.fitting_tables(build, list(columns))


def way_tables(summary: Mapping[str, Any]) -> list[rich.table.Table]:
  """What the same prompts score by other ways, and on other tasks.

  Args:
    summary: the contents of `WORKDIR/result.json`.

  Returns:
    Tables of each that was measured, of the task's metric; where there are
    several, of their mean, and below each method a line for each of them.
  """
  splits, _ = _splits_and_metrics(summary)
  first = summary["methods"][-1]["rows"][0]
  tables = []
  ways = {k: v for k, v in _WAYS.items() if k in first.get("ways", {})}
  if len(ways) > 1:
    what = f"on {splits[-1]} by way of predicting"
    tables += _apart_tables(summary, "ways", ways, what)
  if others := first.get("other_tasks"):
    columns = {name: name for name in others}
    tables += _apart_tables(summary, "other_tasks", columns, "on other tasks")
  return tables


def not_possible(summary: Mapping[str, Any]) -> list[str]:
  """A line for each way of predicting that the task does not allow."""
  reasons = summary["methods"][-1]["rows"][0].get("not_possible", {})
  return [f"No {_WAYS[way]}: {reason}." for way, reason in reasons.items()]


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


def _both_shares(
    summary: Mapping[str, Any], split: str, metric: str
) -> str | None:
  """k/N of XPrompt and prompt tuning; None for a metric that is no share."""
  rows = {method["method"]: method["rows"] for method in summary["methods"]}
  found = [
      cells.shares(
          [row[split].get(metric) for row in rows[method]],
          cells.sizes_of(rows[method], split, metric),
      )
      for method in ("xprompt", "prompt_tuning")
  ]
  return f"{found[0]} against {found[1]}" if all(found) else None


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
  mean, spread = cells.mean_and_spread(gains)
  better = sum(gain > 0 for gain in gains)
  worse = sum(gain < 0 for gain in gains)
  what = metrics[0] if len(metrics) == 1 else "score"
  line = f"XPrompt minus prompt tuning on {split} {what}: {mean:+.2f}"
  notes = []
  if len(gains) > 1:
    line += f" ± {spread:.2f} over {len(gains)} seeds"
    notes.append(f"better in {better}, worse in {worse}")
  shares = {name: _both_shares(summary, split, name) for name in metrics}
  notes += [
      text if name == what else f"{name} {text}"
      for name, text in shares.items()
      if text is not None
  ]
  if notes:
    line += f" ({'; '.join(notes)})"
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


def print_scores(summary: Mapping[str, Any]) -> None:
  """Prints the tables of one task, and what they say of XPrompt."""
  output = text_tables.console()
  for table in (*summary_tables(summary), *way_tables(summary)):
    output.print(table)
    output.print()
  for text in (
      comparison(summary),
      *not_possible(summary),
      selection(summary),
  ):
    output.print(text, width=WIDTH)


def print_files(summary: Mapping[str, Any], workdir: pathlib.Path) -> None:
  """Prints the time each stage took, and where the files are."""
  output = text_tables.console()
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
