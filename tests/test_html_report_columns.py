"""Which runs share a column of `t5x report`, and what a column is called."""

import json

import pytest

from tests import report_files
from xprompt_jax.html_report import grouping, reading


def test_a_table_whose_rows_read_different_tasks(tmp_path):
  row = report_files.row
  run = report_files.write_run(
      tmp_path / "table",
      task="mixture",
      methods={
          "xprompt": [row(0, 3, task="rte"), row(0, 1, task="cb")],
      },
  )
  summary = json.loads((run / "result.json").read_text())
  summary["members"] = {"rte": {"test": 4}, "cb": {"test": 4}}
  report_files.write_json(run / "result.json", summary)
  assert report_files.table(report_files.sections(run)["scores"]) == [
      ["method", "rte", "cb", "mean over tasks"],
      ["XPrompt", "75.00 (3/4)", "25.00 (1/4)", "50.00"],
  ]


def test_seeds_of_one_column_are_equal(tmp_path):
  suite = report_files.write_suite(
      tmp_path / "methods",
      search={"methods": {"prompt_tuning": (2, 2), "xprompt": (3, 3)}},
      fine_tuning={"methods": {"fine_tuning": (4, 4, 4)}},
  )
  assert report_files.table(report_files.sections(suite)["scores"]) == [
      ["method", "rte, seeds 0, 1", "rte, seeds 0, 1, 2"],
      ["fine-tuning", "-", "100.00 (12/12)"],
      ["prompt tuning", "50.00 (4/8)", "-"],
      ["XPrompt", "75.00 (6/8)", "-"],
  ]


@pytest.mark.parametrize(
    ("change", "label"),
    [
        ({"frozen_params": "b" * 64}, "weights bbbbbb"),
        ({"predict_by": "rank"}, "predicted by rank"),
        ({"test": {"test": "c" * 64}}, "other data"),
        ({"splits": {"train": "c" * 64}}, "other training data"),
        ({"model": {**report_files.MODEL, "mlp_dim": 16}}, "684"),
    ],
)
def test_what_differs_has_a_column_of_its_own(tmp_path, change, label):
  suite = report_files.write_suite(
      tmp_path / "methods",
      search={"methods": {"xprompt": (3, 3)}},
      other={"methods": {"fine_tuning": (4, 4)}},
  )
  path = suite / "other/result.json"
  summary = json.loads(path.read_text())
  summary["config"] |= change
  report_files.write_json(path, summary)
  header, *rows = report_files.table(report_files.sections(suite)["scores"])
  assert header[2].startswith(f"rte, {label}")
  assert rows[0] == ["fine-tuning", "-", "100.00 (8/8)"]


def titles_of(*workdirs):
  runs = reading.read_runs(workdirs)
  return grouping.titles([p for run in runs for p in reading.parts(run)])


def test_other_sizes_are_other_weights_as_a_matter_of_course(tmp_path):
  one = report_files.write_run(tmp_path / "one", methods={"xprompt": (3,)})
  two = report_files.write_run(tmp_path / "two", methods={"xprompt": (1,)})
  summary = json.loads((two / "result.json").read_text())
  summary["config"]["model"]["mlp_dim"] = 16
  summary["config"]["frozen_params"] = "b" * 64
  report_files.write_json(two / "result.json", summary)
  assert titles_of(one, two) == ["rte, 492", "rte, 684"]


def test_a_cell_says_if_it_has_fewer_seeds(tmp_path):
  run = report_files.write_run(
      tmp_path / "rte", methods={"xprompt": (3, 3), "reversed": (1,)}
  )
  assert report_files.table(report_files.sections(run)["scores"])[2] == [
      "Reversed XPrompt",
      "25.00 (1/4, 1 seed)",
  ]


def _experiments(tmp_path):
  both = {"prompt_tuning": (2, 2), "xprompt": (3, 3)}
  report_files.write_suite(tmp_path / "random_tickets", rte={"methods": both})
  report_files.write_suite(tmp_path / "table1_methods", rte={"methods": both})
  report_files.write_suite(
      tmp_path / "table1_baselines",
      prompt_tuning={
          "methods": {"prompt_tuning": (4, 4), "xprompt": (1, 1)},
          "train": {"num_steps": 20},
      },
      fine={
          "methods": {"fine_tuning": (3, 4)},
          "train": {"num_steps": 20},
          # Its own, as gin/methods/ has it.
          "model": {"dropout_rate": 0.1},
      },
  )
  return [
      tmp_path / name
      for name in ("random_tickets", "table1_baselines", "table1_methods")
  ]


def test_table_1_of_many_folders(tmp_path):
  found = report_files.sections(*_experiments(tmp_path))
  tables = {a: s for a, s in found.items() if a.startswith("scores")}
  assert {anchor: section.title for anchor, section in tables.items()} == {
      "scores_random_tickets": "Scores by method and task: random_tickets",
      "scores_table1_methods": (
          "Scores by method and task (Table 1): table1_methods"
      ),
  }
  table1 = tables["scores_table1_methods"]
  assert report_files.table(table1) == [
      ["method", "rte"],
      ["fine-tuning", "87.50 ± 17.68 (7/8)"],
      ["prompt tuning", "50.00 (4/8)"],
      ["prompt tuning, steps of the baselines", "100.00 (8/8)"],
      ["XPrompt", "75.00 (6/8)"],
  ]
  # Fine-tuning's gain is over prompt tuning of as many steps.
  assert [row[2] for row in report_files.table(table1, 2)[1:]] == [
      "-12.50",
      "-",
      "+50.00",
      "+25.00",
  ]
  assert table1.text[1].startswith(
      "Settings. fine-tuning, prompt tuning, steps of the baselines: 20 steps."
      " prompt tuning: 10 steps. XPrompt: 10 steps; granularity token and piece"
  )


def test_a_folder_looks_the_same_whichever_others_are_named(tmp_path):
  folders = _experiments(tmp_path)
  alone = report_files.sections(folders[0])["scores"]
  together = report_files.sections(*folders)["scores_random_tickets"]
  for number in range(3):
    assert report_files.table(alone, number) == report_files.table(
        together, number
    )
  assert alone.text == together.text


def test_the_paper_protocol_reports_the_split_that_selected(tmp_path):
  row = report_files.row(0, 3)
  row["validation"] = {"accuracy": 100.0, "score": 100.0}
  row["metric_sizes"]["validation"]["accuracy"] = 8
  run = report_files.write_run(tmp_path / "rte", methods={"xprompt": [row]})
  section = report_files.sections(run)["scores"]
  assert [table.caption for table in section.items[:2]] == [
      "Scores in percent on validation, which selected and reports, as in the"
      " paper, by method and task",
      "Scores in percent on test, which selected nothing",
  ]
  assert report_files.table(section)[1] == ["XPrompt", "100.00 (8/8)"]
  assert report_files.table(section, 1)[1] == ["XPrompt", "75.00 (3/4)"]


def test_files_of_tasks_with_one_slug(tmp_path):
  suite = report_files.write_suite(
      tmp_path / "suite", one={"task": "a-b"}, two={"task": "a_b"}
  )
  names = [item.name for item in report_files.sections(suite)["scores"].items]
  assert names == ["scores", "scores_test", "scores_a_b", "scores_a_b_2"]


def test_few_shot_data_are_other_data_as_a_matter_of_course(tmp_path):
  whole = report_files.write_run(tmp_path / "whole", methods={"xprompt": (3,)})
  few = report_files.write_run(tmp_path / "few", methods={"xprompt": (1,)})
  summary = json.loads((few / "result.json").read_text())
  summary["config"]["task"]["few_shot"] = 16
  summary["config"] |= {"splits": {"train": "c" * 64}, "few_shot": "d" * 64}
  report_files.write_json(few / "result.json", summary)
  assert titles_of(whole, few) == ["rte, all examples", "rte, 16 examples"]
  # Scores on other examples are another matter.
  summary["config"]["splits"]["validation"] = "e" * 64
  report_files.write_json(few / "result.json", summary)
  assert titles_of(whole, few)[1] == "rte, 16 examples, other data"
