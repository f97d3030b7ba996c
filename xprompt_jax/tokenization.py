"""Runs one split of a seqio task and returns its ids: the TensorFlow side.

Only `token_cache.ensure_token_cache` calls this, and only where the split is
not on disk yet. TensorFlow, seqio and the user's task module are imported
inside the functions, so that importing the package loads none of them.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
import contextlib
import dataclasses
import difflib
import functools
import hashlib
import importlib
import json
import os
import pathlib
import sys
from typing import Any
import warnings

import numpy as np

from xprompt_jax import vocabularies
from xprompt_jax.types import UserError
from xprompt_jax.vocabularies import Vocabulary

INPUTS = "inputs"
TARGETS = "targets"
PRETOKENIZED = "_pretokenized"
# What T5's preprocessors write where a row has no label.
UNLABELLED_TARGET = "<unk>"
UNLABELLED = -1
# A text that is none of their `labels` is wrong.
_CLASS_POSTPROCESSORS = (
    "xprompt_jax.tasks.postprocessors:class_id",
    "xprompt_jax.tasks.postprocessors:grouped_class_id",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenizedSplit:
  """One split as seqio gives it, in the order of its source."""

  inputs: list[np.ndarray]
  targets: list[np.ndarray]
  examples: list[dict[str, Any]]  # As in `token_cache.CachedSplit`.
  vocabulary: Vocabulary
  postprocessor: dict[str, Any] | None
  metrics: list[dict[str, Any]]
  num_truncated_inputs: int
  num_truncated_targets: int
  source: str
  source_files: dict[str, str]  # Path to sha256, where the source has files.


def tokenize_task(
    *,
    task: str,
    split: str,
    module: str,
    vocabulary: Vocabulary | None,
    inputs_length: int,
    targets_length: int,
    max_examples: int | None,
) -> TokenizedSplit:
  """Reads a split through seqio: tokenised, trimmed and ended as T5 does.

  Args:
    task: name of a registered seqio task.
    split: name of one of its splits.
    module: Python module that registers the task.
    vocabulary: what to tokenise with in place of the task's own.
    inputs_length: most tokens of an input, EOS included.
    targets_length: most tokens of a target, EOS included.
    max_examples: how many examples to take from the start; None takes all.

  Raises:
    UserError: TensorFlow, the module, the task, a metric or the split is not
      there, the split is empty, or an id occurs twice.
  """
  seqio = import_seqio(f"token cache of task {task}, split {split}")
  found = _find_task(seqio, task, split, module)
  metrics = _metric_fns(found)
  vocabulary = vocabulary or _own_vocabulary(seqio, found)
  read = _with_vocabulary(seqio, found, vocabulary)
  dataset = read.get_dataset(
      sequence_length={INPUTS: inputs_length, TARGETS: targets_length},
      split=split,
      shuffle=False,
  )
  if max_examples is not None:
    dataset = dataset.take(max_examples)
  raw = list(dataset.as_numpy_iterator())
  if not raw:
    raise UserError(f"task {task}: split {split} has no examples")
  files = getattr(found.source, "source_files", lambda split: ())(split)
  return TokenizedSplit(
      inputs=[row[INPUTS].astype(np.int32) for row in raw],
      targets=[row[TARGETS].astype(np.int32) for row in raw],
      examples=_examples(found, split, raw, vocabulary),
      vocabulary=vocabulary,
      postprocessor=_describe(_postprocess_fn(found), found, module, None),
      metrics=[_describe(fn, found, module, i) for i, fn in enumerate(metrics)],
      num_truncated_inputs=_truncated(raw, INPUTS, inputs_length, vocabulary),
      num_truncated_targets=_truncated(
          raw, TARGETS, targets_length, vocabulary
      ),
      source=type(found.source).__name__,
      source_files={os.fspath(p): file_sha256(p) for p in files},
  )


def file_sha256(path: str | os.PathLike[str]) -> str:
  """Returns the sha256 of a file's contents."""
  return hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()


def import_task_module(module: str) -> None:
  """Imports the module that registers tasks, without its libraries' warnings.

  Raises:
    UserError: it, or something it imports, is not installed.
  """
  try:
    with warnings.catch_warnings():
      warnings.simplefilter("ignore")
      importlib.import_module(module)
  except ImportError as error:
    raise UserError(
        f"MIXTURE_OR_TASK_MODULE {module}: cannot be imported ({error})"
    ) from error


def registered_function(
    *, task: str, module: str, metric: int | None
) -> Callable[..., Any]:
  """Returns a function that only the registered task holds.

  Args:
    task: seqio name of the task.
    module: Python module that registers it.
    metric: which of its metrics; None means its postprocessor.
  """
  seqio = import_seqio(f"the functions of task {task}")
  import_task_module(module)
  found = seqio.TaskRegistry.get(task)
  return found.postprocess_fn if metric is None else found.metric_fns[metric]


def import_seqio(wanted: str) -> Any:
  """Imports TensorFlow, kept off the accelerators and quiet, and seqio."""
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
  try:
    with warnings.catch_warnings(), quiet_stderr():
      warnings.simplefilter("ignore")
      import seqio
      import tensorflow as tf
  except ImportError as error:
    raise UserError(
        f"{wanted}: not there, and TensorFlow cannot be imported to make it"
        f" ({error}); run `t5x cache` where TensorFlow is installed and copy"
        " the cache here"
    ) from error
  # TensorFlow would take the memory of every GPU it sees.
  with contextlib.suppress(RuntimeError), quiet_stderr():
    tf.config.set_visible_devices([], "GPU")
  # For preprocessors that draw: the same cache each time it is made.
  tf.random.set_seed(0)
  return seqio


@contextlib.contextmanager
def quiet_stderr() -> Iterator[None]:
  """Drops what native code writes to stderr: TensorFlow's start-up lines.

  They come before its log level counts, and tell nobody anything.
  """
  sys.stderr.flush()
  kept = os.dup(2)
  try:
    with open(os.devnull, "wb") as nothing:
      os.dup2(nothing.fileno(), 2)
    yield
  finally:
    sys.stderr.flush()
    os.dup2(kept, 2)
    os.close(kept)


def _find_task(seqio: Any, task: str, split: str, module: str) -> Any:
  import_task_module(module)
  names = sorted(seqio.TaskRegistry.names())
  if task in seqio.MixtureRegistry.names():
    raise UserError(
        f"MIXTURE_OR_TASK_NAME {task}: is a mixture, expected a task"
    )
  if task not in names:
    near = difflib.get_close_matches(task, names, n=5, cutoff=0.4) or names
    raise UserError(
        f"MIXTURE_OR_TASK_NAME {task}: {module} registers no such task,"
        f" expected one such as {', '.join(near[:5])}"
    )
  found = seqio.TaskRegistry.get(task)
  if split not in found.splits:
    raise UserError(
        f"task {task}: has no split {split}, expected one of"
        f" {', '.join(found.splits)}"
    )
  for feature in (INPUTS, TARGETS):
    if feature not in found.output_features:
      raise UserError(
          f"task {task}: has features {', '.join(found.output_features)},"
          f" expected {INPUTS} and {TARGETS}"
      )
  return found


def _metric_fns(task: Any) -> list[Callable[..., Any]]:
  """Returns the task's metrics, all of them of targets and predictions."""
  expected = "at least one metric function of targets and predictions"
  try:
    found = list(task.metric_fns)
  except ValueError as error:  # seqio looks at the arguments only now.
    raise UserError(f"task {task.name}: {error}") from error
  if not found:
    raise UserError(f"task {task.name}: has no metric, expected {expected}")
  for fn in found:
    if fn not in task.predict_metric_fns:
      name = getattr(fn, "__name__", type(fn).__name__)
      raise UserError(
          f"task {task.name}: metric {name} takes scores or auxiliary values,"
          f" expected {expected}, and no other"
      )
  return found


def _own_vocabulary(seqio: Any, task: Any) -> Vocabulary:
  """Returns the vocabulary that the task is registered with."""
  own = task.output_features[INPUTS].vocabulary
  if own != task.output_features[TARGETS].vocabulary:
    raise UserError(
        f"task {task.name}: inputs and targets have different vocabularies,"
        " expected one"
    )
  if isinstance(own, seqio.SentencePieceVocabulary):
    return vocabularies.load_vocabulary(
        own.sentencepiece_model_file, own.extra_ids
    )
  if isinstance(own, seqio.ByteVocabulary):
    return vocabularies.ByteVocabulary(extra_ids=own.extra_ids)
  raise UserError(
      f"task {task.name}: has a {type(own).__name__}, expected a SentencePiece"
      " or byte vocabulary; or set VOCABULARY"
  )


def _with_vocabulary(seqio: Any, task: Any, vocabulary: Vocabulary) -> Any:
  """Returns the task with the features tokenised by `vocabulary`.

  seqio hands the features to the preprocessors, so the task's own pipeline
  runs unchanged; what the two sides read is the same file.
  """
  if vocabulary.path == vocabularies.BYTES:
    replacement = seqio.ByteVocabulary(vocabulary.extra_ids)
  else:
    replacement = seqio.SentencePieceVocabulary(
        vocabulary.path, vocabulary.extra_ids
    )
  return seqio.Task(
      task.name,
      source=task.source,
      output_features={
          name: dataclasses.replace(feature, vocabulary=replacement)
          for name, feature in task.output_features.items()
      },
      preprocessors=task.preprocessors,
  )


def _examples(
    task: Any,
    split: str,
    raw: list[Mapping[str, Any]],
    vocabulary: Vocabulary,
) -> list[dict[str, Any]]:
  """Returns what evaluation and reports need of each example, as JSON."""
  examples = []
  seen: set[str] = set()
  for place, row in enumerate(raw):
    fields = {
        name: to_json(value)
        for name, value in row.items()
        if name not in task.output_features
    }
    texts = {
        name + PRETOKENIZED: fields.pop(name + PRETOKENIZED, None)
        or vocabulary.decode(row[name])
        for name in (INPUTS, TARGETS)
    }
    example_id = _example_id(fields, place)
    if example_id in seen:
      raise UserError(
          f"task {task.name}: id {example_id} occurs twice in split {split},"
          " expected every example to have its own"
      )
    seen.add(example_id)
    target = task.postprocess_fn(
        texts[TARGETS + PRETOKENIZED], example=row, is_target=True
    )
    examples.append(
        {"id": example_id, **texts, "target": to_json(target), "fields": fields}
    )
  return examples


def _example_id(fields: Mapping[str, Any], place: int) -> str:
  """Returns the row's own number (`7`, or `7-2-1`), or else its place."""
  parts = [
      value
      for name, value in fields.items()
      if name == "idx" or name.startswith("idx/")
  ]
  if not parts:
    return str(place)
  flat = [v for part in parts for v in (part if _many(part) else [part])]
  return "-".join(map(str, flat))


def _many(value: Any) -> bool:
  return isinstance(value, list)


def _truncated(
    raw: Iterable[Mapping[str, Any]],
    feature: str,
    length: int,
    vocabulary: Vocabulary,
) -> int:
  """Counts the texts that do not fit their length together with an EOS."""
  count = 0
  for row in raw:
    text = row.get(feature + PRETOKENIZED)
    if len(row[feature]) >= length and isinstance(text, bytes):
      count += len(vocabulary.encode(text.decode("utf-8"))) >= length
  return count


def to_json(value: Any) -> Any:
  """Returns numpy scalars, arrays, bytes and tuples as JSON's own types."""
  if isinstance(value, bytes):
    return value.decode("utf-8", "replace")
  if isinstance(value, (np.ndarray, np.generic)):
    return to_json(value.tolist())
  if isinstance(value, Mapping):
    return {str(name): to_json(part) for name, part in value.items()}
  if isinstance(value, (list, tuple)):
    return [to_json(part) for part in value]
  return value


def _postprocess_fn(task: Any) -> Callable[..., Any] | None:
  # seqio keeps the registered function under this name and wraps it.
  return task._postprocess_fn


def _describe(
    fn: Callable[..., Any] | None, task: Any, module: str, index: int | None
) -> Any:
  """Returns how `token_cache` finds a function again on another machine.

  A function of a module, bare or in a `functools.partial` with JSON arguments,
  is found by name. Anything else (T5 has metrics that are closures) can only
  be taken from the registered task.
  """
  if fn is None:
    return None
  kwargs: dict[str, Any] = {}
  inner = fn
  if isinstance(fn, functools.partial) and not fn.args:
    inner, kwargs = fn.func, fn.keywords
  name = getattr(inner, "__qualname__", "<unnamed>")
  with contextlib.suppress(TypeError):
    json.dumps(kwargs)
    if "<" not in name and "." not in name:
      return {"function": f"{inner.__module__}:{name}", "kwargs": kwargs}
  return {"task": task.name, "module": module, "metric": index}


def classes(described: Mapping[str, Any] | None) -> Sequence[str]:
  """Returns the labels of a postprocessor that knows classes, or none."""
  if described and described.get("function") in _CLASS_POSTPROCESSORS:
    return described["kwargs"].get("labels", ())
  return ()
