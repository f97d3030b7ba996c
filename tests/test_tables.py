"""Each row of a table reads its own stream, step by step or once through."""

import numpy as np

from tests import examples
from xprompt_jax.tables import TableRows, named_examples

# Seven examples, all of two tokens but number 3; and three of two tokens.
SEVEN = examples.make_split(
    [[20 + i, 1] if i != 3 else [23, 9, 9, 1] for i in range(7)],
    [[10 + i, 1] for i in range(7)],
)
THREE = examples.make_split(
    [[30, 1], [31, 1], [32, 1]], [[15, 1], [16, 17, 1], [1]]
)


def table(seeds, splits):
  return TableRows(seeds=seeds, splits=splits, buckets=(3, 6), targets_length=4)


def first_tokens(batch):
  return batch["encoder_input_tokens"][..., 0].tolist()


def test_rows_of_one_split_follow_their_own_seeds():
  # Seed 3 reads 0 1 2 5 6 4 3, seed 4 reads 0 6 3 4 1 5 2.
  rows = table((3, 4, 3), (SEVEN, SEVEN, SEVEN))
  assert first_tokens(rows.batch(0, 3)) == [
      [20, 21, 22],
      [20, 26, 23],
      [20, 21, 22],
  ]
  assert first_tokens(rows.batch(1, 3)) == [
      [25, 26, 24],
      [24, 21, 25],
      [25, 26, 24],
  ]
  # The last of the seven, then a new epoch: seed 3 goes on with 5 6 3 0 ...
  assert first_tokens(rows.batch(2, 3))[0] == [23, 25, 26]


def test_rows_of_different_splits_stand_in_one_batch():
  # Seed 0 reads 0 1 2, then 2 1 0, then 2 0 1.
  rows = table((3, 0), (SEVEN, THREE))
  assert rows.num_examples == 7
  batch = rows.batch(1, 4)
  assert {key: array.tolist() for key, array in batch.items()} == {
      # R 2, B 4, T 6: example 3 needs the larger bucket.
      "encoder_input_tokens": [
          [
              [26, 1, 0, 0, 0, 0],
              [24, 1, 0, 0, 0, 0],
              [23, 9, 9, 1, 0, 0],
              [25, 1, 0, 0, 0, 0],
          ],
          [
              [31, 1, 0, 0, 0, 0],
              [30, 1, 0, 0, 0, 0],
              [32, 1, 0, 0, 0, 0],
              [30, 1, 0, 0, 0, 0],
          ],
      ],
      "decoder_input_tokens": [
          [[0, 16, 1, 0], [0, 14, 1, 0], [0, 13, 1, 0], [0, 15, 1, 0]],
          [[0, 16, 17, 1], [0, 15, 1, 0], [0, 1, 0, 0], [0, 15, 1, 0]],
      ],
      "decoder_target_tokens": [
          [[16, 1, 0, 0], [14, 1, 0, 0], [13, 1, 0, 0], [15, 1, 0, 0]],
          [[16, 17, 1, 0], [15, 1, 0, 0], [1, 0, 0, 0], [15, 1, 0, 0]],
      ],
      "decoder_loss_weights": [
          [[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0]],
          [[1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 0, 0]],
      ],
  }
  # No row of this step holds example 3.
  assert rows.batch(0, 3)["encoder_input_tokens"].shape == (2, 3, 3)


def test_a_row_reads_the_same_beside_other_rows():
  beside = table((3, 0), (SEVEN, THREE))
  alone = table((0,), (THREE,))
  for step in range(4):
    found, expected = beside.batch(step, 2), alone.batch(step, 2)
    for key, array in expected.items():
      length = array.shape[-1]
      np.testing.assert_array_equal(found[key][1, :, :length], array[0])
      assert not found[key][1, :, length:].any()


def test_every_example_takes_short_inputs_first_and_fills_the_last_batch():
  rows = table((3, 0, 5), (SEVEN, THREE, SEVEN))
  found = list(rows.every_example(4))
  assert [batch.row_ids.tolist() for batch in found] == [
      [0, 2, 0, 2],
      [0, 2, 0, 2],
      [0, 2, 0, 2],
      [0, 2, 2, 2],
      [1, 1, 1, 1],
  ]
  assert [batch.indices.tolist() for batch in found] == [
      [0, 0, 1, 1],
      [2, 2, 4, 4],
      [5, 5, 6, 6],
      [3, 3, 3, 3],
      [0, 1, 2, 2],
  ]
  assert [batch.valid.tolist() for batch in found] == [
      [True] * 4,
      [True] * 4,
      [True] * 4,
      [True, True, False, False],
      [True, True, True, False],
  ]
  shapes = [b.arrays["encoder_input_tokens"].shape for b in found]
  assert shapes == [(4, 3), (4, 3), (4, 3), (4, 6), (4, 3)]
  assert found[-1].arrays["decoder_loss_weights"].tolist() == [
      [1, 1, 0, 0],
      [1, 1, 1, 0],
      [1, 0, 0, 0],
      [0, 0, 0, 0],
  ]
  assert found[3].arrays["decoder_loss_weights"].tolist() == [
      [1, 1, 0, 0],
      [1, 1, 0, 0],
      [0, 0, 0, 0],
      [0, 0, 0, 0],
  ]


def test_named_examples_mix_rows_in_a_batch():
  found = list(
      named_examples(
          SEVEN,
          np.array([2, 0, 2, 1, 0, 1, 2]),
          batch_size=4,
          buckets=(3, 6),
          targets_length=4,
      )
  )
  # Number 3 is the longest.
  assert [batch.indices.tolist() for batch in found] == [
      [0, 1, 2, 4],
      [5, 6, 3, 3],
  ]
  assert [batch.row_ids.tolist() for batch in found] == [
      [2, 0, 2, 0],
      [1, 2, 1, 1],
  ]
  assert [batch.valid.tolist() for batch in found] == [
      [True] * 4,
      [True, True, True, False],
  ]
  assert [first_tokens(batch.arrays) for batch in found] == [
      [20, 21, 22, 24],
      [25, 26, 23, 23],
  ]
  shapes = [b.arrays["encoder_input_tokens"].shape for b in found]
  assert shapes == [(4, 3), (4, 6)]


def test_every_row_reads_each_of_its_examples_exactly_once():
  rows = table((0, 1, 2, 3), (THREE, SEVEN, THREE, SEVEN))
  for batch_size in (1, 2, 5, 40):
    read = []
    for batch in rows.every_example(batch_size):
      assert batch.valid.shape == (batch_size,)
      tokens = batch.arrays["encoder_input_tokens"][:, 0]
      first = np.where(np.isin(batch.row_ids, (1, 3)), 20, 30)
      np.testing.assert_array_equal(tokens, first + batch.indices)
      weights = batch.arrays["decoder_loss_weights"]
      np.testing.assert_array_equal(weights.any(axis=1), batch.valid)
      pairs = zip(batch.row_ids, batch.indices, batch.valid, strict=True)
      read += [(int(row), int(i)) for row, i, valid in pairs if valid]
    assert sorted(read) == [
        (row, i) for row, size in enumerate((3, 7, 3, 7)) for i in range(size)
    ]
