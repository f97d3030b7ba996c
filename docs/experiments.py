"""Writes docs/experiments.md from the result files of `make experiments`.

    .venv/bin/python -m docs.experiments runs/experiments > docs/experiments.md

Which claims of the paper (`claims.py`) hold on what was run. Every number comes
from a result file, and so does every verdict: nothing is typed by hand.
"""

from collections.abc import Mapping, Sequence, Set
import pathlib
import sys
from typing import Any

from docs.claims import CLAIMS, RANDOM, Claim, Side
from xprompt_jax import (
    artifacts,
    cells,
    comparisons,
    correctness,
    scoreboard,
    verdicts,
)
from xprompt_jax.comparisons import Comparison
from xprompt_jax.html_report import sizes

HOLDS, FAILS, UNCLEAR = "holds", "does not hold", "not clear"
SPLITS = {
    "validation": "the split that selects",
    "heldout": "the held-out half",
    "test": "test",
}

Runs = Mapping[tuple[str, str], pathlib.Path]


def runs_of(folder: pathlib.Path) -> dict[tuple[str, str], pathlib.Path]:
  """The finished runs of an experiment, by task and run; none if not there.

  Args:
    folder: WORKDIR of a run, a suite or a sweep.
  """
  path = folder / artifacts.RESULT
  if not path.exists():
    return {}
  result = artifacts.read_json(path)
  found = {}
  for name in result.get("runs", [""]):
    task, _, run = name.rpartition("/")
    member = folder / name / artifacts.RESULT
    if not member.exists():
      continue  # Claims that need it are not run.
    summary = artifacts.read_json(member)
    # A suite of tasks has no runs.
    run = run if task or "by_run" in result else ""
    # Rows of one table may read different tasks.
    for own in scoreboard.by_task(summary) or (summary["task"],):
      found[own, run] = folder / name
  return found


def _rows(
    path: pathlib.Path, method: str, task: str
) -> tuple[list[int], list[dict[str, Any]]]:
  """A method's rows of a task, and which of its rows they are."""
  for found in artifacts.read_json(path / artifacts.RESULT)["methods"]:
    if found["method"] == method:
      indices = [
          index
          for index, row in enumerate(found["rows"])
          if row.get("task", task) == task
      ]
      return indices, [found["rows"][index] for index in indices]
  return [], []


def compare(
    runs: Runs, task: str, first: Side, base: Side, split: str | None
) -> tuple[str, Comparison] | None:
  """Compares two sides on one task, by accuracy where it has that.

  Args:
    runs: from `runs_of`.
    task: as runs name it.
    first: what is claimed to be better.
    base: than what.
    split: None for the one that reports.

  Returns:
    The split and the comparison; None where a side is lacking.
  """
  path, base_path = (runs.get((task, side.run)) for side in (first, base))
  if path is None or base_path is None:
    return None
  indices, rows = _rows(path, first.method, task)
  base_indices, base_rows = _rows(base_path, base.method, task)
  if not rows or not base_rows:
    return None
  split = split or comparisons.reporting_split(rows)
  if split not in rows[0] or split not in base_rows[0]:
    return None
  found = comparisons.compare(
      rows,
      base_rows,
      split=split,
      metric="accuracy" if "accuracy" in rows[0][split] else "score",
      right=_right(path, first.method, split, indices),
      base_right=_right(base_path, base.method, split, base_indices),
  )
  return (split, found) if found else None


def _right(
    path: pathlib.Path, method: str, split: str, indices: Sequence[int]
) -> comparisons.Rights:
  arrays = correctness.load(path)
  known = correctness.rows_of(arrays, method, split, _count(path, method))
  return [known[index] for index in indices]


def _count(path: pathlib.Path, method: str) -> int:
  """Rows of a method, whatever their tasks."""
  methods = artifacts.read_json(path / artifacts.RESULT)["methods"]
  return next(len(m["rows"]) for m in methods if m["method"] == method)


def speaks(found: Comparison, margin: float | None) -> int:
  """1 where a comparison is for the claim, -1 against it, 0 where neither.

  Args:
    found: first minus second.
    margin: None claims that the first is better; a number that it is better
      by less than that.
  """
  if margin is None:
    return {"better": 1, "worse": -1}.get(found.verdict, 0)
  if found.interval is None:
    return 0
  low, high = found.interval
  return int(high < margin) - int(low > margin)


def verdict(votes: Sequence[int]) -> str:
  """Whether a claim holds.

  Args:
    votes: for each task, 1, -1 or 0 as `speaks` has them.

  Returns:
    `holds` if most tasks are for it and none against it, `does not hold` if
    most are against it and none for it, else `not clear`.
  """
  for sign, word in ((1, HOLDS), (-1, FAILS)):
    if 2 * votes.count(sign) > len(votes) and -sign not in votes:
      return word
  return UNCLEAR


def vote(parts: Sequence[int]) -> int:
  """A task's: for it if all its comparisons are, against it if one is."""
  return -1 if -1 in parts else int(all(parts))


def _number(found: Comparison) -> str:
  if found.interval is None:
    return f"{found.mean:+.2f}"
  low, high = found.interval
  return f"{found.mean:+.2f} [{low:+.2f}, {high:+.2f}]"


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
  rows = [head, ["---"] * len(head), *lines]
  return "\n".join(f"| {' | '.join(row)} |" for row in rows)


_WORDS = {1: "for", 0: "neither", -1: "against"}
_HEAD_OF_CLAIM = (
    "task",
    "difference",
    "points, 95 % interval",
    "k/N",
    "seeds better, worse",
    "speaks",
)


def _line(task: str, pair: tuple[Side, Side], found: Comparison) -> list[str]:
  shares = " against ".join(found.shares) if found.shares else "-"
  return [
      task,
      f"{pair[0]} minus {pair[1]}",
      _number(found),
      shares,
      f"{found.better}, {found.worse} of {len(found.differences)}",
  ]


def section(claim: Claim, folder: pathlib.Path) -> tuple[str, str]:
  """One claim in Markdown.

  Args:
    claim: which.
    folder: with a folder for each experiment.

  Returns:
    The verdict in words, and the section.
  """
  runs = runs_of(folder / claim.experiment)
  out = {task for task, run in runs if run == claim.without}
  lines, votes, splits = [], [], set()
  for task in dict.fromkeys(task for task, _ in runs if task not in out):
    parts = []
    for pair in claim.pairs:
      compared = compare(runs, task, *pair, claim.split)
      if compared is None:
        continue
      splits.add(compared[0])
      parts.append(speaks(compared[1], claim.margin))
      lines.append([*_line(task, pair, compared[1]), _WORDS[parts[-1]]])
    if len(parts) == len(claim.pairs):
      votes.append(vote(parts))
  if not votes:
    said = "not run"
    text = f"`{claim.experiment}` lacks what it needs.\n"
  else:
    said = f"{verdict(votes)} (for {votes.count(1)}, against"
    said += f" {votes.count(-1)} of {len(votes)} tasks)"
    where = " and ".join(SPLITS[split] for split in sorted(splits))
    text = f"From `{claim.experiment}`, on {where}"
    text += f"; margin {claim.margin} points." if claim.margin else "."
    text += f" {claim.note}" if claim.note else ""
    text += f"\n\n{_table(_HEAD_OF_CLAIM, lines)}\n"
    text += _on_other_splits(claim, runs, out, splits)
  return said, f"\n## {claim.title}: {said}\n\n{text}"


def _on_other_splits(
    claim: Claim, runs: Runs, out: Set[str], splits: Set[str]
) -> str:
  """The same differences where they decide nothing; "" for a split's claim."""
  if claim.split is not None:
    return ""
  lines = [
      [SPLITS[split], *_line(task, pair, compared[1])]
      for split in SPLITS
      if split not in splits
      for task in dict.fromkeys(task for task, _ in runs if task not in out)
      for pair in claim.pairs
      if (compared := compare(runs, task, *pair, split)) is not None
  ]
  if not lines:
    return ""
  head = ("split", *_HEAD_OF_CLAIM[:-1])
  return f"\nOn the other splits, which do not vote:\n\n{_table(head, lines)}\n"


def random_section(folder: pathlib.Path) -> str:
  """What the same budget of random tickets gains, on each split."""
  runs = runs_of(folder / "table1_methods")
  lines, chosen = [], []
  for (task, _), path in runs.items():
    if said := verdicts.choosing(
        artifacts.read_json(path / artifacts.RESULT), task
    ):
      chosen.append(f"- {task}: {said}\n")
    for split, name in SPLITS.items():
      for pair in RANDOM:
        found = compare(runs, task, *pair, split)
        if found is not None:
          difference = _line(task, pair, found[1])
          lines.append([task, name, *difference[1:]])
  text = "\n## What the same budget of random tickets gains\n\n"
  if not lines:
    return f"{text}Not run: `table1_methods`.\n"
  head = ("task", "split", *_HEAD_OF_CLAIM[1:-1])
  return (
      f"{text}`xprompt_random` tries as many tickets as XPrompt, by the same"
      " ratios, with random units. What it gains on prompt tuning is what"
      " training again and choosing among tickets gain without importance.\n"
      f"\n{_table(head, lines)}\n" + ("\n" + "".join(chosen) if chosen else "")
  )


_HEAD_OF_EXPERIMENTS = ("experiment", "parameters", "runs", "tickets tried")


def _counts(models: Set[int]) -> str:
  return " and ".join(f"{number:,}" for number in sorted(models))


def _about(folder: pathlib.Path) -> str:
  """The models, tasks and seeds of all runs."""
  lines = []
  tasks: dict[str, None] = {}
  models, seeds = set(), set()
  for experiment in sorted(path.name for path in folder.iterdir()):
    runs = runs_of(folder / experiment)
    tickets, own = 0, set()
    for task, _ in runs:
      tasks[task] = None
    # One table may have several tasks.
    for path in dict.fromkeys(runs.values()):
      result = artifacts.read_json(path / artifacts.RESULT)
      config = result["config"]
      where = str(path / artifacts.RESULT)
      own.add(sizes.model_parameters(config["model"], where))
      known = {r["seed"] for m in result["methods"] for r in m["rows"]}
      seeds.add(len(known - {None}))
      tickets += result.get("tickets_tried", 0)
    models |= own
    if runs:
      numbers = (_counts(own), len(runs), tickets)
      lines.append([f"`{experiment}`", *map(str, numbers)])
  of_seeds = " or ".join(map(str, sorted(seeds)))
  return (
      f"All of it is about frozen T5s of {_counts(models)} parameters and the"
      f" tasks {', '.join(tasks)}, {of_seeds} seeds each, and about nothing else:"
      " not about large T5s on real tasks.\n\n"
      + _table(_HEAD_OF_EXPERIMENTS, lines)
      + "\n"
  )


_HEAD = """\
# Which of the paper's claims hold here

Written by `docs/experiments.py` from the result files of `make experiments`.
"""
_RULE = """
A task speaks for a claim if the 95 % interval of every difference leaves out 0 in
the claimed direction, against it if that of one does in the other. The interval
is the widest of Student's over seeds, a paired bootstrap over seeds, and one over
examples and seeds. Seeds that all gain the same give no interval by themselves,
and speak for nothing. A claim holds if most tasks speak for it and none against
it; it does not hold if most speak against it and none for it; else it is not
clear. Where a margin is given, the interval has to end below it to speak for, and
to begin above it to speak against.

Tickets train twice as many steps as prompt tuning: the prompt is tuned, and what
is kept of it is rewound and trained once more. So do the controls `reversed`,
`random`, `magnitude` and `retrained` (nothing pruned) and tickets with random
scores; baselines take as many steps as both trainings together. Prompt tuning,
`length` (from initial values of its own) and `no_rewind` train once. What XPrompt
gains on `retrained` is not due to longer training.
"""


def room(folder: pathlib.Path) -> str:
  """What is left to gain in Table 1, on test; "" where it is not run.

  Args:
    folder: with a folder for each experiment.
  """
  means = {}
  for (task, _), path in runs_of(folder / "table1_methods").items():
    _, rows = _rows(path, "prompt_tuning", task)
    scores = [row["test"]["score"] for row in rows if "test" in row]
    if scores:
      means[task] = cells.mean_and_spread(scores)[0]
  if not means:
    return ""
  parts = ", ".join(f"{task} {mean:.2f}" for task, mean in means.items())
  most = 100 - min(means.values())
  return (
      f"\nIn `table1_methods` prompt tuning scores, of 100 on test: {parts}. There"
      f" no method can gain more than {most:.2f} points on it.\n"
  )


def page(folder: pathlib.Path) -> str:
  """The whole page.

  Args:
    folder: with a folder for each experiment, as `make experiments` leaves it.
  """
  sections = [(claim, *section(claim, folder)) for claim in CLAIMS]
  summary = _table(
      ("claim", "here"), [[claim.title, said] for claim, said, _ in sections]
  )
  return (
      f"{_HEAD}{_about(folder)}{room(folder)}{_RULE}\n{summary}\n"
      + "".join(text for _, _, text in sections)
      + random_section(folder)
  )


if __name__ == "__main__":
  sys.stdout.write(page(pathlib.Path(sys.argv[1])))
