"""What runs were made with, in a sentence: steps, ratios, granularities."""

from collections.abc import Sequence
import json
from typing import Any

from xprompt_jax.html_report import grouping, names
from xprompt_jax.html_report.checks import Row, check_rows
from xprompt_jax.html_report.reading import Part, Run

_TRAINED_ALONE = (*grouping.BASELINES, grouping.TUNING, grouping.LONGER)


def _listed(values: Any) -> str:
  if not isinstance(values, list):
    return names.value(values)
  return ", ".join(map(names.value, values))


def _length(run: Run) -> str:
  train = run.section("train")
  if train.get("num_steps") is not None:
    return f"{names.value(train['num_steps'])} steps"
  if train.get("num_epochs") is not None:
    return f"{names.value(train['num_epochs'])} epochs"
  return ""


def _searched(run: Run) -> list[str]:
  search = run.section("search")
  if "granularities" not in search:
    return []
  found = [f"granularity {names.value(search['granularities'])}"]
  for name in search["granularities"]:
    ratios = search.get(f"{name}_ratios")
    if ratios is not None:
      found.append(f"{name} ratios {_listed(ratios)}")
  return found


def _of(part: Part) -> dict[str, str]:
  """Settings of each of a part's methods, in words."""
  found = {}
  for method in names.in_order(list(part.runs)):
    run = part.runs[method]
    if method == "no_prompt":
      continue
    search = [] if method in _TRAINED_ALONE else _searched(run)
    found[names.method(method)] = "; ".join(
        filter(None, [_length(run), *search])
    )
  return found


def sentence(parts: Sequence[Part]) -> str:
  """Steps, granularities and ratios, from the runs' config.

  Methods of equal settings are named together; settings of which there are
  several for one method are all there.
  """
  methods: dict[str, dict[str, None]] = {}
  for part in parts:
    for method, text in _of(part).items():
      if text:
        methods.setdefault(json.dumps([text]), {})[method] = None
  if not methods:
    return ""
  if len(methods) == 1:
    (text,) = methods
    return f"Settings: {json.loads(text)[0]}."
  texts = [
      f"{', '.join(own)}: {json.loads(text)[0]}"
      for text, own in methods.items()
  ]
  return f"Settings. {'. '.join(texts)}."


def tried(parts: Sequence[Part]) -> str:
  """How many tickets each level tried, over all seeds."""
  found: dict[str, None] = {}
  for part in parts:
    lines = [
        line
        for line in part.run.lines("tickets.jsonl")
        if line.get("task", part.task) == part.task
        and line.get("folder", "tune") != "tune"
    ]
    check_rows(part.run.path / "tickets.jsonl", "lines", lines)
    counts: dict[str, int] = {}
    for line in lines:
      level = _level(line)
      counts[level] = counts.get(level, 0) + 1
    if counts:
      texts = [f"{count} by {level}" for level, count in counts.items()]
      found[f"{part.task}: {', '.join(texts)}"] = None
  if not found:
    return ""
  return f"Tickets tried, over all seeds: {'; '.join(found)}."


def _level(line: Row) -> str:
  ratios = [
      line.get(f"{name}_ratio") is not None for name in ("token", "piece")
  ]
  level = {
      (True, False): "tokens alone",
      (False, True): "pieces alone",
      (True, True): "pieces behind a token mask",
  }.get((ratios[0], ratios[1]), "other tickets")
  importance = line.get("importance", "gradient")
  return level if importance == "gradient" else f"{level} ({importance})"
