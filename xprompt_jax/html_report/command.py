"""`t5x report WORKDIR... [--output=DIR]`."""

import argparse
from collections.abc import Sequence
import pathlib
import re

from xprompt_jax import artifacts
from xprompt_jax.errors import UserError
from xprompt_jax.html_report import page, reading, sections
from xprompt_jax.html_report.content import Picture, Section, Table

PAGE = "report.html"
MARKDOWN = "report.md"
_FILES = re.compile(r"\((tables/\w+\.csv|figures/\w+\.png)\)")


def _introduction(
    runs: Sequence[reading.Run], notes: Sequence[reading.Note]
) -> str:
  some = ", ".join(run.name for run in runs[:8])
  more = f" and {len(runs) - 8} more" if len(runs) > 8 else ""
  return (
      f"Made from the result files of {len(runs)}"
      f" run{'s' if len(runs) != 1 else ''}: {some}{more}. Claims are about"
      " these models, tasks and seeds alone. A difference is called clear where"
      " its 95 % interval leaves out 0."
      + "".join(f" {note.origin}: {note.text}" for note in notes)
  )


def _write_bytes(path: pathlib.Path, content: bytes) -> None:
  with artifacts.replacing(path) as temporary:
    temporary.write_bytes(content)


def _check_names(items: Sequence[Table | Picture]) -> None:
  """Two things of one name would be one file."""
  names = [item.name for item in items]
  twice = sorted({name for name in names if names.count(name) > 1})
  assert not twice, twice


def _clear(output: pathlib.Path) -> None:
  """Takes away the tables and figures of the report that stands there.

  Its Markdown names them; other files are left alone.
  """
  markdown = output / MARKDOWN
  if not markdown.exists():
    return
  for name in set(_FILES.findall(markdown.read_text(encoding="utf-8"))):
    (output / name).unlink(missing_ok=True)


def write(
    title: str, intro: str, parts: Sequence[Section], output: pathlib.Path
) -> None:
  """Writes the page last: with it the report is whole.

  Args:
    title: its heading.
    intro: the paragraph below.
    parts: its sections.
    output: folder for all files.

  Raises:
    UserError: the folder cannot be written.
  """
  items = [item for section in parts for item in section.items]
  tables = [item for item in items if isinstance(item, Table)]
  pictures = [item for item in items if isinstance(item, Picture)]
  _check_names(tables)
  _check_names(pictures)
  _clear(output)
  for table in tables:
    artifacts.write_text(
        output / "tables" / f"{table.name}.csv", table.as_csv()
    )
  for picture in pictures:
    _write_bytes(output / "figures" / f"{picture.name}.png", picture.png)
  artifacts.write_text(output / MARKDOWN, page.as_markdown(title, intro, parts))
  artifacts.write_text(output / PAGE, page.as_html(title, intro, parts))
  print(
      f"{output / PAGE}: {len(parts)} sections, {len(tables)} tables,"
      f" {len(pictures)} figures"
  )


def run(arguments: argparse.Namespace) -> None:
  """Reads the runs named on the command line and writes their report.

  Args:
    arguments: `workdirs` and `output`.

  Raises:
    UserError: a folder that is missing, a run that is not finished, a damaged
      file, or an output that cannot be written.
  """
  if arguments.gin_file:
    raise UserError(
        f"--gin_file={arguments.gin_file[0]}: found a gin file, expected none:"
        " report reads finished runs"
    )
  workdirs = [pathlib.Path(name) for name in arguments.workdirs]
  runs, notes = reading.read(workdirs)
  write(
      sections.title(runs),
      _introduction(runs, notes),
      sections.build(runs, notes),
      pathlib.Path(arguments.output),
  )
