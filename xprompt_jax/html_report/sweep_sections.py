"""Sections of runs that differ in settings: a table and a line chart each."""

from collections.abc import Sequence

from xprompt_jax.html_report import (
    charts,
    run_settings,
    score_tables,
    sentences,
    sweep_tables,
)
from xprompt_jax.html_report.content import Picture, Section, Table, slug
from xprompt_jax.html_report.settings import Sweep

# More lines than this cannot be told apart.
_MOST_LINES = 6


def _pictures(sweep: Sweep, anchor: str) -> list[Picture]:
  """Score against the setting, a figure for each task and protocol."""
  numbers = sweep_tables.numbers(sweep)
  methods = sweep_tables.shown_methods(sweep)
  first = [m for m in ("prompt_tuning", "xprompt") if m in methods]
  methods = (first + [m for m in methods if m not in first])[:_MOST_LINES]
  found = []
  groups = dict.fromkeys((p.task, p.run.protocol) for p in sweep.parts)
  for task, protocol in groups:
    own, labels, what = sweep_tables.positions(sweep, task, protocol)
    end = f", {protocol} protocol" if len({p for _, p in groups}) > 1 else ""
    picture = charts.sweep_lines(
        sweep,
        own,
        labels,
        what,
        methods,
        None if numbers is None else [numbers[i] for i in own],
        slug(f"{anchor}_{task}{end}"),
        f"{task}{end}: score by {what}; whiskers are one standard deviation",
    )
    if picture is not None:
      found.append(picture)
  return found


def _tables(sweep: Sweep, anchor: str) -> list[Table]:
  """The split that is reported, then the others, the selecting one too."""
  by = f"by {', '.join(sweep.titles)}"
  beside = score_tables.beside(sweep.parts, sweep.parts[0].split)
  return [
      sweep_tables.table(sweep, anchor, f"Scores in percent {by}"),
      *(
          sweep_tables.table(
              sweep,
              f"{anchor}_{split}",
              f"Scores in percent on {name}, {by}",
              split,
          )
          for split, name in beside
      ),
  ]


def build(sweeps: Sequence[Sweep]) -> list[Section]:
  """A section for each sweep."""
  sections = []
  titles = [sweep_tables.title(sweep) for sweep in sweeps]
  for number, (sweep, title) in enumerate(zip(sweeps, titles, strict=True)):
    anchor = slug(title)
    if titles.count(title) > 1:
      family = sweep.parts[0].run.family
      title = (
          f"{title}: {family}" if family else f"{title}: runs named one by one"
      )
      anchor = f"{anchor}_{number + 1}"
    what = f"One row for each {' and '.join(sweep.titles)}"
    items: list[Table | Picture] = [
        *_tables(sweep, anchor),
        *_pictures(sweep, anchor),
    ]
    text = [
        sentences.shown(what, sweep.parts),
        run_settings.sentence(sweep.parts),
        sentences.SHARES,
    ]
    sections.append(
        Section(
            anchor=anchor,
            title=title,
            text=[one for one in text if one],
            verdicts=_verdicts(sweep),
            items=items,
        )
    )
  return sections


def _verdicts(sweep: Sweep) -> list[str]:
  """What XPrompt gains at each setting."""
  found = []
  for part, labels in zip(sweep.parts, sweep.labels, strict=True):
    text = sentences.verdict(part, "xprompt", "prompt_tuning")
    if text is not None:
      pairs = zip(sweep.titles, labels, strict=True)
      where = ", ".join(f"{title} {label}" for title, label in pairs)
      found.append(f"{where}: {text}")
  return found
