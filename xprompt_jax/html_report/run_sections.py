"""Sections about the inside of runs: masking, controls, tickets, importance."""

from collections.abc import Sequence

from xprompt_jax import artifacts
from xprompt_jax.html_report import (
    charts,
    maps,
    names,
    run_tables,
    score_tables,
    sentences,
)
from xprompt_jax.html_report import (
    importance as importance_lib,
)
from xprompt_jax.html_report.checks import check_rows
from xprompt_jax.html_report.content import Section, Table, slug
from xprompt_jax.html_report.reading import Note, Part, Run

# A page with more figures of one kind is not read.
MOST_RUNS = 12


def _titled(parts: Sequence[Part]) -> list[tuple[Part, str]]:
  """Parts with titles that tell them apart."""
  return list(zip(parts, score_tables.part_titles(parts), strict=True))


def _left_out(shown: Sequence[Part], found: Sequence[Part]) -> list[str]:
  count = len(found) - len(shown)
  return [f"{count} more of the same kind are left out."] if count else []


def masking(parts: Sequence[Part]) -> list[Section]:
  """Figure 2: tokens masked in a tuned prompt, without retraining."""
  name = "masking/result.json"
  pictures, used = [], []
  for part, title in _titled(parts):
    rows = part.run.optional_rows(name, ("order", "num_masked"))
    own = [row for row in rows if row.get("task", part.task) == part.task]
    if not own:
      continue
    split = part.split if part.split in own[0] else "validation"
    check_rows(part.run.path / name, "rows", own, (split,))
    used.append(part)
    pictures.append(
        charts.masking(
            slug(f"masking_{title}"),
            f"{title}: score by number of masked tokens; the band is one"
            " standard deviation over seeds and draws",
            own,
            [
                row[split]["score"]
                for row in part.methods.get("prompt_tuning", ())
                if split in row
            ],
            split,
        )
    )
  if not used:
    return []
  text = sentences.shown(
      "Tuned prompts with tokens masked, the least important first or at"
      " random, and nothing trained again",
      used,
  )
  return [
      Section(
          anchor="masking",
          title="Masked tokens without retraining (Figure 2)",
          text=[text],
          items=pictures,
      )
  ]


def variants(parts: Sequence[Part], folder: str = "") -> list[Section]:
  """Figure 5: XPrompt beside its controls.

  Args:
    parts: of one folder.
    folder: its name, where there are several.
  """
  title = "Variants and controls"
  if not folder or folder.startswith("figure5"):
    title += " (Figure 5)"
  title += f": {folder}" if folder else ""
  anchor = slug(f"variants {folder}")
  wanted = {*names.CONTROLS, *names.SEARCHES}
  used = [part for part in parts if wanted & set(part.methods)]
  if not used:
    return []
  pictures = []
  for part, task in _titled(used)[:MOST_RUNS]:
    methods = [
        m for m in names.in_order(list(part.methods)) if m != "no_prompt"
    ]
    pictures.append(
        charts.bars(
            slug(f"{anchor}_{task}"),
            f"{task}: mean score of each variant; points are seeds; the axis"
            " need not begin at 0",
            part,
            methods,
        )
    )
  return [
      Section(
          anchor=anchor,
          title=title,
          text=[
              sentences.shown("XPrompt beside what lacks one part of it", used),
              *_controls_left_out(used),
              *_left_out(used[:MOST_RUNS], used),
          ],
          items=pictures,
      )
  ]


def _controls_left_out(parts: Sequence[Part]) -> list[str]:
  """Which controls could not be had, and why."""
  found = []
  for run in dict.fromkeys(part.run for part in parts):
    path = run.path / artifacts.RESULT
    lines = run.summary.get("left_out") or []
    for line in check_rows(path, "left_out", lines, ("method", "reason")):
      what = names.method(str(line["method"]))
      where = f"seed {line['seed']}"
      found += [f"{run.name}: no {what} of {where}: {line['reason']}."]
  return found


def kept_share(parts: Sequence[Part]) -> list[Section]:
  """Validation score of every ticket tried against the share it keeps."""
  found = []
  for part, title in _titled(parts):
    lines = part.run.lines(artifacts.TICKETS)
    own = [t for t in lines if t.get("task", part.task) == part.task]
    if own and "xprompt" in part.methods:
      path = part.run.path / artifacts.TICKETS
      check_rows(path, "lines", own, ("kept_pieces", "validation"))
      found.append((part, title, own))
  if not found:
    return []
  pictures = []
  for part, title, own in found[:MOST_RUNS]:
    check_rows(
        part.run.path / artifacts.RESULT,
        "methods of xprompt",
        list(part.methods["xprompt"]),
        ("kept_pieces",),
    )
    whole = max(ticket["kept_pieces"] for ticket in own) or 1
    pictures.append(
        charts.kept_share(
            slug(f"kept_share_{title}"),
            f"{title}: every ticket of every seed; stars are XPrompt's choices",
            own,
            part.methods["xprompt"],
            whole,
            _selecting([part]),
        )
    )
  used = [part for part, _, _ in found]
  return [
      Section(
          anchor="kept_share",
          title="Score against the share that is kept",
          text=[
              "Each point is a ticket that was trained, with its score on"
              f" {_selecting(used)}, on which XPrompt chose;"
              f" {sentences.seeds(used)}.",
              *_left_out(used[:MOST_RUNS], used),
          ],
          items=pictures,
      )
  ]


def _selecting(parts: Sequence[Part]) -> str:
  """What chose tickets, by the protocols of some parts."""
  titles = [run_tables.split_title(part, "validation") for part in parts]
  return " or ".join(dict.fromkeys(titles))


def importance(parts: Sequence[Part]) -> list[Section]:
  """Figures 6 and 7: how the importance of tokens and pieces is spread."""
  found = [
      (part, title, units)
      for part, title in _titled(parts)
      if (units := importance_lib.units(part))
  ]
  if not found:
    return []
  pictures = [
      maps.histogram(
          slug(f"importance_{name}_{title}"),
          f"{title}: importance of {name} over all seeds; hatched ones were"
          " pruned",
          kept,
          pruned,
          name,
      )
      for _, title, units in found[:MOST_RUNS]
      for name, (kept, pruned) in units.items()
  ]
  used = [part for part, _, _ in found]
  return [
      Section(
          anchor="importance",
          title="Importance of tokens and pieces (Figures 6 and 7)",
          text=[
              "Importance is the mean over training examples of |dL/dmask|;"
              " pieces are those of the tokens that were kept;"
              f" {sentences.seeds(used)}.",
              *_left_out(used[:MOST_RUNS], used),
          ],
          items=pictures,
      )
  ]


def saliency(parts: Sequence[Part]) -> list[Section]:
  """Figures 9 and 10: importance of each piece before and after pruning."""
  found = [
      (part, title, one)
      for part, title in _titled(parts)
      if (one := importance_lib.saliency(part)) is not None
  ]
  if not found:
    return []
  pictures = [
      maps.saliency(
          slug(f"saliency_{title}"),
          f"{title}, seed {one.seed}: pruned pieces are grey and hatched",
          one.before,
          one.after,
          one.mask,
      )
      for _, title, one in found[:MOST_RUNS]
  ]
  used = [part for part, _, _ in found]
  return [
      Section(
          anchor="saliency",
          title="Saliency before and after pruning (Figures 9 and 10)",
          text=[
              "Importance of every piece of the first seed's prompt, a row for"
              " each token; taken on the training examples.",
              *_left_out(used[:MOST_RUNS], used),
          ],
          items=pictures,
      )
  ]


def words(parts: Sequence[Part]) -> list[Section]:
  """The nearest words of the tokens that were kept."""
  tables: list[Table] = []
  for part, title in _titled(parts):
    rows = [
        row
        for row in importance_lib.word_rows(part.run)
        if row.get("task", part.task) == part.task
    ]
    # One seed shows what there is to see; the CSV files hold them all.
    tables += [
        run_tables.nearest_words(
            part, row, slug(f"nearest_words_{title}_{row['seed']}")
        )
        for row in rows[:1]
    ]
  if not tables:
    return []
  return [
      Section(
          anchor="nearest_words",
          title="Nearest words of kept tokens",
          text=[
              "Pieces of the vocabulary whose embeddings have the largest"
              " cosine with each kept token of XPrompt's first seed; a small"
              " cosine means that no word is near."
          ],
          items=tables[:MOST_RUNS],
      )
  ]


def auto_ratio(parts: Sequence[Part]) -> list[Section]:
  """Ratios that were chosen without training, beside the search."""
  tables, used = [], []
  for part, title in _titled(parts):
    rows = part.run.optional_rows(
        "auto_ratio/result.json", ("granularity", "rule", "ratio")
    )
    own = [row for row in rows if row.get("task", part.task) == part.task]
    if own:
      used.append(part)
      name = slug(f"auto_ratio_{title}")
      tables.append(run_tables.auto_ratio(part, own, name))
  if not used:
    return []
  return [
      Section(
          anchor="auto_ratio",
          title="Ratios chosen without a search",
          text=[
              sentences.shown(
                  "Ratios that no ticket was trained for, beside the search's",
                  used,
              )
          ],
          items=tables,
      )
  ]


def missing(notes: Sequence[Note]) -> list[Section]:
  """Runs that failed, were not run, or are from an earlier command."""
  if not notes:
    return []
  return [
      Section(
          anchor="missing",
          title="Runs that are missing or from earlier commands",
          text=[],
          verdicts=[f"{note.origin}: {note.text}" for note in notes],
      )
  ]


def costs(runs: Sequence[Run]) -> list[Section]:
  """Seconds of each stage."""
  return [
      Section(
          anchor="costs",
          title="What each run cost",
          text=[
              "Wall time of each stage's last process, all seeds and tickets"
              " together."
          ],
          items=[run_tables.costs(runs)],
      )
  ]
