"""Trains all rows of a table at once; the model stays frozen.

A step sees R x B examples, differentiates with respect to the trained leaves
alone, and moves each row with its own optimizer. The loop evaluates, keeps the
best leaves of each row and saves a state from which a run that was stopped goes
on bit for bit. What is trained, from where and behind which masks is decided in
`stages.py` and `baselines.py`; how leaves adapt the model, in `methods/`.
"""

from collections.abc import Callable, Mapping
import dataclasses
import math
import pathlib
from typing import Any

import jax
from jax import Array
import jax.numpy as jnp
from jax.sharding import Mesh
import numpy as np

from xprompt_jax import artifacts, partitioning, progress
from xprompt_jax import optimizer as optimizer_lib
from xprompt_jax.methods.protocol import Method
from xprompt_jax.model import PromptedT5
from xprompt_jax.optimizer import OptimizerConfig
from xprompt_jax.records import KEPT, Records
from xprompt_jax.tables import TableRows
from xprompt_jax.train_step import TrainState, train_step
from xprompt_jax.trained_leaves import (
    by_name,
    check_shapes,
    filled,
    finite_rows,
)
from xprompt_jax.types import (
    UserError,
    require,
    require_int,
    require_number,
)

# Losses are fetched in blocks: a fetch each step would stall an accelerator.
CHECK_EVERY = 20

Evaluate = Callable[[Any], list[dict[str, float]]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
  """How long and how wide a table is trained.

  Attributes:
    batch_size: B, examples a step for each row.
    num_epochs: passes over the training split; None if `num_steps` is given.
    num_steps: optimizer steps; None if `num_epochs` is given.
    eval_every_steps: steps between evaluations; None means each epoch.
    save_every_steps: steps between saved states; None means each evaluation.
    rows_per_chunk: rows that are computed together; chunks follow each other
      inside the step. With 1 a row computes bit for bit what it computes alone
      in batches of the same shape, and needs the memory of one row. More use
      an accelerator better, and agree within rounding, which a learning rate
      of 0.3 makes visible after a few steps. None means all.
    z_loss: weight of T5X's z-loss.
  """

  batch_size: int = 16
  num_epochs: int | None = 100
  num_steps: int | None = None
  eval_every_steps: int | None = None
  save_every_steps: int | None = None
  rows_per_chunk: int | None = 1
  z_loss: float = 0.0

  def __post_init__(self):
    require_int("TrainConfig.batch_size", self.batch_size, 1)
    for name in (
        "num_epochs",
        "num_steps",
        "eval_every_steps",
        "save_every_steps",
        "rows_per_chunk",
    ):
      if getattr(self, name) is not None:
        require_int(f"TrainConfig.{name}", getattr(self, name), 1)
    require_number("TrainConfig.z_loss", self.z_loss, 0.0)
    require(
        (self.num_epochs is None) != (self.num_steps is None),
        "TrainConfig.num_epochs and num_steps",
        (self.num_epochs, self.num_steps),
        "one of the two, and None for the other",
    )

  def total_steps(self, num_examples: int) -> int:
    """Optimizer steps in all, the last one full."""
    if self.num_steps is not None:
      return self.num_steps
    assert self.num_epochs is not None  # By __post_init__.
    return math.ceil(self.num_epochs * num_examples / self.batch_size)

  def is_evaluation(self, step: int, num_examples: int) -> bool:
    """Whether the model is evaluated after `step` steps."""
    if step == self.total_steps(num_examples):
      return True
    if self.eval_every_steps is not None:
      return step % self.eval_every_steps == 0
    # The first step that has seen the whole of another epoch.
    seen = step * self.batch_size
    return seen // num_examples > (seen - self.batch_size) // num_examples

  def is_save(self, step: int) -> bool:
    """Whether a state is saved after `step` steps, evaluation or not."""
    every = self.save_every_steps
    return every is not None and step % every == 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainedTable:
  """What training leaves: the best checkpoint of each row.

  Attributes:
    trained: leaves [R, ...] by name.
    metrics: R validation results at the best step.
    best_step: [R], steps taken when it was best; ties go to the earliest.
    num_steps: steps taken in all.
  """

  trained: Any
  metrics: list[dict[str, float]]
  best_step: np.ndarray
  num_steps: int


class _Run:
  """Where a training run stands: what the state file and metrics.jsonl hold."""

  def __init__(
      self,
      optimizer: OptimizerConfig,
      start: Any,
      mesh: Mesh | None,
      folder: pathlib.Path,
      rows: TableRows,
  ):
    trained = jax.tree.map(jnp.array, start)
    self._mesh = mesh
    self._rows = rows
    self.state = partitioning.replicate(
        TrainState(
            trained=trained,
            optimizer=optimizer_lib.init_rows(optimizer, trained),
        ),
        mesh,
    )
    self.step = 0
    self.records = Records(folder / artifacts.METRICS, rows, start)
    self._pending: list[Array] = []

  def save(self, folder: pathlib.Path) -> None:
    """Writes everything a later run needs to go on."""
    leaves = jax.tree.leaves(self.state.optimizer)
    arrays = {
        **{k: np.asarray(v) for k, v in by_name(self.state.trained).items()},
        "step": np.array(self.step),
        **self.records.arrays(),
        **{f"optimizer/{i}": np.asarray(x) for i, x in enumerate(leaves)},
    }
    artifacts.save_arrays(folder / artifacts.STATE, arrays)

  def restore(self, folder: pathlib.Path) -> None:
    """Takes up the saved state, if there is one.

    Raises:
      UserError: it is damaged or belongs to a table of another shape.
    """
    path = folder / artifacts.STATE
    if not path.exists():
      return
    arrays = artifacts.load_arrays(path)
    trained = filled(self.state.trained, arrays, path)
    leaves, treedef = jax.tree.flatten(self.state.optimizer)
    names = [f"optimizer/{i}" for i in range(len(leaves) + 1)]
    shapes = [*(leaf.shape for leaf in leaves), None]
    expected = {"step": (), **dict(zip(names, shapes, strict=True))}
    check_shapes(path, arrays, expected)
    leaves = [jnp.array(arrays[f"optimizer/{i}"]) for i in range(len(leaves))]
    self.state = partitioning.replicate(
        TrainState(
            trained=jax.tree.map(jnp.array, trained),
            optimizer=jax.tree.unflatten(treedef, leaves),
        ),
        self._mesh,
    )
    self.step = int(arrays["step"])
    self.records.restore(arrays, path, self.step)

  def add_losses(self, losses: Array) -> None:
    """Counts a step; its losses are looked at by `check_losses`."""
    self.step += 1
    self._pending.append(losses)

  def check_losses(self, folder: pathlib.Path) -> None:
    """Adds up the losses of the last steps.

    Raises:
      UserError: one of them, or a leaf they led to, is not finite; names the
        step.
    """
    first = self.step - len(self._pending) + 1
    for step, losses in enumerate(jax.device_get(self._pending), first):
      bad = np.flatnonzero(~np.isfinite(losses))
      if bad.size:
        row = int(bad[0])
        raise UserError(
            f"{folder}: loss of {self._rows.name(row)} at step {step}:"
            f" found {losses[row]}, expected a finite number; {KEPT}"
        )
      self.records.add_losses(losses)
    self._pending = []
    self._check_leaves(folder)

  def _check_leaves(self, folder: pathlib.Path) -> None:
    """Looks at what the last step left: its loss is that of the one before."""
    # On the device: of fine-tuning, leaves are as large as the model.
    finite = jax.device_get(finite_rows(self.state.trained))
    for name, found in by_name(finite).items():
      bad = np.flatnonzero(~found)
      if bad.size:
        row = int(bad[0])
        raise UserError(
            f"{folder}: {name} of {self._rows.name(row)} at step"
            f" {self.step}: found NaN or infinity, expected finite numbers;"
            f" {KEPT}"
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TableTrainer:
  """Trains every row of a table, from its start or from a saved state.

  Attributes:
    config: steps, batch size, evaluation.
    optimizer: its settings.
    method: how a row's leaves adapt the model.
    model: the prompted T5.
    frozen_params: its parameters.
    constants: leaves [R, ...] that the method knows and nothing trains.
    rows: what each row reads.
    evaluate: leaves [R, ...] -> R validation results with a `score`.
    folder: where metrics.jsonl and the state go.
    tensorboard: folder of the event files, if any.
    mesh: devices to spread each row's examples over; None uses one.
  """

  config: TrainConfig
  optimizer: OptimizerConfig
  method: Method
  model: PromptedT5
  frozen_params: Mapping
  constants: Any
  rows: TableRows
  evaluate: Evaluate
  folder: pathlib.Path
  tensorboard: pathlib.Path | None = None
  mesh: Mesh | None = None

  def train(self, start: Any) -> TrainedTable:
    """Runs all steps that are left.

    Args:
      start: leaves [R, ...] by name, where rows start if no state is saved.

    Returns:
      The best leaves of each row and its results.

    Raises:
      UserError: a loss that is not finite, or a state that does not fit.
    """
    total = self.config.total_steps(self.rows.num_examples)
    optimizer = self.optimizer.over(total)
    run = _Run(optimizer, start, self.mesh, self.folder, self.rows)
    del start  # Of fine-tuning, a model.
    run.restore(self.folder)
    with progress.Reporter(
        self.folder.name, total, self.tensorboard, run.step
    ) as reporter:
      while run.step < total:
        self._step(run, optimizer)
        is_evaluation = self.config.is_evaluation(
            run.step, self.rows.num_examples
        )
        save = is_evaluation or self.config.is_save(run.step)
        if save or run.step % CHECK_EVERY == 0:
          run.check_losses(self.folder)
          loss = float(run.records.mean_loss().mean())
          reporter.update(run.step, {"loss": loss})
        if is_evaluation:
          self._evaluate(run, reporter)
        if save:
          run.save(self.folder)
    return TrainedTable(
        trained=run.records.best_trained,
        metrics=run.records.best,
        best_step=run.records.best_step,
        num_steps=total,
    )

  def _step(self, run: _Run, optimizer: OptimizerConfig) -> None:
    batch = partitioning.shard_batch(
        self.rows.batch(run.step, self.config.batch_size), self.mesh, axis=1
    )
    run.state, losses = train_step(
        run.state,
        self.constants,
        self.frozen_params,
        batch,
        jnp.asarray(self.rows.seeds, jnp.uint32),
        jnp.asarray(run.step, jnp.int32),
        method=self.method,
        model=self.model,
        optimizer=optimizer,
        rows_per_chunk=self.config.rows_per_chunk,
        z_loss=self.config.z_loss,
    )
    run.add_losses(losses)

  def _evaluate(self, run: _Run, reporter: progress.Reporter) -> None:
    metrics = self.evaluate(run.state.trained)
    scores = run.records.add_metrics(run.step, metrics, run.state.trained)
    reporter.update(run.step, scores, result=True)
    reporter.scalars(run.step, scores)
