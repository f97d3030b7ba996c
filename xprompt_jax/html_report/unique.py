"""Names of files and anchors, no two of which may be one."""

from collections.abc import Sequence
import dataclasses

from xprompt_jax.html_report.content import Picture, Section, Table


def _free(name: str, taken: set[str]) -> str:
  """The name, with a number where it is taken already."""
  found, number = name, 1
  while found in taken:
    number += 1
    found = f"{name}_{number}"
  taken.add(found)
  return found


def sections(found: Sequence[Section]) -> list[Section]:
  """The same sections; names that slugs made equal are numbered.

  Tasks a-b and a_b have one slug.
  """
  anchors: set[str] = set()
  names: dict[type, set[str]] = {Table: set(), Picture: set()}
  return [
      dataclasses.replace(
          section,
          anchor=_free(section.anchor, anchors),
          items=[
              dataclasses.replace(
                  item, name=_free(item.name, names[type(item)])
              )
              for item in section.items
          ],
      )
      for section in found
  ]
