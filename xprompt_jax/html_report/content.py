"""What a report is made of: sections of sentences, tables and figures.

The page, the Markdown file and the CSV files show the same objects.
"""

from collections.abc import Sequence
import csv
import dataclasses
import io
import re

_NUMBER = re.compile(r"[-+±\d.,/%()\[\]\s]*\d[-+±\d.,/%()\[\]\s]*|-")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
  """A table as readers see it, and the same numbers for programs.

  Attributes:
    name: of its CSV file.
    caption: says what its numbers are.
    columns: titles.
    rows: cells as text; the first of each row is its title.
    records: a title row and rows of plain numbers for the CSV file; None
      takes the cells.
  """

  name: str
  caption: str
  columns: Sequence[str]
  rows: Sequence[Sequence[str]]
  records: Sequence[Sequence[object]] | None = None

  @property
  def numeric(self) -> list[bool]:
    """Which columns hold nothing but numbers and dashes."""
    return [
        bool(self.rows)
        and all(_NUMBER.fullmatch(row[i]) is not None for row in self.rows)
        and any(any(c.isdigit() for c in row[i]) for row in self.rows)
        for i in range(len(self.columns))
    ]

  def as_csv(self) -> str:
    """The contents of its CSV file."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows(self.records or [self.columns, *self.rows])
    return text.getvalue()

  def as_markdown(self) -> str:
    """The table in Markdown, numbers to the right."""
    marks = ["---:" if number else "---" for number in self.numeric]
    lines = [
        "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"
        for row in (self.columns, marks, *self.rows)
    ]
    return "\n".join(lines) + "\n"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Picture:
  """A figure that is drawn.

  Attributes:
    name: of its PNG file.
    caption: what it shows.
    alt: the same for those who do not see it, with its main numbers.
    png: for the file.
    svg: for the page.
    width: how wide it is meant to be seen, in CSS pixels.
  """

  name: str
  caption: str
  alt: str
  png: bytes
  svg: bytes
  width: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Section:
  """One part of the report.

  Attributes:
    anchor: its id on the page.
    title: its heading.
    text: paragraphs: what is shown, on which split, selected how, how many
      seeds.
    verdicts: a sentence for each comparison.
    items: tables and figures, in order.
  """

  anchor: str
  title: str
  text: Sequence[str]
  verdicts: Sequence[str] = ()
  items: Sequence[Table | Picture] = ()

  @property
  def has_pictures(self) -> bool:
    """Whether any of its items is drawn."""
    return any(isinstance(item, Picture) for item in self.items)


def slug(text: str) -> str:
  """A text as the name of a file or an anchor."""
  return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_") or "unnamed"
