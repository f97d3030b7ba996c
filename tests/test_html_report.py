"""Scores in `t5x report`: literal result files in, literal cells out."""

import json

from tests import report_files


def test_scores_by_method_and_task(tmp_path):
  suite = report_files.write_suite(
      tmp_path / "suite",
      rte={"methods": {"prompt_tuning": (1, 3), "xprompt": (3, 4)}},
      cb={"task": "cb", "methods": {"prompt_tuning": (2, 2)}},
  )
  scores = report_files.sections(suite)["scores"]
  assert scores.title == "Scores by method and task (Table 1)"
  assert scores.text[0] == (
      "Scores: rte on test (4 examples), cb on test (4 examples); checkpoints"
      " and tickets were selected on validation; 2 seeds."
  )
  assert report_files.table(scores) == [
      ["method", "rte", "cb", "mean over tasks"],
      ["prompt tuning", "50.00 ± 35.36 (4/8)", "50.00 (4/8)", "50.00"],
      ["XPrompt", "87.50 ± 17.68 (7/8)", "-", "-"],
  ]


def test_the_csv_file_has_plain_numbers(tmp_path):
  run = report_files.write_run(tmp_path / "rte", methods={"xprompt": (3, 4)})
  header, *lines = report_files.csv(report_files.sections(run)["scores"], 1)
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
  scores = report_files.sections(run)["scores"]
  # Student's quantile of 2 degrees of freedom is 4.303: 25 * 4.303 / 3**0.5.
  assert [row[:5] for row in report_files.table(scores, 2)[1:]] == [
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
  assert report_files.sections(run)["scores"].verdicts == [
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
  scores = report_files.sections(paper, heldout)["scores"]
  assert report_files.table(scores) == [
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
  scores = report_files.sections(run)["scores"]
  assert report_files.table(scores, 2) == [
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
  found = report_files.sections(suite)
  assert [row[:2] for row in report_files.table(found["scores"])[1:]] == [
      ["fine-tuning", "100.00 (8/8)"],
      ["prompt tuning", "50.00 (4/8)"],
      ["XPrompt", "75.00 (6/8)"],
  ]
  # Paired with prompt tuning of the other run.
  assert report_files.table(found["scores"], 2)[1][2:5] == [
      "+50.00",
      "-",
      "no clear difference",
  ]


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
  parameters = report_files.sections(run)["parameters"]
  assert report_files.table(parameters) == [
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
  assert report_files.csv(parameters)[2] == [
      "rte",
      "rte",
      "prefix_tuning",
      "123.0",
      "25.0",
      "41.0",
      "492",
  ]
