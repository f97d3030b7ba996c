"""Rows of a baseline: where they start, and what files have of them.

`baselines.py` trains and evaluates them. What is read is the model of one row,
so that memory need not hold several where each is a whole T5.
"""

from collections.abc import Sequence
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from xprompt_jax import artifacts, partitioning, trained_leaves
from xprompt_jax import masks as masks_lib
from xprompt_jax.experiment import Experiment
from xprompt_jax.methods.protocol import Adapted, Baseline
from xprompt_jax.tickets import Table, Ticket, save_table

ADAPTER = "adapter.safetensors"
# Nothing of a baseline is pruned, so its tokens are in one piece.
NUM_PIECES = 1


def tickets_of(experiment: Experiment) -> list[Ticket]:
  """A row for each task and seed, as a search has them."""
  return [
      Ticket(seed=seed, task=task)
      for task in experiment.data.tasks
      for seed in experiment.config.seeds
  ]


def adapt(experiment: Experiment, method: Baseline, leaves: Any) -> Adapted:
  """The model of one row, from its leaves without R."""
  leaves = jax.tree.map(jnp.asarray, leaves)
  return method.adapt(leaves, {}, experiment.model, experiment.frozen_params)


def start_of(experiment: Experiment, method: Baseline, seeds: Sequence[int]):
  """Where the rows start: leaves [R, ...]; a row depends on its seed alone."""
  rows = {
      seed: method.initial(
          jax.random.key(seed),
          experiment.config.model,
          experiment.frozen_params,
      )
      for seed in dict.fromkeys(seeds)
  }
  return trained_leaves.stacked([rows[seed] for seed in seeds])


def parts_of(
    method: Baseline, folder: pathlib.Path, tickets: Sequence[Ticket]
) -> list[tuple[pathlib.Path, Sequence[Ticket]]]:
  """Rows that are trained together, and the folder of each such table."""
  size = method.rows_at_once or len(tickets)
  if size >= len(tickets):
    return [(folder, tickets)]
  return [
      (folder / f"row_{first}", tickets[first : first + size])
      for first in range(0, len(tickets), size)
  ]


def write(
    experiment: Experiment,
    method: Baseline,
    folder: pathlib.Path,
    tickets: Sequence[Ticket],
    trained: Any,
) -> None:
  """Folds the rows and writes what inference needs of them."""

  def fold(leaves):
    return [
        adapt(experiment, method, trained_leaves.row_of(leaves, row))
        for row in range(len(tickets))
    ]

  adapted = fold(trained)
  if method.makes_prompt:
    first = fold(start_of(experiment, method, [t.seed for t in tickets]))
    table = Table(
        tickets=tuple(tickets),
        prompt=np.stack([row.prompt for row in adapted]),
        masks=masks_lib.full_masks(len(tickets), method.length, NUM_PIECES),
    )
    start = np.stack([row.prompt for row in first])
    save_table(folder / artifacts.PROMPT, table, start=start)
    return
  frozen = trained_leaves.by_name(experiment.frozen_params)
  rows = [trained_leaves.by_name(row.params) for row in adapted]
  own = [n for n, leaf in rows[0].items() if leaf is not frozen.get(n)]
  artifacts.save_arrays(
      folder / ADAPTER,
      {name: np.stack([row[name] for row in rows]) for name in own},
  )


def read_row(experiment: Experiment, method: Baseline, row: int) -> Adapted:
  """The model of one row as its file has it, on the devices.

  Args:
    experiment: what is loaded; its WORKDIR is tuned.
    method: the baseline.
    row: of the run, counted from 0.
  """
  tickets = tickets_of(experiment)
  folder, left = experiment.workdir / artifacts.TUNE, row
  for where, tickets_there in parts_of(method, folder, tickets):
    if left < len(tickets_there):
      return _read(experiment, method, where, left)
    left -= len(tickets_there)
  raise ValueError(f"{folder} has no row {row}")


def _read(
    experiment: Experiment, method: Baseline, folder: pathlib.Path, row: int
) -> Adapted:
  """What `write` wrote of one row of a table."""
  if method.makes_prompt:
    prompt = artifacts.load_arrays(folder / artifacts.PROMPT)["prompt"][row]
    own = {}
  else:
    prompt = np.zeros((0, experiment.config.model.emb_dim), np.float32)
    own = artifacts.load_arrays(folder / ADAPTER)
  # Here and not at each batch; the frozen leaves are where they should be.
  placed = partitioning.replicate(
      {name: jnp.asarray(leaf[row]) for name, leaf in own.items()},
      experiment.mesh,
  )
  frozen = trained_leaves.by_name(experiment.frozen_params)
  return Adapted(
      params=trained_leaves.nested({**frozen, **placed}),
      prompt=prompt,
      visible=np.ones(len(prompt), bool),
  )
