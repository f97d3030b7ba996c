"""Which examples make up a step's batch, and the arrays they become.

Between the token cache (flat ids on disk) and the model (padded `[B, T]`
arrays). The order is a pure function of seed and step, so a run that starts
again, on any number of hosts, sees the examples it would have seen; inputs are
padded to the smallest bucket that holds the batch, which changes no result
(padding is masked) and bounds the number of compiled shapes.
"""

from collections.abc import Callable, Sequence
import functools
import itertools

from jaxtyping import Int64
import numpy as np

from xprompt_jax.mixtures import MixedSplit
from xprompt_jax.token_cache import CachedSplit
from xprompt_jax.types import UserError

# T5X's keys; see `types.Batch` for shapes and dtypes.
NumpyBatch = dict[str, np.ndarray]
Indices = Int64[np.ndarray, "B"]

_SMALLEST_BUCKET = 16
# Which member of a mixture is next, apart from which of its examples.
_MIXTURE_STREAM = 1


@functools.lru_cache(maxsize=512)
def epoch_permutation(
    seed: int, epoch: int, num_examples: int, stream: int = 0
) -> Int64[np.ndarray, "N"]:
  """Returns the order of the examples in one epoch.

  The order sorts the raw words of a Philox stream: numpy promises those for
  good, while `Generator.permutation` may change between its versions.

  Args:
    seed: the row's data seed, 0 or more.
    epoch: counted from 0.
    num_examples: examples in the split, N.
    stream: tells draws of one seed and epoch apart.

  Returns:
    A permutation of 0..N-1, read-only (calls share it).

  Raises:
    UserError: the seed is negative, or the split is empty.
  """
  if seed < 0 or num_examples < 1:
    raise UserError(
        f"order of {num_examples} examples with seed {seed}: expected at least"
        " one example and a seed of 0 or more"
    )
  entropy = [seed, epoch, stream] if stream else [seed, epoch]
  words = np.random.Philox(np.random.SeedSequence(entropy))
  order = np.argsort(words.random_raw(num_examples), kind="stable")
  order = order.astype(np.int64)
  order.setflags(write=False)
  return order


def stream_indices(
    *, seed: int, step: int, batch_size: int, num_examples: int
) -> Indices:
  """Returns the examples of one training step.

  The stream is one epoch's permutation after the other; step t takes positions
  [t * B, (t + 1) * B). Batches run across the end of an epoch and are always
  full, also where the split is smaller than a batch.

  Args:
    seed: the row's data seed, 0 or more.
    step: counted from 0.
    batch_size: examples of a step, B.
    num_examples: examples in the split.
  """
  positions = np.arange(step * batch_size, (step + 1) * batch_size)
  return _along(
      lambda epoch: epoch_permutation(seed, epoch, num_examples),
      positions,
      num_examples,
  )


def _along(
    epoch_order: Callable[[int], np.ndarray],
    positions: np.ndarray,
    num_examples: int,
) -> np.ndarray:
  """What stands at ascending positions of epochs that follow each other."""
  epochs = positions // num_examples if num_examples else positions
  taken = [
      epoch_order(int(epoch))[positions[epochs == epoch] % num_examples]
      for epoch in np.unique(epochs)
  ]
  return np.concatenate(taken)


@functools.lru_cache(maxsize=128)
def mixture_permutation(
    seed: int, epoch: int, sizes: tuple[int, ...], quotas: tuple[int, ...]
) -> Int64[np.ndarray, "N"]:
  """Returns the order of the examples in one epoch of a mixture.

  Each member gives its quota. A member's own examples come in the order in
  which a row of the same seed would read that task alone, and its stream goes
  on across epochs; which member is next is shuffled.

  Args:
    seed: the row's data seed, 0 or more.
    epoch: counted from 0.
    sizes: examples of each member, which stand one after another.
    quotas: how many of them each gives, N in all.

  Returns:
    Indices into all examples, read-only (calls share it).
  """
  total = sum(quotas)
  members = np.repeat(np.arange(len(sizes)), quotas)
  members = members[epoch_permutation(seed, epoch, total, _MIXTURE_STREAM)]
  order = np.zeros(total, np.int64)
  start = 0
  for member, (size, quota) in enumerate(zip(sizes, quotas, strict=True)):
    order[members == member] = start + stream_indices(
        seed=seed, step=epoch, batch_size=quota, num_examples=size
    )
    start += size
  order.setflags(write=False)
  return order


def split_indices(
    split: CachedSplit, *, seed: int, step: int, batch_size: int
) -> Indices:
  """Returns the examples of one training step of a task or a mixture.

  Args: as for `stream_indices`.
  """
  if not isinstance(split, MixedSplit):
    return stream_indices(
        seed=seed, step=step, batch_size=batch_size, num_examples=len(split)
    )
  sizes, quotas = split.sizes, split.quotas
  return _along(
      lambda epoch: mixture_permutation(seed, epoch, sizes, quotas),
      np.arange(step * batch_size, (step + 1) * batch_size),
      sum(quotas),
  )


def default_buckets(inputs_length: int) -> tuple[int, ...]:
  """Returns the powers of two from 16 up, ending at `inputs_length`.

  Each bucket is a shape that is compiled once, so they are few.
  """
  buckets = [inputs_length]
  size = _SMALLEST_BUCKET
  while size < inputs_length:
    buckets.insert(-1, size)
    size *= 2
  return tuple(buckets)


def check_buckets(buckets: Sequence[int], inputs_length: int) -> None:
  """Refuses buckets that are not ascending lengths up to `inputs_length`.

  Raises:
    UserError: names what was found.
  """
  ascending = all(a < b for a, b in itertools.pairwise(buckets))
  if not buckets or not ascending or buckets[0] < 1:
    raise UserError(
        f"buckets: found {tuple(buckets)}, expected ascending lengths of 1 or"
        " more"
    )
  if buckets[-1] != inputs_length:
    raise UserError(
        f"buckets: the last is {buckets[-1]}, expected the inputs_length"
        f" {inputs_length}"
    )


def bucket_length(
    lengths: Int64[np.ndarray, "B"], buckets: Sequence[int]
) -> int:
  """Returns the smallest bucket that holds the longest of the lengths.

  Raises:
    UserError: the longest is longer than the last bucket.
  """
  longest = int(lengths.max())
  for bucket in buckets:
    if bucket >= longest:
      return bucket
  raise UserError(
      f"buckets: found {tuple(buckets)}, expected one that holds an input of"
      f" {longest} tokens"
  )


def gather_batch(
    rows: Sequence[tuple[CachedSplit, Indices]],
    *,
    buckets: Sequence[int],
    targets_length: int,
) -> NumpyBatch:
  """Returns one batch for all rows of a prompt table.

  Args:
    rows: for each of R rows its split and the examples it takes, B of them.
      Rows may share a split or have their own.
    buckets: ascending input lengths; the batch takes the smallest that holds
      every input of every row.
    targets_length: L, what targets are padded to.

  Returns:
    T5X's four arrays; row r's examples are at [r * B, (r + 1) * B):
    encoder_input_tokens int32 [R * B, T], decoder_input_tokens and
    decoder_target_tokens int32 [R * B, L], decoder_loss_weights float32
    [R * B, L], 1 on the target's tokens, EOS included.

  Raises:
    UserError: an input does not fit the buckets or a target its length.
  """
  sizes = {len(indices) for _, indices in rows}
  if len(sizes) != 1:
    raise ValueError(f"rows take {sorted(sizes)} examples, expected one number")
  lengths = [split.input_lengths[indices] for split, indices in rows]
  length = bucket_length(np.concatenate(lengths), buckets)
  inputs = [s.pad_inputs(indices, length) for s, indices in rows]
  targets = np.concatenate(
      [s.pad_targets(indices, targets_length) for s, indices in rows]
  )
  held = np.concatenate([s.target_lengths[indices] for s, indices in rows])
  # Teacher forcing: position t sees the targets before t, the first sees pad.
  shifted = np.zeros_like(targets)
  shifted[:, 1:] = targets[:, :-1]
  return {
      "encoder_input_tokens": np.concatenate(inputs),
      "decoder_input_tokens": shifted,
      "decoder_target_tokens": targets,
      # By length, not by id: a target may hold an id that equals padding.
      "decoder_loss_weights": (
          np.arange(targets_length)[None, :] < held[:, None]
      ).astype(np.float32),
  }
