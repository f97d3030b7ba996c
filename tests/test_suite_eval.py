"""`t5x eval`, `score` and `cache` of a suite: every task, whatever fails."""

import json

import pytest

from tests import command_line
from xprompt_jax import answers
from xprompt_jax.weights import loading


@pytest.fixture
def suite(tiny_run, tmp_path, monkeypatch):
  """The flags of a suite whose first task is broken, and the weights read."""
  (tmp_path / "broken.gin").write_text(
      'include "tasks/mini_cb.gin"\nMIXTURE_OR_TASK_NAME = "nothing"\n'
  )
  loaded = []
  load_frozen = loading.load_frozen

  def counted(*arguments, **named):
    loaded.append(arguments[0])
    return load_frozen(*arguments, **named)

  def answer(experiment, rows, prompt, masks, ways=()):
    del experiment, prompt, masks, ways
    return answers.Answers(
        predict_by="generate",
        splits=rows.splits,
        texts={
            "generate": {
                i: ["True"] * len(split) for i, split in enumerate(rows.splits)
            }
        },
        scores={"rank": {}},
        not_possible={},
        partial={},
    )

  monkeypatch.setattr(loading, "load_frozen", counted)
  monkeypatch.setattr(answers, "answer", answer)
  prompt = tiny_run / "rewind/prompt.safetensors"
  flags = (
      *command_line.TINY,
      f"--gin_search_paths={tmp_path}",
      f"--gin.PROMPT_FILE='{prompt}'",
      f"--workdir={tmp_path / 'run'}",
  )
  return flags, loaded


def _run(capsys, command, flags, files, *arguments):
  tasks = f"--gin.TASK_FILES={files!r}"
  status = command_line.run(command, *flags, tasks, *arguments)
  printed = capsys.readouterr()
  lines = [json.loads(line) for line in printed.out.splitlines()]
  errors = [x for x in printed.err.splitlines() if "frozen weights" not in x]
  return status, lines, errors


FILES = ("broken.gin", "tasks/mini_boolq.gin", "tasks/mini_wsc.gin")
FAILED = (
    "t5x: 1 of 3 tasks failed: broken: MIXTURE_OR_TASK_NAME nothing:"
    " xprompt_jax.tasks.mini registers no such task,"
)


def test_all_tasks_are_evaluated_with_weights_that_are_read_once(suite, capsys):
  flags, loaded = suite
  status, lines, errors = _run(capsys, "eval", flags, FILES, "--row=0")
  assert status == 2
  assert [line["task"] for line in lines] == ["mini_boolq", "mini_wsc"]
  assert len(errors) == 1
  assert errors[0].startswith(FAILED)
  assert loaded == ["random:0"]


def test_all_tasks_are_cached(suite, capsys):
  flags, loaded = suite
  status, lines, errors = _run(capsys, "cache", flags, FILES)
  assert status == 2
  assert len(lines) == 6
  assert errors[0].startswith(FAILED)
  assert loaded == []


def test_another_task_is_left_out_where_answers_differ(suite, capsys):
  flags, _ = suite
  other = ("--row=0", "--task=mini_boolq_32shot")
  status, lines, errors = _run(capsys, "eval", flags, FILES[1:], *other)
  assert status == 0
  assert [line["task"] for line in lines] == [
      "mini_boolq",
      "mini_boolq_32shot",
      "mini_wsc",
  ]
  assert errors == [
      "--task=mini_boolq_32shot: task mini_wsc, split test: found no"
      " candidates, expected two tasks with the same closed set of answers;"
      " left out"
  ]


def test_another_task_that_no_task_of_the_suite_allows(suite, capsys):
  flags, _ = suite
  status, lines, errors = _run(
      capsys, "eval", flags, FILES[1:], "--row=0", "--task=mini_cb"
  )
  assert status == 2
  assert [line["task"] for line in lines] == ["mini_boolq", "mini_wsc"]
  assert errors[2:] == [
      "t5x: --task=mini_cb: found other answers than those of each of the 2"
      " tasks of TASK_FILES, expected those of one"
  ]


def test_a_misspelt_task_is_named_once_for_all(suite, capsys):
  flags, _ = suite
  status, lines, errors = _run(
      capsys, "eval", flags, FILES[1:], "--task=mini_bolq"
  )
  assert (status, lines) == (2, [])
  assert len(errors) == 1
  assert errors[0].startswith(
      "t5x: 2 of 2 tasks failed: mini_boolq, mini_wsc: --task=mini_bolq:"
      " xprompt_jax.tasks.mini registers no such task,"
  )


def test_a_flag_that_no_submission_has_is_refused_once(suite, capsys):
  flags, _ = suite
  status, _, errors = _run(
      capsys, "eval", flags, FILES[1:], "--submission=to", "--task=mini_cb"
  )
  assert status == 2
  assert errors == [
      "t5x: --submission=to: found --task=mini_cb, expected neither --task nor"
      " --split: a submission is of the task's own test split"
  ]
