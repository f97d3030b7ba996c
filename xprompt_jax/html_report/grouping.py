"""Which runs' methods may stand in one column of a table.

Only those of equal data, model, seeds and evaluation: what else differs is the
method's own.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import json
import pathlib
from typing import Any

from xprompt_jax.html_report import names, sizes
from xprompt_jax.html_report.reading import Part

BASELINES = ("fine_tuning", "prefix_tuning", "p_tuning", "p_tuning_v2")
TUNING = "prompt_tuning"
# Prompt tuning of as many steps as the baselines have, where it is not the one
# that XPrompt goes on from.
LONGER = "prompt_tuning_longer"
_PLAIN = (TUNING, "no_prompt")
# How rows are computed together, and where data come from: fingerprints say
# what they are.
_NOT_DATA = ("buckets", "module", "train_split", "validation_split")
# How a model is trained, not what it answers.
_NOT_MODEL = ("dropout_rate", "remat")


def settings_of(part: Part) -> dict[str, Any]:
  """What has to be equal where methods are compared, by name."""
  run = part.run
  task = {k: v for k, v in run.section("task").items() if k not in _NOT_DATA}
  task.pop("name", None)
  model = {k: v for k, v in run.section("model").items() if k not in _NOT_MODEL}
  splits = dict(run.config.get("splits") or {})
  counts = dict(part.num_examples)
  trained_on = splits.pop("train", None), counts.pop("train", None)
  found = {
      "protocol": run.protocol,
      "split": part.split,
      "few-shot examples": (task.pop("few_shot", None),),
      "few-shot seed": (task.pop("few_shot_seed", None),),
      "few-shot draw": run.config.get("few_shot"),
      "training data": trained_on,
      "data": (splits, run.config.get("test"), task, counts),
      "model": model,
      "weights": run.config.get("frozen_params"),
      "prediction": (
          run.config.get("predict_by", "generate"),
          run.config.get("num_beams", 1),
      ),
      "seeds": sorted(part.seeds),
  }
  return {
      name: json.dumps(value, sort_keys=True) for name, value in found.items()
  }


def _key(part: Part) -> tuple[str, ...]:
  return (part.task, *settings_of(part).values())


def _counted(parts: Sequence[Part]) -> list[str]:
  return [m for part in parts for m in part.methods if m != "no_prompt"]


def _joined(first: Part, others: Sequence[Part]) -> Part:
  """The methods of several parts as one; what two have is the first's."""
  group = [*reversed(others), first]
  return dataclasses.replace(
      first,
      runs={m: p.runs[m] for p in group for m in p.methods},
      methods={m: p.methods[m] for p in group for m in p.methods},
      indices={m: p.indices[m] for p in group for m in p.methods},
      names={k: v for p in group for k, v in p.names.items()},
  )


def merged(found: Sequence[Part]) -> list[Part]:
  """Puts the methods of different runs together, where they may be compared.

  Runs that have a method in common, the one without a prompt left out, stay
  apart.
  """
  groups: dict[tuple[str, ...], list[Part]] = {}
  for part in found:
    groups.setdefault(_key(part), []).append(part)
  together = []
  for group in groups.values():
    counted = _counted(group)
    if len(set(counted)) < len(counted):
      together += group
      continue
    # The run with most methods gives the others their name.
    first = max(group, key=lambda part: len(part.methods))
    together.append(_joined(first, [p for p in group if p is not first]))
  return together


def without_search(parts: Sequence[Part]) -> list[Part]:
  """The prompt tuning that stands among baselines, without its search.

  It is there for its steps, in a run of that name.
  """
  if not any({*BASELINES} & part.methods.keys() for part in parts):
    return list(parts)

  def kept(part: Part) -> Part:
    if part.run.path.name != TUNING or TUNING not in part.methods:
      return part
    methods = {m: r for m, r in part.methods.items() if m in _PLAIN}
    return dataclasses.replace(part, methods=methods)

  return [kept(part) for part in parts]


def is_baselines(parts: Sequence[Part]) -> bool:
  """Whether parts have baselines and no ticket."""
  found = {m for part in parts for m in part.methods}
  return bool(found & {*BASELINES}) and found <= {*BASELINES, *_PLAIN}


def _renamed(part: Part) -> Part:
  """The part with its prompt tuning as another method."""

  def new(by_method: Mapping[str, Any]) -> dict[str, Any]:
    return {LONGER if m == TUNING else m: v for m, v in by_method.items()}

  return dataclasses.replace(
      part,
      runs=new(part.runs),
      methods=new(part.methods),
      indices=new(part.indices),
      names={LONGER: TUNING},
  )


def with_baselines(
    by_origin: Mapping[str, Sequence[Part]],
) -> dict[str, list[Part]]:
  """Puts folders of baselines beside the methods that they are compared with.

  A part that has nothing but baselines goes to the part of equal settings that
  has prompt tuning and XPrompt, in a folder named table1... if there is one.

  Args:
    by_origin: parts, merged, by the folder of the command line.

  Returns:
    The same without those that went elsewhere.
  """
  found = {origin: list(parts) for origin, parts in by_origin.items()}
  order = sorted(
      found, key=lambda o: not pathlib.Path(o).name.startswith("table1")
  )
  for origin, parts in by_origin.items():
    if not is_baselines(parts):
      continue
    for part in parts:
      place = next(
          (
              (other, i)
              for other in order
              if other != origin
              for i, host in enumerate(found[other])
              if {TUNING, "xprompt"} <= host.methods.keys()
              and _key(host) == _key(part)
              and not {*host.methods} & {*BASELINES} & {*part.methods}
          ),
          None,
      )
      if place is None:
        continue
      other, i = place
      found[other][i] = _joined(found[other][i], [_renamed(part)])
      found[origin].remove(part)
  return {origin: parts for origin, parts in found.items() if parts}


def _text(name: str, part: Part) -> str:
  """One setting in words."""
  run = part.run
  if name == "protocol":
    return names.PROTOCOLS.get(run.protocol, run.protocol)
  if name == "split":
    return names.SPLITS[part.split]
  if name == "few-shot examples":
    return (
        "all examples" if run.few_shot is None else f"{run.few_shot} examples"
    )
  if name == "few-shot seed":
    seed = run.section("task").get("few_shot_seed")
    return "draws by seed" if seed is None else f"draw {seed}"
  if name == "model" and run.section("model"):
    where = str(run.path / "result.json")
    return sizes.short(sizes.model_parameters(run.section("model"), where))
  if name == "weights":
    return f"weights {str(run.config.get('frozen_params'))[:6]}"
  if name == "prediction":
    return f"predicted by {run.config.get('predict_by', 'generate')}"
  if name == "seeds":
    return f"seeds {', '.join(map(str, part.seeds))}"
  return f"other {name}"


def titles(parts: Sequence[Part]) -> list[str]:
  """A title for each part: its task, and what else tells it from the others."""
  protocols = len({part.run.protocol for part in parts}) > 1
  found = []
  for part in parts:
    own = settings_of(part)
    same = [settings_of(p) for p in parts if p.task == part.task]
    differs = [n for n in own if any(s[n] != own[n] for s in same)]
    if protocols:
      differs = ["protocol", *differs]
    if "protocol" in differs:
      # They report other splits and read other halves.
      differs = [n for n in differs if n not in ("split", "data")]
    if "few-shot examples" in differs:
      # Of another number, they are others.
      implied = ("few-shot draw", "training data")
      differs = [n for n in differs if n not in implied]
    if "model" in differs:
      differs = [n for n in differs if n != "weights"]
    words = dict.fromkeys(_text(name, part) for name in dict.fromkeys(differs))
    found.append(", ".join([part.task, *words]))
  return [
      f"{title} ({part.run.name})" if found.count(title) > 1 else title
      for title, part in zip(found, parts, strict=True)
  ]
