"""Small tables for T5X's trainer, and runs that end in the middle."""

import dataclasses
import functools

import numpy as np

from tests import examples, t5x_required
from tests.tiny_experiment import CHECKSUM, CONFIG, make_experiment
from xprompt_jax import partitioning
from xprompt_jax.model import PromptedT5
from xprompt_jax.optimizer import OptimizerConfig
from xprompt_jax.trainer import TrainConfig
from xprompt_jax.weights import loading

engines_lib = t5x_required.t5x_module("xprompt_jax.t5x_engine.engines")
table_trainer = t5x_required.t5x_module("xprompt_jax.t5x_engine.table_trainer")

SCORE = {"score": 1.0}


class Stopped(Exception):
  """A run that ends where it stands."""


def stopping(function, calls):
  """A function that ends the run instead of its n-th call."""
  count = iter(range(1, calls + 1))

  @functools.wraps(function)
  def wrapped(*args, **kwargs):
    if next(count) == calls:
      raise Stopped
    return function(*args, **kwargs)

  return wrapped


def start_of(rows=1):
  return {
      "prompt": np.asarray(examples.random_prompt(rows, examples.TINY_P, 12))
  }


def make_engines(
    model=CONFIG.model,
    *,
    z_loss=0.0,
    pruned_tokens="zero",
    dtype="float32",
    mesh=None,
):
  """T5X's trainers of a network with random weights of a dtype."""
  shardings = mesh and partitioning.param_shardings(model, mesh)
  frozen = loading.load_frozen(
      "random:3", model, dtype=dtype, shardings=shardings
  )
  return engines_lib.Engines(
      model=PromptedT5(t5_config=model, pruned_tokens=pruned_tokens),
      frozen_params=frozen.params,
      optimizer=OptimizerConfig(),
      z_loss=z_loss,
      mesh=mesh,
  )


def common_of(folder, rows, **config):
  """What the trainers of both engines are told."""
  experiment = make_experiment(folder, CONFIG, (CHECKSUM,))
  steps = {"batch_size": 3, "num_steps": 3, "eval_every_steps": 3}
  train = TrainConfig(num_epochs=None, **{**steps, **config})
  return {
      "config": train,
      "constants": examples.random_masks(
          rows, examples.TINY_P, examples.TINY_K
      ),
      "rows": experiment.rows("train", tuple(range(4, 4 + rows))),
      "folder": folder,
  }


def make_inside(folder, engines, *, rows=1, **config):
  """T5X's trainer of a table; evaluation finds `SCORE`."""
  return table_trainer.RowByRowTrainer(
      **common_of(folder, rows, **config),
      engines=engines,
      evaluate=lambda row, trained: SCORE,
  )


def more_steps(trainer, num_steps):
  """The same trainer, told to take more steps."""
  config = dataclasses.replace(trainer.config, num_steps=num_steps)
  return dataclasses.replace(trainer, config=config)
