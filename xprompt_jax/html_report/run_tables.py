"""What runs cost, ratios found without a search, and nearest words."""

from collections.abc import Mapping, Sequence
from typing import Any

from xprompt_jax import cells
from xprompt_jax.html_report import names
from xprompt_jax.html_report.checks import Row
from xprompt_jax.html_report.content import Table
from xprompt_jax.html_report.reading import Part, Run

_STAGES = {
    "tune": "tuning",
    "search_token": "token search",
    "search_piece": "piece search",
    "search_grid": "grid search",
    "evaluate": "evaluation",
}


def costs(runs: Sequence[Run]) -> Table:
  """Wall time of each stage, in seconds, by run."""
  found: list[Mapping[str, float]] = [
      run.summary.get("seconds") or {} for run in runs
  ]
  stages = list(dict.fromkeys(stage for one in found for stage in one))
  stages.sort(key=lambda s: list(_STAGES).index(s) if s in _STAGES else 99)
  rows, records = [], []
  for run, seconds in zip(runs, found, strict=True):
    tickets = run.summary.get("tickets_tried")
    own = [seconds.get(stage) for stage in stages]
    rows.append(
        [
            run.name,
            "-" if tickets is None else str(tickets),
            f"{sum(seconds.values()):,.0f}",
            *("-" if s is None else f"{s:,.1f}" for s in own),
        ]
    )
    records.append(
        [
            run.name,
            "" if tickets is None else tickets,
            round(sum(seconds.values()), 3),
            *("" if s is None else s for s in own),
        ]
    )
  titles = [_STAGES.get(s, s.replace("_", " ")) for s in stages]
  return Table(
      name="costs",
      caption="Wall time in seconds, by run and stage",
      columns=["run", "tickets", "total", *titles],
      rows=rows,
      records=[["run", "tickets_tried", "total_seconds", *stages], *records],
  )


_RULES = {
    "scores": "from the scores alone",
    "loss": "from the masked prompt's training loss",
}


def split_title(part: Part, split: str) -> str:
  """What a split is under the part's protocol."""
  if split == "validation" and part.run.protocol == "heldout":
    return "the half of validation that selected"
  return names.SPLITS[split]


def _ratio_line(rows: Sequence[Row], ratio: str, split: str) -> list[str]:
  return [
      cells.cell([row.get(ratio) for row in rows], 2),
      cells.cell([row.get(split, {}).get("score") for row in rows], 2),
  ]


def auto_ratio(part: Part, rows: Sequence[Row], name: str) -> Table:
  """Ratios chosen without training beside those of the search.

  Args:
    part: the run's task, for what the search chose.
    rows: of `auto_ratio/result.json`; each has `granularity`, `rule`, `ratio`.
    name: of the CSV file.
  """
  split = part.split if all(part.split in row for row in rows) else "validation"
  table = []
  groups = dict.fromkeys((row["granularity"], row["rule"]) for row in rows)
  for granularity, rule in groups:
    own = [
        r for r in rows if (r["granularity"], r["rule"]) == (granularity, rule)
    ]
    table.append(
        [granularity, _RULES.get(rule, rule), *_ratio_line(own, "ratio", split)]
    )
  levels: list[str] = part.run.section("search").get("granularities") or []
  # Of one granularity alone XPrompt is its ticket.
  last = levels[-1] if len(levels) == 1 else "piece"
  for method, granularity in (("token", "token"), ("xprompt", last)):
    if method in part.methods and granularity in {g for g, _ in groups}:
      line = _ratio_line(part.methods[method], f"{granularity}_ratio", split)
      table.append([granularity, "the search's choice", *line])
  table.sort(key=lambda row: row[0] != "token")
  records = [
      [
          row["seed"],
          row["granularity"],
          row["rule"],
          row["ratio"],
          _score(row, split),
      ]
      for row in rows
  ]
  return Table(
      name=name,
      caption=(
          f"{part.task}: ratio and score on {split_title(part, split)} in"
          " percent, by rule"
      ),
      columns=["granularity", "rule", "ratio", "score"],
      rows=table,
      records=[
          ["seed", "granularity", "rule", "ratio", f"{split}_score"],
          *records,
      ],
  )


def _score(row: Row, split: str) -> Any:
  return row.get(split, {}).get("score", "")


def nearest_words(part: Part, row: Row, name: str) -> Table:
  """The vocabulary's words next to each token of one prompt.

  Args:
    part: the run's task.
    row: of `nearest_words.json`: a seed and its `tokens`.
    name: of the CSV file.
  """
  rows, records = [], []
  for token in row["tokens"]:
    words = ", ".join(
        f"{text} ({cosine:.2f})" for text, cosine in token["words"]
    )
    if token["kept"]:
      rows.append([str(token["position"]), words])
    records += [
        [row["seed"], token["position"], int(token["kept"]), text, cosine]
        for text, cosine in token["words"]
    ]
  return Table(
      name=name,
      caption=f"{part.task}, seed {row['seed']}: kept tokens and their words",
      columns=["position", "nearest words, with cosines"],
      rows=rows,
      records=[["seed", "position", "kept", "word", "cosine"], *records],
  )
