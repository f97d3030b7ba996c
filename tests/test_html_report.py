"""The tables of `t5x report`: literal result files in, literal cells out."""

import csv
import json

import pytest

from tests import report_files
from xprompt_jax.html_report import reading, sections
from xprompt_jax.html_report.content import Table


def _sections(*workdirs):
  """Sections by anchor."""
  found = sections.build(reading.read_runs(workdirs))
  return {section.anchor: section for section in found}


def _table(section, number=0):
  tables = [item for item in section.items if isinstance(item, Table)]
  return [list(tables[number].columns), *map(list, tables[number].rows)]


def _csv(section, number=0):
  tables = [item for item in section.items if isinstance(item, Table)]
  return list(csv.reader(tables[number].as_csv().splitlines()))


def test_scores_by_method_and_task(tmp_path):
  suite = report_files.write_suite(
      tmp_path / "suite",
      rte={"methods": {"prompt_tuning": (1, 3), "xprompt": (3, 4)}},
      cb={"task": "cb", "methods": {"prompt_tuning": (2, 2)}},
  )
  scores = _sections(suite)["scores"]
  assert scores.title == "Scores by method and task (Table 1)"
  assert scores.text[0] == (
      "Scores: rte on test (4 examples), cb on test (4 examples); checkpoints"
      " and tickets were selected on validation; 2 seeds."
  )
  assert _table(scores) == [
      ["method", "rte", "cb", "mean over tasks"],
      ["prompt tuning", "50.00 ± 35.36 (4/8)", "50.00 (4/8)", "50.00"],
      ["XPrompt", "87.50 ± 17.68 (7/8)", "-", "-"],
  ]


def test_the_csv_file_has_plain_numbers(tmp_path):
  run = report_files.write_run(tmp_path / "rte", methods={"xprompt": (3, 4)})
  header, *lines = _csv(_sections(run)["scores"], 1)
  assert dict(zip(header, lines[0], strict=True)) == {
      "run": "rte",
      "task": "rte",
      "protocol": "paper",
      "split": "test",
      "examples": "4",
      "method": "xprompt",
      "metric": "score",
      "seeds": "2",
      "mean": "87.5",
      "standard_deviation": "17.67767",
      "right": "7/8",
      "minus_prompt_tuning": "",
      "interval_low": "",
      "interval_high": "",
      "interval_from": "",
      "verdict": "",
  }


def test_what_each_method_gains_on_prompt_tuning(tmp_path):
  run = report_files.write_run(
      tmp_path / "rte",
      methods={
          "prompt_tuning": (1, 1, 1),
          "xprompt": (2, 2, 2),
          "token": (1, 2, 0),
          "xprompt_random": (2, 2, 2),
          "reversed": (0, 0, 0),
      },
  )
  scores = _sections(run)["scores"]
  # Student's quantile of 2 degrees of freedom is 4.303: 25 * 4.303 / 3**0.5.
  assert [row[:5] for row in _table(scores, 2)[1:]] == [
      ["prompt tuning", "25.00 (3/12)", "-", "-", "-"],
      [
          "token pruning",
          "25.00 ± 25.00 (3/12)",
          "+0.00",
          "[-62.10, +62.10]",
          "no clear difference",
      ],
      # Seeds that all gain the same say nothing of another.
      ["XPrompt", "50.00 (6/12)", "+25.00", "-", "no clear difference"],
      [
          "random tickets, same search",
          "50.00 (6/12)",
          "+25.00",
          "-",
          "no clear difference",
      ],
      [
          "Reversed XPrompt",
          "0.00 (0/12)",
          "-25.00",
          "-",
          "no clear difference",
      ],
  ]
  assert scores.verdicts[1:] == [
      "rte, test: XPrompt minus prompt tuning is +25.00 points over 3"
      " seeds (the same in all seeds, no interval), 6/12 against 3/12 right: no"
      " clear difference.",
      "rte, test: random tickets, same search minus prompt tuning is +25.00"
      " points over 3 seeds (the same in all seeds, no interval), 6/12 against"
      " 3/12 right: no clear difference.",
      "rte, test: Reversed XPrompt minus XPrompt is -50.00 points over 3"
      " seeds (the same in all seeds, no interval), 0/12 against 6/12 right: no"
      " clear difference.",
      "rte, test: XPrompt minus random tickets, same search is +0.00 points"
      " over 3 seeds (the same in all seeds, no interval), 6/12 against 6/12"
      " right: no difference.",
      "rte, test: the same search over random tickets gains +25.00 points over"
      " prompt tuning; XPrompt gains +25.00. On validation, which chose, random"
      " tickets gain +25.00.",
  ]


def test_one_seed_is_said_to_be_one_and_selecting_on_what_is_reported_too(
    tmp_path,
):
  splits = ("validation",)
  run = report_files.write_run(
      tmp_path / "rte",
      methods={
          "prompt_tuning": (report_files.row(0, 1, splits=splits),),
          "xprompt": (report_files.row(0, 2, splits=splits),),
          "retrained": (report_files.row(0, 2, splits=splits),),
      },
      num_examples={"train": 8, "validation": 4},
      search={"token_ratios": [0.1] * 4, "piece_ratios": [0.1] * 5},
  )
  assert _sections(run)["scores"].verdicts == [
      "rte, validation: XPrompt minus prompt tuning is +25.00 points over 1 seed,"
      " 2/4 against 1/4 right: no clear difference with this seed. Validation also"
      " chose among 9 tickets of each seed, which favours methods that choose.",
      "rte, validation: retrained, nothing pruned minus XPrompt is +0.00 points"
      " over 1 seed, 2/4 against 2/4 right: no difference. Validation chose"
      " XPrompt's ticket and not the control's, which favours XPrompt.",
  ]


def test_both_protocols_side_by_side(tmp_path):
  halves = ("validation", "heldout")
  paper = report_files.write_run(
      tmp_path / "paper", methods={"xprompt": (3, 3)}
  )
  heldout = report_files.write_run(
      tmp_path / "heldout",
      methods={
          "xprompt": [
              report_files.row(s, 1, size=2, splits=halves) for s in (0, 1)
          ]
      },
      num_examples={"train": 8, "validation": 2, "heldout": 2},
      task="rte",
  )
  summary = json.loads((heldout / "result.json").read_text())
  summary["config"]["task"]["protocol"] = "heldout"
  report_files.write_json(heldout / "result.json", summary)
  scores = _sections(paper, heldout)["scores"]
  assert _table(scores) == [
      ["method", "rte, paper protocol", "rte, held-out protocol"],
      ["XPrompt", "75.00 (6/8)", "50.00 (2/4)"],
  ]
  assert scores.text[0] == (
      "Scores: rte on test (4 examples), rte on held-out half of validation (2"
      " examples); paper protocol: checkpoints and tickets were selected on"
      " validation; held-out protocol: checkpoints and tickets were selected on"
      " one half of validation and judged on what they had not seen; 2 seeds."
  )


def test_every_split_stands_beside_the_one_that_is_reported(tmp_path):
  row = report_files.row(0, 3, splits=("validation", "heldout", "test"))
  row["heldout"] = {"accuracy": 50.0, "score": 50.0}
  del row["metric_sizes"]["validation"]
  run = report_files.write_run(
      tmp_path / "rte",
      methods={"xprompt": [row]},
      num_examples={"train": 8, "validation": 4, "heldout": 4, "test": 4},
  )
  summary = json.loads((run / "result.json").read_text())
  summary["config"]["task"]["protocol"] = "heldout"
  report_files.write_json(run / "result.json", summary)
  scores = _sections(run)["scores"]
  assert _table(scores, 2) == [
      [
          "method",
          "accuracy",
          "minus prompt tuning",
          "95 % interval",
          "verdict",
          "score on held-out half of validation",
          "score on the half that selected",
      ],
      ["XPrompt", "75.00 (3/4)", "-", "-", "-", "50.00 (2/4)", "75.00"],
  ]
  assert scores.text[0].endswith(
      "1 seed. Scores on the held-out half stand beside those on test."
  )


def test_baselines_of_other_runs_stand_in_the_same_table(tmp_path):
  suite = report_files.write_suite(
      tmp_path / "methods",
      search={"methods": {"prompt_tuning": (2, 2), "xprompt": (3, 3)}},
      fine_tuning={
          "methods": {"fine_tuning": (4, 4)},
          "train": {"num_steps": 99},
      },
  )
  found = _sections(suite)
  assert [row[:2] for row in _table(found["scores"])[1:]] == [
      ["fine-tuning", "100.00 (8/8)"],
      ["prompt tuning", "50.00 (4/8)"],
      ["XPrompt", "75.00 (6/8)"],
  ]
  # Paired with prompt tuning of the other run.
  assert _table(found["scores"], 2)[1][2:5] == [
      "+50.00",
      "-",
      "no clear difference",
  ]


def test_few_shot_runs_have_a_table_of_their_own(tmp_path):
  run = report_files.write_run(
      tmp_path / "few", task="rte", methods={"prompt_tuning": (2, 2)}
  )
  summary = json.loads((run / "result.json").read_text())
  summary["config"]["task"]["few_shot"] = 32
  report_files.write_json(run / "result.json", summary)
  found = _sections(run)
  assert "scores" not in found
  assert found["few_shot"].title == "Few-shot scores (Table 2)"
  assert _table(found["few_shot"])[1] == ["prompt tuning", "50.00 (4/8)"]


def test_trained_numbers_and_their_share_of_the_model(tmp_path):
  row = report_files.row
  run = report_files.write_run(
      tmp_path / "rte",
      methods={
          "prompt_tuning": (row(0, 2),),
          "prefix_tuning": (
              row(0, 2, tunable_parameters=123, inference_parameters=41),
          ),
      },
  )
  assert report_files.MODEL_PARAMETERS == 492
  parameters = _sections(run)["parameters"]
  assert _table(parameters) == [
      [
          "method",
          "trained numbers",
          "share of the model",
          "numbers kept for inference",
          "model",
          "tasks",
      ],
      ["prompt tuning", "8", "1.6 %", "8", "492", "rte"],
      ["prefix tuning", "123", "25 %", "41", "492", "rte"],
  ]
  assert _csv(parameters)[2] == [
      "rte",
      "rte",
      "prefix_tuning",
      "123.0",
      "25.0",
      "41.0",
      "492",
  ]


@pytest.mark.parametrize(
    ("section", "values", "title", "labels"),
    [
        (
            "prompt",
            [{"length": 20}, {"length": 5}],
            "Prompt length (Table 5)",
            [["prompt length"], ["5"], ["20"]],
        ),
        (
            "prompt",
            [{"init": "sampled_vocab"}, {"init": "random_uniform"}],
            "Initialisation (Table 6)",
            [["initialisation"], ["sampled vocabulary"], ["random uniform"]],
        ),
        (
            "search",
            [
                {"granularities": ["token"]},
                {"granularities": ["token", "piece"]},
            ],
            "Granularity (Table 4)",
            [["granularity"], ["token"], ["token and piece"]],
        ),
        (
            "prompt",
            [{"num_pieces": 2}, {"num_pieces": 4}],
            "Number of pieces",
            [["pieces per token"], ["2"], ["4"]],
        ),
        (
            "model",
            [{"mlp_dim": 8}, {"mlp_dim": 16}],
            "Model size (Figure 1)",
            [["model size"], ["492"], ["684"]],
        ),
    ],
)
def test_runs_that_differ_in_a_field(tmp_path, section, values, title, labels):
  suite = report_files.write_suite(
      tmp_path / "sweep",
      one={section: values[0], "methods": {"prompt_tuning": (2, 2)}},
      two={section: values[1], "methods": {"prompt_tuning": (2, 2)}},
  )
  found = _sections(suite)
  assert "scores" not in found
  (sweep,) = [s for s in found.values() if s.title == title]
  assert [row[: len(labels[0])] for row in _table(sweep)] == labels
  assert [row[1:] for row in _table(sweep)] == [
      ["seeds", "prompt tuning"],
      ["2", "50.00 (4/8)"],
      ["2", "50.00 (4/8)"],
  ]


def test_transfer_is_an_initialisation_from_a_file(tmp_path):
  source = {"init": "from_file", "init_file": "runs/a_b/prompt.safetensors"}
  suite = report_files.write_suite(
      tmp_path / "transfer", plain={}, transfer={"prompt": source}
  )
  found = _sections(suite)["transfer_table_7"]
  assert _table(found)[1:] == [
      [
          "sampled vocabulary",
          "-",
          "2",
          "50.00 (4/8)",
          "75.00 (6/8)",
          "+25.00",
          "-",
          "no clear difference",
      ],
      [
          "from another prompt (transfer)",
          "runs/a_b",
          "2",
          "50.00 (4/8)",
          "75.00 (6/8)",
          "+25.00",
          "-",
          "no clear difference",
      ],
  ]


def test_sweeps_of_several_tasks_name_the_task(tmp_path):
  suite = report_files.write_suite(
      tmp_path / "sweep",
      **{
          f"{task}/{length}": {
              "task": task,
              "prompt": {"length": length},
              "methods": {"prompt_tuning": (2,)},
          }
          for task in ("rte", "cb")
          for length in (5, 20)
      },
  )
  assert _table(_sections(suite)["prompt_length_table_5"]) == [
      ["prompt length", "task", "seeds", "prompt tuning"],
      ["5", "rte", "1", "50.00 (2/4)"],
      ["5", "cb", "1", "50.00 (2/4)"],
      ["20", "rte", "1", "50.00 (2/4)"],
      ["20", "cb", "1", "50.00 (2/4)"],
  ]


def test_ratios_chosen_without_a_search(tmp_path):
  row = report_files.row
  run = report_files.write_run(
      tmp_path / "rte",
      methods={"xprompt": (row(0, 3, token_ratio=0.3, piece_ratio=0.5),)},
  )
  common = {"seed": 0, "granularity": "piece", "validation": {"score": 50.0}}
  report_files.write_json(
      run / "auto_ratio/result.json",
      {
          "rows": [
              {
                  **common,
                  "rule": "scores",
                  "ratio": 0.25,
                  "test": {"score": 70},
              },
              {**common, "rule": "loss", "ratio": 0.75, "test": {"score": 60}},
          ]
      },
  )
  assert _table(_sections(run)["auto_ratio"]) == [
      ["granularity", "rule", "ratio", "score"],
      ["piece", "from the scores alone", "0.25", "70"],
      ["piece", "from the masked prompt's training loss", "0.75", "60"],
      ["piece", "the search's choice", "0.50", "75.00"],
  ]


def test_nearest_words_of_kept_tokens(tmp_path):
  run = report_files.write_run(tmp_path / "rte")
  tokens = [
      {"position": 0, "kept": True, "words": [["▁the", 0.5], ["▁a", 0.25]]},
      {"position": 1, "kept": False, "words": []},
  ]
  report_files.write_json(
      run / "nearest_words.json", {"rows": [{"seed": 0, "tokens": tokens}]}
  )
  words = _sections(run)["nearest_words"]
  assert _table(words)[1:] == [["0", "▁the (0.50), ▁a (0.25)"]]
  assert _csv(words)[1:] == [
      ["0", "0", "1", "▁the", "0.5"],
      ["0", "0", "1", "▁a", "0.25"],
  ]


def test_what_each_run_cost(tmp_path):
  costs = _sections(report_files.write_run(tmp_path / "rte"))["costs"]
  assert _table(costs) == [
      ["run", "tickets", "total", "tuning", "evaluation"],
      ["rte", "18", "4", "2.5", "1.0"],
  ]
  assert _csv(costs)[1] == ["rte", "18", "3.5", "2.5", "1.0"]


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
  assert _table(_sections(run)["scores"]) == [
      ["method", "rte", "cb", "mean over tasks"],
      ["XPrompt", "75.00 (3/4)", "25.00 (1/4)", "50.00"],
  ]


def test_seeds_of_one_column_are_equal(tmp_path):
  suite = report_files.write_suite(
      tmp_path / "methods",
      search={"methods": {"prompt_tuning": (2, 2), "xprompt": (3, 3)}},
      fine_tuning={"methods": {"fine_tuning": (4, 4, 4)}},
  )
  assert _table(_sections(suite)["scores"]) == [
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
        ({"splits": {"train": "c" * 64}}, "other data"),
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
  header, *rows = _table(_sections(suite)["scores"])
  assert header[2].startswith(f"rte, {label}")
  assert rows[0] == ["fine-tuning", "-", "100.00 (8/8)"]


def test_a_cell_says_if_it_has_fewer_seeds(tmp_path):
  run = report_files.write_run(
      tmp_path / "rte", methods={"xprompt": (3, 3), "reversed": (1,)}
  )
  assert _table(_sections(run)["scores"])[2] == [
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
      fine={"methods": {"fine_tuning": (3, 4)}, "train": {"num_steps": 20}},
  )
  return [
      tmp_path / name
      for name in ("random_tickets", "table1_baselines", "table1_methods")
  ]


def test_table_1_of_many_folders(tmp_path):
  found = _sections(*_experiments(tmp_path))
  tables = {a: s for a, s in found.items() if a.startswith("scores")}
  assert {anchor: section.title for anchor, section in tables.items()} == {
      "scores_random_tickets": "Scores by method and task: random_tickets",
      "scores_table1_methods": (
          "Scores by method and task (Table 1): table1_methods"
      ),
  }
  table1 = tables["scores_table1_methods"]
  assert _table(table1) == [
      ["method", "rte"],
      ["fine-tuning", "87.50 ± 17.68 (7/8)"],
      ["prompt tuning", "50.00 (4/8)"],
      ["prompt tuning, steps of the baselines", "100.00 (8/8)"],
      ["XPrompt", "75.00 (6/8)"],
  ]
  # Fine-tuning's gain is over prompt tuning of as many steps.
  assert [row[2] for row in _table(table1, 2)[1:]] == [
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
  alone = _sections(folders[0])["scores"]
  together = _sections(*folders)["scores_random_tickets"]
  for number in range(3):
    assert _table(alone, number) == _table(together, number)
  assert alone.text == together.text


def test_the_paper_protocol_reports_the_split_that_selected(tmp_path):
  row = report_files.row(0, 3)
  row["validation"] = {"accuracy": 100.0, "score": 100.0}
  row["metric_sizes"]["validation"]["accuracy"] = 8
  run = report_files.write_run(tmp_path / "rte", methods={"xprompt": [row]})
  section = _sections(run)["scores"]
  assert [table.caption for table in section.items[:2]] == [
      "Scores in percent on validation, which selected and reports, as in the"
      " paper, by method and task",
      "Scores in percent on test, which selected nothing",
  ]
  assert _table(section)[1] == ["XPrompt", "100.00 (8/8)"]
  assert _table(section, 1)[1] == ["XPrompt", "75.00 (3/4)"]


def test_xprompt_is_named_by_what_it_prunes(tmp_path):
  run = report_files.write_run(
      tmp_path / "rte",
      methods={"xprompt": (3,)},
      search={"granularities": ["token"], "token_ratios": [0.1, 0.4]},
  )
  section = _sections(run)["scores"]
  assert _table(section)[1][0] == "XPrompt (tokens alone)"
  assert section.text[1] == (
      "Settings: 10 steps; granularity token; token ratios 0.1, 0.4."
  )


def test_files_of_tasks_with_one_slug(tmp_path):
  suite = report_files.write_suite(
      tmp_path / "suite", one={"task": "a-b"}, two={"task": "a_b"}
  )
  names = [item.name for item in _sections(suite)["scores"].items]
  assert names == ["scores", "scores_test", "scores_a_b", "scores_a_b_2"]


def test_how_many_tickets_each_level_tried(tmp_path):
  run = report_files.write_run(
      tmp_path / "rte",
      methods={"token": (1,), "piece": (2,), "xprompt": (3,)},
  )
  lines = [
      {"folder": "tune"},
      {"folder": "search_levels", "token_ratio": 0.1},
      {"folder": "search_levels", "piece_ratio": 0.1},
      {"folder": "search_levels", "piece_ratio": 0.2},
      {"folder": "search_piece", "token_ratio": 0.1, "piece_ratio": 0.1},
  ]
  score = {"score": 50.0}
  (run / "tickets.jsonl").write_text(
      "".join(
          json.dumps({"seed": 0, "kept_pieces": 4, "validation": score, **line})
          + "\n"
          for line in lines
      )
  )
  assert _sections(run)["granularity"].text[1] == (
      "Tickets tried, over all seeds: rte: 1 by tokens alone, 2 by pieces alone,"
      " 1 by pieces behind a token mask."
  )


def test_what_a_ratio_of_tokens_alone_is_compared_with(tmp_path):
  run = report_files.write_run(
      tmp_path / "rte",
      methods={"xprompt": (report_files.row(0, 3, token_ratio=0.5),)},
      search={"granularities": ["token"]},
  )
  row = {"seed": 0, "granularity": "token", "rule": "scores", "ratio": 0.25}
  row["validation"] = {"score": 50.0}
  report_files.write_json(run / "auto_ratio/result.json", {"rows": [row]})
  assert _table(_sections(run)["auto_ratio"])[2] == [
      "token",
      "the search's choice",
      "0.50",
      "75.00",
  ]


def test_transfer_is_one_section_whose_labels_can_be_read(tmp_path):
  tuned = {"methods": {"xprompt": (3,)}}

  def moved(stage):
    file = f"x/{stage[0]}/../s/source/{stage}"
    return {**tuned, "prompt": {"init": "from_file", "init_file": file}}

  runs = {
      "s/source": {**tuned, "task": "s", "search": {"token_ratios": [0.1]}},
      **{
          f"{task}/{name}": {**options, "task": task}
          for task in ("s", "a")
          for name, options in (
              ("sampled", tuned),
              ("task_transfer", moved("tune")),
              ("xprompt_transfer", moved("rewind")),
          )
      },
  }
  suite = report_files.write_suite(tmp_path / "table7", **runs)
  found = _sections(suite)
  assert [a for a in found if "transfer" in a] == ["transfer_table_7"]
  text = json.dumps(_table(found["transfer_table_7"]))
  assert "tuned prompt of s/source" in text
  assert "final ticket of s/source" in text
  assert ".." not in text


def test_sweeps_have_differences_in_their_csv_file(tmp_path):
  suite = report_files.write_suite(
      tmp_path / "sweep", one={}, two={"prompt": {"length": 5}}
  )
  header, *lines = _csv(_sections(suite)["prompt_length_table_5"])
  assert header[-5:] == [
      "minus_prompt_tuning",
      "interval_low",
      "interval_high",
      "interval_from",
      "verdict",
  ]
  ticket = next(line for line in lines if "xprompt" in line)
  assert ticket[header.index("minus_prompt_tuning")] == "25.0"
