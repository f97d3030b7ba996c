"""Counts, ties and the hierarchy: literal scores beside literal masks."""

from fractions import Fraction

import numpy as np
import pytest

from xprompt_jax import pruning
from xprompt_jax.types import PromptMasks, UserError


@pytest.mark.parametrize(
    ("ratio", "num_kept", "expected"),
    [
        (0.0, 20, 0),
        (0.1, 20, 2),
        (0.9, 20, 18),  # int(20 * (1 - 0.9)) would keep 1 and not 2.
        (0.3, 10, 3),  # 10 * 0.3 is 3, though 0.1 * 3 is not 0.3 in binary.
        (0.5, 5, 3),  # 2.5 rounds up.
        (0.25, 2, 1),  # 0.5 rounds up.
        (0.15, 10, 2),  # 1.5 rounds up; 0.15 in binary is below 0.15.
        (0.35, 10, 4),  # 3.5 rounds up; 0.35 in binary is below 0.35.
        (0.9, 1, 0),  # One unit stays.
        (0.99, 2, 1),
        (0.9, 320, 288),
    ],
)
def test_num_pruned(ratio, num_kept, expected):
  assert pruning.num_pruned(ratio, num_kept) == expected


@pytest.mark.parametrize("num_kept", range(1, 330))
def test_num_pruned_of_the_whole_grid_equals_exact_fractions(num_kept):
  for tenths in range(1, 10):
    exact = Fraction(tenths, 10) * num_kept
    half_up = (exact + Fraction(1, 2)).__floor__()
    found = pruning.num_pruned(tenths / 10, num_kept)
    assert found == min(half_up, num_kept - 1)


@pytest.mark.parametrize("ratio", [1.0, 1.5, -0.1, float("nan")])
def test_ratios_outside_the_range_are_refused(ratio):
  with pytest.raises(UserError, match=r"compression_ratio: found .* \[0, 1\)"):
    pruning.num_pruned(ratio, 10)


def test_the_lowest_scores_go():
  np.testing.assert_array_equal(
      pruning.prune_units(
          np.array([0.3, 0.1, 0.5, 0.2]), np.ones(4, np.float32), 0.5
      ),
      [1, 0, 1, 0],
  )


def test_among_equal_scores_the_higher_index_goes_first():
  np.testing.assert_array_equal(
      pruning.prune_units(
          np.array([0.2, 0.2, 0.2, 0.2, 0.1]), np.ones(5, np.float32), 0.4
      ),
      [1, 1, 1, 0, 0],
  )


def test_pruned_units_neither_count_nor_return():
  # Three are kept; half of three is 1.5, rounded up to 2.
  np.testing.assert_array_equal(
      pruning.prune_units(
          np.array([9.0, 0.1, 0.2, 0.3, 9.0]),
          np.array([0, 1, 1, 1, 0], np.float32),
          0.5,
      ),
      [0, 0, 0, 1, 0],
  )


@pytest.mark.parametrize("ratio", pruning.RATIOS)
@pytest.mark.parametrize("ties", [False, True])
def test_masks_hold_the_requested_count(ratio, ties):
  rng = np.random.default_rng(0)
  scores = rng.integers(0, 3, 320) if ties else rng.random(320)
  mask = pruning.prune_units(
      scores.astype(np.float64), np.ones(320, np.float32), ratio
  )
  assert mask.sum() == 320 - round(ratio * 320)


def test_scores_that_are_not_finite_are_refused():
  with pytest.raises(ValueError, match="not finite"):
    pruning.prune_units(np.array([np.nan, 1.0]), np.ones(2, np.float32), 0.5)


# P 3, K 2.
KEPT = PromptMasks(
    token_mask=np.ones(3, np.float32), piece_mask=np.ones((3, 2), np.float32)
)


def test_a_pruned_token_takes_its_pieces_along():
  masks = pruning.prune_tokens(np.array([0.5, 0.1, 0.9]), KEPT, 0.3)
  assert masks.token_mask.tolist() == [1, 0, 1]
  assert masks.piece_mask.tolist() == [[1, 1], [0, 0], [1, 1]]


def test_pieces_are_ranked_over_all_kept_tokens_together():
  base = pruning.prune_tokens(np.array([0.5, 0.1, 0.9]), KEPT, 0.3)
  scores = np.array([[0.1, 0.2], [0.0, 0.0], [0.3, 0.4]])
  masks = pruning.prune_pieces(scores, base, 0.5)
  assert masks.piece_mask.tolist() == [[0, 0], [0, 0], [1, 1]]
  assert masks.token_mask.tolist() == [1, 0, 1]


def test_pieces_per_token_leave_the_same_share_of_each():
  base = pruning.prune_tokens(np.array([0.5, 0.1, 0.9]), KEPT, 0.3)
  scores = np.array([[0.1, 0.2], [0.0, 0.0], [0.3, 0.4]])
  masks = pruning.prune_pieces(scores, base, 0.5, "per_token")
  assert masks.piece_mask.tolist() == [[0, 1], [0, 0], [0, 1]]


def test_pruned_stays_pruned():
  rng = np.random.default_rng(1)
  masks = PromptMasks(
      token_mask=np.ones(20, np.float32),
      piece_mask=np.ones((20, 16), np.float32),
  )
  for scope in ("global", "per_token", "global"):
    tokens = pruning.prune_tokens(rng.random(20), masks, 0.2)
    pieces = pruning.prune_pieces(rng.random((20, 16)), tokens, 0.3, scope)
    assert (pieces.token_mask <= masks.token_mask).all()
    assert (pieces.piece_mask <= masks.piece_mask).all()
    assert (pieces.piece_mask <= pieces.token_mask[:, None]).all()
    masks = pieces


def test_an_unknown_scope_is_refused():
  with pytest.raises(UserError, match="piece_scope: found 'row'"):
    pruning.prune_pieces(np.ones((3, 2)), KEPT, 0.5, "row")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("strategy", "binary", "found 'binary', expected one of linear, grid"),
        ("granularities", ("piece", "token"), "expected \\('token',\\)"),
        ("token_ratios", (), "a list that is not empty"),
        ("piece_ratios", (0.5, 1.0), "found 1.0, expected a compression"),
        ("rewind_to", "zero", "one of tuned, initial"),
    ],
)
def test_search_config_names_the_field(field, value, message):
  with pytest.raises(UserError, match=f"SearchConfig.{field}: .*{message}"):
    pruning.SearchConfig(**{field: value})
