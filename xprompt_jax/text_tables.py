"""Tables for a log file: nothing is wider than 80 columns.

`report.py` and `scoreboard.py` fill them.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

import rich.box
import rich.console
import rich.table

WIDTH = 80
_Column = TypeVar("_Column")


def plain_table(
    title: str | None = None, first: str = "method"
) -> rich.table.Table:
  """An empty table with its first column; it fits into a log file."""
  table = rich.table.Table(
      title=title,
      title_justify="left",
      box=rich.box.SIMPLE_HEAD,
      show_edge=False,
      pad_edge=False,
      padding=(0, 0, 0, 1),
  )
  table.add_column(first, no_wrap=True)
  return table


def titled_table(title: str, first: str = "method") -> rich.table.Table:
  """The same, as wide as its title where it can be, else rich breaks it."""
  table = plain_table(title, first)
  table.min_width = min(len(title), WIDTH)
  return table


def width(table: rich.table.Table) -> int:
  """Columns of the screen that a table takes where nothing narrows it."""
  return rich.console.Console(width=4 * WIDTH).measure(table).maximum


def fitting_tables(
    build: Callable[[Sequence[_Column], str], rich.table.Table],
    columns: Sequence[_Column],
) -> list[rich.table.Table]:
  """One table, or as many as its columns need to fit into 80 of the screen.

  Args:
    build: makes a table of some of the columns; gets what stands between a
      score and its k/N, too: a space, or a line's end where that is too wide.
    columns: all of them.
  """
  for between in (" ", "\n"):
    table = build(columns, between)
    if width(table) <= WIDTH:
      return [table]
  if len(columns) == 1:
    return [table]
  half = (len(columns) + 1) // 2
  return [
      *fitting_tables(build, columns[:half]),
      *fitting_tables(build, columns[half:]),
  ]


def console() -> rich.console.Console:
  """Where tables go; a narrower terminal wraps lines and drops nothing."""
  found = rich.console.Console(highlight=False)
  found.width = max(found.width, WIDTH)
  return found
