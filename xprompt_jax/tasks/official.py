"""Where SuperGLUE's and FewGLUE's rows come from: JSONL folders or TFDS.

SUPER_GLUE_DIR and FEWGLUE_DIR count at the time of reading. Every split is
checked against the official counts and, where it is known, content
(`schemas.py`), whichever way it came.
"""

from collections.abc import Callable, Mapping, Sequence
import contextlib
import logging
import os
import pathlib
from typing import Any
import urllib.error
import urllib.request

from xprompt_jax.tasks import rows
from xprompt_jax.tasks.rows import Row
from xprompt_jax.tasks.schemas import Schema, Split
from xprompt_jax.tasks.sources import RowSource, to_python
from xprompt_jax.types import UserError

SUPER_GLUE_DIR = "SUPER_GLUE_DIR"
FEWGLUE_DIR = "FEWGLUE_DIR"
_REACH_SECONDS = 30

# What a task trains on, of the rows of its train split.
TrainRows = Callable[[list[Row]], list[Row]]


def super_glue_source(
    schema: Schema,
    *,
    train_rows: TrainRows | None = None,
    splits: Sequence[str] | None = None,
) -> RowSource:
  """Returns a source over official JSONL folders or TFDS.

  With SUPER_GLUE_DIR set it reads `$SUPER_GLUE_DIR/<folder>/<file>.jsonl`, else
  TFDS; the examples, their ids and their order are the same.

  Args:
    schema: what the rows hold and where they lie.
    train_rows: what is trained on, of the train split's rows; None means all.
    splits: which of the splits the source has; None means all.
  """

  def read(split: str) -> list[Row]:
    found = _read_official(schema, split)
    return train_rows(found) if train_rows and split == "train" else found

  def count(split: str) -> int:
    official = schema.splits[split]
    return official.examples or official.rows

  return RowSource(
      read,
      splits=tuple(splits or schema.splits),
      files=lambda split: _official_files(schema, split),
      count=count,
  )


def fewglue_source(
    schema: Schema, *, train_rows: TrainRows | None = None
) -> RowSource:
  """Returns a source over FewGLUE's published sets.

  Its train split is `$FEWGLUE_DIR/<folder>/train.jsonl` (32 rows), validation
  is `dev32.jsonl` of FewGLUE_32dev, and test is SuperGLUE's own validation
  split, on which FewGLUE's users report.

  Args:
    schema: what the rows hold and where they lie.
    train_rows: what is trained on, of the train split's rows; None means all.
  """

  def read(split: str) -> list[Row]:
    if split == "test":
      return _read_official(schema, "validation")
    few = schema.few_shot[split]
    found = _read_file(_few_shot_file(schema, few), schema, few)
    return train_rows(found) if train_rows and split == "train" else found

  def files(split: str) -> list[pathlib.Path]:
    if split == "test":
      return _official_files(schema, "validation")
    return [_few_shot_file(schema, schema.few_shot[split])]

  return RowSource(read, splits=("train", "validation", "test"), files=files)


def _few_shot_file(schema: Schema, split: Split) -> pathlib.Path:
  folder = os.environ.get(FEWGLUE_DIR)
  if not folder:
    raise UserError(
        f"{FEWGLUE_DIR}: is not set, expected the folder that holds FewGLUE's"
        f" {schema.folder}/{split.file}"
    )
  return _expanded(folder) / schema.folder / split.file


def _official_files(schema: Schema, split: str) -> list[pathlib.Path]:
  folder = os.environ.get(SUPER_GLUE_DIR)
  if not folder:
    return []
  return [_expanded(folder) / schema.folder / schema.splits[split].file]


def _expanded(folder: str) -> pathlib.Path:
  # pathlib's own raises where there is no such user; a path that cannot be
  # read is refused with the file's name.
  return pathlib.Path(os.path.expanduser(folder))


def _read_official(schema: Schema, split: str) -> list[Row]:
  official = schema.splits[split]
  for path in _official_files(schema, split):
    return _read_file(path, schema, official)
  found = _tfds_rows(schema, split)
  return rows.check_split(found, official, f"{schema.tfds_name}, {split}")


def _read_file(path: pathlib.Path, schema: Schema, split: Split) -> list[Row]:
  found = rows.read_jsonl(path, schema, labelled=split.labelled)
  return rows.check_split(found, split, os.fspath(path))


def _tfds_rows(schema: Schema, split: str) -> list[Row]:
  """Reads a split through TFDS, whose files are in the order of hashes."""
  # TFDS would log what is neither an error nor of use here.
  logging.disable(logging.WARNING)
  try:
    import tensorflow_datasets as tfds

    builder = tfds.builder(schema.tfds_name)
    if not builder.is_prepared():
      _check_reachable(builder.builder_config.data_url)
      builder.download_and_prepare()
    dataset = builder.as_dataset(split=split, shuffle_files=False)
    return [to_python(_flat(row)) for row in dataset.as_numpy_iterator()]
  except Exception as error:  # Whatever a download can end in.
    reason = (str(error) or type(error).__name__).splitlines()[0]
    raise UserError(
        f"{schema.tfds_name}: TFDS cannot read the split {split} ({reason});"
        f" set {SUPER_GLUE_DIR} to a folder with the official"
        f" {schema.folder}/{schema.splits[split].file}"
    ) from error
  finally:
    logging.disable(logging.NOTSET)


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
  """Returns TFDS's nested `idx` as fields of the row."""
  numbers = row["idx"]
  if not isinstance(numbers, Mapping):
    return dict(row)
  # In the order of the layout: TFDS gives them sorted by name.
  names = ("paragraph", "passage", "question", "query", "answer")
  flat = {name: value for name, value in row.items() if name != "idx"}
  return flat | {f"idx/{n}": numbers[n] for n in names if n in numbers}


def _check_reachable(url: str) -> None:
  """Raises OSError without a network; TFDS would try for minutes."""
  request = urllib.request.Request(url, method="HEAD")
  # An answer of any kind shows that the server is there.
  with contextlib.suppress(urllib.error.HTTPError):
    urllib.request.urlopen(request, timeout=_REACH_SECONDS).close()
