"""A report as one HTML page and as Markdown."""

import base64
from collections.abc import Sequence
import pathlib

import jinja2

from xprompt_jax.html_report.content import Picture, Section, Table

_TEMPLATE = pathlib.Path(__file__).parent / "page.html"


def _data_uri(picture: Picture) -> str:
  """The picture itself as an address, so that the page needs no other file."""
  return f"data:image/svg+xml;base64,{base64.b64encode(picture.svg).decode()}"


def as_html(title: str, intro: str, sections: Sequence[Section]) -> str:
  """One page with everything in it: style, tables and pictures."""
  environment = jinja2.Environment(
      autoescape=True,
      undefined=jinja2.StrictUndefined,
      trim_blocks=True,
      lstrip_blocks=True,
      keep_trailing_newline=True,
  )
  environment.filters["data_uri"] = _data_uri
  environment.tests["table"] = lambda item: isinstance(item, Table)
  template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
  return template.render(title=title, intro=intro, sections=sections)


def as_markdown(title: str, intro: str, sections: Sequence[Section]) -> str:
  """The same in Markdown; figures are those in figures/."""
  lines = [f"# {title}", "", intro, ""]
  for section in sections:
    lines += [f"## {section.title}", ""]
    for paragraph in section.text:
      lines += [paragraph, ""]
    ordered = sorted(section.items, key=lambda i: not isinstance(i, Table))
    for item in ordered:
      if isinstance(item, Table):
        lines += [f"{item.caption} ([CSV](tables/{item.name}.csv)):", ""]
        lines += [item.as_markdown()]
      else:
        lines += [f"![{item.alt}](figures/{item.name}.png)", ""]
        lines += [f"*{item.caption}*", ""]
    if section.verdicts:
      lines += [*(f"- {verdict}" for verdict in section.verdicts), ""]
  return "\n".join(lines)
