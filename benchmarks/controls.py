"""Controls and seeds in one table against the same rows one after another.

    .venv/bin/python -m benchmarks.controls [STEPS] [SEEDS]

Needs nothing: the bundled model and its yes/no task. Every row's masks are those
of a made-up ticket, half of the tokens and half of their pieces; what is trained
takes as long whatever they are. Compiling is not timed.
"""

import dataclasses
import pathlib
import sys
import tempfile
import time

import numpy as np

from tests import examples, tiny_experiment
from xprompt_jax import controls, pruning, stages
from xprompt_jax.prompts import PromptConfig
from xprompt_jax.t5.config import T5Config
from xprompt_jax.trainer import TrainConfig

ROWS_PER_CHUNK = 3


def make_experiment(workdir: pathlib.Path, steps: int, num_seeds: int):
  """The bundled model on 160 examples, evaluated on one batch of them."""
  model, params = examples.bundled_model()
  config: T5Config = model.t5_config
  split = examples.bundled_split("mini_boolq", 160)
  base = tiny_experiment.CONFIG
  config_of_run = dataclasses.replace(
      base,
      model=config,
      checkpoint="bundled",
      task=dataclasses.replace(base.task, inputs_length=64, buckets=(64,)),
      prompt=PromptConfig(),
      train=TrainConfig(
          num_epochs=None, num_steps=steps, rows_per_chunk=ROWS_PER_CHUNK
      ),
      search=pruning.SearchConfig(
          controls=("reversed", "random", "magnitude", "length")
      ),
      seeds=tuple(range(num_seeds)),
  )
  experiment = tiny_experiment.make_experiment(workdir, config_of_run)
  return dataclasses.replace(
      experiment,
      frozen_params=params,
      vocabulary=examples.bundled_vocabulary(),
      splits={
          "train": split,
          "validation": examples.bundled_split("mini_boolq", 16),
      },
  )


def made_up_tickets(experiment):
  """Tuned prompts, and tickets with half of the tokens and of their pieces."""
  tuned = stages.initial_table(experiment)
  rng = np.random.default_rng(0)
  masks = []
  for row in range(len(tuned.tickets)):
    own = tuned.take([row]).masks
    full = dataclasses.replace(
        own, token_mask=own.token_mask[0], piece_mask=own.piece_mask[0]
    )
    pruned = pruning.prune_tokens(rng.random(20), full, 0.5)
    masks.append(pruning.prune_pieces(rng.random((20, 16)), pruned, 0.5))
  return tuned, dataclasses.replace(tuned, masks=stages.stack_masks(masks))


def seconds_of(experiment, name: str, table) -> np.ndarray:
  """Wall time and CPU time of training a table: [2]."""
  clocks = (time.monotonic, time.process_time)
  started = [clock() for clock in clocks]
  stages.run_training(experiment, name, table)
  return np.array([clock() for clock in clocks]) - started


def main() -> None:
  given = [int(argument) for argument in sys.argv[1:]]
  steps, num_seeds = given + [10, 2][len(given) :]
  with tempfile.TemporaryDirectory() as folder:
    experiment = make_experiment(pathlib.Path(folder), steps, num_seeds)
    tuned, winners = made_up_tickets(experiment)
    start, _ = controls.start_table(experiment, tuned, winners)
    assert start is not None
    rows = [start.take([row]) for row in range(len(start.tickets))]
    for name, table in (("compile", start), ("compile_one", rows[0])):
      seconds_of(experiment, name, table)
    together = seconds_of(experiment, "together", start)
    apart = [seconds_of(experiment, f"row{i}", t) for i, t in enumerate(rows)]
  for what, one, others in zip(
      ("wall time", "CPU time"), together, sum(apart), strict=True
  ):
    print(
        f"{len(rows)} rows, {steps} steps, {what}: one table {one:.1f} s, one"
        f" after another {others:.1f} s"
    )


if __name__ == "__main__":
  main()
