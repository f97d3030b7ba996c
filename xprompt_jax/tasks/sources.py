"""Rows as a seqio source, and how the tasks here are registered.

`RowSource` reads when seqio asks for a split, so registering a task reads
nothing. `super_glue.py` and `mini.py` register with `add_task`; all tasks share
the same steps:

    rows (TFDS's form) -> text (preprocessors.py) -> ids -> trimmed, EOS
"""

from collections.abc import Callable, Mapping, Sequence
import pathlib
from typing import Any

import numpy as np
import seqio
import tensorflow as tf

from xprompt_jax.tasks.rows import Row
from xprompt_jax.types import UserError


class RowSource(seqio.DataSource):
  """A seqio source over rows that fit into memory."""

  def __init__(
      self,
      read: Callable[[str], list[Row]],
      *,
      splits: Sequence[str],
      files: Callable[[str], Sequence[pathlib.Path]] = lambda split: (),
      count: Callable[[str], int] | None = None,
  ):
    """Makes a source; reads nothing yet.

    Args:
      read: returns the rows of a split, in TFDS's form, ordered by `idx`.
      splits: names of the splits.
      files: the files a split is read from, for the token cache's checks.
      count: how many rows `read` returns, where that is known without reading.
    """
    super().__init__(splits=splits)
    self._read = read
    self._files = files
    self._count = count

  @property
  def supports_arbitrary_sharding(self) -> bool:
    """False: seqio shards the examples instead."""
    return False

  def list_shards(self, split: str) -> Sequence[str]:
    """Returns one shard, the split."""
    return [split]

  def num_input_examples(self, split: str) -> int:
    """Returns the number of rows, by which mixtures are mixed."""
    return self._count(split) if self._count else len(self._read(split))

  def source_files(self, split: str) -> Sequence[pathlib.Path]:
    """Returns the files the split is read from now; none for TFDS."""
    return self._files(split)

  def get_dataset(
      self,
      split: str = "train",
      shuffle: bool = True,
      seed: int | None = None,
      shard_info: seqio.ShardInfo | None = None,
      **unused: Any,
  ) -> tf.data.Dataset:
    """Returns the rows in their order; seqio shuffles after this, if asked."""
    del shuffle, seed, unused
    if shard_info and shard_info.num_shards > 1:
      raise ValueError("RowSource has one shard; shard the examples")
    return to_dataset(self._read(split))


def add_task(
    name: str,
    *,
    source: RowSource,
    text: Callable[[Row], dict[str, Any]],
    vocabulary: seqio.Vocabulary,
    postprocess_fn: Callable[..., Any],
    metric_fns: Sequence[Callable[..., Mapping[str, float]]],
) -> None:
  """Registers a task with seqio, unless it was registered here before.

  Args:
    name: seqio's name.
    source: rows.
    text: makes an example of a row.
    vocabulary: the vocabulary of inputs and targets.
    postprocess_fn: from `postprocessors`.
    metric_fns: from `metrics`.

  Raises:
    UserError: another module has registered the name, as T5's own package does
      with some; its rows may be others.
  """
  if name in seqio.TaskRegistry.names():
    there = seqio.TaskRegistry.get(name).source
    if isinstance(there, RowSource):
      return
    raise UserError(
        f"task {name}: is registered already, over a {type(there).__name__},"
        " expected a free name; import one of the modules that register it"
    )

  def to_text(dataset: tf.data.Dataset) -> tf.data.Dataset:
    found = [text(to_python(row)) for row in dataset.as_numpy_iterator()]
    return to_dataset(found)

  seqio.TaskRegistry.add(
      name,
      source=source,
      preprocessors=[
          to_text,
          # seqio repeats a training split without end after this point, as
          # T5X asks for, and `to_text` reads its dataset to the end.
          seqio.CacheDatasetPlaceholder(),
          seqio.preprocessors.tokenize,
          seqio.preprocessors.append_eos_after_trim,
      ],
      output_features={
          feature: seqio.Feature(vocabulary=vocabulary)
          for feature in ("inputs", "targets")
      },
      postprocess_fn=postprocess_fn,
      metric_fns=list(metric_fns),
  )


def to_dataset(found: list[Row]) -> tf.data.Dataset:
  """Returns rows, one or more, as a dataset with TFDS's types."""
  columns = {
      name: _column(name, [row[name] for row in found]) for name in found[0]
  }
  return tf.data.Dataset.from_tensor_slices(columns)


def _column(name: str, values: list[Any]) -> tf.Tensor | tf.RaggedTensor:
  if isinstance(values[0], list):  # Of texts, in each row another number.
    return tf.RaggedTensor.from_row_lengths(
        tf.constant([text for texts in values for text in texts], tf.string),
        list(map(len, values)),
    )
  if isinstance(values[0], str):
    return tf.constant(values, tf.string)
  # TFDS's class labels are int64, the other integers int32.
  return tf.constant(values, tf.int64 if name == "label" else tf.int32)


def to_python(row: Mapping[str, Any]) -> Row:
  """Returns a row of numpy values as text, Python numbers and lists."""
  return {name: _python_value(value) for name, value in row.items()}


def _python_value(value: Any) -> Any:
  if isinstance(value, bytes):
    return value.decode("utf-8")
  if isinstance(value, np.ndarray):
    return [_python_value(part) for part in value.tolist()]
  return int(value)
