"""One row for each setting of runs that differ in some (Tables 4 to 7)."""

from xprompt_jax import cells
from xprompt_jax.html_report import differences, score_tables
from xprompt_jax.html_report.content import Table
from xprompt_jax.html_report.reading import Part
from xprompt_jax.html_report.settings import Sweep

# What the paper calls the table of each field.
_PAPER = {
    "search.granularities": "Granularity (Table 4)",
    "prompt.length": "Prompt length (Table 5)",
    "prompt.init": "Initialisation (Table 6)",
    "prompt.num_pieces": "Number of pieces",
    "model": "Model size (Figure 1)",
    "task.few_shot": "Few-shot: number of training examples (Table 2)",
    "search.token_ratios": "Ratios",
}
_TRANSFER = "Transfer (Table 7)"


def title(sweep: Sweep) -> str:
  """The section's heading."""
  if "prompt.init" in sweep.fields:
    values = sweep.values("prompt.init")
    if "from_file" in values:
      return _TRANSFER
  for field, text in _PAPER.items():
    if field in sweep.fields:
      return text
  return f"Runs that differ in {', '.join(sweep.titles)}"


def shown_methods(sweep: Sweep) -> list[str]:
  """The methods of a sweep, without the one that has no setting."""
  return [m for m in score_tables.methods_of(sweep.parts) if m != "no_prompt"]


def _columns(sweep: Sweep) -> tuple[list[str], list[int]]:
  """Titles in front of the scores, and which of task and protocol are among them."""
  tasks = len({part.task for part in sweep.parts}) > 1
  protocols = len({part.run.protocol for part in sweep.parts}) > 1
  titles = [*sweep.titles]
  if tasks:
    titles.append("task")
  if protocols:
    titles.append("protocol")
  return titles, [tasks, protocols]


def table(
    sweep: Sweep, name: str, caption: str, split: str | None = None
) -> Table:
  """Scores of each method for each setting, and what XPrompt gains.

  Args:
    sweep: the runs.
    name: of the CSV file.
    caption: of the table.
    split: None takes the one that each run reports.
  """
  methods = shown_methods(sweep)
  titles, (tasks, protocols) = _columns(sweep)
  rows, records = [], []
  for number, part in enumerate(sweep.parts):
    row = [*sweep.labels[number]]
    if tasks:
      row.append(part.task)
    if protocols:
      row.append(part.run.protocol)
    ends = score_tables.difference_cells(
        part, "xprompt", score_tables.TUNING, split
    )
    scores = [score_tables.score_cell(part, m, split=split) for m in methods]
    rows.append([*row, str(len(part.seeds)), *scores, *ends])
    records += [
        [*sweep.labels[number], *record]
        for method in methods
        if (record := _record(part, method, split))
    ]
  ends = ["XPrompt minus prompt tuning", "95 % interval", "verdict"]
  shown = [score_tables.method_title(sweep.parts, m) for m in methods]
  columns = [*titles, "seeds", *shown, *ends]
  if all(row[-3] == "-" for row in rows):
    columns, rows = columns[:-3], [row[:-3] for row in rows]
  keys = ["run_name", "task", "protocol", "split", "method", "seeds"]
  keys += ["mean", "standard_deviation", "right"]
  keys += list(score_tables.RECORD_TITLES[-5:])
  return Table(
      name=name,
      caption=caption,
      columns=columns,
      rows=rows,
      records=[[*sweep.titles, *keys], *records],
  )


def _record(part: Part, method: str, split: str | None) -> list[object] | None:
  """A method's numbers as the CSV files have them; None where it has none."""
  known = [v for v in part.values(method, "score", split) if v is not None]
  if not known:
    return None
  mean, spread = cells.mean_and_spread(known)
  base = score_tables.base_of(part, method)
  gain = differences.between(part, method, base, split)
  return [
      part.run.name,
      part.task,
      part.run.protocol,
      split or part.split,
      method,
      len(known),
      round(mean, 6),
      round(spread, 6),
      score_tables.shares(part, method, "score", split) or "",
      *score_tables.gain_record(gain),
  ]


def numbers(sweep: Sweep) -> list[float] | None:
  """Each part's setting where it is one number; None where it is not."""
  # A larger model brings settings of its own with it.
  if len(sweep.fields) != 1 and "model" not in sweep.fields:
    return None
  field = "model" if "model" in sweep.fields else sweep.fields[0]
  found = sweep.values(field)
  if any(isinstance(v, bool) or not isinstance(v, (int, float)) for v in found):
    return None
  return found


def positions(
    sweep: Sweep, task: str, protocol: str
) -> tuple[list[int], list[str], str]:
  """Which parts of a sweep are one task's, and how an axis names them.

  Where models differ, their size is the label; what does not differ is left out.

  Returns:
    Their indices, a label for each, and what the labels are.
  """
  own = [
      i
      for i, part in enumerate(sweep.parts)
      if (part.task, part.run.protocol) == (task, protocol)
  ]
  if "model" in sweep.fields:
    shown = [sweep.fields.index("model")]
  else:
    shown = [
        k
        for k in range(len(sweep.titles))
        if len({sweep.labels[i][k] for i in own}) > 1
    ]
  labels = [", ".join(sweep.labels[i][k] for k in shown) for i in own]
  return own, labels, ", ".join(sweep.titles[k] for k in shown)
