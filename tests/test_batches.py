"""Batches: a fixed order, full batches, padding that changes nothing."""

import numpy as np
import pytest

from xprompt_jax import batches
from xprompt_jax.token_cache import CachedSplit
from xprompt_jax.types import UserError


def make_split(inputs, targets):
  """A split in memory, of lists of ids."""
  return CachedSplit(
      task="toy",
      split="train",
      inputs=np.concatenate(inputs, dtype=np.int32),
      input_offsets=np.cumsum([0, *map(len, inputs)], dtype=np.int64),
      targets=np.concatenate(targets, dtype=np.int32),
      target_offsets=np.cumsum([0, *map(len, targets)], dtype=np.int64),
      examples=[{"id": str(i)} for i in range(len(inputs))],
      info={},
  )


@pytest.fixture
def split():
  inputs = [[11, 12, 1], [21, 1], [31, 32, 33, 34, 1], [41, 42, 43, 1]]
  return make_split(inputs, [[5, 1], [6, 7, 1], [1], [8, 9, 1]])


class TestOrder:
  """Which examples a step takes."""

  def test_is_fixed_for_good(self):
    # From numpy's Philox stream: these orders may never change.
    assert batches.epoch_permutation(3, 0, 7).tolist() == [0, 1, 2, 5, 6, 4, 3]
    assert batches.epoch_permutation(3, 1, 7).tolist() == [5, 6, 3, 0, 1, 2, 4]
    assert batches.epoch_permutation(4, 0, 7).tolist() == [0, 6, 3, 4, 1, 5, 2]

  @pytest.mark.parametrize("batch_size", [1, 3, 5, 12])
  def test_the_stream_is_the_epochs_one_after_another(self, batch_size):
    epochs = [batches.epoch_permutation(9, e, 5) for e in range(12)]
    expected = np.concatenate(epochs)
    steps = [
        batches.stream_indices(
            seed=9, step=t, batch_size=batch_size, num_examples=5
        )
        for t in range(60 // batch_size)
    ]
    assert {len(indices) for indices in steps} == {batch_size}
    np.testing.assert_array_equal(np.concatenate(steps), expected)

  def test_every_epoch_has_every_example(self):
    for epoch in range(3):
      order = batches.epoch_permutation(0, epoch, 101)
      assert sorted(order.tolist()) == list(range(101))

  def test_an_order_cannot_be_changed_by_a_caller(self):
    with pytest.raises(ValueError, match="read-only"):
      batches.epoch_permutation(0, 0, 5)[0] = 3

  def test_refusals(self):
    with pytest.raises(UserError, match="order of 5 examples with seed -1"):
      batches.epoch_permutation(-1, 0, 5)
    with pytest.raises(UserError, match="order of 0 examples"):
      batches.stream_indices(seed=0, step=0, batch_size=2, num_examples=0)


class TestBuckets:
  """The lengths inputs are padded to."""

  @pytest.mark.parametrize(
      ("inputs_length", "buckets"),
      [
          (8, (8,)),
          (16, (16,)),
          (17, (16, 17)),
          (100, (16, 32, 64, 100)),
          (512, (16, 32, 64, 128, 256, 512)),
      ],
  )
  def test_defaults(self, inputs_length, buckets):
    assert batches.default_buckets(inputs_length) == buckets
    batches.check_buckets(buckets, inputs_length)

  @pytest.mark.parametrize(
      ("longest", "bucket"), [(1, 4), (4, 4), (5, 6), (6, 6), (7, 9)]
  )
  def test_the_smallest_that_holds_the_longest(self, longest, bucket):
    lengths = np.array([1, longest, 1])
    assert batches.bucket_length(lengths, (4, 6, 9)) == bucket

  def test_too_long(self):
    with pytest.raises(UserError, match=r"\(4, 6\), .* an input of 7 tokens"):
      batches.bucket_length(np.array([7]), (4, 6))

  @pytest.mark.parametrize(
      ("buckets", "message"),
      [
          ((), "ascending"),
          ((0, 8), "ascending"),
          ((6, 4, 8), "ascending"),
          ((8, 8), "ascending"),
          ((4, 6), "the last is 6, expected the inputs_length 8"),
      ],
  )
  def test_refusals(self, buckets, message):
    with pytest.raises(UserError, match=message):
      batches.check_buckets(buckets, 8)


class TestGather:
  """Ids become T5X's four arrays."""

  def test_two_rows_with_their_own_splits(self, split):
    other = make_split([[51, 1], [61, 62, 1]], [[2, 3, 4, 1], [0, 1]])
    rows = [(split, np.array([3, 1, 0])), (other, np.array([1, 1, 0]))]
    batch = batches.gather_batch(rows, buckets=(2, 4, 7), targets_length=5)
    literal = {
        "encoder_input_tokens": [
            [41, 42, 43, 1],
            [21, 1, 0, 0],
            [11, 12, 1, 0],
            [61, 62, 1, 0],
            [61, 62, 1, 0],
            [51, 1, 0, 0],
        ],
        "decoder_input_tokens": [
            [0, 8, 9, 1, 0],
            [0, 6, 7, 1, 0],
            [0, 5, 1, 0, 0],
            [0, 0, 1, 0, 0],
            [0, 0, 1, 0, 0],
            [0, 2, 3, 4, 1],
        ],
        "decoder_target_tokens": [
            [8, 9, 1, 0, 0],
            [6, 7, 1, 0, 0],
            [5, 1, 0, 0, 0],
            [0, 1, 0, 0, 0],
            [0, 1, 0, 0, 0],
            [2, 3, 4, 1, 0],
        ],
        "decoder_loss_weights": [
            [1, 1, 1, 0, 0],
            [1, 1, 1, 0, 0],
            [1, 1, 0, 0, 0],
            [1, 1, 0, 0, 0],
            [1, 1, 0, 0, 0],
            [1, 1, 1, 1, 0],
        ],
    }
    assert {name: array.tolist() for name, array in batch.items()} == literal
    assert {name: array.dtype for name, array in batch.items()} == {
        "encoder_input_tokens": np.int32,
        "decoder_input_tokens": np.int32,
        "decoder_target_tokens": np.int32,
        "decoder_loss_weights": np.float32,
    }

  def test_the_longest_of_all_rows_decides_the_bucket(self, split):
    short = batches.gather_batch(
        [(split, np.array([1])), (split, np.array([0]))],
        buckets=(2, 4, 7),
        targets_length=3,
    )
    long = batches.gather_batch(
        [(split, np.array([1])), (split, np.array([2]))],
        buckets=(2, 4, 7),
        targets_length=3,
    )
    assert short["encoder_input_tokens"].shape == (2, 4)
    assert long["encoder_input_tokens"].shape == (2, 7)

  def test_a_bucket_only_leaves_padding_out(self, split):
    rows = [(split, np.array([0, 1, 3]))]
    tight = batches.gather_batch(rows, buckets=(4, 9), targets_length=5)
    full = batches.gather_batch(rows, buckets=(9,), targets_length=5)
    tokens = full.pop("encoder_input_tokens")
    np.testing.assert_array_equal(
        tight.pop("encoder_input_tokens"), tokens[:, :4]
    )
    assert not tokens[:, 4:].any()
    for name, array in full.items():
      np.testing.assert_array_equal(tight[name], array)

  def test_a_target_that_does_not_fit_is_refused(self, split):
    with pytest.raises(UserError, match="3 tokens, expected at most 2"):
      batches.gather_batch(
          [(split, np.array([1]))], buckets=(8,), targets_length=2
      )

  def test_rows_take_the_same_number(self, split):
    with pytest.raises(ValueError, match="one number"):
      batches.gather_batch(
          [(split, np.array([1])), (split, np.array([1, 2]))],
          buckets=(8,),
          targets_length=4,
      )
