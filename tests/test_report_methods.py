"""Tables of what a run adds: the held-out half, baselines, controls."""

import pathlib

import pytest
import rich.console

from tests import summaries
from xprompt_jax import report


def _with_heldout(summary):
  """The same as of the protocol that reports half of validation."""
  for method in summary["methods"]:
    for row in method["rows"]:
      row["heldout"] = dict.fromkeys(row["validation"], 51.0)
  summary["num_examples"]["heldout"] = 100
  return summary


@pytest.mark.parametrize("tests", [False, True])
@pytest.mark.parametrize(
    "metrics", [("accuracy",), ("mean_3class_f1", "accuracy")]
)
def test_the_held_out_half_has_columns(tests, metrics):
  made = summaries.summary(
      [80.0] * 3, [85.5, 100.0, 7.25], tests=tests, metrics=metrics
  )
  of_split = {"accuracy": 400}
  sizes = {"validation": of_split, "heldout": of_split, "test": of_split}
  summary = summaries.with_sizes(_with_heldout(made), sizes)
  tables = report.summary_tables(summary)
  console = rich.console.Console(width=200)
  assert all(console.measure(table).maximum <= 80 for table in tables)
  text = "\n".join(summaries.text_of(tables))
  # Once a metric; where that is too wide, a table of its own.
  assert text.count("held-out") == (1 if tests else len(metrics))
  assert text.count("(204/400)") == 1
  assert text.count("(612/1200)") == 2
  assert ("test" in text) == tests


def test_methods_may_lack_rows_splits_and_sizes():
  """A baseline of other sizes, a control of one seed, one without any row."""
  summary = summaries.summary([80.0, 82.0, 81.0], [85.0, 82.0, 88.0])
  scores = {"accuracy": 90.0, "score": 90.0}
  fine = {"seed": 0, "test": scores, "tunable_parameters": 737668096}
  control = {**summary["methods"][2]["rows"][1], "control": "reversed"}
  summary["methods"] = [
      {"method": "fine_tuning", "rows": [fine]},
      *summary["methods"],
      {"method": "reversed", "rows": [control]},
      {"method": "of_somebody_else", "rows": []},
  ]
  (table,) = report.summary_tables(summary)
  assert [
      " ".join(line.split()) for line in summaries.text_of([table])[3:]
  ] == [
      "fine-tuning - 90.00 - - 737668096",
      "no prompt 0.00 80.00 0 0 0",
      "prompt tuning 40.50 ± 0.50 81.00 ± 1.00 20 320 2560",
      "XPrompt 42.50 ± 1.50 85.00 ± 3.00 12.0 ± 3.5 126 ± 54 1008 ± 430",
      "reversed 41.00 82.00 8 64 512",
      "of somebody else - - - - -",
  ]


def test_a_run_without_xprompt_is_reported(capsys):
  summary = summaries.summary([80.0], [85.0])
  summary["methods"] = summary["methods"][:2]
  summary["tickets_tried"] = 0
  report.print_summary(summary, pathlib.Path("runs/plain"))
  out = capsys.readouterr().out
  assert "prompt tuning" in out and "minus" not in out
  assert "ticket" not in out and "rewind" not in out
  assert "runs/plain/tune/prompt.safetensors: the tuned prompts" in out


def test_every_method_has_a_title():
  """Of those that result files may name."""
  assert {report.title(name) for name in report.TITLES} == {
      "no prompt",
      "fine-tuning",
      "prompt tuning",
      "prefix tuning",
      "P-tuning",
      "P-tuning v2",
      "token pruning",
      "piece pruning",
      "XPrompt",
      "by magnitude",
      "by signed score",
      "random tickets",
      "reversed",
      "random units",
      "largest magnitude",
      "same length",
      "retrained, nothing pruned",
      "no rewind",
      "ratio from scores",
      "ratio from loss",
  }
  assert report.title("of_somebody_else") == "of somebody else"


def test_controls_that_are_left_out_are_named():
  summary = summaries.summary([80.0], [85.0])
  assert report.left_out(summary) == []
  summary["left_out"] = [
      {"method": "reversed", "seed": 0, "reason": "nothing was pruned"},
      {"method": "reversed", "seed": 3, "reason": "nothing was pruned"},
      {"method": "length", "seed": 3, "reason": "all is kept"},
  ]
  assert report.left_out(summary) == [
      "No reversed of seeds 0, 3: nothing was pruned.",
      "No same length of seed 3: all is kept.",
  ]
