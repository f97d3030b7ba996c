"""The table that ends a run, and what it says of XPrompt."""

import pathlib

import pytest
import rich.console

from tests import summaries
from xprompt_jax import cells, report, verdicts


def test_printed_summary(capsys, monkeypatch):
  monkeypatch.setenv("COLUMNS", "80")
  summary = summaries.summary([80.0, 82.0, 81.0], [85.0, 82.0, 88.0])
  report.print_summary(summary, pathlib.Path("runs/demo"))
  lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
  assert lines == [
      "mini_boolq: 3 seeds, mean ± standard deviation",
      "method         val accuracy  test accuracy      tokens    pieces"
      "  parameters",
      "─" * 76,
      "no prompt              0.00          80.00           0         0"
      "           0",
      "prompt tuning  40.50 ± 0.50   81.00 ± 1.00          20       320"
      "        2560",
      "XPrompt        42.50 ± 1.50   85.00 ± 3.00  12.0 ± 3.5  126 ± 54"
      "  1008 ± 430",
      "",
      "XPrompt minus prompt tuning on test accuracy: +4.00 ± 3.61 over 3"
      " seeds, 95 %",
      "interval -4.96 to +12.96 (Student's over seeds; better in 2, worse in 0):"
      " no",
      "clear difference.",
      "Trained and scored on 2000 examples; of each seed the checkpoint and"
      " the ticket",
      "with the best score on validation (200 examples) were taken. Nothing was"
      " chosen",
      "on test (400 examples).",
      "Time: 2 min (evaluate 8 s, tune 96 s).",
      "",
      "runs/demo/result.json: this summary",
      "runs/demo/tickets.jsonl: all 54 tickets tried",
      "runs/demo/rewind/prompt.safetensors: XPrompt, with its masks",
      "runs/demo/tune/prompt.safetensors: the tuned prompts",
      "runs/demo/tensorboard: curves, for `tensorboard --logdir`",
  ]


@pytest.mark.parametrize("tests", [False, True])
@pytest.mark.parametrize(
    "metrics", [("accuracy",), ("mean_3class_f1", "accuracy")]
)
def test_no_table_is_wider_than_80_columns(tests, metrics):
  summary = summaries.summary(
      [100.0, 82.25, 81.0], [85.5, 100.0, 7.25], tests=tests, metrics=metrics
  )
  tables = report.summary_tables(summary)
  assert len(tables) == len(metrics)
  console = rich.console.Console(width=200)
  for table in tables:
    assert console.measure(table).maximum <= 80


def test_shares_are_counted_over_all_seeds():
  summary = summaries.with_sizes(
      summaries.summary([80.0, 82.0, 81.0], [85.0, 82.0, 88.0]),
      {"validation": {"accuracy": 200}, "test": {"accuracy": 400}},
  )
  # Too wide with the sizes beside them.
  assert summaries.text_of(report.summary_tables(summary)) == [
      "mini_boolq: 3 seeds, mean ± standard deviation",
      "method                   val accuracy             test accuracy",
      "─" * 63,
      "no prompt                0.00 (0/200)           80.00 (320/400)",
      "prompt tuning  40.50 ± 0.50 (243/600)   81.00 ± 1.00 (972/1200)",
      "XPrompt        42.50 ± 1.50 (255/600)  85.00 ± 3.00 (1020/1200)",
      "method             tokens    pieces  parameters",
      "─" * 47,
      "no prompt               0         0           0",
      "prompt tuning          20       320        2560",
      "XPrompt        12.0 ± 3.5  126 ± 54  1008 ± 430",
  ]
  assert verdicts.comparison(summary) == (
      "XPrompt minus prompt tuning on test accuracy: +4.00 ± 3.61 over 3 seeds,"
      " 95 % interval -4.96 to +12.96 (Student's over seeds; better in 2, worse"
      " in 0; 1020/1200 against 972/1200): no clear difference."
  )


def test_shares_of_one_seed():
  sizes = {"validation": {"accuracy": 104}}
  percent = 100 / 104
  summary = summaries.with_sizes(
      summaries.summary([140 * percent], [148 * percent], tests=False), sizes
  )
  lines = summaries.text_of(report.summary_tables(summary))
  assert lines[-1].split() == [
      "XPrompt",
      "71.15",
      "(74/104)",
      "14",
      "157",
      "1256",
  ]
  assert verdicts.comparison(summary) == (
      "XPrompt minus prompt tuning on validation accuracy: +3.85 (74/104 against"
      " 70/104): no clear difference with this seed; validation also chose"
      " among 18 tickets of each seed, which favours XPrompt."
  )


def test_a_metric_that_is_no_share_has_no_counts():
  summary = summaries.with_sizes(
      summaries.summary([80.0], [85.0], metrics=("mean_3class_f1", "accuracy")),
      {"validation": {"accuracy": 56}, "test": {"accuracy": 20}},
  )
  # 42.5 % of 56 are no whole number of examples.
  assert summaries.text_of(report.summary_tables(summary))[4:7] == [
      "no prompt                0.00  0.00 (0/56)           80.00"
      "  80.00 (16/20)",
      "prompt tuning           40.00        40.00           80.00"
      "  80.00 (16/20)",
      "XPrompt                 42.50        42.50           85.00"
      "  85.00 (17/20)",
  ]


def test_other_ways_and_other_tasks():
  summary = summaries.with_sizes(
      summaries.summary([80.0, 82.0], [84.0, 82.0]),
      {"test": {"accuracy": 50}, "axb/test": {"accuracy": 50}},
  )
  for method in summary["methods"]:
    for row in method["rows"]:
      row["ways"] = {
          "generate": row["test"],
          "rank": {"accuracy": 90.0, "score": 90.0},
      }
      row["other_tasks"] = {"axb/test": {"accuracy": 50.0, "score": 50.0}}
      row["not_possible"] = {"first_token": "task a, split b: alike"}
  assert summaries.text_of(report.way_tables(summary)) == [
      "mini_boolq: accuracy on test by way of predicting",
      "method                      generate            rank",
      "─" * 52,
      "no prompt              80.00 (40/50)   90.00 (45/50)",
      "prompt tuning  81.00 ± 1.41 (81/100)  90.00 (90/100)",
      "XPrompt        83.00 ± 1.41 (83/100)  90.00 (90/100)",
      "mini_boolq: accuracy on other tasks",
      "method                     axb/test",
      "─" * 35,
      "no prompt             50.00 (25/50)",
      "prompt tuning        50.00 (50/100)",
      "XPrompt              50.00 (50/100)",
  ]
  assert report.not_possible(summary) == [
      "No first token: task a, split b: alike."
  ]


def test_ways_and_other_tasks_of_several_metrics_show_each():
  """The counts stand beside the metrics; their mean is no share."""
  metrics = ("mean_3class_f1", "accuracy")
  sizes = {"accuracy": 50}
  summary = summaries.with_sizes(
      summaries.summary([80.0], [84.0], metrics=metrics),
      {"test": sizes, "axg": {"accuracy": 20, "gender_parity": 10}},
  )
  parity = {"accuracy": 45.0, "gender_parity": 90.0, "score": 67.5}
  for method in summary["methods"]:
    for row in method["rows"]:
      row["ways"] = {
          "generate": row["test"],
          "rank": {"mean_3class_f1": 70.0, "accuracy": 90.0, "score": 80.0},
      }
      row["other_tasks"] = {"axg": parity}
  ways, others = report.way_tables(summary)
  assert summaries.text_of([ways])[:6] == [
      "mini_boolq: score on test by way of predicting",
      "method                 generate           rank",
      "─" * 46,
      "no prompt                 80.00          80.00",
      "  mean_3class_f1          80.00          70.00",
      "  accuracy        80.00 (40/50)  90.00 (45/50)",
  ]
  assert [line.split() for line in summaries.text_of([others])[3:6]] == [
      ["no", "prompt", "67.50"],
      ["accuracy", "45.00", "(9/20)"],
      ["gender_parity", "90.00", "(9/10)"],
  ]
  assert verdicts.comparison(summary) == (
      "XPrompt minus prompt tuning on test score: +4.00 (accuracy 42/50 against"
      " 40/50): no clear difference with this seed."
  )


def test_other_tasks_that_are_too_many_stand_in_several_tables():
  summary = summaries.summary([80.0], [84.0])
  names = [f"super_glue_axb_v102_{i}/validation" for i in range(3)]
  for method in summary["methods"]:
    for row in method["rows"]:
      row["other_tasks"] = {k: {"f1": 1.0, "score": 1.0} for k in names}
  tables = report.way_tables(summary)
  console = rich.console.Console(width=200)
  assert all(console.measure(table).maximum <= 80 for table in tables)
  assert [c.header for t in tables for c in t.columns[1:]] == names
  # The metric is that task's, whatever the run's own is.
  assert list(tables[0].columns[1].cells) == ["1.00"] * 3


def test_ways_of_many_examples_stand_in_two_lines():
  summary = summaries.with_sizes(
      summaries.summary([80.0, 82.0, 81.0], [85.0, 82.0, 88.0]),
      {"test": {"accuracy": 400}},
  )
  for method in summary["methods"]:
    for row in method["rows"]:
      row["ways"] = dict.fromkeys(
          ("generate", "rank", "first_token"), row["test"]
      )
  lines = summaries.text_of(report.way_tables(summary))
  assert lines[5:7] == [
      "prompt tuning  81.00 ± 1.00  81.00 ± 1.00  81.00 ± 1.00",
      "                 (972/1200)    (972/1200)    (972/1200)",
  ]


def test_older_files_have_neither_ways_nor_counts():
  summary = summaries.summary([80.0], [85.0])
  assert report.way_tables(summary) == []
  assert report.not_possible(summary) == []


def test_mean_and_spread():
  # Sample standard deviation of 1, 2, 6: sqrt((4 + 1 + 9) / 2).
  assert cells.mean_and_spread([1.0, 2.0, 6.0]) == (3.0, 7**0.5)
  assert cells.mean_and_spread([4.5]) == (4.5, 0.0)


def test_the_many_metrics_of_a_mixture_are_rows_of_a_table_for_each_split():
  metrics = [f"{task}/accuracy" for task in ("boolq", "copa", "rte", "wic")]
  summary = summaries.summary(
      [100.0, 82.25, 81.0], [85.5, 100.0, 7.25], metrics=(*metrics, "wsc/f1a")
  )
  validation, test, sizes = report.summary_tables(summary)
  console = rich.console.Console(width=200)
  for table in (validation, test, sizes):
    assert console.measure(table).maximum <= 80
  assert validation.title == "mini_boolq: validation"
  assert test.title == "mini_boolq: test"
  first = list(test.columns[0].cells)
  assert first == [*metrics, "wsc/f1a", "score"]
  assert [column.header for column in test.columns] == [
      "metric",
      "no prompt",
      "prompt tuning",
      "XPrompt",
  ]
  assert next(iter(test.columns[2].cells)) == "87.75 ± 10.63"
