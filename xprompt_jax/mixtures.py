"""Several tasks read as one: seqio's mixtures, from the token cache.

A mixture's members and rates are asked of seqio once and kept beside the
members' splits, so that machines without TensorFlow go on; seqio is asked again
when the file of the module has changed:

    CACHE_DIR/<mixture>/mixture.json    members with their rates

`token_cache.py` holds one split of one task; `batches.py` makes the order in
which the examples of a mixture are read.
"""

from collections.abc import Mapping, Sequence
import contextlib
import dataclasses
import functools
import hashlib
import importlib.util
import json
import math
import pathlib
from typing import Any
import warnings

from jaxtyping import Int
import numpy as np

from xprompt_jax import artifacts, tokenization
from xprompt_jax.token_cache import CachedSplit
from xprompt_jax.types import UserError, require

# Raised when a reader of the older files would read the newer ones wrongly.
FORMAT = 1
_FILE = "mixture.json"
_DIGEST = "module_sha256"


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class MixedSplit(CachedSplit):
  """The splits of a mixture's members, one after another.

  `info` holds what counts over all members; postprocessors and metrics are the
  members' own.
  """

  members: tuple[CachedSplit, ...]
  rates: tuple[float, ...]

  @property
  def fingerprint(self) -> str:
    """sha256 over the members' names, rates and fingerprints."""
    parts = [
        [member.task, rate, member.fingerprint]
        for member, rate in zip(self.members, self.rates, strict=True)
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

  @functools.cached_property
  def sizes(self) -> tuple[int, ...]:
    """Examples of each member."""
    return tuple(map(len, self.members))

  @functools.cached_property
  def quotas(self) -> tuple[int, ...]:
    """How many examples each member gives to an epoch; they add up to N."""
    found = largest_remainders(self.rates, len(self))
    for member, quota in zip(self.members, found, strict=True):
      require(
          quota > 0,
          f"mixture {self.task}: examples of {member.task} in an epoch of"
          f" {len(self)}",
          quota,
          "at least one; raise its rate",
      )
    return found

  def candidates(self, index: int) -> tuple[str, ...]:
    """As for a single task, by the example's own."""
    member, place = self._place(index)
    return member.candidates(place)

  def only(self, members: Sequence[CachedSplit]) -> "MixedSplit":
    """The mixture of some of the members, in their order here."""
    kept = [i for i, part in enumerate(self.members) if part in members]
    return mix(
        self.task,
        [self.members[i] for i in kept],
        [self.rates[i] for i in kept],
    )

  def member(self, task: str) -> CachedSplit:
    """The split of one member."""
    return next(member for member in self.members if member.task == task)

  def check_labelled(self) -> None:
    """As for a single task, for each member."""
    for member in self.members:
      member.check_labelled()

  def _place(self, index: int) -> tuple[CachedSplit, int]:
    """The member that an example belongs to, and its place there."""
    for member in self.members:
      if index < len(member):
        return member, index
      index -= len(member)
    raise IndexError(index)

  def postprocess(self, prediction: str, index: int) -> Any:
    """As for a single task, by the postprocessor of the example's own."""
    member, place = self._place(index)
    return member.postprocess(prediction, place)

  def compute_metrics(self, predictions: Sequence[Any]) -> dict[str, float]:
    """The metrics of every member as `<task>/<metric>`."""
    values, start = {}, 0
    for member in self.members:
      part = predictions[start : start + len(member)]
      for name, value in member.compute_metrics(part).items():
        values[f"{member.task}/{name}"] = value
      start += len(member)
    return values

  def metric_sizes(self) -> dict[str, int]:
    """As for a single task, under the members' names of the metrics."""
    return {
        f"{member.task}/{name}": size
        for member in self.members
        for name, size in member.metric_sizes().items()
    }

  def score(self, metrics: Mapping[str, float]) -> float:
    """The mean over members of the mean of a member's metrics."""
    scores = []
    for member in self.members:
      prefix = f"{member.task}/"
      own = {
          name.removeprefix(prefix): value
          for name, value in metrics.items()
          if name.startswith(prefix)
      }
      scores.append(member.score(own))
    return math.fsum(scores) / len(scores)


def largest_remainders(rates: Sequence[float], total: int) -> tuple[int, ...]:
  """Shares of `total` in integers that add up to it.

  What is left after rounding down goes to the largest remainders, among equal
  ones to the first.
  """
  exact = [total * rate / math.fsum(rates) for rate in rates]
  shares = [math.floor(share) for share in exact]
  order = sorted(range(len(rates)), key=lambda i: shares[i] - exact[i])
  for i in order[: total - sum(shares)]:
    shares[i] += 1
  return tuple(shares)


def _joined(offsets: Sequence[np.ndarray]) -> np.ndarray:
  """Offsets of texts that stand one after another: [N + 1]."""
  lengths = np.concatenate([np.diff(part) for part in offsets])
  return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def mix(
    name: str, members: Sequence[CachedSplit], rates: Sequence[float]
) -> MixedSplit:
  """One split of several.

  Args:
    name: the mixture's.
    members: the same split of each task.
    rates: relative numbers of examples that they give.
  """
  counts = ("num_unlabelled", "num_truncated_inputs", "num_truncated_targets")
  return MixedSplit(
      task=name,
      split=members[0].split,
      inputs=np.concatenate([member.inputs for member in members]),
      input_offsets=_joined([member.input_offsets for member in members]),
      targets=np.concatenate([member.targets for member in members]),
      target_offsets=_joined([member.target_offsets for member in members]),
      examples=[example for member in members for example in member.examples],
      info={
          count: sum(member.info.get(count, 0) for member in members)
          for count in counts
      },
      members=tuple(members),
      rates=tuple(rates),
  )


def take(split: CachedSplit, indices: Int[np.ndarray, "M"]) -> CachedSplit:
  """Some examples of a split, in the order given.

  Its fingerprint is another: it covers what was chosen.
  """

  def chosen(
      ids: np.ndarray, offsets: np.ndarray
  ) -> tuple[np.ndarray, np.ndarray]:
    parts = [ids[offsets[i] : offsets[i + 1]] for i in indices]
    lengths = np.cumsum([0, *map(len, parts)]).astype(np.int64)
    return np.concatenate(parts), lengths

  arrays: dict[str, Any] = {}
  for name in ("input", "target"):
    ids, offsets = getattr(split, f"{name}s"), getattr(split, f"{name}_offsets")
    arrays[f"{name}s"], arrays[f"{name}_offsets"] = chosen(ids, offsets)
  examples = [split.examples[i] for i in indices]
  text = "".join(json.dumps(example) + "\n" for example in examples)
  return dataclasses.replace(
      split,
      **arrays,
      examples=examples,
      info={
          **split.info,
          "arrays_sha256": artifacts.digest_arrays(arrays),
          "examples_sha256": hashlib.sha256(text.encode()).hexdigest(),
      },
  )


def ensure_mixture(
    *, name: str, module: str, cache_dir: pathlib.Path, wanted: str
) -> dict[str, float] | None:
  """The members of a mixture and their rates, asked of seqio only once.

  Args:
    name: seqio name of a task or a mixture.
    module: Python module that registers it.
    cache_dir: folder of the token cache.
    wanted: what it is for, if TensorFlow is not there to ask.

  Returns:
    Rates by task, in seqio's order; None for a task.

  Raises:
    UserError: the cache was made with another module or with other rates, or
      is damaged, or seqio cannot be asked.
  """
  path = cache_dir.expanduser() / name / _FILE
  settings = {"format": FORMAT, "mixture": name, "module": module}
  if path.exists():
    known = artifacts.read_json(path)
    artifacts.check_config(path, known.get("settings"), settings)
    rates = _rates(path, known.get("members"))
    stated, found = known.get(_DIGEST), _module_sha256(module)
    # The cache also serves machines that do not hold the module.
    if stated is not None and found is not None and stated != found:
      _check_registered(path, settings, rates)
    return rates
  if any(path.parent.glob("*.json")):  # The splits of a task.
    return None
  registered = _registered(path, name, module, wanted)
  if registered is not None:
    _write(path, settings, registered)
  return registered


def _registered(
    path: pathlib.Path, name: str, module: str, wanted: str
) -> dict[str, float] | None:
  """What seqio knows of a mixture: rates by task; None if it is none."""
  seqio = tokenization.import_seqio(wanted)
  tokenization.import_task_module(module)
  if name not in seqio.MixtureRegistry.names():
    return None
  mixture = seqio.MixtureRegistry.get(name)
  members = [
      {"task": task.name, "rate": mixture.get_rate(task)}
      for task in mixture.tasks
  ]
  return _rates(path, members)


def _write(
    path: pathlib.Path, settings: dict[str, Any], rates: dict[str, float]
) -> None:
  members = [{"task": task, "rate": rate} for task, rate in rates.items()]
  digest = _module_sha256(settings["module"])
  known = {"settings": settings, _DIGEST: digest, "members": members}
  artifacts.write_json(path, known)


def _module_sha256(module: str) -> str | None:
  """sha256 of a module's file, which is not run; None where there is none."""
  try:
    with warnings.catch_warnings():
      warnings.simplefilter("ignore")
      # This imports the packages around it.
      spec = importlib.util.find_spec(module)
  except (ImportError, ValueError):
    return None
  if spec is None or not spec.has_location or spec.origin is None:
    return None
  try:
    return tokenization.file_sha256(spec.origin)
  except OSError:
    return None


def _check_registered(
    path: pathlib.Path, settings: dict[str, Any], rates: dict[str, float]
) -> None:
  """Refuses a module that has changed a mixture since the cache was made.

  A module that changed elsewhere may go on; the cache keeps its new sha256.
  """
  name, module = settings["mixture"], settings["module"]
  wanted = f"{module} has changed since {path} was made; its rates of today"
  found = _registered(path, name, module, wanted)
  if found is None or list(found.items()) != list(rates.items()):
    raise UserError(
        f"{path}: found {_shown(rates)}, expected {_shown(found or {})}, as"
        f" {module} has mixture {name} now; remove the file to go on with that"
    )
  # A cache that nobody may write in is asked again.
  with contextlib.suppress(UserError):
    _write(path, settings, rates)


def _shown(rates: Mapping[str, float]) -> str:
  shown = ", ".join(f"{task} at {rate:g}" for task, rate in rates.items())
  return shown or "no mixture"


def _rates(path: pathlib.Path, members: Any) -> dict[str, float]:
  """Members as a mapping, if that is what they are."""
  try:
    found = {member["task"]: float(member["rate"]) for member in members}
  except (KeyError, TypeError, ValueError) as e:
    raise UserError(f"{path}: found {members!r:.60}, expected members") from e
  for task, rate in found.items():
    require(
        math.isfinite(rate) and rate > 0,
        f"{path}: rate of {task}",
        rate,
        "a number > 0",
    )
  return found
