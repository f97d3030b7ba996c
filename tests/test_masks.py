"""What masks mean: literal masks beside literal products."""

import numpy as np

from xprompt_jax import masks as masks_lib
from xprompt_jax.types import PromptMasks

# R 1, P 3, K 2, H 4.
MASKS = PromptMasks(
    token_mask=np.array([[1.0, 0.0, 1.0]], np.float32),
    piece_mask=np.array([[[1.0, 0.0], [0.0, 0.0], [1.0, 1.0]]], np.float32),
)


def test_expand_repeats_each_piece_over_its_entries():
  np.testing.assert_array_equal(
      masks_lib.expand(MASKS, 4),
      [[[1, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]]],
  )


def test_apply_masks_makes_pruned_entries_exactly_zero():
  prompt = np.arange(1, 13, dtype=np.float32).reshape(1, 3, 4)
  np.testing.assert_array_equal(
      masks_lib.apply_masks(prompt, MASKS),
      [[[1, 2, 0, 0], [0, 0, 0, 0], [9, 10, 11, 12]]],
  )


def test_a_token_mask_hides_its_pieces_whatever_they_say():
  masks = PromptMasks(
      token_mask=np.array([[0.0]], np.float32),
      piece_mask=np.array([[[1.0, 1.0]]], np.float32),
  )
  np.testing.assert_array_equal(masks_lib.expand(masks, 4), [[[0, 0, 0, 0]]])


def test_counts():
  assert masks_lib.kept_tokens(MASKS).tolist() == [2]
  assert masks_lib.kept_pieces(MASKS).tolist() == [3]
  assert masks_lib.tunable_parameters(MASKS, 4).tolist() == [6]


def test_full_masks_keep_everything():
  masks = masks_lib.full_masks(2, 3, 4)
  assert masks_lib.kept_tokens(masks).tolist() == [3, 3]
  assert masks_lib.kept_pieces(masks).tolist() == [12, 12]


def test_take_rows_keeps_the_order_given():
  masks = PromptMasks(
      token_mask=np.array([[1.0], [0.0]], np.float32),
      piece_mask=np.array([[[1.0]], [[0.0]]], np.float32),
  )
  taken = masks_lib.take_rows(masks, np.array([1, 0, 1]))
  assert np.asarray(taken.token_mask).tolist() == [[0.0], [1.0], [0.0]]
