"""Which sections a report has: each only where its data are there."""

from collections.abc import Callable, Mapping, Sequence
import pathlib

from xprompt_jax.html_report import (
    grouping,
    names,
    run_sections,
    run_settings,
    score_tables,
    sentences,
    sweep_sections,
    unique,
)
from xprompt_jax.html_report import settings as settings_lib
from xprompt_jax.html_report.content import Section, slug
from xprompt_jax.html_report.reading import Note, Part, Run
from xprompt_jax.html_report.reading import parts as parts_of


def _captioned(parts: Sequence[Part], split: str | None) -> str:
  """What an overview shows; both splits of a protocol are named."""
  if split == "test":
    return "Scores in percent on test, which selected nothing"
  found = dict.fromkeys(
      _PRIMARY.get(
          (part.run.protocol, score_tables.primary(part)),
          names.SPLITS[score_tables.primary(part)],
      )
      for part in parts
  )
  return f"Scores in percent on {' or '.join(found)}, by method and task"


_PRIMARY = {
    ("paper", "validation"): (
        "validation, which selected and reports, as in the paper"
    ),
    ("heldout", "heldout"): "the held-out half of validation",
    ("heldout", "validation"): "the half of validation that selected",
}


def _scores(
    parts: Sequence[Part], anchor: str, title: str, what: str
) -> list[Section]:
  """Scores by method and task, then each task with what it gains."""
  if not parts:
    return []
  titles = score_tables.part_titles(parts)
  items = [
      score_tables.overview(anchor, parts, _captioned(parts, None)),
  ]
  tested = [p for p in parts if p.split == "test" != score_tables.primary(p)]
  if tested:
    items.append(
        score_tables.overview(
            f"{anchor}_test", tested, _captioned(tested, "test"), split="test"
        )
    )
  items += [
      score_tables.details(f"{anchor}_{slug(title)}", part, title)
      for part, title in zip(parts, titles, strict=True)
  ]
  beside = ""
  if any(score_tables.primary(part) == "heldout" for part in tested):
    beside = " Scores on the held-out half stand beside those on test."
  text = [
      sentences.shown(what, parts) + beside,
      run_settings.sentence(parts),
      sentences.SHARES,
  ]
  if any(grouping.LONGER in part.methods for part in parts):
    text.append(
        "Baselines are compared with prompt tuning of as many steps; XPrompt"
        " with the prompt tuning that it goes on from."
    )
  return [
      Section(
          anchor=anchor,
          title=title,
          text=[one for one in text if one],
          verdicts=[s for part in parts for s in sentences.verdicts(part)],
          items=items,
      )
  ]


_LEVELS = ("prompt_tuning", "token", "piece", "xprompt")


def _granularity(parts: Sequence[Part]) -> list[Section]:
  """Token level, piece level and both, where one run tried all three."""
  used = [part for part in parts if {*_LEVELS[1:]} <= part.methods.keys()]
  if not used:
    return []
  caption = "Scores in percent by granularity"
  tables = [
      score_tables.overview("granularity", used, caption, _LEVELS),
      *(
          score_tables.overview(
              f"granularity_{split}",
              used,
              f"{caption}, on {name}",
              _LEVELS,
              split,
          )
          for split, name in score_tables.beside(
              used, score_tables.primary(used[0])
          )
      ),
  ]
  texts = [
      sentences.shown(
          "Tokens pruned alone, pieces alone, and both (XPrompt)", used
      ),
      run_settings.tried(used),
      run_settings.sentence(used),
      sentences.SHARES,
  ]
  found = [
      sentences.verdict(part, "xprompt", method)
      for part in used
      for method in ("token", "piece")
  ]
  return [
      Section(
          anchor="granularity",
          title="Granularity (Table 4)",
          text=[text for text in texts if text],
          verdicts=[text for text in found if text is not None],
          items=[*tables],
      )
  ]


# Settings that change how many numbers are trained.
_SIZES = {"prompt.length", "prompt.num_pieces", "model", "search.granularities"}


def _sized(sweep: settings_lib.Sweep) -> Sequence[Part]:
  """The parts of a sweep whose trained numbers tell something new."""
  return sweep.parts if _SIZES & set(sweep.fields) else sweep.parts[:1]


def _parameters(parts: Sequence[Part]) -> list[Section]:
  table = score_tables.parameters(parts)
  if not table.rows:
    return []
  return [
      Section(
          anchor="parameters",
          title="Trained numbers (Table 3)",
          text=[
              "Numbers that training changes, and their share of the model's:"
              f" means over {sentences.seeds(parts)}; the model's are counted"
              " from its sizes."
          ],
          items=[table],
      )
  ]


def _by_origin(
    runs: Sequence[Run],
) -> tuple[dict[str, list[Part]], list[settings_lib.Sweep]]:
  """Parts that stand alone, by folder of the command line, and all sweeps.

  A folder's tables are the same whichever others are named, but for baselines,
  which go where the methods are that they are compared with.
  """
  alone: dict[str, list[Part]] = {}
  sweeps: list[settings_lib.Sweep] = []
  for origin in dict.fromkeys(run.origin for run in runs):
    parts = [p for r in runs if r.origin == origin for p in parts_of(r)]
    parts = grouping.without_search(parts)
    single, own = settings_lib.split_up(parts)
    sweeps += own
    if single:
      alone[origin] = grouping.merged(single)
  return grouping.with_baselines(alone), sweeps


def _folders(by_origin: Mapping[str, Sequence[Part]]) -> dict[str, str]:
  """Short titles of folders; none where there is one alone."""
  if len(by_origin) < 2:
    return dict.fromkeys(by_origin, "")
  short = {o: pathlib.Path(o).name for o in by_origin}
  return {
      o: (name if list(short.values()).count(name) == 1 else o)
      if o
      else "runs named one by one"
      for o, name in short.items()
  }


def _headed(title: str, table: str, folder: str) -> str:
  """A section's title; the paper's table is named where the folder is its."""
  wanted = table.lower().replace(" ", "")
  if folder and not folder.startswith(wanted):
    return f"{title}: {folder}"
  return f"{title} ({table})" + (f": {folder}" if folder else "")


def _of_each(
    by_origin: Mapping[str, Sequence[Part]],
) -> list[Section]:
  """Scores of each folder."""
  found = []
  for origin, folder in _folders(by_origin).items():
    parts = by_origin[origin]
    end = f"_{slug(folder)}" if folder else ""
    whole = [part for part in parts if part.run.few_shot is None]
    few = [part for part in parts if part.run.few_shot is not None]
    found += _scores(
        whole,
        f"scores{end}",
        _headed("Scores by method and task", "Table 1", folder),
        "Scores",
    )
    found += _scores(
        few,
        f"few_shot{end}",
        _headed("Few-shot scores", "Table 2", folder),
        "Scores of few examples",
    )
  return found


def build(runs: Sequence[Run], notes: Sequence[Note] = ()) -> list[Section]:
  """All sections of a report, in order.

  Args:
    runs: from `reading.read`.
    notes: likewise.

  Raises:
    UserError: a file of a run that is damaged.
  """
  parts = [part for run in runs for part in parts_of(run)]
  by_origin, sweeps = _by_origin(runs)
  alone = [part for own in by_origin.values() for part in own]
  sections = [
      *_of_each(by_origin),
      *_granularity(alone),
      *_parameters([*alone, *(p for s in sweeps for p in _sized(s))]),
  ]
  sections += sweep_sections.build(sweeps)
  by_part: tuple[Callable[[Sequence[Part]], list[Section]], ...] = (
      run_sections.masking,
      run_sections.kept_share,
      run_sections.importance,
      run_sections.saliency,
      run_sections.words,
      run_sections.auto_ratio,
  )
  for origin, folder in _folders(by_origin).items():
    sections += run_sections.variants(by_origin[origin], folder)
  for make in by_part:
    sections += make(parts)
  sections += run_sections.missing(notes)
  sections += run_sections.costs(runs)
  return unique.sections(sections)


def title(runs: Sequence[Run]) -> str:
  """The report's heading."""
  tasks = list(dict.fromkeys(p.task for run in runs for p in parts_of(run)))
  some = ", ".join(tasks[:4]) + (" and more" if len(tasks) > 4 else "")
  return f"{names.METHODS['xprompt']} and prompt tuning on {some}"
