"""The summary of a run as a table: what each method reached with how much.

Reads `result.json` alone: neither the model nor an accelerator is needed.
Everything fits into 80 columns, so that it reads the same in a log file.
"""

from collections.abc import Mapping, Sequence
import functools
import pathlib
from typing import Any

import rich.table

from xprompt_jax import artifacts, cells, progress, text_tables, verdicts
from xprompt_jax.text_tables import WIDTH

TITLES = {
    "no_prompt": "no prompt",
    "fine_tuning": "fine-tuning",
    "prompt_tuning": "prompt tuning",
    "prefix_tuning": "prefix tuning",
    "p_tuning": "P-tuning",
    "p_tuning_v2": "P-tuning v2",
    "token": "token pruning",
    "piece": "piece pruning",
    "xprompt": "XPrompt",
    "xprompt_magnitude": "by magnitude",
    "xprompt_signed": "by signed score",
    "xprompt_random": "random tickets",
    "reversed": "reversed",
    "random": "random units",
    "magnitude": "largest magnitude",
    "length": "same length",
    "retrained": "retrained, nothing pruned",
    "no_rewind": "no rewind",
    "auto_scores": "ratio from scores",
    "auto_loss": "ratio from loss",
}
SPLITS = {"validation": "val", "heldout": "held-out", "test": "test"}
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


def title(method: str) -> str:
  """What tables call a method; one that they do not know keeps its name."""
  return TITLES.get(method, method.replace("_", " "))


def _rows(summary: Mapping[str, Any]) -> list[Mapping[str, Any]]:
  """The rows of all methods, one after another."""
  return [row for method in summary["methods"] for row in method["rows"]]


def _splits_and_metrics(
    summary: Mapping[str, Any],
) -> tuple[list[str], list[str]]:
  """Those that any row has: methods may differ in what they measure."""
  rows = _rows(summary)
  splits = [name for name in SPLITS if any(name in row for row in rows)]
  metrics = dict.fromkeys(
      name for row in rows for split in splits for name in row.get(split, {})
  )
  return splits, [name for name in metrics if name != "score"]


def _add_scores(table: rich.table.Table, summary: Mapping[str, Any]) -> None:
  splits, metrics = _splits_and_metrics(summary)
  for split in splits:
    for metric in metrics:
      # Two lines where there are more columns, or long names.
      short = len(metrics) == 1 and len(metric) < 10
      name = f"{SPLITS[split]}{' ' if short else chr(10)}{metric}"
      table.add_column(name, justify="right", no_wrap=True)


def _one_table_or_two(
    summary: Mapping[str, Any], *, split_up: bool, between: str
) -> list[rich.table.Table]:
  """Scores and sizes of each method, side by side or one below the other."""
  splits, metrics = _splits_and_metrics(summary)
  methods = summary["methods"]
  num_seeds = len({row["seed"] for row in _rows(summary)} - {None})
  over = f"{num_seeds} seed{'s' if num_seeds > 1 else ''}"
  spread = ", mean ± standard deviation" if num_seeds > 1 else ""
  scores = text_tables.plain_table(f"{summary['task']}: {over}{spread}")
  sizes = text_tables.plain_table() if split_up else scores
  _add_scores(scores, summary)
  for name, _, _ in _SIZES:
    sizes.add_column(name, justify="right", no_wrap=True)
  for method in methods:
    name, rows = title(method["method"]), method["rows"]
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
        cells.cell([row.get(key) for row in rows], digits)
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
        f"{summary['task']}: {verdicts.SPLITS[split]}", first="metric"
    )
    for method in methods:
      made.add_column(title(method["method"]), justify="right", no_wrap=True)
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
  metrics = list(
      dict.fromkeys(
          metric
          for row in _rows(summary)
          for name in columns
          for metric in row.get(key, {}).get(name, {})
          if metric != "score"
      )
  )
  # Where there are several, each has a line below their mean.
  shown = metrics if len(metrics) == 1 else ["score", *metrics]
  heading = f"{summary['task']}: {shown[0]} {what}"

  def build(names: Sequence[str], between: str) -> rich.table.Table:
    table = text_tables.titled_table(heading)
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
        own = title(method["method"])
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
  rows = _rows(summary)
  tables = []
  ways = {
      k: v
      for k, v in _WAYS.items()
      if any(k in r.get("ways", {}) for r in rows)
  }
  if len(ways) > 1:
    what = f"on {verdicts.SPLITS[splits[-1]]} by way of predicting"
    tables += _apart_tables(summary, "ways", ways, what)
  others = {name: name for r in rows for name in r.get("other_tasks", {})}
  if others:
    tables += _apart_tables(summary, "other_tasks", others, "on other tasks")
  return tables


def not_possible(summary: Mapping[str, Any]) -> list[str]:
  """A line for each way of predicting that the task does not allow."""
  reasons: dict[str, str] = {}
  for row in _rows(summary):
    reasons = {**row.get("not_possible", {}), **reasons}
  return [f"No {_WAYS[way]}: {reason}." for way, reason in reasons.items()]


def left_out(summary: Mapping[str, Any]) -> list[str]:
  """A line for each control that some rows have none of."""
  found: dict[tuple[str, str], list[str]] = {}
  for line in summary.get("left_out", ()):
    key = (title(line["method"]), line["reason"])
    found.setdefault(key, []).append(str(line["seed"]))
  return [
      f"No {name} of seed{'s' if len(seeds) > 1 else ''} {', '.join(seeds)}:"
      f" {reason}."
      for (name, reason), seeds in found.items()
  ]


def print_scores(
    summary: Mapping[str, Any], rights: verdicts.Rights | None = None
) -> None:
  """Prints the tables of one task, and what they say of XPrompt.

  Args:
    summary: the contents of `WORKDIR/result.json`.
    rights: from `verdicts.rights_of`.
  """
  output = text_tables.console()
  for table in (*summary_tables(summary), *way_tables(summary)):
    output.print(table)
    output.print()
  for text in (
      *verdicts.lines(summary, rights),
      *not_possible(summary),
      *left_out(summary),
      verdicts.selection(summary),
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
  names = {method["method"] for method in summary["methods"]}
  tried = summary.get("tickets_tried")
  files = [(artifacts.RESULT, "this summary")]
  if tried:
    files.append((artifacts.TICKETS, f"all {tried} tickets tried"))
  if verdicts.XPROMPT in names:
    prompt = f"{artifacts.REWIND}/{artifacts.PROMPT}"
    files.append((prompt, "XPrompt, with its masks"))
  if verdicts.TUNING in names:
    prompt = f"{artifacts.TUNE}/{artifacts.PROMPT}"
    files.append((prompt, "the tuned prompts"))
  files.append((artifacts.TENSORBOARD, "curves, for `tensorboard --logdir`"))
  for name, what in files:
    output.print(f"{workdir / name}: {what}", soft_wrap=True, markup=False)


def print_summary(
    summary: Mapping[str, Any],
    workdir: pathlib.Path,
    rights: verdicts.Rights | None = None,
) -> None:
  """Prints the tables, the time each stage took, and where the files are."""
  print_scores(summary, rights)
  print_files(summary, workdir)
