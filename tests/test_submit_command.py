"""`t5x eval --submission`: whose answers, and what replaces malformed ones."""

import dataclasses
import json

import numpy as np
import pytest

from tests.command_line import TINY, run
from xprompt_jax import artifacts, candidates, evaluation, submission


@pytest.fixture(autouse=True)
def leaderboard(monkeypatch):
  """A leaderboard that knows the mini tasks."""
  known = {
      f"mini_{name}": dataclasses.replace(submission.FORMATS[name], count=12)
      for name in ("boolq", "cb", "wsc")
  }
  monkeypatch.setattr(submission, "FORMATS", known)


@pytest.fixture
def written(monkeypatch):
  """What the model is said to write, and the prompts it was asked with."""
  texts, asked = [], []

  def predict_table(prompt, masks, rows, **settings):
    del masks, settings
    asked.append(float(np.asarray(prompt)[0, 0, 0]))
    return [(texts * 12)[:12] for _ in rows.splits]

  monkeypatch.setattr(evaluation, "predict_table", predict_table)
  return texts, asked


@pytest.fixture
def prompts(tiny_run, tmp_path):
  """A file of 4 prompts whose first number is their row."""
  found = artifacts.load_arrays(tiny_run / "rewind" / artifacts.PROMPT)
  arrays = {k: np.concatenate([v, v]) for k, v in found.items()}
  arrays["prompt"][:, 0, 0] = range(4)
  path = tmp_path / "table" / artifacts.PROMPT
  artifacts.save_arrays(path, arrays)
  return path


def submit(capsys, prompts, folder, *arguments):
  """The status, the lines on stdout, and what stands on stderr."""
  status = run(
      "eval",
      *TINY,
      f"--gin.PROMPT_FILE='{prompts}'",
      f"--submission={folder / 'to'}",
      f"--workdir={folder / 'run'}",
      *arguments,
  )
  printed = capsys.readouterr()
  lines = [json.loads(line) for line in printed.out.splitlines()]
  return status, lines, printed.err


def test_only_malformed_answers_are_ranked_and_none_is_written_again(
    monkeypatch, capsys, written, prompts, tmp_path
):
  texts, asked = written
  texts += ["True", "x", "False", "True", "True", "y"]
  ranked = []

  def score_table(prompt, masks, rows, way, **settings):
    del prompt, masks, settings
    (split,) = rows.splits
    ranked.append((way, [example["id"] for example in split.examples]))
    # The second candidate, True, is the better one.
    return [np.tile([-1.0, 0.0], (len(split), 1))]

  monkeypatch.setattr(candidates, "score_table", score_table)
  status, (line,), err = submit(capsys, prompts, tmp_path)
  assert status == 0
  assert line["malformed"] == 4
  assert (
      "4 of 12 predictions were none of the task's answers; the answer" in err
  )
  assert len(asked) == 1
  examples = artifacts.read_json_lines(
      tmp_path / "run/cache/mini_boolq/test.jsonl"
  )
  ids = [example["id"] for example in examples]
  assert ranked == [("rank", [ids[1], ids[5], ids[7], ids[11]])]
  labels = [
      row["label"]
      for row in artifacts.read_json_lines(tmp_path / "to/BoolQ.jsonl")
  ]
  assert labels == ["true", "true", "false", "true", "true", "true"] * 2


def test_what_stands_for_answers_without_candidates_is_said(
    capsys, written, prompts, tmp_path
):
  texts, _ = written
  texts += ["the", "nobody", "his", "nobody"]
  status, (line,), err = submit(
      capsys, prompts, tmp_path, "--gin_file=tasks/mini_wsc.gin"
  )
  assert status == 0
  assert line["malformed"] == 6
  assert (
      "task mini_wsc, split test: 6 of 12 predictions were none of the task's"
      " answers; False stands in their place\n"
  ) in err


MIXTURE = (
    "--gin.MIXTURE_OR_TASK_NAME='two_weighted'",
    "--gin.MIXTURE_OR_TASK_MODULE='tests.mixed_tasks'",
    "--gin.MIXTURE_ROWS='task'",
)


@pytest.mark.parametrize(
    ("row", "seed", "rows"), [((), 0, (0, 2)), (("--row=3",), 5, (1, 3))]
)
def test_each_task_of_a_table_is_answered_by_its_own_row_of_one_seed(
    monkeypatch, capsys, written, prompts, tmp_path, row, seed, rows
):
  texts, asked = written
  monkeypatch.setitem(
      submission.FORMATS,
      "mini_rte",
      dataclasses.replace(submission.FORMATS["mini_boolq"], file="RTE.jsonl"),
  )
  texts += ["entailment"]
  places = [(t, s) for t in ("mini_cb", "mini_rte") for s in (0, 5)]
  labels = [{"task": task, "seed": seed} for task, seed in places]
  artifacts.write_json(prompts.parent / artifacts.RESULT, {"rows": labels})
  status, lines, _ = submit(capsys, prompts, tmp_path, *MIXTURE, *row)
  assert status == 0
  assert [(x["task"], x["row"]) for x in lines] == [
      ("mini_cb", rows[0]),
      ("mini_rte", rows[1]),
  ]
  assert asked == list(rows)
  assert places[rows[0]][1] == seed
  assert {p.name for p in (tmp_path / "to").iterdir()} == {
      "RTE.jsonl",
      "CB.jsonl",
  }


def test_a_mixture_writes_the_files_of_the_tasks_that_are_known(
    capsys, written, prompts, tmp_path
):
  texts, asked = written
  texts += ["neutral"]
  mixture = (*MIXTURE[:2], "--gin.MIXTURE_ROWS='mixture'")
  status, lines, err = submit(capsys, prompts, tmp_path, *mixture)
  assert status == 2
  assert [(x["task"], x["row"]) for x in lines] == [("mini_cb", 0)]
  assert asked == [0.0]
  assert "t5x: task mini_rte: has no file on SuperGLUE's leaderboard" in err
