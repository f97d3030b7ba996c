"""Rows as a seqio source, and how the tasks here are registered.

`RowSource` reads when seqio asks for a split, so registering a task reads
nothing, and `SUPER_GLUE_DIR` counts at the time of reading. `super_glue.py` and
`mini.py` register with `add_task`; all tasks share the same steps:

    rows (TFDS's form) -> text (preprocessors.py) -> ids -> trimmed, EOS
"""

from collections.abc import Callable, Mapping, Sequence
import contextlib
import logging
import os
import pathlib
from typing import Any
import urllib.error
import urllib.request

import seqio
import tensorflow as tf

from xprompt_jax.tasks import rows
from xprompt_jax.tasks.rows import Row, Schema
from xprompt_jax.types import UserError

SUPER_GLUE_DIR = "SUPER_GLUE_DIR"
_REACH_SECONDS = 30


class RowSource(seqio.DataSource):
  """A seqio source over rows that fit into memory."""

  def __init__(
      self,
      read: Callable[[str], list[Row]],
      *,
      splits: Sequence[str],
      files: Callable[[str], Sequence[pathlib.Path]] = lambda split: (),
  ):
    """Makes a source; reads nothing yet.

    Args:
      read: returns the rows of a split, in TFDS's form, ordered by `idx`.
      splits: names of the splits.
      files: the files a split is read from, for the token cache's checks.
    """
    super().__init__(splits=splits)
    self._read = read
    self._files = files

  @property
  def supports_arbitrary_sharding(self) -> bool:
    """False: seqio shards the examples instead."""
    return False

  def list_shards(self, split: str) -> Sequence[str]:
    """Returns one shard, the split."""
    return [split]

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


def super_glue_source(
    schema: Schema, *, keep: Mapping[str, Callable[[Row], bool]]
) -> RowSource:
  """Returns a source over official JSONL folders or TFDS.

  With SUPER_GLUE_DIR set it reads `$SUPER_GLUE_DIR/<folder>/<file>.jsonl`, else
  TFDS; the examples and their order are the same.

  Args:
    schema: what the rows hold and where they lie.
    keep: for a split, which of its rows stay.
  """

  def read(split: str) -> list[Row]:
    for path in files(split):
      found = rows.read_jsonl(path, schema, labelled=split != "test")
      return kept(found, split, os.fspath(path))
    return kept(_tfds_rows(schema, split), split, schema.tfds_name)

  def kept(found: list[Row], split: str, where: str) -> list[Row]:
    found = [row for row in found if split not in keep or keep[split](row)]
    if not found:
      raise UserError(f"{where}: has no rows to use for the split {split}")
    return found

  def files(split: str) -> list[pathlib.Path]:
    folder = os.environ.get(SUPER_GLUE_DIR)
    if not folder:
      return []
    path = pathlib.Path(folder).expanduser()
    return [path / schema.folder / rows.FILES[split]]

  return RowSource(read, splits=tuple(rows.FILES), files=files)


def add_task(
    name: str,
    *,
    source: RowSource,
    text: Callable[[Row], dict[str, Any]],
    vocabulary: seqio.Vocabulary,
    postprocess_fn: Callable[..., Any],
    metric_fns: Sequence[Callable[..., Mapping[str, float]]],
) -> None:
  """Registers a task with seqio, unless its name is taken.

  T5's own package registers some of the names here, for the same text.

  Args:
    name: seqio's name.
    source: rows.
    text: makes an example of a row.
    vocabulary: the vocabulary of inputs and targets.
    postprocess_fn: from `postprocessors`.
    metric_fns: from `metrics`.
  """
  if name in seqio.TaskRegistry.names():
    return

  def to_text(dataset: tf.data.Dataset) -> tf.data.Dataset:
    found = [text(_to_python(row)) for row in dataset.as_numpy_iterator()]
    return to_dataset(found)

  seqio.TaskRegistry.add(
      name,
      source=source,
      preprocessors=[
          to_text,
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
  columns = {name: [row[name] for row in found] for name in found[0]}
  return tf.data.Dataset.from_tensor_slices(
      {
          name: tf.constant(
              values,
              tf.string if isinstance(values[0], str)
              # TFDS's class labels are int64, the other integers int32.
              else tf.int64 if name == "label" else tf.int32,
          )
          for name, values in columns.items()
      }
  )


def _to_python(row: Mapping[str, Any]) -> Row:
  """Returns a row of numpy values as text and Python numbers."""
  return {
      name: value.decode("utf-8") if isinstance(value, bytes) else int(value)
      for name, value in row.items()
  }


def _tfds_rows(schema: Schema, split: str) -> list[Row]:
  """Reads a split through TFDS, back in the official order."""
  # TFDS would log what is neither an error nor of use here.
  logging.disable(logging.WARNING)
  try:
    import tensorflow_datasets as tfds

    builder = tfds.builder(schema.tfds_name)
    if not builder.is_prepared():
      _check_reachable(builder.builder_config.data_url)
      builder.download_and_prepare()
    dataset = builder.as_dataset(split=split, shuffle_files=False)
    found = [_to_python(row) for row in dataset.as_numpy_iterator()]
  except Exception as error:  # Whatever a download can end in.
    reason = (str(error) or type(error).__name__).splitlines()[0]
    raise UserError(
        f"{schema.tfds_name}: TFDS cannot read the split {split} ({reason});"
        f" set {SUPER_GLUE_DIR} to a folder with the official"
        f" {schema.folder}/{rows.FILES[split]}"
    ) from error
  finally:
    logging.disable(logging.NOTSET)
  # TFDS writes its files in the order of hashes of the ids.
  return sorted(found, key=lambda row: row["idx"])


def _check_reachable(url: str) -> None:
  """Raises OSError without a network; TFDS would try for minutes."""
  request = urllib.request.Request(url, method="HEAD")
  # An answer of any kind shows that the server is there.
  with contextlib.suppress(urllib.error.HTTPError):
    urllib.request.urlopen(request, timeout=_REACH_SECONDS).close()
