"""One split of a task, tokenised once and kept on disk: the token cache.

Everything after tokenisation (training, scoring, search, evaluation) reads
`CachedSplit` and runs without TensorFlow. `tokenization.py` makes what is
missing; `batches.py` turns splits into padded arrays. A split is three files:

    CACHE_DIR/<task>/<split>.safetensors   ids and where each example starts
    CACHE_DIR/<task>/<split>.jsonl         texts, ids, targets, label fields
    CACHE_DIR/<task>/<split>.json          settings and checksums; written last,
                                           so its presence means "complete"
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools
import hashlib
import importlib
import json
import math
import os
import pathlib
from typing import Any

from jaxtyping import Int, Int32, Int64
import numpy as np

from xprompt_jax import artifacts, counts, tokenization
from xprompt_jax.tokenization import PRETOKENIZED, TARGETS
from xprompt_jax.types import UserError, require
from xprompt_jax.vocabularies import PAD_ID, Vocabulary

# Raised when a reader of the older files would read the newer ones wrongly.
FORMAT = 1


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class CachedSplit:
  """A tokenised split; example i is `inputs[offsets[i] : offsets[i + 1]]`.

  Each of `examples` has `id`, `inputs_pretokenized`, `targets_pretokenized`,
  `target` (postprocessed, what metrics compare with) and `fields` (what else
  the task passes through: `idx`, `label`). `info` is the split's JSON file.
  """

  task: str
  split: str
  inputs: np.ndarray  # int32, all inputs one after another, EOS included
  input_offsets: np.ndarray  # int64 [N + 1]
  targets: np.ndarray  # int32
  target_offsets: np.ndarray  # int64 [N + 1]
  examples: Sequence[Mapping[str, Any]]
  info: Mapping[str, Any]

  def __len__(self) -> int:
    return len(self.examples)

  @property
  def fingerprint(self) -> str:
    """sha256 over ids, examples and the names of what scores them.

    Equal where training sees the same examples and measures them alike.
    """
    names = ("arrays_sha256", "examples_sha256", "postprocessor", "metrics")
    text = json.dumps([self.info[name] for name in names], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()

  @functools.cached_property
  def input_lengths(self) -> Int64[np.ndarray, "N"]:
    """Tokens of each input, EOS included."""
    return np.diff(self.input_offsets)

  @functools.cached_property
  def target_lengths(self) -> Int64[np.ndarray, "N"]:
    """Tokens of each target, EOS included."""
    return np.diff(self.target_offsets)

  def pad_inputs(
      self, indices: Int[np.ndarray, "B"], length: int
  ) -> Int32[np.ndarray, "B T"]:
    """Returns the inputs of some examples, padded to `length`."""
    return self._pad(self.inputs, self.input_offsets, indices, length)

  def pad_targets(
      self, indices: Int[np.ndarray, "B"], length: int
  ) -> Int32[np.ndarray, "B L"]:
    """Returns the targets of some examples, padded to `length`."""
    return self._pad(self.targets, self.target_offsets, indices, length)

  def _pad(
      self,
      ids: np.ndarray,
      offsets: np.ndarray,
      indices: np.ndarray,
      length: int,
  ) -> np.ndarray:
    lengths = np.diff(offsets)
    longest = int(lengths[indices].max())
    if longest > length:
      raise UserError(
          f"token cache of {self.task}, split {self.split}: holds a text of"
          f" {longest} tokens, expected at most {length}"
      )
    place = np.arange(length)[None, :]  # [1, T]
    # Where an example ends earlier, whatever is read there is padded over.
    source = np.minimum(offsets[indices][:, None] + place, len(ids) - 1)
    inside = place < lengths[indices][:, None]
    return np.where(inside, ids[source], PAD_ID).astype(np.int32)

  def check_labelled(self) -> None:
    """Refuses a split whose examples have no labels to compare with.

    Raises:
      UserError: SuperGLUE's test splits have none.
    """
    if unlabelled := self.info["num_unlabelled"]:
      raise UserError(
          f"task {self.task}, split {self.split}: {unlabelled} of {len(self)}"
          " examples have no label, expected labels; evaluate another split"
      )

  def targets_for_metrics(self) -> list[Any]:
    """Returns what each prediction is compared with, in order."""
    return [example["target"] for example in self.examples]

  def candidates(self, index: int) -> tuple[str, ...]:
    """Returns the answers an example can have, in the order of its labels.

    Examples that name none, as in caches made before tasks did, have the
    classes of their postprocessor. Empty where answers are free.
    """
    found = self.examples[index]["fields"].get("candidates")
    if found is None:
      found = tokenization.classes(self.info.get("postprocessor"))
    return tuple(found)

  def metric_sizes(self) -> dict[str, int]:
    """Returns of how many each metric is a share; see `counts`."""
    return counts.metric_sizes(
        self.targets_for_metrics(), self.info.get("metrics", ())
    )

  def postprocess(self, prediction: str, index: int) -> Any:
    """Returns the model's text for one example as the metrics want it."""
    if self._postprocessor is None:
      return prediction
    example = self.examples[index]
    texts = {k: v for k, v in example.items() if k.endswith(PRETOKENIZED)}
    return self._postprocessor(
        prediction, example={**example["fields"], **texts}, is_target=False
    )

  def compute_metrics(self, predictions: Sequence[Any]) -> dict[str, float]:
    """Returns the task's metrics; T5's are percentages.

    Args:
      predictions: postprocessed, one for each example, in order.

    Raises:
      UserError: a metric is no finite number, or there is none.
    """
    targets = self.targets_for_metrics()
    if len(predictions) != len(targets):
      raise ValueError(
          f"{len(predictions)} predictions for {len(targets)} examples"
      )
    values: dict[str, float] = {}
    for metric in self._metrics:
      found = metric(targets=targets, predictions=list(predictions))
      for name, value in found.items():
        values[name] = self._metric_value(name, value)
    require(bool(values), f"task {self.task}: metrics", values, "one or more")
    return values

  def score(self, metrics: Mapping[str, float]) -> float:
    """The number that selects checkpoints and tickets: the metrics' mean."""
    return float(np.mean(list(metrics.values())))

  def _metric_value(self, name: str, value: Any) -> float:
    # seqio's Scalar holds its number in `value`.
    number = getattr(value, "value", value)
    try:
      number = float(number)
    except (TypeError, ValueError):
      number = math.nan
    require(
        math.isfinite(number),
        f"task {self.task}, split {self.split}: metric {name}",
        value,
        "a finite number",
    )
    return number

  @functools.cached_property
  def _postprocessor(self) -> Callable[..., Any] | None:
    return _resolve(self.info["postprocessor"])

  @functools.cached_property
  def _metrics(self) -> list[Callable[..., Any]]:
    return [_resolve(metric) for metric in self.info["metrics"]]


def ensure_token_cache(
    *,
    task: str,
    split: str,
    module: str,
    cache_dir: str | os.PathLike[str],
    inputs_length: int,
    targets_length: int,
    max_examples: int | None = None,
    vocabulary: Vocabulary | None = None,
) -> CachedSplit:
  """Returns a split from the cache, tokenising it first if it is not there.

  Args:
    task: seqio name of the task.
    split: one of its splits.
    module: Python module that registers it (T5X's MIXTURE_OR_TASK_MODULE).
    cache_dir: folder of the cache.
    inputs_length: most tokens of an input, EOS included; longer ones are cut.
    targets_length: most tokens of a target, EOS included.
    max_examples: take this many from the start of the split; None takes all.
    vocabulary: tokenise with this one; None uses the task's own.

  Raises:
    UserError: the cache was made with other settings or is damaged, its source
      has changed, or the split cannot be read.
  """
  for name, value, least in (
      ("inputs_length", inputs_length, 2),
      ("targets_length", targets_length, 2),
      ("max_examples", max_examples, 1),
  ):
    if value is not None and value < least:
      raise UserError(f"{name}: found {value}, expected {least} or more")
  settings = {
      "format": FORMAT,
      "task": task,
      "split": split,
      "module": module,
      "inputs_length": inputs_length,
      "targets_length": targets_length,
      "max_examples": max_examples,
  }
  path = _info_path(cache_dir, task, split)
  if path.exists():
    return _load_checked(path, settings, vocabulary)
  made = tokenization.tokenize_task(
      task=task,
      split=split,
      module=module,
      vocabulary=vocabulary,
      inputs_length=inputs_length,
      targets_length=targets_length,
      max_examples=max_examples,
  )
  _write(path, settings, made)
  return _load(path)


def _info_path(
    cache_dir: str | os.PathLike[str], task: str, split: str
) -> pathlib.Path:
  return pathlib.Path(cache_dir).expanduser() / task / f"{split}.json"


def _settings_vocabulary(vocabulary: Vocabulary) -> dict[str, Any]:
  return {
      "sha256": vocabulary.fingerprint,
      "extra_ids": vocabulary.extra_ids,
  }


def _load_checked(
    path: pathlib.Path,
    settings: Mapping[str, Any],
    vocabulary: Vocabulary | None,
) -> CachedSplit:
  """Loads a split if it was made with these settings from today's source."""
  cached = _load(path)
  old = cached.info["settings"]
  # Without a vocabulary the task's own counts, which is the one on record.
  wanted = _settings_vocabulary(vocabulary) if vocabulary else old["vocabulary"]
  artifacts.check_config(path, old, {**settings, "vocabulary": wanted})
  for name, digest in cached.info["source_files"].items():
    # The cache also serves machines that do not hold the source.
    if os.path.exists(name) and tokenization.file_sha256(name) != digest:
      raise UserError(
          f"{name}: has changed since the token cache {path} was made from it;"
          " remove the cache to make it anew"
      )
  return cached


def _write(
    path: pathlib.Path,
    settings: Mapping[str, Any],
    made: tokenization.TokenizedSplit,
) -> None:
  """Writes the three files of a split, the info last."""
  arrays = {
      "inputs": np.concatenate(made.inputs),
      "input_offsets": _offsets(made.inputs),
      "targets": np.concatenate(made.targets),
      "target_offsets": _offsets(made.targets),
  }
  examples = path.with_suffix(".jsonl")
  artifacts.save_arrays(path.with_suffix(".safetensors"), arrays)
  artifacts.write_json_lines(examples, made.examples)
  vocabulary = made.vocabulary
  info = {
      "settings": {
          **settings,
          "vocabulary": _settings_vocabulary(vocabulary),
      },
      "vocabulary_path": vocabulary.path,
      "vocab_size": vocabulary.vocab_size,
      "num_examples": len(made.examples),
      "num_unlabelled": sum(map(_is_unlabelled, made.examples)),
      "num_truncated_inputs": made.num_truncated_inputs,
      "num_truncated_targets": made.num_truncated_targets,
      "postprocessor": made.postprocessor,
      "metrics": made.metrics,
      "source": made.source,
      "source_files": made.source_files,
      "arrays_sha256": artifacts.digest_arrays(arrays),
      "examples_sha256": tokenization.file_sha256(examples),
  }
  artifacts.write_json(path, info)


def _load(path: pathlib.Path) -> CachedSplit:
  """Reads a split and checks both data files against the info."""
  info = artifacts.read_json(path)
  arrays_path = path.with_suffix(".safetensors")
  examples_path = path.with_suffix(".jsonl")
  arrays = artifacts.load_arrays(arrays_path)
  try:
    content = examples_path.read_bytes()
  except OSError as error:
    raise UserError(
        f"{examples_path}: cannot read: {error.strerror}"
    ) from error
  try:
    stated = (info["arrays_sha256"], info["examples_sha256"])
    settings = info["settings"]
    task, split = settings["task"], settings["split"]
  except (KeyError, TypeError) as error:
    raise UserError(f"{path}: lacks {error}, expected a token cache") from error
  found = (
      artifacts.digest_arrays(arrays),
      hashlib.sha256(content).hexdigest(),
  )
  for name, old, new in zip(
      (arrays_path, examples_path), stated, found, strict=True
  ):
    if old != new:
      raise UserError(
          f"{name}: contents have sha256 {new[:12]}, expected {old[:12]}; remove"
          " the token cache to make it anew"
      )
  examples = [json.loads(line) for line in content.splitlines()]
  return CachedSplit(
      task=task, split=split, examples=examples, info=info, **arrays
  )


def _offsets(rows: Sequence[np.ndarray]) -> Int64[np.ndarray, "M"]:
  return np.cumsum([0, *map(len, rows)], dtype=np.int64)


def _is_unlabelled(example: Mapping[str, Any]) -> bool:
  return (
      example["fields"].get("label") == tokenization.UNLABELLED
      or example[TARGETS + PRETOKENIZED] == tokenization.UNLABELLED_TARGET
  )


def _resolve(described: Mapping[str, Any] | None) -> Any:
  """Returns the function that `tokenization` described; see there."""
  if described is None:
    return None
  if "function" in described:
    module, name = described["function"].split(":")
    try:
      function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
      raise UserError(
          f"{described['function']}: the task's function cannot be imported"
          f" ({error})"
      ) from error
    return functools.partial(function, **described["kwargs"])
  return tokenization.registered_function(**described)
