"""Rows of the SuperGLUE tasks: the official JSONL files, read and checked.

Plain Python: nothing here needs TensorFlow or seqio.
Whatever a row comes from (a JSONL file, TFDS, the mini language), it leaves
here in TFDS's form: flat fields, the label as a class id, -1 without a label,
and for WSC the spans repaired as in TFDS's `super_glue/wsc.fixed`.
`sources.py` hands the rows to seqio; `preprocessors.py` makes text of them.
"""

from collections.abc import Iterable, Mapping
import dataclasses
import json
import os
import pathlib
from typing import Any

from xprompt_jax.types import UserError

UNLABELLED = -1
BOOLEAN_LABELS = ("False", "True")
# Official names of the files of seqio's (and TFDS's) splits.
FILES = {
    "train": "train.jsonl",
    "validation": "val.jsonl",
    "test": "test.jsonl",
}

# Subjects with other words between them: no substring of the text names them,
# and TFDS leaves them as they are.
_SPLIT_SPANS = ("Kamenev and Zinoviev", "Kamenev, Zinoviev, and Stalin")

Row = dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Schema:
  """What the rows of one task hold.

  `fields` are its text fields, `labels` its labels in the order of their class
  ids; `folder` and `tfds_name` are where the official data lies.
  """

  fields: tuple[str, ...]
  labels: tuple[str, ...]
  folder: str
  tfds_name: str
  spans: bool = False  # Has WSC's `target` with its two spans.


SCHEMAS = {
    "boolq": Schema(
        fields=("passage", "question"),
        labels=BOOLEAN_LABELS,
        folder="BoolQ",
        tfds_name="super_glue/boolq",
    ),
    "cb": Schema(
        fields=("hypothesis", "premise"),
        labels=("entailment", "contradiction", "neutral"),
        folder="CB",
        tfds_name="super_glue/cb",
    ),
    "rte": Schema(
        fields=("hypothesis", "premise"),
        labels=("entailment", "not_entailment"),
        folder="RTE",
        tfds_name="super_glue/rte",
    ),
    "wsc": Schema(
        fields=("text",),
        labels=BOOLEAN_LABELS,
        folder="WSC",
        tfds_name="super_glue/wsc.fixed",
        spans=True,
    ),
}


def read_jsonl(
    path: str | os.PathLike[str], schema: Schema, *, labelled: bool
) -> list[Row]:
  """Reads and checks a JSONL file in the official format.

  Args:
    path: the file; UTF-8, with or without a byte order mark, any line ends.
    schema: what its rows hold.
    labelled: whether a row without a label is an error.

  Returns:
    The rows in the order of the file.

  Raises:
    UserError: names file and line, what was found and what was expected.
  """
  path = pathlib.Path(path)
  try:
    content = path.read_bytes()
  except OSError as error:
    raise UserError(
        f"{path}: cannot be read ({error.strerror}), expected the official"
        " SuperGLUE file"
    ) from error
  parsed = []
  # Not str.splitlines: it also splits at U+2028, which JSON strings may hold.
  lines = content.removeprefix(b"\xef\xbb\xbf").split(b"\n")
  for number, line in enumerate(lines, start=1):
    if line.strip():
      where = f"{path}, line {number}"
      parsed.append((where, _parse(line, where)))
  return check_rows(parsed, schema, labelled=labelled)


def check_rows(
    rows: Iterable[tuple[str, Any]], schema: Schema, *, labelled: bool
) -> list[Row]:
  """Checks rows of the official format and brings them into TFDS's form.

  Args:
    rows: where each row stands (file and line), and the row.
    schema: what the rows hold.
    labelled: whether a row without a label is an error.

  Raises:
    UserError: a row lacks a field or holds another type, its label is not in
      the set, its spans do not fit its text, or its idx occurred before.
  """
  first_seen: dict[int, str] = {}
  checked = []
  for where, row in rows:
    row = _check_row(row, schema, where, labelled)
    if (before := first_seen.setdefault(row["idx"], where)) != where:
      raise UserError(
          f"{where}: idx {row['idx']} was seen before ({before}), expected"
          " every row to have its own"
      )
    checked.append(row)
  return checked


def _parse(line: bytes, where: str) -> Any:
  try:
    return json.loads(line.decode("utf-8"))
  except ValueError as error:
    raise UserError(
        f"{where}: is not JSON in UTF-8 ({error}), expected one object a line"
    ) from error


def _check_row(row: Any, schema: Schema, where: str, labelled: bool) -> Row:
  if not isinstance(row, Mapping):
    raise UserError(
        f"{where}: found a {type(row).__name__}, expected an object"
    )
  checked: Row = {name: _text(row, name, where) for name in schema.fields}
  if schema.spans:
    target = _field(row, "target", Mapping, where)
    for span in ("span1", "span2"):
      checked[f"{span}_text"] = _text(target, f"{span}_text", where)
      checked[f"{span}_index"] = _field(target, f"{span}_index", int, where)
    _repair_spans(checked, where)
  checked["idx"] = _field(row, "idx", int, where)
  checked["label"] = _label(row, schema, where, labelled)
  return checked


def _field(row: Mapping, name: str, kind: type, where: str) -> Any:
  if name not in row:
    raise UserError(f"{where}: lacks the field {name!r}")
  value = row[name]
  if not isinstance(value, kind) or isinstance(value, bool):
    expected = {str: "text", int: "an integer"}.get(kind, "an object")
    raise UserError(f"{where}: {name} is {value!r}, expected {expected}")
  return value


def _text(row: Mapping, name: str, where: str) -> str:
  text = _field(row, name, str, where)
  try:
    text.encode("utf-8")
  except UnicodeEncodeError as error:
    raise UserError(f"{where}: {name} is not Unicode text ({error})") from error
  return text


def _label(row: Mapping, schema: Schema, where: str, labelled: bool) -> int:
  if "label" not in row:
    if labelled:
      raise UserError(f"{where}: lacks the field 'label'")
    return UNLABELLED
  label = row["label"]
  boolean = schema.labels == BOOLEAN_LABELS
  name = str(label) if boolean and isinstance(label, bool) else label
  if name not in schema.labels:
    expected = ("false", "true") if boolean else schema.labels
    raise UserError(
        f"{where}: label is {json.dumps(label)}, expected one of"
        f" {', '.join(expected)}"
    )
  return schema.labels.index(name)


def _repair_spans(row: Row, where: str) -> None:
  """Makes both spans substrings of the text, as TFDS's `wsc.fixed` does.

  The official rows differ from their text in the case of the first letter, a
  final full stop or a line break.
  """
  for span in ("span1", "span2"):
    index, text = row[f"{span}_index"], row[f"{span}_text"]
    words = row["text"].split()
    if not 0 <= index < len(words):
      raise UserError(
          f"{where}: {span}_index is {index}, expected 0 to {len(words) - 1},"
          " a word of the text"
      )
    if text in row["text"] or text in _SPLIT_SPANS:
      continue
    lower = words[index][0].islower()
    first = text[:1].lower() if lower else text[:1].upper()
    text = (first + text[1:]).rstrip(".").replace("\n", " ")
    if text not in row["text"]:
      raise UserError(
          f"{where}: {span}_text is {row[f'{span}_text']!r}, expected words of"
          " the text"
      )
    row[f"{span}_text"] = text
