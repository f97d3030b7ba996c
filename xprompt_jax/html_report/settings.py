"""In which settings runs differ: what makes a sweep of them."""

from collections.abc import Mapping, Sequence
import dataclasses
import os
import pathlib
import re
from typing import Any

from xprompt_jax.html_report import names, sizes
from xprompt_jax.html_report.reading import Part, Run

# Which data and weights, not how they were used. Protocols stand side by side.
_APART = (
    "splits",
    "test",
    "seeds",
    "frozen_params",
    "other_tasks",
    "task.name",
    "task.module",
    "task.protocol",
    "task.buckets",
    # What stands beside the search and changes nothing of it.
    "search.importances",
    "search.controls",
    "search.masking_counts",
    "search.masking_draws",
    "search.auto_ratio",
)
_INIT_FILE = "prompt.init_file"
_DIGEST = re.compile(r"[0-9a-f]{64}")


def _flatten(value: Any, name: str) -> dict[str, Any]:
  if not isinstance(value, Mapping):
    return {name: value}
  found = {}
  for key, inner in value.items():
    found.update(_flatten(inner, f"{name}.{key}" if name else str(key)))
  return found


def settings(run: Run) -> dict[str, Any]:
  """The fields of a run's config that may label it; the model is one field."""
  config = {k: v for k, v in run.config.items() if k != "model"}
  fields = _flatten(config, "")
  if run.summary.get("init_file"):
    # The config has a digest in its place.
    fields[_INIT_FILE] = run.summary["init_file"]
  model = run.section("model")
  if model:
    where = str(run.path / "result.json")
    fields["model"] = sizes.model_parameters(model, where)
  return {
      name: value
      for name, value in fields.items()
      if not any(name == a or name.startswith(f"{a}.") for a in _APART)
      and not (isinstance(value, str) and _DIGEST.fullmatch(value))
  }


def differing(runs: Sequence[Run]) -> list[str]:
  """The fields in which runs differ, in the order of the config."""
  found = [settings(run) for run in runs]
  keys = dict.fromkeys(name for fields in found for name in fields)
  return [
      name
      for name in keys
      if any(fields.get(name) != found[0].get(name) for fields in found)
  ]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sweep:
  """Runs of one task that differ in settings.

  Attributes:
    fields: in which they differ; none where only their names do.
    parts: what they found, a part for each setting and task, in order.
    labels: the settings of each part, as text.
  """

  fields: tuple[str, ...]
  parts: tuple[Part, ...]
  labels: tuple[tuple[str, ...], ...]

  @property
  def titles(self) -> list[str]:
    """What the labels are."""
    return [names.field(name) for name in self.fields] or ["run"]

  def values(self, field: str) -> list[Any]:
    """One setting of each part."""
    return [settings(part.run).get(field) for part in self.parts]


_STAGES = {"tune": "tuned prompt", "rewind": "final ticket"}


def _source(place: str) -> str:
  """A prompt's file as the run and the stage that left it."""
  path, _, row = place.partition("#")
  parts = pathlib.PurePath(os.path.normpath(path)).parts
  if pathlib.PurePath(path).suffix:
    parts = parts[:-1]
  if parts and parts[-1] in _STAGES:
    text = f"{_STAGES[parts[-1]]} of {'/'.join(parts[-3:-1])}"
  else:
    text = "/".join(parts[-2:])
  return f"{text}, row {row}" if row else text


def _label(part: Part, fields: Sequence[str]) -> tuple[str, ...]:
  own = settings(part.run)
  return tuple(
      sizes.short(own["model"])
      if name == "model"
      else _source(str(own[name]))
      if name == _INIT_FILE and own.get(name)
      else names.value(own.get(name))
      for name in fields
  )


def _order(part: Part, fields: Sequence[str]) -> tuple:
  own = settings(part.run)
  values = (own.get(name) for name in fields)
  return tuple(
      (0, v, "") if isinstance(v, (int, float)) else (1, 0, "") for v in values
  )


def _sweep(parts: Sequence[Part], fields: Sequence[str]) -> Sweep:
  ordered = sorted(parts, key=lambda part: _order(part, fields))
  labels = [_label(part, fields) for part in ordered]
  keys = [
      (part.task, part.run.protocol, *label)
      for part, label in zip(ordered, labels, strict=True)
  ]
  titled = tuple(fields)
  if len(set(keys)) < len(keys) or not fields:
    labels = [
        (part.run.name, *label)
        for part, label in zip(ordered, labels, strict=True)
    ]
    titled = ("run", *fields)
  return Sweep(fields=titled, parts=tuple(ordered), labels=tuple(labels))


def split_up(parts: Sequence[Part]) -> tuple[list[Part], list[Sweep]]:
  """Tells sweeps from runs that stand alone.

  Runs of one suite (or named one by one) are a sweep where they share a task,
  a protocol and a method.

  Args:
    parts: of all runs.

  Returns:
    The parts that belong to no sweep, and the sweeps.
  """
  groups: dict[tuple, list[Part]] = {}
  for part in parts:
    few = part.run.few_shot is not None
    key = (part.run.family, part.task, part.run.protocol, few)
    groups.setdefault(key, []).append(part)
  alone: list[Part] = []
  found: dict[tuple, list[Part]] = {}
  for (family, *_), group in groups.items():
    counted = [m for p in group for m in p.methods if m != "no_prompt"]
    if len(group) == 1 or len(set(counted)) == len(counted):
      alone += group
      continue
    fields = tuple(differing([part.run for part in group]))
    found.setdefault((family, fields), []).extend(group)
  return alone, [_sweep(group, fields) for fields, group in _joined(found)]


def _joined(
    found: Mapping[tuple, list[Part]],
) -> list[tuple[list[str], list[Part]]]:
  """A transfer's tasks together: the source's own runs differ in more."""
  transfers = {family for family, fields in found if _INIT_FILE in fields}
  together: dict[tuple, tuple[list[str], list[Part]]] = {}
  for (family, fields), group in found.items():
    transfer = family in transfers and _INIT_FILE in fields
    key = (family, "transfer") if transfer else (family, fields)
    titled, parts = together.setdefault(key, ([], []))
    titled += [name for name in fields if name not in titled]
    parts += group
  for titled, _ in together.values():
    # What a prompt comes from tells its runs apart; ratios come with it.
    ratios = [n for n in titled if n.endswith("_ratios")]
    if _INIT_FILE in titled:
      titled[:] = [name for name in titled if name not in ratios]
  return list(together.values())
