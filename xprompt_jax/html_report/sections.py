"""Which sections a report has: each only where its data are there."""

from collections.abc import Callable, Sequence

from xprompt_jax.html_report import (
    names,
    reading,
    run_sections,
    score_tables,
    sentences,
    sweep_sections,
)
from xprompt_jax.html_report import settings as settings_lib
from xprompt_jax.html_report.content import Section, slug
from xprompt_jax.html_report.reading import Part, Run
from xprompt_jax.html_report.reading import parts as parts_of


def _scores(
    parts: Sequence[Part], anchor: str, title: str, what: str
) -> list[Section]:
  """Scores by method and task, then each task with what it gains."""
  if not parts:
    return []
  titles = score_tables.part_titles(parts)
  beside = ""
  if any("heldout" in part.other_splits for part in parts):
    beside = " Scores on the held-out half stand beside those on test."
  items = [
      score_tables.overview(
          anchor, parts, "Scores in percent by method and task"
      )
  ]
  items += [
      score_tables.details(f"{anchor}_{slug(title)}", part, title)
      for part, title in zip(parts, titles, strict=True)
  ]
  return [
      Section(
          anchor=anchor,
          title=title,
          text=[sentences.shown(what, parts) + beside, sentences.SHARES],
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
  table = score_tables.overview(
      "granularity", used, "Scores in percent by granularity", _LEVELS
  )
  found = [
      sentences.verdict(part, "xprompt", method)
      for part in used
      for method in ("token", "piece")
  ]
  return [
      Section(
          anchor="granularity",
          title="Granularity (Table 4)",
          text=[
              sentences.shown(
                  "Tokens pruned alone, pieces alone, and both (XPrompt)", used
              ),
              sentences.SHARES,
          ],
          verdicts=[text for text in found if text is not None],
          items=[table],
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


def build(runs: Sequence[Run]) -> list[Section]:
  """All sections of a report, in order.

  Args:
    runs: from `reading.read_runs`.

  Raises:
    UserError: a file of a run that is damaged.
  """
  parts = [part for run in runs for part in parts_of(run)]
  alone, sweeps = settings_lib.split_up(parts)
  alone = reading.merged(alone)
  whole = [part for part in alone if part.run.few_shot is None]
  few = [part for part in alone if part.run.few_shot is not None]
  sections = [
      *_scores(
          whole, "scores", "Scores by method and task (Table 1)", "Scores"
      ),
      *_scores(
          few, "few_shot", "Few-shot scores (Table 2)", "Scores of few examples"
      ),
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
  sections += run_sections.variants(alone)
  for make in by_part:
    sections += make(parts)
  sections += run_sections.costs(runs)
  return sections


def title(runs: Sequence[Run]) -> str:
  """The report's heading."""
  tasks = list(dict.fromkeys(p.task for run in runs for p in parts_of(run)))
  some = ", ".join(tasks[:4]) + (" and more" if len(tasks) > 4 else "")
  return f"{names.METHODS['xprompt']} and prompt tuning on {some}"
