"""What a training has found so far: losses, the best leaves, metrics.jsonl.

Both engines keep their records here, so that they evaluate, choose and write
alike; how leaves are trained is their own business.
"""

from collections.abc import Mapping, Sequence
import pathlib
from typing import Any

import jax
import numpy as np

from xprompt_jax import artifacts
from xprompt_jax.tables import TableRows
from xprompt_jax.trained_leaves import best_of, by_name, check_shapes, filled
from xprompt_jax.types import require

# The end of a message about numbers that are not finite.
KEPT = (
    "the last good state is kept; try a smaller OptimizerConfig.learning_rate"
)


class Records:
  """The records of the rows that are trained together.

  Attributes:
    best_trained: leaves [R, ...] at each row's best step, in memory.
    best_step: [R], steps taken when a row was best; ties go to the earliest.
    best: R validation results at those steps; empty before the first.
  """

  def __init__(
      self,
      metrics: pathlib.Path,
      rows: TableRows,
      start: Any,
      numbers: Sequence[int] | None = None,
  ):
    """Records of a training that has not begun.

    Args:
      metrics: metrics.jsonl.
      rows: the whole table, which names its rows.
      start: leaves [R, ...].
      numbers: which rows of the table the R are; None means all.
    """
    self._path = metrics
    self._rows = rows
    self._numbers = list(range(len(rows.seeds)) if numbers is None else numbers)
    num_rows = len(self._numbers)
    # Not copied: it is never written in.
    self.best_trained = jax.tree.map(np.asarray, start)
    self.best_step = np.zeros(num_rows, np.int64)
    self.best: list[dict[str, float]] = [{} for _ in range(num_rows)]
    self._loss_sum = np.zeros(num_rows)
    self._loss_steps = 0
    self._lines: list[dict[str, Any]] = []

  def arrays(self) -> dict[str, np.ndarray]:
    """What `restore` needs beside metrics.jsonl, by name."""
    best = by_name(self.best_trained)
    return {
        **{f"best_{name}": leaf for name, leaf in best.items()},
        "best_step": self.best_step,
        "loss_sum": self._loss_sum,
        "loss_steps": np.array(self._loss_steps),
    }

  def restore(
      self, arrays: Mapping[str, np.ndarray], path: pathlib.Path, step: int
  ) -> None:
    """Takes up what a run that was stopped had found.

    Args:
      arrays: from `arrays`, and others.
      path: of their file.
      step: after how many steps they were saved.

    Raises:
      UserError: they are of another shape, or metrics.jsonl lacks a line.
    """
    rows = self.best_step.shape
    shapes = {"best_step": rows, "loss_sum": rows, "loss_steps": ()}
    check_shapes(path, arrays, shapes)
    self.best_trained = filled(self.best_trained, arrays, path, "best_")
    self.best_step = np.array(arrays["best_step"])
    self._loss_sum = np.array(arrays["loss_sum"])
    self._loss_steps = int(arrays["loss_steps"])
    # Lines written after the state was saved will be computed again.
    lines = artifacts.read_json_lines(self._path)
    self._lines = [line for line in lines if line["step"] <= step]
    found_best = {(line["row"], line["step"]) for line in self._lines}
    best_steps = dict(zip(self._numbers, self.best_step.tolist(), strict=True))
    for row, best_step in best_steps.items():
      require(
          best_step == 0 or (row, best_step) in found_best,
          f"{self._path}",
          f"no line of row {row} at step {best_step}",
          f"the one that {path} was saved with",
      )
    for line in self._lines:
      if line["step"] == best_steps[line["row"]]:
        self.best[self._numbers.index(line["row"])] = line["validation"]

  def add_losses(self, losses: np.ndarray, steps: int = 1) -> None:
    """Counts steps: [R] losses, summed over so many of them."""
    self._loss_sum += losses
    self._loss_steps += steps

  def mean_loss(self) -> np.ndarray:
    """Mean loss of each row since the last evaluation: [R]."""
    return self._loss_sum / max(self._loss_steps, 1)

  def add_metrics(
      self, step: int, metrics: list[dict[str, float]], trained: Any
  ) -> dict[str, float]:
    """Writes metrics.jsonl and keeps the rows that became better.

    Args:
      step: steps taken.
      metrics: R validation results, each with a `score`.
      trained: the leaves [R, ...] they are of.

    Returns:
      What to show: the means of `loss`, `validation` and `best`.
    """
    losses = self.mean_loss()
    better = []
    for index, (row, found) in enumerate(
        zip(self._numbers, metrics, strict=True)
    ):
      if not self.best[index] or found["score"] > self.best[index]["score"]:
        self.best[index] = found
        self.best_step[index] = step
        better.append(index)
      self._lines.append(
          {
              "step": step,
              "row": row,
              **self._rows.label(row),
              "loss": float(losses[index]),
              "validation": found,
          }
      )
    if better:
      self.best_trained = best_of(self.best_trained, trained, better)
    artifacts.write_json_lines(self._path, self._lines)
    self._loss_sum = np.zeros_like(self._loss_sum)
    self._loss_steps = 0
    return {
        "loss": float(losses.mean()),
        "validation": float(np.mean([found["score"] for found in metrics])),
        "best": float(np.mean([found["score"] for found in self.best])),
    }
