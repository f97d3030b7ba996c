"""Cells and tables of a model card, whatever text stands in them.

`model_card.py` says what the card tells.
"""

from collections.abc import Iterable, Sequence

_SPECIAL = frozenset("\\`*_[]<>|~&#$")


def escape(text: object) -> str:
  """Any text as one line of Markdown that shows it and does nothing else."""
  shown = []
  for character in str(text):
    if character in _SPECIAL:
      shown.append("\\" + character)
    elif character.isprintable():
      shown.append(character)
    else:
      shown.append(f"U+{ord(character):04X}")
  return "".join(shown)


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
  """A Markdown table; cells are escaped, None is a dash."""

  def line(cells: Sequence[object]) -> str:
    shown = ("-" if cell is None else escape(cell) for cell in cells)
    return f"| {' | '.join(shown)} |"

  rule = f"| {' | '.join('---' for _ in header)} |"
  return "\n".join([line(header), rule, *map(line, rows)])


def number(value: object) -> str:
  """A metric with two digits; what is no float as it is."""
  return f"{value:.2f}" if isinstance(value, float) else str(value)
