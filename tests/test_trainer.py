"""The loop: best checkpoints, saved states, and losses that turn NaN."""

import dataclasses

import numpy as np
import pytest

from tests import examples
from xprompt_jax import artifacts
from xprompt_jax import masks as masks_lib
from xprompt_jax.methods.prompt_tuning import PromptTuning
from xprompt_jax.optimizer import OptimizerConfig
from xprompt_jax.trainer import TableTrainer, TrainConfig
from xprompt_jax.types import UserError

MASKS = examples.random_masks(2, examples.TINY_P, examples.TINY_K)
START = {"prompt": np.asarray(examples.random_prompt(2, examples.TINY_P, 12))}


def scores_of(trained):
  """A made-up validation score that depends on the prompt's every bit."""
  prompt = np.asarray(trained["prompt"])
  return [{"score": float(np.abs(row).sum())} for row in prompt]


def make_trainer(folder, evaluate=scores_of, **config) -> TableTrainer:
  settings = {
      "batch_size": 3,
      "num_epochs": None,
      "num_steps": 6,
      "eval_every_steps": 2,
      **config,
  }
  return TableTrainer(
      config=TrainConfig(**settings),
      optimizer=OptimizerConfig(),
      method=PromptTuning(),
      model=examples.TINY_MODEL,
      frozen_params=examples.tiny_params(),
      constants=MASKS,
      rows=examples.rows_of(examples.tiny_split(10), (4, 9)),
      evaluate=evaluate,
      folder=folder,
  )


@pytest.mark.parametrize(
    ("config", "steps", "evaluations"),
    [
        # 10 examples, 4 a step: an epoch ends within steps 3, 5 and 8.
        ({"num_epochs": 3, "batch_size": 4}, 8, [3, 5, 8]),
        ({"num_epochs": 1, "batch_size": 10}, 1, [1]),
        ({"num_epochs": 2, "batch_size": 16}, 2, [1, 2]),
        (
            {"num_epochs": None, "num_steps": 7, "eval_every_steps": 3},
            7,
            [3, 6, 7],
        ),
    ],
)
def test_steps_and_evaluations(config, steps, evaluations):
  config = TrainConfig(**config)
  assert config.total_steps(10) == steps
  found = [s for s in range(1, steps + 1) if config.is_evaluation(s, 10)]
  assert found == evaluations


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"batch_size": 0}, "TrainConfig.batch_size: found 0"),
        ({"num_epochs": None}, "one of the two, and None for the other"),
        ({"num_steps": 5}, "one of the two, and None for the other"),
        ({"rows_per_chunk": 0}, "TrainConfig.rows_per_chunk: found 0"),
        ({"z_loss": -1.0}, "TrainConfig.z_loss: found -1.0"),
    ],
)
def test_config_names_the_field(config, message):
  with pytest.raises(UserError, match=message):
    TrainConfig(**config)


def test_the_best_checkpoint_wins_and_ties_go_to_the_earliest(tmp_path):
  prompts = []

  def evaluate(trained):
    prompts.append(np.array(trained["prompt"]))
    # Row 0 is best at steps 4 and 6, row 1 at step 2.
    scores = {1: (1.0, 9.0), 2: (5.0, 3.0), 3: (5.0, 9.0)}[len(prompts)]
    return [{"score": score, "accuracy": 2 * score} for score in scores]

  trained = make_trainer(tmp_path, evaluate).train(START)
  assert trained.best_step.tolist() == [4, 2]
  assert trained.metrics == [
      {"score": 5.0, "accuracy": 10.0},
      {"score": 9.0, "accuracy": 18.0},
  ]
  np.testing.assert_array_equal(trained.trained["prompt"][0], prompts[1][0])
  np.testing.assert_array_equal(trained.trained["prompt"][1], prompts[0][1])
  lines = artifacts.read_json_lines(tmp_path / artifacts.METRICS)
  assert [(line["step"], line["row"], line["seed"]) for line in lines] == [
      (2, 0, 4),
      (2, 1, 9),
      (4, 0, 4),
      (4, 1, 9),
      (6, 0, 4),
      (6, 1, 9),
  ]
  assert lines[2]["validation"] == {"score": 5.0, "accuracy": 10.0}


class Stopped(Exception):
  """Stands for the machine going away."""


@pytest.mark.parametrize("save_every_steps", [None, 3])
@pytest.mark.parametrize("stop_at", [1, 2, 3])
def test_a_stopped_run_ends_bit_for_bit_where_another_one_ends(
    tmp_path, stop_at, save_every_steps
):
  config = {"save_every_steps": save_every_steps}
  whole = make_trainer(tmp_path / "whole", **config).train(START)
  calls = []

  def evaluate(trained):
    calls.append(1)
    if len(calls) == stop_at:
      raise Stopped
    return scores_of(trained)

  folder = tmp_path / "stopped"
  with pytest.raises(Stopped):
    make_trainer(folder, evaluate, **config).train(START)
  again = make_trainer(folder, **config).train(START)
  np.testing.assert_array_equal(
      again.trained["prompt"], whole.trained["prompt"]
  )
  assert again.metrics == whole.metrics
  np.testing.assert_array_equal(again.best_step, whole.best_step)
  for name in (artifacts.STATE, artifacts.METRICS):
    assert (folder / name).read_bytes() == (
        tmp_path / "whole" / name
    ).read_bytes()


def test_metrics_written_after_the_state_are_computed_again(tmp_path):
  """Stopped between writing metrics.jsonl and the state that belongs to it."""
  make_trainer(tmp_path / "a").train(START)
  make_trainer(tmp_path / "b", num_steps=4).train(START)
  whole, folder = tmp_path / "a", tmp_path / "b"
  (folder / artifacts.METRICS).write_bytes(
      (whole / artifacts.METRICS).read_bytes()
  )
  again = make_trainer(folder).train(START)
  assert (folder / artifacts.METRICS).read_bytes() == (
      whole / artifacts.METRICS
  ).read_bytes()
  assert again.num_steps == 6


def test_a_state_of_another_table_is_refused(tmp_path):
  make_trainer(tmp_path, num_steps=2).train(START)
  with pytest.raises(UserError, match=r"prompt: found \(2, 5, 12\), expected"):
    dataclasses.replace(
        make_trainer(tmp_path),
        constants=masks_lib.full_masks(1, 5, 4),
        rows=examples.rows_of(examples.tiny_split(10)),
    ).train({"prompt": START["prompt"][:1]})


def test_a_damaged_state_is_refused(tmp_path):
  make_trainer(tmp_path, num_steps=2).train(START)
  path = tmp_path / artifacts.STATE
  content = bytearray(path.read_bytes())
  content[-1] ^= 1
  path.write_bytes(content)
  with pytest.raises(UserError, match="sha256 .* the file is damaged"):
    make_trainer(tmp_path).train(START)


def test_a_loss_that_turns_nan_stops_the_run_and_names_the_step(tmp_path):
  def evaluate(trained):
    # The second evaluation never comes.
    assert not np.isnan(np.asarray(trained["prompt"])).any()
    return scores_of(trained)

  trainer = make_trainer(tmp_path, evaluate, num_steps=2)
  trainer.train(START)
  good = (tmp_path / artifacts.STATE).read_bytes()
  # A later step meets a prompt that overflows.
  arrays = artifacts.load_arrays(tmp_path / artifacts.STATE)
  arrays["prompt"][1] = np.nan
  artifacts.save_arrays(tmp_path / artifacts.STATE, arrays)
  poisoned = (tmp_path / artifacts.STATE).read_bytes()
  assert poisoned != good
  with pytest.raises(
      UserError, match=r"loss of row 1 \(seed 9\) at step 3: found nan"
  ):
    make_trainer(tmp_path, evaluate, num_steps=6).train(START)
  # What was on disk before stays as it was.
  assert (tmp_path / artifacts.STATE).read_bytes() == poisoned


def test_a_state_without_its_metrics_is_refused(tmp_path):
  make_trainer(tmp_path, num_steps=2).train(START)
  (tmp_path / artifacts.METRICS).unlink()
  with pytest.raises(UserError, match="found 'no line of row 0 at step 2'"):
    make_trainer(tmp_path).train(START)
