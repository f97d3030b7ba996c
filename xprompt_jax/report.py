"""The summary of a run as a table: what each method reached with how much.

Reads `result.json` alone, so it needs neither JAX nor the model.
"""

from collections.abc import Mapping, Sequence
import pathlib
import statistics
from typing import Any

import rich.console
import rich.table

from xprompt_jax import artifacts

_TITLES = {
    "no_prompt": "no prompt",
    "prompt_tuning": "prompt tuning",
    "token": "token pruning",
    "piece": "piece pruning",
    "xprompt": "XPrompt",
}


def mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
  """Mean and sample standard deviation (0 for one value)."""
  spread = statistics.stdev(values) if len(values) > 1 else 0.0
  return statistics.fmean(values), spread


def _cell(rows: Sequence[Mapping[str, Any]], *keys: str) -> str:
  """Mean and spread over seeds of one number, or nothing if it lacks."""
  values = []
  for row in rows:
    value: Any = row
    for key in keys:
      value = value.get(key) if value is not None else None
    if value is None:
      return "-"
    values.append(value)
  mean, spread = mean_and_spread(values)
  digits = 2 if isinstance(values[0], float) else 1
  if len(values) == 1:
    return f"{mean:.{digits}f}" if digits == 2 else str(values[0])
  return f"{mean:.{digits}f} ± {spread:.{digits}f}"


def summary_table(summary: Mapping[str, Any]) -> rich.table.Table:
  """The table that ends a run.

  Args:
    summary: the contents of `WORKDIR/result.json`.

  Returns:
    A row for each method: metrics on validation and test, kept tokens, kept
    pieces and trained numbers, as mean and standard deviation over seeds.
  """
  methods = summary["methods"]
  first = methods[0]["rows"][0]
  splits = [name for name in ("validation", "test") if name in first]
  metrics = [name for name in first["validation"] if name != "score"]
  num_seeds = len(methods[1]["rows"])
  counts = ", ".join(
      f"{name} {count}" for name, count in summary["num_examples"].items()
  )
  table = rich.table.Table(
      title=f"{summary['task']}: {num_seeds} seeds, mean ± standard deviation",
      caption=f"examples: {counts}; best checkpoint and best ticket are"
      " selected on validation",
  )
  table.add_column("method")
  for split in splits:
    for metric in metrics:
      table.add_column(f"{split}\n{metric}", justify="right")
  for title in ("kept\ntokens", "kept\npieces", "tunable\nparameters"):
    table.add_column(title, justify="right")
  for method in methods:
    rows = method["rows"]
    table.add_row(
        _TITLES[method["method"]],
        *[_cell(rows, s, m) for s in splits for m in metrics],
        _cell(rows, "kept_tokens"),
        _cell(rows, "kept_pieces"),
        _cell(rows, "tunable_parameters"),
    )
  return table


def print_summary(summary: Mapping[str, Any], workdir: pathlib.Path) -> None:
  """Prints the table, the time each stage took, and where the files are."""
  console = rich.console.Console(highlight=False)
  console.print(summary_table(summary))
  seconds = summary["seconds"]
  parts = [f"{name} {value:.0f} s" for name, value in seconds.items()]
  console.print(f"time: {', '.join(parts)}", soft_wrap=True)
  files = (
      (artifacts.RESULT, "this summary"),
      (artifacts.TICKETS, f"all {summary['tickets_tried']} tickets tried"),
      (f"{artifacts.REWIND}/{artifacts.PROMPT}", "XPrompt, with its masks"),
      (f"{artifacts.TUNE}/{artifacts.PROMPT}", "the tuned prompts"),
      (artifacts.TENSORBOARD, "tensorboard --logdir of it shows the curves"),
  )
  for name, what in files:
    console.print(f"{workdir / name}: {what}", soft_wrap=True)
