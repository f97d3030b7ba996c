"""Settings, transfer, ratios and costs in `t5x report`: literal cells."""

import json

import pytest

from tests import report_files
from xprompt_jax.html_report.content import Table


def test_few_shot_runs_have_a_table_of_their_own(tmp_path):
  run = report_files.write_run(
      tmp_path / "few", task="rte", methods={"prompt_tuning": (2, 2)}
  )
  summary = json.loads((run / "result.json").read_text())
  summary["config"]["task"]["few_shot"] = 32
  report_files.write_json(run / "result.json", summary)
  found = report_files.sections(run)
  assert "scores" not in found
  assert found["few_shot"].title == "Few-shot scores (Table 2)"
  assert report_files.table(found["few_shot"])[1] == [
      "prompt tuning",
      "50.00 (4/8)",
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
  found = report_files.sections(suite)
  assert "scores" not in found
  (sweep,) = [s for s in found.values() if s.title == title]
  assert [row[: len(labels[0])] for row in report_files.table(sweep)] == labels
  assert [row[1:] for row in report_files.table(sweep)] == [
      ["seeds", "prompt tuning"],
      ["2", "50.00 (4/8)"],
      ["2", "50.00 (4/8)"],
  ]


def test_every_split_has_a_table(tmp_path):
  """Test, the held-out half, and the half that selected, as the paper reports."""

  def rows(*right):
    splits = ("validation", "heldout", "test")
    one = report_files.row(0, 0, splits=splits)
    for split, k in zip(splits, right, strict=True):
      one[split] = {"accuracy": 25.0 * k, "score": 25.0 * k}
    return [one]

  suite = report_files.write_suite(
      tmp_path / "lengths",
      **{
          f"length_{length}": {
              "methods": {"prompt_tuning": rows(*right)},
              "prompt": {"length": length},
          }
          for length, right in ((5, (4, 3, 2)), (20, (3, 2, 1)))
      },
  )
  for path in suite.glob("*/result.json"):
    summary = json.loads(path.read_text())
    summary["config"]["task"]["protocol"] = "heldout"
    report_files.write_json(path, summary)
  section = report_files.sections(suite)["prompt_length_table_5"]
  tables = [item for item in section.items if isinstance(item, Table)]
  assert [(table.name, table.caption) for table in tables] == [
      ("prompt_length_table_5", "Scores in percent by prompt length"),
      (
          "prompt_length_table_5_heldout",
          "Scores in percent on held-out half of validation, by prompt length",
      ),
      (
          "prompt_length_table_5_validation",
          "Scores in percent on the half that selected, by prompt length",
      ),
  ]
  assert [[row[-1] for row in table.rows] for table in tables] == [
      ["50.00 (2/4)", "25.00 (1/4)"],
      ["75.00 (3/4)", "50.00 (2/4)"],
      ["100.00 (4/4)", "75.00 (3/4)"],
  ]


def test_transfer_is_an_initialisation_from_a_file(tmp_path):
  source = {"init": "from_file", "init_file": "runs/a_b/prompt.safetensors"}
  suite = report_files.write_suite(
      tmp_path / "transfer", plain={}, transfer={"prompt": source}
  )
  found = report_files.sections(suite)["transfer_table_7"]
  assert report_files.table(found)[1:] == [
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
  assert report_files.table(
      report_files.sections(suite)["prompt_length_table_5"]
  ) == [
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
  assert report_files.table(report_files.sections(run)["auto_ratio"]) == [
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
  words = report_files.sections(run)["nearest_words"]
  assert report_files.table(words)[1:] == [["0", "▁the (0.50), ▁a (0.25)"]]
  assert report_files.csv(words)[1:] == [
      ["0", "0", "1", "▁the", "0.5"],
      ["0", "0", "1", "▁a", "0.25"],
  ]


def test_what_each_run_cost(tmp_path):
  costs = report_files.sections(report_files.write_run(tmp_path / "rte"))[
      "costs"
  ]
  assert report_files.table(costs) == [
      ["run", "tickets", "total", "tuning", "evaluation"],
      ["rte", "18", "4", "2.5", "1.0"],
  ]
  assert report_files.csv(costs)[1] == ["rte", "18", "3.5", "2.5", "1.0"]


def test_xprompt_is_named_by_what_it_prunes(tmp_path):
  run = report_files.write_run(
      tmp_path / "rte",
      methods={"xprompt": (3,)},
      search={"granularities": ["token"], "token_ratios": [0.1, 0.4]},
  )
  section = report_files.sections(run)["scores"]
  assert report_files.table(section)[1][0] == "XPrompt (tokens alone)"
  assert section.text[1] == (
      "Settings: 10 steps; granularity token; token ratios 0.1, 0.4."
  )


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
  assert report_files.sections(run)["granularity"].text[1] == (
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
  assert report_files.table(report_files.sections(run)["auto_ratio"])[2] == [
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
  found = report_files.sections(suite)
  assert [a for a in found if "transfer" in a] == ["transfer_table_7"]
  text = json.dumps(report_files.table(found["transfer_table_7"]))
  assert "tuned prompt of s/source" in text
  assert "final ticket of s/source" in text
  assert ".." not in text


def test_sweeps_have_differences_in_their_csv_file(tmp_path):
  suite = report_files.write_suite(
      tmp_path / "sweep", one={}, two={"prompt": {"length": 5}}
  )
  header, *lines = report_files.csv(
      report_files.sections(suite)["prompt_length_table_5"]
  )
  assert header[-5:] == [
      "minus_prompt_tuning",
      "interval_low",
      "interval_high",
      "interval_from",
      "verdict",
  ]
  ticket = next(line for line in lines if "xprompt" in line)
  assert ticket[header.index("minus_prompt_tuning")] == "25.0"
