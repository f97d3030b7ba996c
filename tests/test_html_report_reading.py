"""Which runs a report finds, and how it refuses what is missing or damaged."""

import json

import numpy as np
import pytest

from tests import command_line, report_files
from xprompt_jax.errors import UserError
from xprompt_jax.html_report import differences, importance, reading


def _names(*workdirs):
  return [run.name for run in reading.read_runs(workdirs)]


def test_runs_of_suites_of_suites(tmp_path):
  report_files.write_suite(tmp_path / "all/one", rte={}, cb={"task": "cb"})
  report_files.write_suite(tmp_path / "all/two", rte={})
  report_files.write_json(
      tmp_path / "all/result.json", {"schema": 1, "runs": ["one", "two"]}
  )
  assert _names(tmp_path / "all") == ["one/rte", "one/cb", "two/rte"]
  # A run that is named twice counts once.
  assert _names(tmp_path / "all", tmp_path / "all/two/rte") == [
      "one/rte",
      "one/cb",
      "two/rte",
  ]


def test_a_missing_workdir(tmp_path, capsys):
  found = command_line.refused(capsys, "report", tmp_path / "none")
  assert found == (
      f"{tmp_path}/none: found no folder, expected that of a run or suite"
  )


def test_a_run_that_is_not_finished(tmp_path, capsys):
  (tmp_path / "run/tune").mkdir(parents=True)
  found = command_line.refused(capsys, "report", tmp_path / "run")
  assert found == (
      f"{tmp_path}/run/result.json: not there, expected a finished run: the"
      " same `t5x train` command goes on with it"
  )


def test_what_failed_or_is_gone_is_named(tmp_path, capsys):
  suite = report_files.write_suite(tmp_path / "all", rte={}, cb={"task": "cb"})
  (suite / "cb/result.json").unlink()
  result = {"runs": ["rte", "cb"], "failed": {"wsc": "no such file."}}
  report_files.write_json(suite / "result.json", {**result, "earlier": ["rte"]})
  output = tmp_path / "out"
  assert command_line.run("report", suite, f"--output={output}") == 0
  text = (output / "report.md").read_text()
  introduction, _, rest = text.partition("\n## ")
  for sentence in (
      f"{suite}: cb was not run, or its result is gone.",
      f"{suite}: rte is from an earlier command.",
      f"{suite}: wsc failed: no such file.",
  ):
    assert sentence in introduction
    assert sentence in rest
  capsys.readouterr()


def test_a_report_takes_away_what_an_earlier_one_left(tmp_path):
  run = report_files.write_run(tmp_path / "rte")
  other = tmp_path / "out/tables/mine.txt"
  report_files.write_json(other, {})
  report_files.write_json(tmp_path / "out/tables/scores_cb.csv", {})
  assert command_line.run("report", run, f"--output={tmp_path}/out") == 0
  assert other.exists()
  # Nothing says that this one was a report's.
  assert (tmp_path / "out/tables/scores_cb.csv").exists()
  moved = report_files.write_run(tmp_path / "cb", task="cb")
  assert command_line.run("report", moved, f"--output={tmp_path}/out") == 0
  assert not (tmp_path / "out/tables/scores_rte.csv").exists()
  assert other.exists()


def test_a_suite_that_names_itself(tmp_path):
  report_files.write_json(tmp_path / "result.json", {"runs": ["."]})
  with pytest.raises(UserError, match="runs: found '.', expected a folder"):
    reading.read_runs([tmp_path])


def test_a_suite_of_no_runs(tmp_path):
  report_files.write_json(tmp_path / "result.json", {"runs": []})
  with pytest.raises(UserError, match="found no runs, expected one"):
    reading.read_runs([tmp_path])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 2}, "schema: found 2, expected 1"),
        ({"config": []}, "config: found [], expected an object"),
        ({"task": 3}, "task: found 3, expected a name"),
        ({"methods": {}}, "methods: found {}, expected a list of methods"),
        ({"methods": []}, "methods: found [], expected at least one"),
        (
            {"methods": ["xprompt"]},
            "methods[0]: found 'xprompt', expected an object with `method` and"
            " `rows`",
        ),
        (
            {"methods": [{"method": "xprompt", "rows": []}]},
            "methods[0].rows: found [], expected at least one",
        ),
        (
            {"methods": [{"method": "xprompt", "rows": [{"seed": 0}]}]},
            "methods[0].rows[0]: found ['seed'], expected 'validation' among its"
            " keys",
        ),
        (
            {
                "methods": [
                    {
                        "method": "xprompt",
                        "rows": [{"seed": 0, "validation": {"score": "high"}}],
                    }
                ]
            },
            "methods[0].rows[0].validation: found {'score': 'high'}, expected"
            " numbers by metric",
        ),
        (
            {"seconds": {"tune": "long"}},
            "seconds: found {'tune': 'long'}, expected numbers by stage",
        ),
        (
            {"config": {"model": {"vocab_size": 8}}},
            "config.model.emb_dim: found None, expected an integer",
        ),
    ],
)
def test_a_damaged_summary(tmp_path, capsys, change, message):
  path = tmp_path / "run/result.json"
  report_files.write_json(path, {**report_files.summary(), **change})
  output = f"--output={tmp_path}/out"
  found = command_line.refused(capsys, "report", tmp_path / "run", output)
  assert found == f"{path}: {message}"
  assert not (tmp_path / "out").exists()


def test_a_summary_that_is_cut_off(tmp_path, capsys):
  path = tmp_path / "result.json"
  path.write_text('{"schema": 1, "meth')
  found = command_line.refused(capsys, "report", tmp_path)
  assert found.startswith(f"{path}: not JSON: ")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("tickets.jsonl", '{"seed": 0}\n{"se', ", line 2: not JSON"),
        (
            "tickets.jsonl",
            '{"seed": 0}\n',
            "lines[0]: found ['seed'], expected 'validation'",
        ),
        ("masking/result.json", "{}", "rows: found None, expected a list"),
        (
            "masking/result.json",
            '{"rows": [{"seed": 0}]}',
            "rows[0]: found ['seed'], expected 'order' among its keys",
        ),
        ("auto_ratio/result.json", "[]", "found a list, expected an object"),
        (
            "nearest_words.json",
            '{"rows": [{"seed": 0, "tokens": [{}]}]}',
            "rows[0].tokens: found [{}], expected position, kept and words",
        ),
        ("evaluate/correct.safetensors", "xx", "not a whole safetensors file"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, capsys, name, content, message):
  run = report_files.write_run(tmp_path / "run")
  path = run / name
  path.parent.mkdir(exist_ok=True)
  path.write_text(content)
  output = f"--output={tmp_path}/out"
  found = command_line.refused(capsys, "report", run, output)
  assert found.startswith(f"{path}") and message in found
  assert not (tmp_path / "out").exists()


def _scored_run(tmp_path, **scores):
  run = report_files.write_run(tmp_path / "run")
  stage = {"rows": [{"seed": 1}, {"seed": 0}]}
  report_files.write_json(run / "rewind/result.json", stage)
  report_files.write_arrays(
      run / "rewind/prompt.safetensors",
      token_mask=np.array([[1, 1], [1, 0]], np.float32),
      piece_mask=np.array([[[1, 0], [1, 1]], [[0, 1], [0, 0]]], np.float32),
  )
  for folder, arrays in scores.items():
    rows = [{"seed": 0}, {"seed": 1}]
    report_files.write_json(run / folder / "result.json", {"rows": rows})
    report_files.write_arrays(run / folder / "scores.safetensors", **arrays)
  (run_found,) = reading.read_runs([run])
  return reading.parts(run_found)[0]


def test_scores_are_matched_with_masks_by_seed(tmp_path):
  arrays = {
      "token_scores": np.array([[5.0, 6.0], [7.0, 8.0]]),
      "piece_scores": np.array(
          [[[1.0, 2.0], [0.0, 0.0]], [[3.0, 4.0], [5.0, 6.0]]]
      ),
  }
  part = _scored_run(tmp_path, score_token=arrays, score_piece=arrays)
  found = importance.units(part)
  # Masks stand for seed 1 first, scores for seed 0.
  assert [sorted(units.tolist()) for units in found["tokens"]] == [
      [5.0, 7.0, 8.0],
      [6.0],
  ]
  # The second token of seed 0 was pruned before its pieces were scored.
  assert [sorted(units.tolist()) for units in found["pieces"]] == [
      [2.0, 3.0, 5.0, 6.0],
      [1.0, 4.0],
  ]
  saliency = importance.saliency(part)
  assert saliency.seed == 1
  assert saliency.after.tolist() == [[3.0, 4.0], [5.0, 6.0]]
  assert saliency.mask.tolist() == [[1, 0], [1, 1]]


def test_scores_of_another_shape_than_the_masks(tmp_path):
  arrays = {
      "token_scores": np.ones((2, 2)),
      "piece_scores": np.ones((2, 2, 3)),
  }
  part = _scored_run(tmp_path, score_token=arrays)
  message = r"piece_scores: found shape \(2, 2, 3\), expected that of the masks"
  with pytest.raises(UserError, match=message):
    importance.units(part)


def test_scores_that_lack_an_array(tmp_path):
  part = _scored_run(tmp_path, score_token={"token_scores": np.ones((2, 2))})
  message = "piece_scores: found None, expected an array with 3 axes"
  with pytest.raises(UserError, match=message):
    importance.units(part)


def test_pieces_of_a_grid_are_those_behind_the_winners_token_mask(tmp_path):
  run = report_files.write_run(tmp_path / "run")
  report_files.write_json(
      run / "rewind/result.json", {"rows": [{"seed": 0, "token_ratio": 0.5}]}
  )
  report_files.write_arrays(
      run / "rewind/prompt.safetensors",
      token_mask=np.array([[1, 0]], np.float32),
      piece_mask=np.array([[[1, 0], [0, 0]]], np.float32),
  )
  rows = [{"seed": 0, "token_ratio": ratio} for ratio in (None, 0.1, 0.5)]
  report_files.write_json(run / "score_piece/result.json", {"rows": rows})
  pieces = np.array([[[9.0, 9.0]] * 2, [[8.0, 8.0]] * 2, [[1.0, 2.0], [0, 0]]])
  report_files.write_arrays(
      run / "score_piece/scores.safetensors",
      token_scores=np.ones((3, 2)),
      piece_scores=pieces,
  )
  (found,) = reading.read_runs([run])
  saliency = importance.saliency(reading.parts(found)[0])
  assert saliency.after.tolist() == [[1.0, 2.0], [0.0, 0.0]]


def test_examples_are_paired_where_they_are_known(tmp_path):
  run = report_files.write_run(
      tmp_path / "run", methods={"prompt_tuning": (1,), "xprompt": (3,)}
  )
  report_files.write_arrays(
      run / "evaluate/correct.safetensors",
      **{
          "prompt_tuning/test": np.array([[1, 0, 0, 0]], np.uint8),
          "xprompt/test": np.array([[0, 1, 1, 1]], np.uint8),
      },
  )
  (found,) = reading.read_runs([run])
  comparison = differences.between(
      reading.parts(found)[0], "xprompt", "prompt_tuning"
  )
  assert comparison.how == "examples resampled"
  assert comparison.tests[0].only_first == 3
  assert comparison.tests[0].only_second == 1
  assert comparison.tests[0].p == 0.625


def test_a_summary_may_lack_what_came_later(tmp_path):
  summary = report_files.summary()
  del summary["seconds"], summary["tickets_tried"]
  for method in summary["methods"]:
    for row in method["rows"]:
      del row["metric_sizes"]
  report_files.write_json(tmp_path / "run/result.json", summary)
  output = tmp_path / "out"
  assert command_line.run("report", tmp_path / "run", f"--output={output}") == 0
  assert "| XPrompt | 75.00 |" in (output / "report.md").read_text()
  assert json.dumps(summary) == (tmp_path / "run/result.json").read_text()
