"""Many tasks side by side: the table of a suite and of a table of tasks.

`report.py` shows one task; this module takes the same summaries, one for each
task, and averages as SuperGLUE does: the metrics of a task first, then tasks
(Wang et al. 2019, section 3.1).
"""

from collections.abc import Mapping, Sequence
import pathlib
import re
import statistics
from typing import Any

import rich.console
import rich.table

from xprompt_jax import cells, report, text_tables

# Raised when a reader of older results would read newer ones wrongly.
SCHEMA = 1
SUPERGLUE = ("boolq", "cb", "copa", "multirc", "record", "rte", "wic", "wsc")
_NAME = re.compile(
    rf"(?:super_glue_)?({'|'.join(SUPERGLUE)})(?:_v102.*)?(?:_fewglue)?"
)

Summary = Mapping[str, Any]


def superglue_name(task: str) -> str | None:
  """Which of SuperGLUE's tasks a seqio task is: `super_glue_rte_v102` is rte.

  The diagnostics are none: no score of theirs counts.
  """
  found = _NAME.fullmatch(task)
  return found and found[1]


def by_task(summary: Summary) -> dict[str, Summary]:
  """A summary for each task of a table whose rows read different tasks.

  Args:
    summary: the contents of `WORKDIR/result.json`.

  Returns:
    Summaries by task; none where all rows read one task or mixture.
  """
  examples = summary.get("members", {})
  if "task" not in summary["methods"][-1]["rows"][0]:
    return {}
  return {
      task: {
          **summary,
          "task": task,
          "num_examples": counts,
          "methods": [
              {
                  **method,
                  "rows": [r for r in method["rows"] if r["task"] == task],
              }
              for method in summary["methods"]
          ],
      }
      for task, counts in examples.items()
  }


def _counts(
    rows: Sequence[Mapping[str, Any]], split: str, metrics: Sequence[str]
) -> dict[str, str]:
  """The metrics that are shares, as "74/104" over all seeds."""
  found = {
      name: cells.shares(
          [row[split][name] for row in rows], cells.sizes_of(rows, split, name)
      )
      for name in metrics
  }
  return {name: text for name, text in found.items() if text}


def _task_result(summary: Summary) -> dict[str, Any]:
  """One task's scores by method; on test where there is one."""
  first = summary["methods"][0]["rows"][0]
  split = "test" if "test" in first else "validation"
  methods = {}
  for method in summary["methods"]:
    rows = method["rows"]
    metrics = [name for name in rows[0][split] if name != "score"]
    methods[method["method"]] = {
        "seeds": [row["seed"] for row in rows],
        "scores": [row[split]["score"] for row in rows],
        "metrics": {
            name: [row[split][name] for row in rows] for name in metrics
        },
        "counts": _counts(rows, split, metrics),
    }
  return {
      "task": summary["task"],
      "split": split,
      "num_examples": summary["num_examples"][split],
      "methods": methods,
  }


def _mean_scores(tasks: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
  """Mean over tasks by method: a number for each seed where seeds agree."""
  means = {}
  for method in tasks[0]["methods"]:
    if not all(method in task["methods"] for task in tasks):
      continue
    found = [task["methods"][method] for task in tasks]
    if len({tuple(one["seeds"]) for one in found}) == 1:
      columns = zip(*[one["scores"] for one in found], strict=True)
      means[method] = [statistics.fmean(scores) for scores in columns]
    else:
      over_seeds = [statistics.fmean(one["scores"]) for one in found]
      means[method] = [statistics.fmean(over_seeds)]
  return means


def suite_result(
    summaries: Mapping[str, Summary], failed: Mapping[str, str]
) -> dict[str, Any]:
  """What `WORKDIR/result.json` of a suite holds.

  Args:
    summaries: those of its tasks, by name.
    failed: why the other tasks have none.

  Returns:
    JSON-able; docs/recipes.md describes it.
  """
  tasks = {}
  for name, summary in summaries.items():
    parts = by_task(summary) or {name: summary}
    tasks.update({k: _task_result(part) for k, part in parts.items()})
  counted = {
      name: known
      for name, task in tasks.items()
      if (known := superglue_name(task["task"]))
  }
  result = {"schema": SCHEMA, "tasks": tasks, "failed": dict(failed)}
  # A task that stands there twice would count twice.
  if counted and len(set(counted.values())) == len(counted):
    result["superglue"] = {
        "tasks": sorted(counted.values()),
        "missing": [t for t in SUPERGLUE if t not in counted.values()],
        "scores": _mean_scores([tasks[name] for name in counted]),
    }
  elif tasks:
    result["average"] = {"scores": _mean_scores(list(tasks.values()))}
  return result


def _result_cell(
    task: Mapping[str, Any], method: str, metric: str, between: str
) -> str:
  """One number of a task by a method, with its k/N where it is a share."""
  found = task["methods"].get(method)
  if found is None:
    return cells.cell((), 2)
  metrics = found["metrics"]
  values = found["scores"] if metric == "score" else metrics.get(metric, ())
  # The score of a task with one metric is that metric.
  own = next(iter(metrics)) if len(metrics) == 1 else metric
  share = found["counts"].get(own)
  return cells.cell(list(values), 2) + (f"{between}({share})" if share else "")


def _add_task(
    table: rich.table.Table,
    name: str,
    task: Mapping[str, Any],
    methods: Sequence[str],
    between: str,
) -> None:
  """A line for the score; below it one for each metric, if there are several."""
  metrics = list(next(iter(task["methods"].values()))["metrics"])
  for metric in ("score", *(metrics if len(metrics) > 1 else ())):
    table.add_row(
        name if metric == "score" else f"  {metric}",
        report.SPLITS[task["split"]] if metric == "score" else "",
        *(_result_cell(task, m, metric, between) for m in methods),
    )


def suite_tables(result: Mapping[str, Any]) -> list[rich.table.Table]:
  """A row for each task, a column for each method, and the mean over tasks.

  Args:
    result: from `suite_result`.

  Returns:
    One table, or several where its columns are too many. Scores (means of a
    task's metrics) as mean and standard deviation over seeds, with k/N where
    the score is one share; each metric of a task that has several.
  """
  known: dict[str, None] = {}
  for task in result["tasks"].values():
    known.update(dict.fromkeys(task["methods"]))
  mean = result.get("superglue") or result["average"]
  title = "SuperGLUE" if "superglue" in result else "average"

  def build(methods: Sequence[str], between: str) -> rich.table.Table:
    table = text_tables.titled_table("score of each task", first="task")
    table.add_column("split", no_wrap=True)
    for method in methods:
      table.add_column(report.TITLES[method], justify="right", no_wrap=True)
    for name, task in result["tasks"].items():
      _add_task(table, name, task, methods, between)
    table.add_section()
    means = [cells.cell(list(mean["scores"].get(m, ())), 2) for m in methods]
    table.add_row(title, "", *means)
    return table

  return text_tables.fitting_tables(build, list(known))


def print_suite(result: Mapping[str, Any]) -> None:
  """Prints the table of a suite, and which tasks it lacks."""
  console = text_tables.console()
  for table in suite_tables(result):
    console.print(table)
    console.print()
  paragraphs = []
  if superglue := result.get("superglue"):
    counted, missing = superglue["tasks"], superglue["missing"]
    text = (
        f"SuperGLUE: mean over {len(counted)} of its {len(SUPERGLUE)} tasks,"
        " several metrics of a task averaged first"
    )
    if missing:
      text += f"; without {', '.join(missing)}"
    paragraphs.append(f"{text}.")
  if failed := result["failed"]:
    paragraphs.append(f"Failed: {', '.join(failed)}.")
  for text in paragraphs:
    console.print(text, width=text_tables.WIDTH)


def print_run(summary: Summary, workdir: pathlib.Path) -> None:
  """Prints what ends a run: of one task, or of a table of tasks."""
  parts = by_task(summary)
  for part in parts.values():
    report.print_scores(part)
  if parts:
    print_suite(suite_result({summary["task"]: summary}, {}))
    report.print_files(summary, workdir)
  else:
    report.print_summary(summary, workdir)
