"""Finished runs, as their files have them; docs/files.md describes these.

Every file is checked for what the report takes from it, so that a damaged one
is named in one line.
"""

from collections.abc import Iterator, Mapping, Sequence
import dataclasses
import functools
import json
import pathlib
from typing import Any

import numpy as np

from xprompt_jax import artifacts
from xprompt_jax.errors import UserError

Row = Mapping[str, Any]
# The schema of `WORKDIR/result.json` that this module reads.
SCHEMA = 1
SPLITS = ("validation", "heldout", "test")
# Numbers of rows, where they are there.
_NUMBERS = (
    "kept_tokens",
    "kept_pieces",
    "tunable_parameters",
    "inference_parameters",
    "token_ratio",
    "piece_ratio",
    "ratio",
    "num_masked",
)
_NAMES = ("task", "granularity", "rule", "order")


def refuse(path: pathlib.Path, name: str, found: Any, expected: str) -> None:
  text = repr(found)
  text = text if len(text) < 60 else f"{text[:57]}..."
  raise UserError(f"{path}: {name}: found {text}, expected {expected}")


def _is_number(found: Any) -> bool:
  return isinstance(found, (int, float)) and not isinstance(found, bool)


def _are_numbers(found: Any) -> bool:
  return isinstance(found, dict) and all(map(_is_number, found.values()))


def _check_metrics(path: pathlib.Path, name: str, found: Any) -> None:
  if not _are_numbers(found):
    refuse(path, name, found, "numbers by metric")
  if "score" not in found:
    refuse(path, name, found, "a score among them")


def check_rows(
    path: pathlib.Path, name: str, rows: Any, needed: Sequence[str] = ()
) -> list[Row]:
  """Rows of a result file, or an error that names the one that is none.

  Args:
    path: the file.
    name: of the list in it.
    rows: what was found there.
    needed: keys that each row must have.

  Raises:
    UserError: no list of objects with a seed and metrics.
  """
  if not isinstance(rows, list):
    refuse(path, name, rows, "a list of rows")
  for number, row in enumerate(rows):
    where = f"{name}[{number}]"
    if not isinstance(row, dict):
      refuse(path, where, row, "an object")
    for key in ("seed", *needed):
      if key not in row:
        refuse(path, where, sorted(row), f"{key!r} among its keys")
    for split in SPLITS:
      if split in row:
        _check_metrics(path, f"{where}.{split}", row[split])
    _check_fields(path, where, row)
  return rows


def _check_fields(path: pathlib.Path, where: str, row: Row) -> None:
  """Refuses fields of a row that have another type than docs/files.md says."""
  if not isinstance(row["seed"], (int, type(None))):
    refuse(path, f"{where}.seed", row["seed"], "an integer or null")
  for key in _NUMBERS:
    if row.get(key) is not None and not _is_number(row[key]):
      refuse(path, f"{where}.{key}", row[key], "a number")
  for key in _NAMES:
    if not isinstance(row.get(key, ""), str):
      refuse(path, f"{where}.{key}", row[key], "a name")
  sizes = row.get("metric_sizes", {})
  if not isinstance(sizes, dict) or not all(map(_are_numbers, sizes.values())):
    refuse(path, f"{where}.metric_sizes", sizes, "numbers by split and metric")


def _check_summary(path: pathlib.Path, summary: Mapping[str, Any]) -> None:
  if summary.get("schema") != SCHEMA:
    refuse(path, "schema", summary.get("schema"), str(SCHEMA))
  for key, kind, expected in (
      ("config", dict, "an object"),
      ("task", str, "a name"),
      ("num_examples", dict, "an object"),
      ("methods", list, "a list of methods"),
  ):
    if not isinstance(summary.get(key), kind):
      refuse(path, key, summary.get(key), expected)
  if not _are_numbers(summary.get("seconds", {})):
    refuse(path, "seconds", summary["seconds"], "numbers by stage")
  if not _are_numbers(summary["num_examples"]):
    refuse(path, "num_examples", summary["num_examples"], "numbers by split")
  members = summary.get("members", {})
  if not isinstance(members, dict) or not all(
      map(_are_numbers, members.values())
  ):
    refuse(path, "members", members, "numbers by task and split")
  if not summary["methods"]:
    refuse(path, "methods", [], "at least one")
  for number, method in enumerate(summary["methods"]):
    name = f"methods[{number}]"
    if not isinstance(method, dict) or not isinstance(
        method.get("method"), str
    ):
      refuse(path, name, method, "an object with `method` and `rows`")
    rows = check_rows(path, f"{name}.rows", method.get("rows"), ("validation",))
    if not rows:
      refuse(path, f"{name}.rows", rows, "at least one")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Run:
  """One finished run.

  Attributes:
    name: tells it from the others of the report.
    path: its WORKDIR.
    family: the suite that it is part of, or "" of a run that was named itself.
    summary: `result.json`.
  """

  name: str
  path: pathlib.Path
  family: str
  summary: Mapping[str, Any]

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

  def lines(self, name: str) -> list[dict[str, Any]]:
    """A file of JSON lines; none where it is not there."""
    path = self.path / name
    lines = artifacts.read_json_lines(path)
    return list(check_rows(path, "lines", lines, ("validation",)))  # type: ignore[arg-type]

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
  """

  run: Run
  runs: Mapping[str, Run]
  task: str
  methods: Mapping[str, tuple[Row, ...]]
  indices: Mapping[str, tuple[int, ...]]
  num_examples: Mapping[str, int]

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


def merged(found: Sequence[Part]) -> list[Part]:
  """Puts the methods of different runs together.

  Only those of one task, protocol and data, where no two runs have a method in
  common, the one without a prompt left out.
  """
  groups: dict[tuple, list[Part]] = {}
  for part in found:
    data = json.dumps(part.run.config.get("splits"), sort_keys=True)
    few = part.run.few_shot
    key = (part.task, part.run.protocol, part.split, few, data)
    groups.setdefault(key, []).append(part)
  together = []
  for group in groups.values():
    counted = [m for p in group for m in p.methods if m != "no_prompt"]
    if len(set(counted)) < len(counted):
      together += group
      continue
    # The run with most methods gives the others their name.
    first = max(group, key=lambda part: len(part.methods))
    group = [first, *(part for part in group if part is not first)]
    group.reverse()  # What two runs have is taken from the first.
    together.append(
        dataclasses.replace(
            first,
            runs={m: p.runs[m] for p in group for m in p.methods},
            methods={m: p.methods[m] for p in group for m in p.methods},
            indices={m: p.indices[m] for p in group for m in p.methods},
        )
    )
  return together


def _found_in(
    path: pathlib.Path, family: str, above: tuple[pathlib.Path, ...]
) -> Iterator[tuple[pathlib.Path, str, Mapping[str, Any]]]:
  """Each run of a folder, with the suite it is part of and its summary."""
  result = path / artifacts.RESULT
  if not path.is_dir():
    raise UserError(f"{path}: found no folder, expected that of a run or suite")
  if not result.exists():
    raise UserError(
        f"{result}: not there, expected a finished run: the same `t5x train`"
        " command goes on with it"
    )
  summary = artifacts.read_json(result)
  if "runs" not in summary:
    _check_summary(result, summary)
    yield path, family, summary
    return
  names = summary["runs"]
  if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
    refuse(result, "runs", names, "a list of names")
  for name in names:
    member = path / name
    if member.resolve() in above:
      refuse(result, "runs", name, "a folder below")
    yield from _found_in(member, str(path), (*above, member.resolve()))


def read_runs(workdirs: Sequence[pathlib.Path]) -> list[Run]:
  """All runs in the folders named, each once.

  Args:
    workdirs: of runs, or of suites, which name theirs.

  Raises:
    UserError: a folder that is missing, a run that is not finished, or a file
      that is damaged.
  """
  found: dict[pathlib.Path, tuple[pathlib.Path, str, Mapping[str, Any]]] = {}
  for workdir in workdirs:
    for one in _found_in(workdir, "", (workdir.resolve(),)):
      found.setdefault(one[0].resolve(), one)
  if not found:
    raise UserError(
        f"{workdirs[0] / artifacts.RESULT}: found no runs, expected one"
    )
  names = _short_names(list(found))
  return [
      Run(name=name, path=path, family=family, summary=summary)
      for name, (path, family, summary) in zip(
          names, found.values(), strict=True
      )
  ]


def _short_names(paths: Sequence[pathlib.Path]) -> list[str]:
  """The ends of paths, as long as it takes to tell them apart."""
  for count in range(1, max(len(path.parts) for path in paths) + 1):
    names = ["/".join(path.parts[-count:]) for path in paths]
    if len(set(names)) == len(names):
      break
  return names
