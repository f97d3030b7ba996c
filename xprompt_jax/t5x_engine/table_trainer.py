"""Trains a table's rows one after another, each by T5X's own trainer.

The engine's counterpart of `trainer.TableTrainer`: the same batches, the same
evaluations and the same records, so a stage leaves the same files. Each row has
`state/row_R/` beside them, with T5X's checkpoint of the prompt, from which a run
that was stopped goes on bit for bit.
"""

from collections.abc import Callable, Iterator, Mapping
import dataclasses
import pathlib
from typing import Any

import jax
from jaxtyping import Float
import numpy as np

from xprompt_jax import artifacts, progress
from xprompt_jax.records import KEPT, Records
from xprompt_jax.t5x_engine.engines import Engines
from xprompt_jax.t5x_engine.one_prompt import OnePrompt
from xprompt_jax.t5x_engine.row_state import RowState
from xprompt_jax.tables import TableRows
from xprompt_jax.trainer import CHECK_EVERY, TrainConfig, TrainedTable
from xprompt_jax.types import PromptMasks, UserError

# A row and its prompt, {"prompt": [1, P, H]}, to its validation result.
EvaluateRow = Callable[[int, Any], dict[str, float]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class RowByRowTrainer:
  """Trains every row of a table, from its start or from a saved state.

  Attributes:
    config: steps, batch size, evaluation; `rows_per_chunk` has no meaning here.
    engines: T5X's trainers, which other tables use as well.
    constants: the masks, [R, P] and [R, P, K].
    rows: what each row reads.
    evaluate: the validation result of one row.
    folder: where metrics.jsonl and the states go.
    tensorboard: folder of the event files, if any.
  """

  config: TrainConfig
  engines: Engines
  constants: PromptMasks
  rows: TableRows
  evaluate: EvaluateRow
  folder: pathlib.Path
  tensorboard: pathlib.Path | None = None

  def train(self, start: Any) -> TrainedTable:
    """Runs all steps that are left of all rows.

    Args:
      start: `prompt` [R, P, H], where rows start if no state is saved.

    Returns:
      The best prompt of each row and its results.

    Raises:
      UserError: a loss that is not finite, or a state that does not fit.
    """
    prompt = np.asarray(start["prompt"], np.float32)
    found = [self._train_row(row, prompt[row]) for row in range(len(prompt))]
    self._write_metrics(len(prompt))
    return TrainedTable(
        trained={
            "prompt": np.concatenate([r.best_trained["prompt"] for r in found])
        },
        metrics=[records.best[0] for records in found],
        best_step=np.concatenate([records.best_step for records in found]),
        num_steps=self._total,
    )

  @property
  def _total(self) -> int:
    return self.config.total_steps(self.rows.num_examples)

  def _place(self, row: int) -> pathlib.Path:
    return (self.folder / artifacts.STATE).parent / f"row_{row}"

  def _write_metrics(self, num_rows: int) -> None:
    """The rows' lines in one file, by step as the native engine has them."""
    lines = [
        line
        for row in range(num_rows)
        for line in artifacts.read_json_lines(
            self._place(row) / artifacts.METRICS
        )
    ]
    lines.sort(key=lambda line: (line["step"], line["row"]))
    artifacts.write_json_lines(self.folder / artifacts.METRICS, lines)

  def _train_row(self, row: int, start: Float[np.ndarray, "P H"]) -> Records:
    """Runs the steps that are left of one row."""
    state = RowState(self._place(row))
    records = Records(
        state.folder / artifacts.METRICS,
        self.rows,
        {"prompt": start[None]},
        numbers=(row,),
    )
    step = state.step()
    state.clean(step)
    stored = {}
    if step:
      path = state.records(step)
      stored = artifacts.load_arrays(path)
      records.restore(stored, path, step)
    if step == self._total:
      return records
    masks = _of_row(self.constants, row)
    length = _length(masks)
    one = self.engines.of(length, masks.piece_mask.shape[-1])
    own, seed = _last(masks, length), self.rows.seeds[row]
    if step:
      state.restore(one, step, seed, stored, own)
    else:
      one.begin(start[-length:], own, seed)
    with progress.Reporter(
        f"{self.folder.name}/row_{row}", self._total, self.tensorboard, step
    ) as reporter:
      while step < self._total:
        step = self._block(row, one, records, step, reporter)
        if self._is_saved(step):
          state.save(one, records, step)
    return records

  def _block(
      self,
      row: int,
      one: OnePrompt,
      records: Records,
      first: int,
      reporter: progress.Reporter,
  ) -> int:
    """Takes the steps up to the next that is looked at; returns which it is."""
    step = first + 1
    while step % CHECK_EVERY and not self._is_saved(step):
      step += 1
    loss = one.train(self._batches(row, first), step - first)
    prompt = one.prompt
    where = f"{self.folder}: %s of {self.rows.name(row)} at step {step}"
    if step > first + 1:
      where += f" or up to {step - first - 1} before"
    for name, found in (("loss", loss), ("prompt", prompt)):
      if not np.isfinite(found).all():
        raise UserError(
            f"{where % name}: found NaN or infinity, expected finite numbers;"
            f" {KEPT}"
        )
    records.add_losses(np.array([loss]) * (step - first), step - first)
    reporter.update(step, {"loss": float(records.mean_loss()[0])})
    if self.config.is_evaluation(step, self.rows.num_examples):
      # [Q, H] of its own length -> [1, P, H]
      masks = _of_row(self.constants, row)
      absent = masks.token_mask.shape[0] - prompt.shape[0]
      trained = {"prompt": np.pad(prompt, ((absent, 0), (0, 0)))[None]}
      metrics = [self.evaluate(row, trained)]
      scores = records.add_metrics(step, metrics, trained)
      reporter.update(step, scores, result=True)
      reporter.scalars(step, scores)
    return step

  def _is_saved(self, step: int) -> bool:
    """Whether a state is saved after `step` steps: at every evaluation, too."""
    is_evaluation = self.config.is_evaluation(step, self.rows.num_examples)
    return is_evaluation or self.config.is_save(step)

  def _batches(self, row: int, first: int) -> Iterator[Mapping[str, Any]]:
    """The row's batches from one step on, as the native engine draws them."""
    own = dataclasses.replace(
        self.rows,
        seeds=self.rows.seeds[row : row + 1],
        splits=self.rows.splits[row : row + 1],
    )
    step = first
    while True:
      batch = own.batch(step, self.config.batch_size)
      yield {name: array[0] for name, array in batch.items()}
      step += 1


def _of_row(masks: PromptMasks, row: int) -> PromptMasks:
  """The masks of one row: [P] and [P, K]."""
  return jax.tree.map(lambda mask: np.asarray(mask)[row], masks)


def _length(masks: PromptMasks) -> int:
  """Tokens that a row has: fewer than P in a table of several lengths."""
  if masks.present is None:
    return len(masks.token_mask)
  return int(masks.present.sum())


def _last(masks: PromptMasks, length: int) -> PromptMasks:
  """The masks of the last tokens, which are those that a shorter row has."""
  return PromptMasks(
      token_mask=masks.token_mask[-length:],
      piece_mask=masks.piece_mask[-length:],
  )
