"""What a report takes from result files, checked: damage is named in one line."""

from collections.abc import Mapping, Sequence
import pathlib
from typing import Any

from xprompt_jax.errors import UserError

Row = Mapping[str, Any]
# The schema of `WORKDIR/result.json` that this module reads.
SCHEMA = 1
SPLITS = ("validation", "heldout", "test")
# Numbers of rows, where they are there.
_NUMBERS = (
    "kept_tokens",
    "kept_pieces",
    "tunable_parameters",
    "inference_parameters",
    "token_ratio",
    "piece_ratio",
    "ratio",
    "num_masked",
)
_NAMES = ("task", "granularity", "rule", "order")


def refuse(path: pathlib.Path, name: str, found: Any, expected: str) -> None:
  text = repr(found)
  text = text if len(text) < 60 else f"{text[:57]}..."
  raise UserError(f"{path}: {name}: found {text}, expected {expected}")


def _is_number(found: Any) -> bool:
  return isinstance(found, (int, float)) and not isinstance(found, bool)


def _are_numbers(found: Any) -> bool:
  return isinstance(found, dict) and all(map(_is_number, found.values()))


def _check_metrics(path: pathlib.Path, name: str, found: Any) -> None:
  if not _are_numbers(found):
    refuse(path, name, found, "numbers by metric")
  if "score" not in found:
    refuse(path, name, found, "a score among them")


def check_rows(
    path: pathlib.Path, name: str, rows: Any, needed: Sequence[str] = ()
) -> list[Row]:
  """Rows of a result file, or an error that names the one that is none.

  Args:
    path: the file.
    name: of the list in it.
    rows: what was found there.
    needed: keys that each row must have.

  Raises:
    UserError: no list of objects with a seed and metrics.
  """
  if not isinstance(rows, list):
    refuse(path, name, rows, "a list of rows")
  for number, row in enumerate(rows):
    where = f"{name}[{number}]"
    if not isinstance(row, dict):
      refuse(path, where, row, "an object")
    for key in ("seed", *needed):
      if key not in row:
        refuse(path, where, sorted(row), f"{key!r} among its keys")
    for split in SPLITS:
      if split in row:
        _check_metrics(path, f"{where}.{split}", row[split])
    _check_fields(path, where, row)
  return rows


def _check_fields(path: pathlib.Path, where: str, row: Row) -> None:
  """Refuses fields of a row that have another type than docs/files.md says."""
  if not isinstance(row["seed"], (int, type(None))):
    refuse(path, f"{where}.seed", row["seed"], "an integer or null")
  for key in _NUMBERS:
    if row.get(key) is not None and not _is_number(row[key]):
      refuse(path, f"{where}.{key}", row[key], "a number")
  for key in _NAMES:
    if not isinstance(row.get(key, ""), str):
      refuse(path, f"{where}.{key}", row[key], "a name")
  sizes = row.get("metric_sizes", {})
  if not isinstance(sizes, dict) or not all(map(_are_numbers, sizes.values())):
    refuse(path, f"{where}.metric_sizes", sizes, "numbers by split and metric")


def check_summary(path: pathlib.Path, summary: Mapping[str, Any]) -> None:
  if summary.get("schema") != SCHEMA:
    refuse(path, "schema", summary.get("schema"), str(SCHEMA))
  for key, kind, expected in (
      ("config", dict, "an object"),
      ("task", str, "a name"),
      ("num_examples", dict, "an object"),
      ("methods", list, "a list of methods"),
  ):
    if not isinstance(summary.get(key), kind):
      refuse(path, key, summary.get(key), expected)
  if not _are_numbers(summary.get("seconds", {})):
    refuse(path, "seconds", summary["seconds"], "numbers by stage")
  if not _are_numbers(summary["num_examples"]):
    refuse(path, "num_examples", summary["num_examples"], "numbers by split")
  members = summary.get("members", {})
  if not isinstance(members, dict) or not all(
      map(_are_numbers, members.values())
  ):
    refuse(path, "members", members, "numbers by task and split")
  if not summary["methods"]:
    refuse(path, "methods", [], "at least one")
  for number, method in enumerate(summary["methods"]):
    name = f"methods[{number}]"
    if not isinstance(method, dict) or not isinstance(
        method.get("method"), str
    ):
      refuse(path, name, method, "an object with `method` and `rows`")
    rows = check_rows(path, f"{name}.rows", method.get("rows"), ("validation",))
    if not rows:
      refuse(path, f"{name}.rows", rows, "at least one")
