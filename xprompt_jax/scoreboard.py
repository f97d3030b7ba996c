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

from xprompt_jax import (
    cells,
    comparisons,
    correctness,
    report,
    text_tables,
    verdicts,
)

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
  if not any("task" in row for m in summary["methods"] for row in m["rows"]):
    return {}
  return {
      task: {
          **summary,
          "task": task,
          "num_examples": counts,
          **{
              key: [line for line in summary[key] if line["task"] == task]
              for key in ("left_out", "selection")
              if key in summary
          },
          "methods": [
              {**method, "rows": rows}
              for method in summary["methods"]
              if (rows := [r for r in method["rows"] if r["task"] == task])
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
  """One task's scores by method, on the split that reports."""
  split = comparisons.reporting_split(
      row for method in summary["methods"] for row in method["rows"]
  )
  methods = {}
  for method in summary["methods"]:
    rows = [row for row in method["rows"] if split in row]
    if not rows:
      continue
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


def _mean(tasks: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
  """The mean over tasks: SuperGLUE's, where tasks of its own are among them."""
  counted = {
      name: known
      for name, task in tasks.items()
      if (known := superglue_name(task["task"]))
  }
  # A task that stands there twice would count twice.
  if counted and len(set(counted.values())) == len(counted):
    return {
        "superglue": {
            "tasks": sorted(counted.values()),
            "missing": [t for t in SUPERGLUE if t not in counted.values()],
            "scores": _mean_scores([tasks[name] for name in counted]),
        }
    }
  return {"average": {"scores": _mean_scores(list(tasks.values()))}}


def _parts(
    name: str, summary: Summary, *, is_sweep: bool
) -> dict[str, dict[str, Any]]:
  """What one run found, by task where it is a table of several."""
  of_tasks = {
      f"{name}/{task}" if is_sweep else task: part
      for task, part in by_task(summary).items()
  }
  found = of_tasks or {name: summary}
  return {key: _task_result(part) for key, part in found.items()}


def suite_result(
    summaries: Mapping[str, Summary],
    failed: Mapping[str, str],
    *,
    is_sweep: bool = False,
) -> dict[str, Any]:
  """What `WORKDIR/result.json` of a suite holds.

  Args:
    summaries: those of its tasks, by name.
    failed: why the other tasks have none.
    is_sweep: whether names end in that of a setting: each has a mean of its
      own.

  Returns:
    JSON-able; docs/recipes.md describes it.
  """
  parts = {
      name: _parts(name, summary, is_sweep=is_sweep)
      for name, summary in summaries.items()
  }
  tasks = {k: task for found in parts.values() for k, task in found.items()}
  result = {"schema": SCHEMA, "tasks": tasks, "failed": dict(failed)}
  if not is_sweep:
    return {**result, **(_mean(tasks) if tasks else {})}
  of_run: dict[str, dict[str, Any]] = {}
  for name, found in parts.items():
    of_run.setdefault(name.rpartition("/")[2], {}).update(found)
  result["by_run"] = {run: _mean(own) for run, own in of_run.items()}
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


def _titled_means(
    result: Mapping[str, Any],
) -> dict[str, Mapping[str, Sequence[float]]]:
  """Means over tasks by what stands in front of them; none over one task."""
  by_run = result.get("by_run")
  if by_run is not None and len(by_run) == len(result["tasks"]):
    return {}
  found = {"": result} if by_run is None else by_run
  return {
      f"{'SuperGLUE' if 'superglue' in one else 'average'} {run}".strip(): (
          one.get("superglue") or one["average"]
      )["scores"]
      for run, one in found.items()
  }


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
  means = _titled_means(result)

  def build(methods: Sequence[str], between: str) -> rich.table.Table:
    table = text_tables.titled_table("score of each task", first="task")
    table.add_column("split", no_wrap=True)
    for method in methods:
      table.add_column(report.title(method), justify="right", no_wrap=True)
    for name, task in result["tasks"].items():
      _add_task(table, name, task, methods, between)
    if means:
      table.add_section()
    for title, scores in means.items():
      found = [cells.cell(list(scores.get(m, ())), 2) for m in methods]
      table.add_row(title, "", *found)
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
  rights = verdicts.rights_of(summary, correctness.load(workdir))
  for part in parts.values():
    report.print_scores(part, rights)
  if parts:
    print_suite(suite_result({summary["task"]: summary}, {}))
    report.print_files(summary, workdir)
  else:
    report.print_summary(summary, workdir, rights)
