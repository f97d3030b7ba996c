"""Scores by method and task, and the numbers that each method trains."""

from collections.abc import Sequence
import statistics

from xprompt_jax import cells
from xprompt_jax.comparisons import Comparison
from xprompt_jax.html_report import differences, grouping, names, sizes
from xprompt_jax.html_report.content import Table
from xprompt_jax.html_report.reading import Part

TUNING = grouping.TUNING
part_titles = grouping.titles
_DASH = "-"
RECORD_TITLES = (
    "run",
    "task",
    "protocol",
    "split",
    "examples",
    "method",
    "metric",
    "seeds",
    "mean",
    "standard_deviation",
    "right",
    "minus_prompt_tuning",
    "interval_low",
    "interval_high",
    "interval_from",
    "verdict",
)


def methods_of(parts: Sequence[Part]) -> list[str]:
  """All methods of some parts, in the order of tables."""
  return names.in_order([name for part in parts for name in part.methods])


def shares(
    part: Part, method: str, metric: str, split: str | None = None
) -> str | None:
  """k/N over all seeds of a metric that is a share of examples."""
  # The score of a task with one metric is that metric.
  if metric == "score" and len(part.metrics) == 1:
    metric = part.metrics[0]
  rows = part.methods.get(method, ())
  if not rows:
    return None
  return cells.shares(
      part.values(method, metric, split),
      cells.sizes_of(rows, split or part.split, metric),
  )


def score_cell(
    part: Part, method: str, metric: str = "score", split: str | None = None
) -> str:
  """Such as "71.15 ± 0.96 (222/312)"; a dash where there is none."""
  found = [shares(part, method, metric, split) or ""]
  values = part.values(method, metric, split)
  count = len(values)
  if values and part.rows_lacking(method):
    found.append(f"{count} seed{'s' if count != 1 else ''}")
  notes = ", ".join(filter(None, found))
  text = cells.cell(values, 2)
  return f"{text} ({notes})" if notes else text


def method_title(parts: Sequence[Part], name: str) -> str:
  """What a method is called in some parts; XPrompt by what it prunes."""
  own = [part for part in parts if name in part.methods]
  if name != "xprompt":
    return names.method(name)
  found = {
      names.ticket(part.runs[name].section("search").get("granularities"))
      for part in own
  }
  return found.pop() if len(found) == 1 else names.method(name)


def base_of(part: Part, name: str) -> str:
  """What a method's gain is over: prompt tuning of as many steps if there."""
  longer = grouping.LONGER
  is_baseline = name in grouping.BASELINES and longer in part.methods
  return longer if is_baseline else TUNING


def primary(part: Part) -> str:
  """The split that a protocol reports on; test, where there is one, beside."""
  for split in ("heldout", "validation"):
    if split == part.split or split in part.other_splits:
      return split
  return part.split


def _means(parts: Sequence[Part], method: str, split: str | None) -> str:
  """Mean over tasks of a method's mean scores."""
  found = []
  for part in parts:
    values = part.values(method, "score", split or primary(part))
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
      return _DASH
    found.append(cells.mean_and_spread(known)[0])
  return f"{sum(found) / len(found):.2f}"


def _record(part: Part, method: str, metric: str, split: str) -> list[object]:
  """One line of the CSV file, with plain numbers."""
  values = [v for v in part.values(method, metric, split) if v is not None]
  mean, spread = cells.mean_and_spread(values) if values else (None, None)
  line: list[object] = [
      part.runs[method].name,
      part.task,
      part.run.protocol,
      split,
      part.num_examples.get(split, ""),
      method,
      metric,
      len(values),
      *("" if v is None else round(v, 6) for v in (mean, spread)),
      shares(part, method, metric, split) or "",
  ]
  found = None
  if metric == "score":
    base = base_of(part, method)
    found = differences.between(part, method, base, split)
  return [*line, *gain_record(found)]


def gain_record(found: Comparison | None) -> list[object]:
  """Difference, interval, where it comes from and verdict, as plain values."""
  if found is None:
    return ["", "", "", "", ""]
  ends: list[object] = ["", ""]
  if found.interval is not None:
    ends = [round(end, 6) for end in found.interval]
  return [round(found.mean, 6), *ends, found.how or "", found.verdict]


def overview(
    name: str,
    parts: Sequence[Part],
    caption: str,
    methods: Sequence[str] | None = None,
    split: str | None = None,
) -> Table:
  """Methods by task: mean, standard deviation and k/N of each score.

  Args:
    name: of the CSV file.
    parts: a column for each.
    caption: of the table.
    methods: its rows; None takes all.
    split: None takes the one that each part's protocol reports on.
  """
  methods = methods_of(parts) if methods is None else methods
  titles = part_titles(parts)
  columns = ["method", *titles]
  protocols = {part.run.protocol for part in parts}
  with_mean = len(protocols) == 1 and len({p.task for p in parts}) == len(parts)
  with_mean = with_mean and len(parts) > 1
  if with_mean:
    columns.append("mean over tasks")
  rows = []
  for method in methods:
    row = [method_title(parts, method)]
    row += [score_cell(p, method, split=split or primary(p)) for p in parts]
    rows.append([*row, _means(parts, method, split)] if with_mean else row)
  return Table(
      name=name,
      caption=caption,
      columns=columns,
      rows=rows,
      records=[
          RECORD_TITLES,
          *(
              _record(part, method, metric, split or primary(part))
              for part in parts
              for method in methods
              if method in part.methods
              for metric in ("score", *part.metrics)
          ),
      ],
  )


def difference_cells(
    part: Part, first: str, second: str, split: str | None = None
) -> list[str]:
  """Mean difference, interval and verdict; dashes where there is none."""
  found = differences.between(part, first, second, split)
  if found is None:
    return [_DASH, _DASH, _DASH]
  return [
      differences.signed(found.mean),
      differences.interval(found),
      differences.verdict(found),
  ]


def split_name(part: Part, split: str) -> str:
  """What a split is called that stands beside another."""
  if split != "validation":
    return names.SPLITS[split]
  if part.run.protocol == "heldout":
    return "the half that selected"
  return "validation, which selected"


def beside(parts: Sequence[Part], shown: str) -> list[tuple[str, str]]:
  """The splits that all parts have beside one, each with its name."""
  common = [{part.split, *part.other_splits} - {shown} for part in parts]
  return [
      (split, split_name(parts[0], split))
      for split in ("test", "heldout", "validation")
      if all(split in own for own in common)
  ]


def details(name: str, part: Part, title: str) -> Table:
  """One task: each metric of each method, and what it gains on prompt tuning."""
  several = len(part.metrics) > 1
  columns = ["method"]
  columns += ["score", *part.metrics] if several else part.metrics
  rows = []
  for method in names.in_order(list(part.methods)):
    row = [method_title([part], method)]
    shown = ("score", *part.metrics) if several else part.metrics
    row += [score_cell(part, method, metric) for metric in shown]
    row += difference_cells(part, method, base_of(part, method))
    row += [score_cell(part, method, split=s) for s in part.other_splits]
    rows.append(row)
  columns += ["minus prompt tuning", "95 % interval", "verdict"]
  columns += [f"score on {split_name(part, s)}" for s in part.other_splits]
  split = names.SPLITS[part.split]
  count = part.num_examples.get(part.split)
  examples = f" ({count:,} examples)" if count else ""
  return Table(
      name=name,
      caption=f"{title}: in percent on {split}{examples}, by method",
      columns=columns,
      rows=rows,
  )


_PARAMETER_RECORDS = (
    "run",
    "task",
    "method",
    "trained_mean",
    "percent_of_model",
    "inference_mean",
    "model_parameters",
)


def parameters(parts: Sequence[Part]) -> Table:
  """Trained numbers and their share of the model, by method (Table 3)."""
  titles = part_titles(parts)
  # Tasks of which all of this is the same have one row.
  tasks: dict[tuple[str, ...], list[str]] = {}
  records: list[Sequence[object]] = [_PARAMETER_RECORDS]
  for method in methods_of(parts):
    for part, title in zip(parts, titles, strict=True):
      own = part.methods.get(method, ())
      trained = [
          row["tunable_parameters"]
          for row in own
          if "tunable_parameters" in row
      ]
      if not trained or len(trained) < len(own) or method == "no_prompt":
        continue
      where = str(part.runs[method].path / "result.json")
      model = part.runs[method].section("model")
      whole = sizes.model_parameters(model, where)
      # Rows say so only where it is another number.
      kept = [
          row.get("inference_parameters", row["tunable_parameters"])
          for row in own
      ]
      mean = statistics.fmean(trained)
      cells_ = (
          method_title([part], method),
          cells.cell(trained, 0),
          sizes.share(mean, whole),
          cells.cell(kept, 0),
          f"{whole:,}",
      )
      tasks.setdefault(cells_, []).append(title)
      records.append(
          (
              part.runs[method].name,
              part.task,
              method,
              round(mean, 6),
              float(f"{100 * mean / whole:.6g}"),
              round(statistics.fmean(kept), 6),
              whole,
          )
      )
  rows = [
      [*row, "all" if len(own) == len(parts) > 1 else ", ".join(own)]
      for row, own in tasks.items()
  ]
  columns = ["method", "trained numbers", "share of the model"]
  columns += ["numbers kept for inference", "model", "tasks"]
  if all(row[1] == row[3] for row in rows):
    columns.pop(3)
    rows = [[*row[:3], *row[4:]] for row in rows]
  return Table(
      name="parameters",
      caption="Numbers that each method trains",
      columns=columns,
      rows=rows,
      records=records,
  )
