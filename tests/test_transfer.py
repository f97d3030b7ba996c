"""Which prompt of a source each seed of a target starts from."""

import json

import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

from xprompt_jax import prompts
from xprompt_jax.prompts import PromptConfig
from xprompt_jax.types import UserError

# R 3, P 1, H 2: row r is r + 1.
TABLE = np.array([[[1.0, 1.0]], [[2.0, 2.0]], [[3.0, 3.0]]], np.float32)


def source(folder, rows, name="prompt.safetensors"):
  """A file of one row for each of `rows`, with a stage's record beside it."""
  folder.mkdir()
  path = folder / name
  safetensors_numpy.save_file({"prompt": TABLE[: len(rows)]}, path)
  (folder / "result.json").write_text(json.dumps({"rows": rows}))
  return path


def start(path, seeds):
  """What each seed starts from, by its first number."""
  config = PromptConfig(
      length=1, num_pieces=1, init="from_file", init_file=str(path)
  )
  # Neither embedding nor vocabulary is looked at but for H.
  found = prompts.initial_prompts(config, seeds, np.zeros((4, 2)), None)
  return found[:, 0, 0].tolist()


def refused(path, seeds):
  with pytest.raises(UserError) as refusal:
    start(path, seeds)
  return str(refusal.value)


@pytest.fixture(autouse=True)
def no_vocabulary(unchecked):
  """None stands for a vocabulary."""


def test_seeds_are_matched_by_the_record_of_the_run(tmp_path):
  path = source(tmp_path / "tune", [{"seed": 7}, {"seed": 0}, {"seed": 5}])
  assert start(path, (0, 5, 7)) == [2, 3, 1]
  # Fewer seeds than prompts, and a stage's folder.
  assert start(path, (5,)) == [3]
  assert start(path.parent, (7, 0)) == [1, 2]
  assert refused(path, (0, 1)) == (
      f"{path}: found 'prompts of the seeds 7, 0, 5', expected one of seed 1,"
      f" or {path}#ROW for all seeds"
  )


def test_one_prompt_serves_every_seed(tmp_path):
  path = source(tmp_path / "tune", [{"task": "rte", "seed": 7}])
  assert start(path, (0, 5)) == [1, 1]


def test_a_row_of_a_table_of_tasks_has_to_be_named(tmp_path):
  rows = [{"task": task, "seed": 0} for task in ("rte", "cb", "wsc")]
  path = source(tmp_path / "tune", rows)
  # As many seeds as prompts do not make them theirs.
  assert refused(path, (0, 1, 2)) == (
      f"{path}: found 'prompts of the tasks rte, cb, wsc', expected those of"
      f" one task, or {path}#ROW for all seeds"
  )
  assert start(f"{path}#2", (0, 5)) == [3, 3]
  assert start(f"{path.parent}#0", (0,)) == [1]


def test_tickets_of_one_seed_are_told_apart_by_row_alone(tmp_path):
  rows = [{"seed": 0, "token_ratio": ratio} for ratio in (0.1, 0.2, 0.3)]
  path = source(tmp_path / "search_token", rows)
  assert refused(path, (0, 1, 2)) == (
      f"{path}: found 'prompts of the seeds 0, 0, 0', expected one of seed 0,"
      f" or {path}#ROW for all seeds"
  )
  assert start(f"{path}#1", (0, 1, 2)) == [2, 2, 2]


@pytest.mark.parametrize(
    ("rows", "name"),
    [
        ([{"seed": 1}, {"seed": 0}], "other.safetensors"),
        ([{}, {}], "prompt.safetensors"),
        ([1, 2], "prompt.safetensors"),
    ],
)
def test_without_a_record_the_order_counts(tmp_path, rows, name):
  path = source(tmp_path / "tune", rows, name)
  assert start(path, (0, 1)) == [1, 2]


@pytest.mark.parametrize(
    ("row", "line"),
    [
        (
            "#3",
            "PROMPT_INIT_FILE={path}#3: {path} holds 3 prompts, expected a row"
            " in [0, 3)",
        ),
        (
            "#last",
            "PROMPT_INIT_FILE={path}#last: found 'last' after #, expected PATH"
            " or PATH#ROW with a row >= 0",
        ),
    ],
)
def test_rows_that_are_not_there(tmp_path, row, line):
  path = source(tmp_path / "tune", [{"seed": 0}, {"seed": 1}, {"seed": 2}])
  assert refused(f"{path}{row}", (0,)) == line.format(path=path)


def test_a_row_of_no_file():
  assert refused("#1", (0,)) == (
      "PromptConfig.init_file: found '#1', expected PATH or PATH#ROW"
  )
