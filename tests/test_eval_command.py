"""`t5x eval`: lines of rows and ensembles, other tasks, submissions."""

import dataclasses
import json

import numpy as np
import pytest

from tests.command_line import TINY, refused, run
from xprompt_jax import artifacts, submission


def lines_of(capsys, *arguments):
  """Runs `eval` and returns its JSON lines, and what it says on stderr."""
  assert run("eval", *TINY, *arguments) == 0
  printed = capsys.readouterr()
  return [json.loads(line) for line in printed.out.splitlines()], printed.err


def test_rows_and_what_they_say_together(tiny_run, capsys):
  lines, _ = lines_of(capsys, f"--workdir={tiny_run}")
  summary = artifacts.read_json(tiny_run / "result.json")
  rows = summary["methods"][-1]["rows"]
  path = f"{tiny_run}/rewind/prompt.safetensors"
  assert [line.pop("prompt") for line in lines] == [path] * 4
  task = {"task": "mini_boolq", "split": "test", "num_examples": 12}
  for row, line in enumerate(lines[:2]):
    # The run measured the same prompts by the same ways.
    ways = line.pop("ways")
    assert list(ways) == ["generate", "rank", "first_token"]
    for way, found in ways.items():
      share = round(found["accuracy"] * 12 / 100)
      assert found.pop("counts") == {"accuracy": f"{share}/12"}
      assert found == rows[row]["ways"][way]
    share = round(rows[row]["test"]["accuracy"] * 12 / 100)
    assert line == {
        "row": row,
        **task,
        "kept_tokens": 2,
        "kept_pieces": 12,
        **rows[row]["test"],
        "counts": {"accuracy": f"{share}/12"},
        "predict_by": "generate",
    }
  for line, name, way in zip(
      lines[2:],
      ("majority_vote", "mean_probability"),
      ("generate", "rank"),
      strict=True,
  ):
    share = round(line.pop("accuracy") * 12 / 100)
    assert line.pop("score") == pytest.approx(100 * share / 12)
    assert line == {
        "ensemble": name,
        "rows": [0, 1],
        **task,
        "counts": {"accuracy": f"{share}/12"},
        "predict_by": way,
    }


def test_one_row_of_a_file_on_another_split(tiny_run, capsys):
  prompt = tiny_run / "tune" / "prompt.safetensors"
  lines, _ = lines_of(
      capsys,
      f"--gin.PROMPT_FILE='{prompt}'",
      "--split=validation",
      "--row=1",
      f"--workdir={tiny_run}",
  )
  assert [(x["row"], x["split"], x["kept_tokens"]) for x in lines] == [
      (1, "validation", 4)
  ]


def test_a_row_that_is_not_there(tiny_run, capsys):
  line = refused(capsys, "eval", *TINY, "--row=2", f"--workdir={tiny_run}")
  assert line == (
      f"--row=2: {tiny_run}/rewind/prompt.safetensors holds 2 prompts, expected"
      " a row in [0, 2)"
  )


def test_a_split_that_is_not_there(tiny_run, capsys):
  arguments = ["--gin.TEST_SPLIT=None", "--split=test"]
  line = refused(capsys, "eval", *TINY, *arguments, f"--workdir={tiny_run}")
  assert line == (
      "--split=test: found 'TEST_SPLIT = None', expected a split that the task"
      " has"
  )


def test_another_way_counts(tiny_run, capsys):
  lines, _ = lines_of(
      capsys, "--gin.PREDICT_BY='rank'", f"--workdir={tiny_run}"
  )
  summary = artifacts.read_json(tiny_run / "result.json")
  for row, line in enumerate(lines[:2]):
    expected = summary["methods"][-1]["rows"][row]["ways"]["rank"]
    assert line["predict_by"] == "rank"
    assert line["accuracy"] == expected["accuracy"]
  assert [line["predict_by"] for line in lines[2:]] == ["rank", "rank"]


def test_unknown_ways_and_beams_are_refused(capsys):
  line = refused(capsys, "eval", *TINY, "--gin.PREDICT_BY='guess'")
  assert line == (
      "PREDICT_BY: found 'guess', expected one of generate, rank, first_token"
  )
  line = refused(capsys, "eval", *TINY, "--gin.NUM_BEAMS=0")
  assert line == "NUM_BEAMS: found 0, expected an integer >= 1"


def test_a_way_that_the_task_does_not_allow_is_refused_at_once(
    tmp_path, capsys
):
  arguments = ["--gin_file=tasks/mini_wsc.gin", "--gin.PREDICT_BY='rank'"]
  workdir = f"--workdir={tmp_path}/run"
  assert refused(capsys, "train", *TINY, *arguments, workdir) == (
      "PREDICT_BY = 'rank': task mini_wsc, split validation: found no"
      " candidates, expected a closed set of answers"
  )
  assert [p.name for p in (tmp_path / "run").iterdir()] == ["cache"]


def test_tasks_with_the_same_answers(tiny_run, capsys):
  lines, _ = lines_of(
      capsys,
      "--task=mini_boolq_32shot",
      "--task=mini_boolq/validation",
      f"--workdir={tiny_run}",
  )
  places = [(x["task"], x["split"], x.get("row", "both")) for x in lines]
  assert places == [
      (task, split, row)
      for task, split in (
          ("mini_boolq", "test"),
          ("mini_boolq_32shot", "test"),
          ("mini_boolq", "validation"),
      )
      for row in (0, 1, "both", "both")
  ]
  # The variant has the same test split.
  for own, other in zip(lines[:4], lines[4:8], strict=True):
    assert {**own, "task": None} == {**other, "task": None}


@pytest.mark.parametrize(
    ("name", "line"),
    [
        (
            "mini_rte",
            "--task=mini_rte: found the answers entailment, not_entailment,"
            " expected those of task mini_boolq: False, True",
        ),
        (
            "mini_wsc",
            "--task=mini_wsc: task mini_wsc, split test: found no candidates,"
            " expected two tasks with the same closed set of answers",
        ),
        (
            "mini_boolq/dev",
            "task mini_boolq: has no split dev, expected one of train,"
            " validation, test",
        ),
    ],
)
def test_tasks_with_other_answers_are_refused(tiny_run, capsys, name, line):
  arguments = [f"--task={name}", f"--workdir={tiny_run}"]
  assert refused(capsys, "eval", *TINY, *arguments) == line


def test_other_tasks_beside_the_training_split(tiny_run, capsys):
  arguments = ["--split=train", f"--workdir={tiny_run}"]
  lines, _ = lines_of(capsys, *arguments, "--task=mini_boolq_32shot/test")
  places = [(x["task"], x["split"]) for x in lines if "row" in x]
  assert places == [
      ("mini_boolq", "train"),
      ("mini_boolq", "train"),
      ("mini_boolq_32shot", "test"),
      ("mini_boolq_32shot", "test"),
  ]
  line = refused(capsys, "eval", *TINY, *arguments, "--task=mini_bolq")
  assert line.startswith("--task=mini_bolq: ")


def test_tasks_that_gin_files_name_are_refused_by_their_macro(tiny_run, capsys):
  arguments = ["--gin.EVAL_TASKS=('mini_cb',)", f"--workdir={tiny_run}"]
  for command in ("train", "eval"):
    assert refused(capsys, command, *TINY, *arguments) == (
        "EVAL_TASKS: mini_cb: found the answers contradiction, entailment,"
        " neutral, expected those of task mini_boolq: False, True"
    )


def test_a_finished_run_takes_no_other_tasks(tiny_run, capsys):
  arguments = ["--gin.EVAL_TASKS=('mini_boolq/train',)"]
  arguments.append(f"--workdir={tiny_run}")
  assert refused(capsys, "train", *TINY, *arguments) == (
      f"EVAL_TASKS: found ('mini_boolq/train',), expected (), as"
      f" {tiny_run}/result.json was written with; `t5x eval --task=NAME`"
      " evaluates on other tasks without training anew"
  )
  # Of another config that is not all there is to say.
  line = refused(capsys, "train", *TINY, *arguments, "--gin.NUM_STEPS=4")
  assert line.startswith(f"{tiny_run}/result.json: belongs to another config")


@pytest.fixture
def leaderboard(monkeypatch):
  """A leaderboard that knows the mini task."""
  form = dataclasses.replace(submission.FORMATS["boolq"], count=12)
  monkeypatch.setattr(submission, "FORMATS", {"mini_boolq": form})


def test_a_submission_holds_no_malformed_answer(
    leaderboard, tiny_run, tmp_path, capsys
):
  lines, err = lines_of(
      capsys, f"--submission={tmp_path}/to", f"--workdir={tiny_run}"
  )
  # A random model says nothing that the task knows.
  assert err == (
      "task mini_boolq, split test: 12 of 12 predictions were none of the"
      " task's answers; the answer that ranks first stands in their place\n"
  )
  file = tmp_path / "to" / "BoolQ.jsonl"
  assert lines == [
      {
          "prompt": f"{tiny_run}/rewind/prompt.safetensors",
          "row": 0,
          "task": "mini_boolq",
          "split": "test",
          "num_examples": 12,
          "malformed": 12,
          "file": str(file),
      }
  ]
  written = [json.loads(line) for line in file.read_text().splitlines()]
  assert [row["idx"] for row in written] == list(range(12))
  # What ranks first is what the run measured by rank.
  examples = artifacts.read_json_lines(tiny_run / "cache/mini_boolq/test.jsonl")
  right = np.mean(
      [
          row["label"] == ("false", "true")[example["target"]]
          for row, example in zip(written, examples, strict=True)
      ]
  )
  row = artifacts.read_json(tiny_run / "result.json")["methods"][-1]["rows"][0]
  assert row["ways"]["rank"]["accuracy"] == pytest.approx(100 * right)


def test_a_submission_is_of_the_test_split(leaderboard, capsys):
  for flag in ("--split=validation", "--task=mini_rte"):
    line = refused(capsys, "eval", *TINY, "--submission=to", flag)
    assert line == (
        f"--submission=to: found {flag}, expected neither --task nor --split: a"
        " submission is of the task's own test split"
    )


def test_the_leaderboard_knows_no_mini_task(tiny_run, capsys):
  line = refused(
      capsys, "eval", *TINY, "--submission=to", f"--workdir={tiny_run}"
  )
  assert line.startswith(
      "task mini_boolq: has no file on SuperGLUE's leaderboard, expected one of"
  )
