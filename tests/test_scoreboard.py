"""The table of a suite: k of N beside every share, never over 80 columns."""

import io

import pytest
import rich.console

from xprompt_jax import report, scoreboard


def _row(seed, metrics, sizes):
  score = sum(metrics.values()) / len(metrics)
  return {
      "seed": seed,
      "validation": {**metrics, "score": score},
      "metric_sizes": {"validation": sizes},
  }


def _summary(task, by_method, sizes):
  """A summary whose rows have the given metrics, a row for each seed."""
  return {
      "task": task,
      "num_examples": {"train": 9, "validation": 4},
      "tickets_tried": 6,
      "methods": [
          {
              "method": method,
              "rows": [
                  _row(seed, metrics, sizes)
                  for seed, metrics in enumerate(of_seeds)
              ],
          }
          for method, of_seeds in by_method.items()
      ],
  }


PERCENT = 100 / 104
WSC = _summary(
    "wsc",
    {
        "prompt_tuning": [
            {"accuracy": 70 * PERCENT},
            {"accuracy": 74 * PERCENT},
        ],
        "xprompt": [{"accuracy": 74 * PERCENT}, {"accuracy": 74 * PERCENT}],
    },
    {"accuracy": 104},
)
CB = _summary(
    "cb",
    {
        "prompt_tuning": [{"mean_3class_f1": 81.5, "accuracy": 75.0}] * 2,
        "xprompt": [
            {"mean_3class_f1": 90.25, "accuracy": 87.5},
            {"mean_3class_f1": 90.25, "accuracy": 75.0},
        ],
    },
    {"accuracy": 56},
)


def _text_of(tables):
  console = rich.console.Console(width=80, record=True, file=io.StringIO())
  for table in tables:
    console.print(table)
  return [line.rstrip() for line in console.export_text().splitlines()]


def test_every_share_of_a_suite_has_its_counts():
  result = scoreboard.suite_result({"wsc": WSC, "cb": CB}, {})
  assert result["tasks"]["cb"]["methods"]["xprompt"]["counts"] == {
      "accuracy": "91/112"
  }
  assert _text_of(scoreboard.suite_tables(result)) == [
      "score of each task",
      "task              split           prompt tuning                XPrompt",
      "─" * 70,
      "wsc               val    69.23 ± 2.72 (144/208)        71.15 (148/208)",
      "cb                val                     78.25           85.75 ± 4.42",
      "  mean_3class_f1                          81.50                  90.25",
      "  accuracy                       75.00 (84/112)  81.25 ± 8.84 (91/112)",
      "",
      "SuperGLUE                          73.74 ± 1.36           78.45 ± 2.21",
  ]


def test_each_task_of_a_table_has_its_own_lines():
  def of(task, **more):
    return {"task": task, "seed": 0, **more}

  rows = [of(task, validation={"score": 1.0}) for task in ("cb", "rte")]
  summary = {
      "methods": [{"method": "xprompt", "rows": rows}],
      "members": {"cb": {"train": 1}, "rte": {"train": 2}},
      "left_out": [of("rte", method="reversed", reason="nothing was pruned")],
      "selection": [of("cb", tickets=9), of("rte", tickets=9)],
  }
  parts = scoreboard.by_task(summary)
  assert [report.left_out(part) for part in parts.values()] == [
      [],
      ["No reversed of seed 0: nothing was pruned."],
  ]
  assert [part["selection"] for part in parts.values()] == [
      [of("cb", tickets=9)],
      [of("rte", tickets=9)],
  ]
  # A run that left nothing out says nothing of it.
  del summary["left_out"]
  assert "left_out" not in scoreboard.by_task(summary)["cb"]


def test_a_method_that_one_task_lacks_is_a_dash():
  short = {**CB, "methods": CB["methods"][:1]}
  result = scoreboard.suite_result({"wsc": WSC, "cb": short}, {})
  lines = _text_of(scoreboard.suite_tables(result))
  assert [line.split()[-1] for line in lines[4:7]] == ["-", "-", "-"]


@pytest.mark.parametrize("name", ["multirc", "super_glue_multirc_v102" * 2])
def test_what_is_too_wide_is_split_into_tables(name):
  methods = ("no_prompt", "prompt_tuning", "token", "piece", "xprompt")
  found = [{"f1a": 100.0, "em": 81.25}, {"f1a": 7.5, "em": 0.0}]
  summary = _summary(name, dict.fromkeys(methods, found), {"em": 3200})
  tables = scoreboard.suite_tables(scoreboard.suite_result({name: summary}, {}))
  console = rich.console.Console(width=200)
  titles = []
  for table in tables:
    assert console.measure(table).maximum <= 80
    titles += [column.header for column in table.columns[2:]]
    for column in table.columns[2:]:
      assert "(2600/6400)" in "".join(column.cells)
  assert titles == [report.TITLES[method] for method in methods]
