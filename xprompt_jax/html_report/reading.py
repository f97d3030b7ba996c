"""Finished runs, as their files have them; docs/files.md describes these.

Every file is checked for what the report takes from it, so that a damaged one
is named in one line.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import functools
import pathlib
from typing import Any

import numpy as np

from xprompt_jax import artifacts
from xprompt_jax.errors import UserError
from xprompt_jax.html_report.checks import (
    SPLITS,
    Row,
    check_rows,
    check_summary,
    refuse,
)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Run:
  """One finished run.

  Attributes:
    name: tells it from the others of the report.
    path: its WORKDIR.
    family: the suite that it is part of, or "" of a run that was named itself.
    origin: the folder of the command line it is in, or "" likewise.
    summary: `result.json`.
  """

  name: str
  path: pathlib.Path
  family: str
  summary: Mapping[str, Any]
  origin: str = ""

  @property
  def config(self) -> Mapping[str, Any]:
    """Every setting that decides the result."""
    return self.summary["config"]

  def section(self, name: str) -> Mapping[str, Any]:
    """One part of the config; empty where there is none."""
    found = self.config.get(name)
    return found if isinstance(found, Mapping) else {}

  @property
  def protocol(self) -> str:
    """`paper` or `heldout`."""
    return str(self.section("task").get("protocol", "paper"))

  @property
  def few_shot(self) -> int | None:
    """Training examples of each task, where they were drawn by seed."""
    return self.section("task").get("few_shot")

  def lines(self, name: str) -> list[Row]:
    """A file of JSON lines; none where it is not there."""
    path = self.path / name
    lines = artifacts.read_json_lines(path)
    return check_rows(path, "lines", lines, ("validation",))

  def optional_json(self, name: str) -> dict[str, Any] | None:
    """A JSON object; None where the file is not there."""
    path = self.path / name
    return artifacts.read_json(path) if path.exists() else None

  def optional_rows(self, name: str, needed: Sequence[str] = ()) -> list[Row]:
    """The `rows` of a result file; none where it is not there."""
    found = self.optional_json(name)
    if found is None:
      return []
    return check_rows(self.path / name, "rows", found.get("rows"), needed)

  def optional_arrays(
      self, name: str, ranks: Mapping[str, int]
  ) -> dict[str, np.ndarray]:
    """Arrays of a safetensors file; empty where it is not there.

    Args:
      name: the file.
      ranks: names of the arrays that are wanted, with their number of axes.
    """
    path = self.path / name
    if not path.exists():
      return {}
    arrays = artifacts.load_arrays(path)
    for key, rank in ranks.items():
      found = arrays[key].shape if key in arrays else None
      if found is None or len(found) != rank:
        refuse(path, key, found, f"an array with {rank} axes")
    return arrays


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Part:
  """What a run found on one task.

  Attributes:
    run: where it was found.
    runs: by method, where it was found: baselines are runs of their own.
    task: its name.
    methods: rows by method, in the order of the file.
    indices: by method, the places of these rows among all of the method's.
    num_examples: of each split.
    names: what a method is called in its run's files, where it has another
      name here.
  """

  run: Run
  runs: Mapping[str, Run]
  task: str
  methods: Mapping[str, tuple[Row, ...]]
  indices: Mapping[str, tuple[int, ...]]
  num_examples: Mapping[str, int]
  names: Mapping[str, str] = dataclasses.field(default_factory=dict)

  @functools.cached_property
  def split(self) -> str:
    """The split that is reported: test, held-out half, or validation."""
    first = next(iter(self.methods.values()))[0]
    return next(name for name in reversed(SPLITS) if name in first)

  @functools.cached_property
  def metrics(self) -> list[str]:
    """The task's metrics, without their mean."""
    first = next(iter(self.methods.values()))[0][self.split]
    return [name for name in first if name != "score"]

  @property
  def seeds(self) -> list[Any]:
    """The seeds of the rows, those of methods without one left out."""
    return [
        seed
        for seed in dict.fromkeys(
            row["seed"] for rows in self.methods.values() for row in rows
        )
        if seed is not None
    ]

  def rows_lacking(self, method: str) -> bool:
    """Whether a method lacks a seed that another has."""
    own = {row["seed"] for row in self.methods.get(method, ())}
    return bool(own - {None}) and len(own) < len(self.seeds)

  @property
  def other_splits(self) -> list[str]:
    """Splits that rows have besides: the held-out half, and what selects."""
    first = next(iter(self.methods.values()))[0]
    return [s for s in reversed(SPLITS) if s in first and s != self.split]

  def values(
      self, method: str, metric: str, split: str | None = None
  ) -> list[float | None]:
    """One metric of each row; None where it is lacking.

    Args:
      method: by name.
      metric: by name.
      split: None takes the one that is reported.
    """
    rows = self.methods.get(method, ())
    return [row.get(split or self.split, {}).get(metric) for row in rows]


def parts(run: Run) -> list[Part]:
  """What a run found, task by task.

  A table whose rows read different tasks has several.
  """
  members = run.summary.get("members") or {}
  if not members:
    members = {run.summary["task"]: run.summary["num_examples"]}
  found = []
  for task, num_examples in members.items():
    methods, indices = {}, {}
    for method in run.summary["methods"]:
      own = [
          (index, row)
          for index, row in enumerate(method["rows"])
          if row.get("task", task) == task
      ]
      if own:
        indices[method["method"]] = tuple(index for index, _ in own)
        methods[method["method"]] = tuple(row for _, row in own)
    found.append(
        Part(
            run=run,
            runs=dict.fromkeys(methods, run),
            task=task,
            methods=methods,
            indices=indices,
            num_examples=num_examples,
        )
    )
  return found


@dataclasses.dataclass(frozen=True, kw_only=True)
class Note:
  """Something that readers must know of a suite's run.

  Attributes:
    origin: the folder of the command line.
    text: a sentence.
  """

  origin: str
  text: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Reader:
  """Collects the runs below one folder of the command line.

  Attributes:
    origin: that folder.
    runs: suite and summary of each run, by its folder.
    notes: what is missing.
  """

  origin: pathlib.Path
  runs: dict[pathlib.Path, tuple[str, Mapping[str, Any]]]
  notes: list[Note]

  def note(self, path: pathlib.Path, text: str) -> None:
    name = path.relative_to(self.origin)
    self.notes.append(Note(origin=str(self.origin), text=f"{name} {text}."))

  def read(
      self, path: pathlib.Path, family: str, above: tuple[pathlib.Path, ...]
  ) -> None:
    """Finds each run of a folder, with the suite it is part of."""
    result = path / artifacts.RESULT
    if family and not result.exists():
      self.note(path, "was not run, or its result is gone")
      return
    if not path.is_dir():
      raise UserError(
          f"{path}: found no folder, expected that of a run or suite"
      )
    if not result.exists():
      raise UserError(
          f"{result}: not there, expected a finished run: the same `t5x train`"
          " command goes on with it"
      )
    summary = artifacts.read_json(result)
    if "runs" not in summary:
      check_summary(result, summary)
      self.runs[path] = family, summary
      return
    names = _names(result, summary, "runs")
    for name in names:
      member = path / name
      if member.resolve() in above:
        refuse(result, "runs", name, "a folder below")
      self.read(member, str(path), (*above, member.resolve()))
    for name in _names(result, summary, "earlier"):
      self.note(path / name, "is from an earlier command")
    failed = summary.get("failed") or {}
    if not isinstance(failed, dict):
      refuse(result, "failed", failed, "reasons by name")
    for name, reason in failed.items():
      self.note(path / name, f"failed: {str(reason).rstrip('.')}")


def _names(
    result: pathlib.Path, summary: Mapping[str, Any], key: str
) -> list[str]:
  found = summary.get(key, [])
  if not isinstance(found, list) or not all(isinstance(n, str) for n in found):
    refuse(result, key, found, "a list of names")
  return found


def read(workdirs: Sequence[pathlib.Path]) -> tuple[list[Run], list[Note]]:
  """All runs in the folders named, each once, and what is missing of them.

  Args:
    workdirs: of runs, or of suites, which name theirs.

  Raises:
    UserError: a folder that is missing, a run that is not finished, or a file
      that is damaged.
  """
  found: dict[pathlib.Path, dict[str, Any]] = {}
  notes: list[Note] = []
  for workdir in dict.fromkeys(workdirs):
    reader = _Reader(origin=workdir, runs={}, notes=notes)
    reader.read(workdir, "", (workdir.resolve(),))
    for path, (family, summary) in reader.runs.items():
      own = {"path": path, "family": family, "summary": summary}
      own["origin"] = str(workdir) if family else ""
      found.setdefault(path.resolve(), own)
  if not found:
    raise UserError(
        f"{workdirs[0] / artifacts.RESULT}: found no runs, expected one"
    )
  names = _short_names(list(found))
  return [
      Run(name=name, **own)
      for name, own in zip(names, found.values(), strict=True)
  ], notes


def read_runs(workdirs: Sequence[pathlib.Path]) -> list[Run]:
  """The runs of `read` alone."""
  return read(workdirs)[0]


def _short_names(paths: Sequence[pathlib.Path]) -> list[str]:
  """The ends of paths, as long as it takes to tell them apart."""
  for count in range(1, max(len(path.parts) for path in paths) + 1):
    names = ["/".join(path.parts[-count:]) for path in paths]
    if len(set(names)) == len(names):
      break
  return names
