"""Rows of the SuperGLUE tasks: the official JSONL files, read and checked.

Plain Python: nothing here needs TensorFlow or seqio.
Whatever a row comes from (a JSONL file, TFDS, the mini language), it leaves
here in TFDS's form: flat fields, the label as a class id, -1 without a label;
nested ids as `idx/question`, and for WSC the spans repaired as in TFDS's
`super_glue/wsc.fixed`. MultiRC's rows are answers and ReCoRD's are queries.
`schemas.py` says what the rows hold; `sources.py` hands them to seqio;
`preprocessors.py` makes text of them.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
import hashlib
import json
import os
import pathlib
from typing import Any

from xprompt_jax import submission
from xprompt_jax.tasks.schemas import Schema, Split
from xprompt_jax.types import UserError

UNLABELLED = -1
# Numbers are int32, as TFDS's.
_LARGEST = 2**31 - 1

# Subjects with other words between them: no substring of the text names them,
# and TFDS leaves them as they are.
_SPLIT_SPANS = ("Kamenev and Zinoviev", "Kamenev, Zinoviev, and Stalin")

Row = dict[str, Any]


def read_jsonl(
    path: str | os.PathLike[str], schema: Schema, *, labelled: bool
) -> list[Row]:
  """Reads and checks a JSONL file in the official format.

  Args:
    path: the file; UTF-8, with or without a byte order mark, any line ends.
    schema: what its rows hold.
    labelled: whether every row must have a label; otherwise none may.

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
    labelled: whether every row must have a label; otherwise none may.

  Raises:
    UserError: a row lacks a field or holds another type, its label is not in
      the set or is one where the split has none, its spans do not fit its
      text, or its idx is no int32 >= 0 or occurred before.
  """
  first_seen: dict[tuple[int, ...], str] = {}
  checked = []
  for where, row in rows:
    if not isinstance(row, Mapping):
      raise UserError(
          f"{where}: found a {type(row).__name__}, expected an object"
      )
    for flat in _flatten(row, schema, where, labelled):
      number = row_id(flat)
      if number in first_seen:
        raise UserError(
            f"{where}: idx {'-'.join(map(str, number))} was seen before"
            f" ({first_seen[number]}), expected every row to have its own"
        )
      first_seen[number] = where
      checked.append(flat)
  return checked


def check_split(found: list[Row], split: Split, where: str) -> list[Row]:
  """Returns the rows in the order of their ids if they are the official ones.

  Args:
    found: rows as `check_rows` returns them.
    split: the official counts and digest.
    where: what was read, for the message.

  Raises:
    UserError: another number of rows, other ids, or other content.
  """
  passages = len({row_id(row)[0] for row in found})
  for unit, number, expected in (
      ("passages", passages, split.passages),
      ("rows", len(found), split.rows),
  ):
    if expected is not None and number != expected:
      raise UserError(
          f"{where}: has {number:,} {unit}, expected the official {expected:,};"
          " another data set is a task of its own"
      )
  ordered = sorted(found, key=row_id)
  if not split.chosen:
    submission.check_numbers([row_id(row) for row in ordered], where)
  if split.sha256 and (digest := rows_sha256(ordered)) != split.sha256:
    raise UserError(
        f"{where}: its rows have sha256 {digest[:12]}, expected the official"
        f" {split.sha256[:12]}; another data set is a task of its own"
    )
  return ordered


def rows_sha256(found: Iterable[Row]) -> str:
  """Returns the sha256 over rows as lines of JSON with sorted keys."""
  digest = hashlib.sha256()
  for row in found:
    digest.update(json.dumps(row, sort_keys=True).encode("ascii") + b"\n")
  return digest.hexdigest()


def row_id(row: Mapping[str, Any]) -> tuple[int, ...]:
  """Returns the row's own number, or its two or three nested ones."""
  return tuple(
      value
      for name, value in row.items()
      if name == "idx" or name.startswith("idx/")
  )


def _parse(line: bytes, where: str) -> Any:
  try:
    return json.loads(line.decode("utf-8"))
  except (ValueError, RecursionError) as error:
    raise UserError(
        f"{where}: is not JSON in UTF-8 ({error}), expected one object a line"
    ) from error


def _flatten(
    row: Mapping, schema: Schema, where: str, labelled: bool
) -> Iterator[Row]:
  """Yields the rows of one line of a file."""
  if schema.layout == "multirc":
    yield from _answers(row, schema, where, labelled)
  elif schema.layout == "record":
    yield from _queries(row, where, labelled)
  else:
    checked: Row = {name: _text(row, name, where) for name in schema.fields}
    for name in schema.integers:
      checked[name] = _field(row, name, int, where)
    if schema.layout == "wsc":
      target = _field(row, "target", Mapping, where)
      for span in ("span1", "span2"):
        checked[f"{span}_text"] = _text(target, f"{span}_text", where)
        checked[f"{span}_index"] = _field(target, f"{span}_index", int, where)
      _repair_spans(checked, where)
    checked["idx"] = _idx(_unquoted(row) if schema.idx_is_text else row, where)
    checked["label"] = _label(row, schema, where, labelled)
    yield checked


def _answers(
    row: Mapping, schema: Schema, where: str, labelled: bool
) -> Iterator[Row]:
  """Yields one row for each answer to each question on a passage."""
  passage = _field(row, "passage", Mapping, where)
  paragraph = _text(passage, "text", where)
  number = _idx(row, where)
  for question in _objects(passage, "questions", where):
    text = _text(question, "question", where)
    place = _idx(question, where)
    for answer in _objects(question, "answers", where):
      yield {
          "question": text,
          "answer": _text(answer, "text", where),
          "paragraph": paragraph,
          "idx/paragraph": number,
          "idx/question": place,
          "idx/answer": _idx(answer, where),
          "label": _label(answer, schema, where, labelled),
      }


def _queries(row: Mapping, where: str, labelled: bool) -> Iterator[Row]:
  """Yields one row for each query on a passage."""
  passage = _field(row, "passage", Mapping, where)
  text = _text(passage, "text", where)
  entities = set()
  for entity in _objects(passage, "entities", where, least=0):
    start = _field(entity, "start", int, where)
    end = _field(entity, "end", int, where)
    # The end is the place of the last letter. As TFDS: whatever stands there.
    entities.add(text[start : end + 1])
  number = _idx(row, where)
  for query in _objects(row, "qas", where):
    answers = set()
    if labelled:
      answers = {
          _text(answer, "text", where)
          for answer in _objects(query, "answers", where)
      }
    elif "answers" in query:
      raise UserError(
          f"{where}: answers is {_shown(query['answers'])}, expected none in a"
          " split without labels"
      )
    yield {
        "query": _text(query, "query", where),
        "passage": text,
        "entities": sorted(entities),
        "answers": sorted(answers),
        "idx/passage": number,
        "idx/query": _idx(query, where),
    }


def _objects(
    row: Mapping, name: str, where: str, *, least: int = 1
) -> list[Mapping]:
  """Returns a list of objects, as many or more."""
  found = _field(row, name, list, where)
  if len(found) < least or not all(isinstance(part, Mapping) for part in found):
    raise UserError(f"{where}: {name} is {_shown(found)}, expected objects")
  return found


def _field(row: Mapping, name: str, kind: type, where: str) -> Any:
  if name not in row:
    raise UserError(f"{where}: lacks the field {name!r}")
  value = row[name]
  if not isinstance(value, kind) or isinstance(value, bool):
    expected = {str: "text", int: "an integer", list: "a list"}
    raise UserError(
        f"{where}: {name} is {_shown(value, repr)}, expected"
        f" {expected.get(kind, 'an object')}"
    )
  if isinstance(value, int) and not -_LARGEST <= value <= _LARGEST:
    raise UserError(
        f"{where}: {name} is {_shown(value, repr)}, expected at most"
        f" {_LARGEST}"
    )
  return value


def _shown(value: Any, write: Callable[[Any], str] = json.dumps) -> str:
  """Returns the beginning of a value as a message shows it."""
  try:
    return write(value)[:60]
  except RecursionError:
    return f"a nested {type(value).__name__}"


def _idx(row: Mapping, where: str) -> int:
  value = _field(row, "idx", int, where)
  if value < 0:
    raise UserError(f"{where}: idx is {value}, expected an integer >= 0")
  return value


def _unquoted(row: Mapping) -> Mapping:
  """Returns the row with its idx as a number, where it is a number's text."""
  value = row.get("idx")
  # Python refuses to read numbers of thousands of digits.
  if isinstance(value, str) and value.isdecimal() and len(value) < 20:
    return {**row, "idx": int(value)}
  return row


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
  if not labelled:
    raise UserError(
        f"{where}: label is {_shown(label)}, expected none in a split without"
        " labels"
    )
  for place, expected in enumerate(schema.json_labels):
    # In Python, True equals 1; in a file they are two things.
    if type(label) is type(expected) and label == expected:
      return place
  names = [
      name if isinstance(name, str) else json.dumps(name)
      for name in schema.json_labels
  ]
  raise UserError(
      f"{where}: label is {_shown(label)}, expected one of"
      f" {', '.join(names)}"
  )


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
