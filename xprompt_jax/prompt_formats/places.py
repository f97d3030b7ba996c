"""Where a prompt stands: `PATH#ROW`, and what the run around a file says of it.

A stage of a run writes a line for each row of its prompt file into the
`result.json` beside it; a file that lies elsewhere has no such record.
"""

import os
from typing import Any

from xprompt_jax import artifacts
from xprompt_jax.prompt_formats import reading
from xprompt_jax.types import UserError

# Python refuses to read integers of thousands of digits.
_MAX_DIGITS = 9


def split_row(
    place: str, *, prefix: str = "", form: str = "PATH or PATH#ROW"
) -> tuple[str, int | None]:
  """Splits `PATH#ROW`.

  Args:
    place: what follows its last # is a row, so a path that has one needs its
      row.
    prefix: what stands before it in messages, such as `--prompt=NAME=`.
    form: what is expected, in messages.

  Returns:
    The path, which may be empty, and the row or None where none is named.

  Raises:
    UserError: a row that is no number.
  """
  path, mark, row = place.rpartition("#")
  if not mark:
    return place, None
  if not (row.isascii() and row.isdigit()):
    raise UserError(
        f"{prefix}{place}: found {row!r} after #, expected {form} with a row"
        " >= 0"
    )
  if len(row) > _MAX_DIGITS:
    raise UserError(
        f"{prefix}{path}: found {len(row)} digits after #, expected {form} with"
        f" a row of at most {_MAX_DIGITS} digits"
    )
  return path, int(row)


def check_row(row: int, path: str, num_rows: int, flag: str) -> None:
  """Refuses a row that a file of R = `num_rows` prompts does not have.

  Args:
    row: counted from 0.
    path: of the file.
    num_rows: R.
    flag: what named the row.
  """
  if not 0 <= row < num_rows:
    raise UserError(
        f"{flag}: {path} holds {num_rows} prompts, expected a row in [0,"
        f" {num_rows})"
    )


def recorded_rows(
    path: str | os.PathLike[str], num_rows: int
) -> list[dict[str, Any]] | None:
  """What a run says of each row of its prompt file: `seed`, `task`, ...

  Args:
    path: of a prompt that has been read.
    num_rows: R of the file.

  Returns:
    R lines with a `seed`; None where no stage of a run wrote such.

  Raises:
    UserError: the record is damaged.
  """
  file = reading.file_of(path)
  note = file.with_name(artifacts.RESULT)
  if file.name != artifacts.PROMPT or not note.exists():
    return None
  rows = artifacts.read_json(note).get("rows")
  is_record = (
      isinstance(rows, list)
      and len(rows) == num_rows
      and all(isinstance(r, dict) and type(r.get("seed")) is int for r in rows)
  )
  return rows if is_record else None
