"""Plain sentences: what is shown, selected how, and what follows."""

from collections.abc import Sequence

from xprompt_jax import comparisons
from xprompt_jax import verdicts as sayings
from xprompt_jax.comparisons import Comparison
from xprompt_jax.html_report import differences, names, score_tables
from xprompt_jax.html_report.reading import Part

_SELECTED = {
    "paper": "checkpoints and tickets were selected on validation",
    "heldout": (
        "checkpoints and tickets were selected on one half of validation and"
        " judged on what they had not seen"
    ),
}
SHARES = (
    "Cells are mean ± standard deviation over seeds in percent, and in brackets"
    " how many predictions of all seeds were right, of how many."
)


def _split(part: Part) -> str:
  count = part.num_examples.get(part.split)
  size = f" ({count:,} examples)" if count else ""
  return f"{part.task} on {names.SPLITS[part.split]}{size}"


def seeds(parts: Sequence[Part]) -> str:
  """Such as "3 seeds" or "1 to 3 seeds"."""
  counts = sorted({len(part.seeds) for part in parts})
  if len(counts) == 1:
    return f"{counts[0]} seed{'s' if counts[0] != 1 else ''}"
  return f"{counts[0]} to {counts[-1]} seeds"


def shown(what: str, parts: Sequence[Part]) -> str:
  """What a section shows: splits, selection and seeds."""
  places = list(dict.fromkeys(map(_split, parts)))
  protocols = list(dict.fromkeys(part.run.protocol for part in parts))
  chosen = "; ".join(
      (f"{names.PROTOCOLS.get(p, p)}: " if len(protocols) > 1 else "")
      + _SELECTED.get(p, f"selected by the protocol {p}")
      for p in protocols
  )
  return f"{what}: {', '.join(places)}; {chosen}; {seeds(parts)}."


def _where(part: Part) -> str:
  return f"{part.task}, {names.SPLITS[part.split]}"


def _tests(found: Comparison, titles: Sequence[str]) -> str:
  """McNemar's test of one pair; nothing where there are several."""
  test = found.tests[0]
  if len(found.seeds) > 1 or test is None:
    return ""
  return (
      f"; {test.only_first} examples only {titles[0]} got right,"
      f" {test.only_second} only {titles[1]} (McNemar p = {test.p:.2g})"
  )


def verdict(part: Part, first: str, second: str) -> str | None:
  """One comparison in a sentence, or None where there is nothing to compare."""
  found = differences.between(part, first, second)
  if found is None:
    return None
  titles = names.method(first), names.method(second)
  text = (
      f"{_where(part)}: {titles[0]} minus {titles[1]} is {differences.signed(found.mean)}"
      " points"
  )
  if found.how is not None:
    text += f" {differences.interval(found)} ({found.how})"
  count = len(found.seeds)
  text += f" over {count} seed{'s' if count != 1 else ''}"
  if found.without_spread:
    text += f" ({found.without_spread})"
  if found.shares:
    text += f", {found.shares[0]} against {found.shares[1]} right"
  text += _tests(found, titles)
  ending = differences.verdict(found)
  if found.verdict in ("better", "worse"):
    ending = f"{titles[0]} is {ending}"
  return f"{text}: {ending}."


def _tickets(part: Part) -> str:
  """What favours the method that was selected on the split it is reported on."""
  tried = sayings.num_tickets(part.run.summary)
  if part.split != "validation" or not tried:
    return ""
  return (
      f" Validation also chose among {tried} tickets of each seed, which favours"
      " methods that choose."
  )


def _control(part: Part, method: str) -> str | None:
  """A control against XPrompt, and whom the selecting split favours."""
  text = verdict(part, method, "xprompt")
  if text is None or part.split != "validation":
    return text
  return (
      f"{text} Validation chose XPrompt's ticket and not the control's, which"
      " favours XPrompt."
  )


def same_search(part: Part) -> str | None:
  """What the same search gains where scores are random."""
  own = differences.between(part, "xprompt_random", score_tables.TUNING)
  gain = differences.between(part, "xprompt", score_tables.TUNING)
  if own is None or gain is None:
    return None
  ends = "" if own.interval is None else f" {differences.interval(own)}"
  return (
      f"{_where(part)}: the same search over random tickets gains"
      f" {differences.signed(own.mean)} points over prompt tuning{ends}; XPrompt"
      f" gains {differences.signed(gain.mean)}.{_where_chosen(part)}"
  )


def _where_chosen(part: Part) -> str:
  """The same gain on the split that chose, where another one reports."""
  if part.split == "validation":
    return ""
  found = comparisons.compare(
      part.methods["xprompt_random"],
      part.methods[score_tables.TUNING],
      split="validation",
  )
  if found is None:
    return ""
  return (
      " On validation, which chose, random tickets gain"
      f" {differences.signed(found.mean)}."
  )


def verdicts(part: Part) -> list[str]:
  """All comparisons of one task: XPrompt, random tickets, controls."""
  found = []
  for method in names.in_order(list(part.methods)):
    if method in ("no_prompt", score_tables.TUNING):
      continue
    if method in names.CONTROLS and "xprompt" in part.methods:
      found.append(_control(part, method))
      continue
    text = verdict(part, method, score_tables.base_of(part, method))
    if text and method == "xprompt":
      text += _tickets(part)
    found.append(text)
  found.append(verdict(part, "xprompt", "xprompt_random"))
  found.append(same_search(part))
  if text := sayings.choosing(part.run.summary, part.task):
    found.append(f"{part.task}: {text}")
  return [text for text in found if text is not None]
