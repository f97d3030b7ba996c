"""Several tasks or settings with one recipe, a folder and a result for each.

TASK_FILES names the tasks, RUNS the settings. Each is a run of its own in
WORKDIR/<name>/, so that a suite that was stopped goes on in the middle of a run.
The frozen weights are loaded once.
"""

from collections.abc import Mapping
import dataclasses
import json
import pathlib
from typing import Any

from xprompt_jax import artifacts, commands, scoreboard
from xprompt_jax.experiment import ExperimentConfig, SharedWeights
from xprompt_jax.types import UserError, mendable


@dataclasses.dataclass(frozen=True, kw_only=True)
class SuiteTask:
  """One run of a suite.

  Attributes:
    config: the root config.
    workdir: the task's folder.
    gin_config: the operative config, as text.
  """

  config: ExperimentConfig
  workdir: pathlib.Path
  gin_config: str


def train(
    tasks: Mapping[str, SuiteTask],
    workdir: pathlib.Path,
    *,
    is_sweep: bool = False,
    is_partial: bool = False,
) -> None:
  """Runs all stages of all tasks and prints one table at the end.

  Tasks that an earlier command ran in WORKDIR stay in its result.

  Args:
    tasks: by name.
    workdir: where the suite's result goes.
    is_sweep: whether they are settings, of one task or of several.
    is_partial: whether only some of a recipe's runs were asked for, which says
      nothing of the others.

  Raises:
    UserError: WORKDIR is that of a single task; or tasks that failed, after
      the others ran.
  """
  earlier = _earlier(workdir, is_sweep=is_sweep)
  weights = SharedWeights()
  summaries, failed = {}, {}
  what = "run" if is_sweep else "task"
  for number, (name, task) in enumerate(tasks.items(), 1):
    print(f"{name}: {what} {number} of {len(tasks)}", flush=True)
    try:
      summaries[name] = commands.train(
          task.config, task.workdir, task.gin_config, weights
      )
    except BrokenPipeError:
      raise
    except Exception as e:
      reason = mendable(e)
      if reason is None:
        raise
      failed[name] = reason
      print(f"{name}: failed: {reason}")
    print(flush=True)
  kept = {k: v for k, v in earlier.items() if k not in tasks}
  marked = set(_stale(workdir)) if is_partial else set(kept)
  stale = [name for name in kept if name in marked]
  summaries = {**kept, **summaries}
  result = scoreboard.suite_result(summaries, failed, is_sweep=is_sweep)
  result["runs"] = list(summaries)
  if stale:
    result["earlier"] = stale
  _write(workdir / artifacts.RESULT, result)
  if summaries:
    scoreboard.print_suite(result)
    if kept:
      print(f"From earlier commands: {', '.join(kept)}.")
  print(f"{workdir / artifacts.RESULT}: these scores")
  if failed:
    reasons = "; ".join(f"{name}: {why}" for name, why in failed.items())
    raise UserError(f"{len(failed)} of {len(tasks)} {what}s failed: {reasons}")


def _stale(workdir: pathlib.Path) -> list[str]:
  """The names that the result in WORKDIR marks as another recipe's."""
  path = workdir / artifacts.RESULT
  return artifacts.read_json(path).get("earlier", []) if path.exists() else []


def _earlier(
    workdir: pathlib.Path, *, is_sweep: bool
) -> dict[str, dict[str, Any]]:
  """Summaries of the tasks that a suite has finished in WORKDIR, by name."""
  path = workdir / artifacts.RESULT
  if not path.exists():
    return {}
  result = artifacts.read_json(path)
  names = result.get("runs")
  if not isinstance(names, list):
    raise UserError(
        f"{path}: found the result of a single task, expected a suite's, or"
        " another --workdir"
    )
  kinds = ("a suite of tasks", "a sweep of RUNS")
  was_sweep = "by_run" in result
  if names and was_sweep != is_sweep:
    raise UserError(
        f"{path}: found the result of {kinds[was_sweep]}, expected that of"
        f" {kinds[is_sweep]}, or another --workdir"
    )
  results = {name: workdir / str(name) / artifacts.RESULT for name in names}
  return {n: artifacts.read_json(p) for n, p in results.items() if p.exists()}


def _write(path: pathlib.Path, result: dict) -> None:
  """Writes the result unless it is there: a finished suite stays untouched."""
  # Through JSON, so that tuples and lists compare equal.
  new = json.loads(json.dumps(result, allow_nan=False))
  if not path.exists() or artifacts.read_json(path) != new:
    artifacts.write_json(path, new)
