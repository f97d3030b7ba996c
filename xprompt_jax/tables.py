"""What each row of a prompt table reads, step by step or once through.

`batches.py` knows splits and indices; this module knows that a table has R
rows and that each of them has a stream of its own.
"""

from collections.abc import Iterator, Sequence
import dataclasses
from typing import Any

from jaxtyping import Int
import numpy as np

from xprompt_jax import batches
from xprompt_jax.token_cache import CachedSplit


@dataclasses.dataclass(frozen=True, kw_only=True)
class TableBatch:
  """Examples that name the row they use.

  Attributes:
    row_ids: [B] the row of each example.
    indices: [B] its place in the row's split.
    valid: [B] False where an example only fills the batch up.
    arrays: T5X's keys, [B, ...].
  """

  row_ids: np.ndarray
  indices: np.ndarray
  valid: np.ndarray
  arrays: dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TableRows:
  """What each row of a table reads.

  Attributes:
    seeds: R seeds: of the data order, and of dropout where it is on.
    splits: R splits; rows may share one.
    buckets: input lengths that batches are padded to.
    targets_length: L, what targets are padded to.
  """

  seeds: tuple[int, ...]
  splits: tuple[CachedSplit, ...]
  buckets: tuple[int, ...]
  targets_length: int

  @property
  def num_examples(self) -> int:
    """Examples of the largest split: one epoch."""
    return max(len(split) for split in self.splits)

  def label(self, row: int) -> dict[str, Any]:
    """`seed` of a row, and `task` where rows read different ones."""
    label: dict[str, Any] = {"seed": self.seeds[row]}
    if len({split.task for split in self.splits}) > 1:
      label = {"task": self.splits[row].task, **label}
    return label

  def name(self, row: int) -> str:
    """A row in a sentence: `row 3 (seed 0)`."""
    label = ", ".join(f"{k} {v}" for k, v in self.label(row).items())
    return f"row {row} ({label})"

  def batch(self, step: int, batch_size: int) -> dict[str, np.ndarray]:
    """The step's examples of all rows: T5X's keys, [R, B, ...]."""
    chosen = []
    for seed, split in zip(self.seeds, self.splits, strict=True):
      indices = batches.split_indices(
          split, seed=seed, step=step, batch_size=batch_size
      )
      chosen.append((split, indices))
    flat = batches.gather_batch(
        chosen, buckets=self.buckets, targets_length=self.targets_length
    )
    # [R * B, T] -> [R, B, T]
    shape = (len(self.seeds), batch_size, -1)
    return {key: value.reshape(shape) for key, value in flat.items()}

  def every_example(self, batch_size: int) -> Iterator[TableBatch]:
    """Yields each example of each row once, short inputs first.

    Rows that share a split are batched together; the last batch of a split is
    filled up with repeats whose loss weights are 0.

    Args:
      batch_size: B.
    """
    rows_of: dict[int, list[int]] = {}
    for row, split in enumerate(self.splits):
      rows_of.setdefault(id(split), []).append(row)
    for rows in rows_of.values():
      split = self.splits[rows[0]]
      order = np.argsort(split.input_lengths, kind="stable")
      yield from _whole_batches(
          split,
          np.repeat(order, len(rows)),
          np.tile(np.array(rows), len(order)),
          batch_size=batch_size,
          buckets=self.buckets,
          targets_length=self.targets_length,
      )


def named_examples(
    split: CachedSplit,
    row_ids: Int[np.ndarray, "N"],
    *,
    batch_size: int,
    buckets: Sequence[int],
    targets_length: int,
) -> Iterator[TableBatch]:
  """Yields each example of a split once with the row it names, short first.

  Args:
    split: N examples.
    row_ids: [N], the row of each; rows mix in a batch.
    batch_size: B.
    buckets: input lengths that batches are padded to.
    targets_length: L, what targets are padded to.
  """
  order = np.argsort(split.input_lengths, kind="stable")
  yield from _whole_batches(
      split,
      order,
      row_ids[order],
      batch_size=batch_size,
      buckets=buckets,
      targets_length=targets_length,
  )


def _whole_batches(
    split: CachedSplit,
    indices: Int[np.ndarray, "N"],
    row_ids: Int[np.ndarray, "N"],
    *,
    batch_size: int,
    buckets: Sequence[int],
    targets_length: int,
) -> Iterator[TableBatch]:
  """Batches of given examples and rows, the last filled up with repeats."""
  for start in range(0, len(indices), batch_size):
    taken = slice(start, start + batch_size)
    count = len(indices[taken])
    fill = (0, batch_size - count)
    chosen = np.pad(indices[taken], fill, mode="edge")
    valid = np.arange(batch_size) < count
    arrays = batches.gather_batch(
        [(split, chosen)], buckets=buckets, targets_length=targets_length
    )
    arrays["decoder_loss_weights"] *= valid[:, None]
    yield TableBatch(
        row_ids=np.pad(row_ids[taken], fill, mode="edge"),
        indices=chosen,
        valid=valid,
        arrays=arrays,
    )
