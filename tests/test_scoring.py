"""One backward pass gives the per-example definition of importance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import examples
from xprompt_jax import masks as masks_lib
from xprompt_jax import scoring
from xprompt_jax.model import target_losses
from xprompt_jax.types import PromptMasks


def per_example_scores(model, params, prompt, masks, rows, row):
  """Mean over examples of |dL/dmask| by vmap(grad) over the masks of a row.

  This is the definition, written without G: every example is differentiated
  alone with respect to the two masks.
  """
  split = rows.splits[row]
  arrays = next(examples.rows_of(split).every_example(len(split))).arrays

  def loss(token_mask, piece_mask, example):
    masks = PromptMasks(token_mask=token_mask, piece_mask=piece_mask)
    masked = masks_lib.apply_masks(prompt[row], masks)[None]
    batch = {key: value[None] for key, value in example.items()}
    visible = model.prompt_visible(jax.tree.map(lambda mask: mask[None], masks))
    logits = model.logits(params, masked, visible, batch)
    return target_losses(logits, batch)[0]

  derivatives = jax.jit(
      jax.vmap(jax.grad(loss, argnums=(0, 1)), in_axes=(None, None, 0))
  )(jnp.array(masks.token_mask[row]), jnp.array(masks.piece_mask[row]), arrays)
  return [np.abs(np.asarray(d, np.float64)).mean(axis=0) for d in derivatives]


def assert_close(found, expected):
  """To 1e-5 of the largest score: small ones carry the noise of large ones."""
  np.testing.assert_allclose(
      found, expected, rtol=1e-5, atol=1e-5 * expected.max()
  )


TINY = {"model": examples.TINY_MODEL, "frozen_params": examples.tiny_params()}


def mask_derivatives(prompt, masks, batch):
  """Of each example, by its token mask and its piece mask."""
  return scoring.mask_derivatives(
      prompt,
      masks,
      examples.tiny_params(),
      batch.row_ids,
      batch.arrays,
      model=examples.TINY_MODEL,
  )


def test_scores_of_the_bundled_model_equal_the_definition():
  model, params = examples.bundled_model()
  split = examples.bundled_split("mini_boolq", 24)
  rows = examples.rows_of(split, (0, 1))
  embedding = params["token_embedder"]["embedding"]
  prompt = jnp.stack([embedding[20:40], embedding[50:70]])
  masks = examples.random_masks(2, 20, 16)
  token, piece = scoring.score_table(
      np.asarray(prompt),
      masks,
      rows,
      model=model,
      frozen_params=params,
      batch_size=16,
  )
  for row in range(2):
    expected_token, expected_piece = per_example_scores(
        model, params, prompt, masks, rows, row
    )
    assert_close(token[row], expected_token)
    assert_close(piece[row], expected_piece)


@pytest.mark.parametrize("pruned_tokens", ["zero", "ignore"])
def test_scores_do_not_depend_on_the_batch_size(pruned_tokens):
  import dataclasses

  model = dataclasses.replace(examples.TINY_MODEL, pruned_tokens=pruned_tokens)
  rows = examples.rows_of(examples.tiny_split(7), (0, 1))
  prompt = np.asarray(examples.random_prompt(2, examples.TINY_P, 12))
  masks = examples.random_masks(2, examples.TINY_P, examples.TINY_K)

  def scores(batch_size):
    return scoring.score_table(
        prompt,
        masks,
        rows,
        model=model,
        frozen_params=examples.tiny_params(),
        batch_size=batch_size,
    )

  token, piece = scores(14)
  assert token.shape == (2, 5)
  assert piece.shape == (2, 5, 4)
  for batch_size in (1, 4):
    other_token, other_piece = scores(batch_size)
    assert_close(other_token, token)
    assert_close(other_piece, piece)


def test_the_absolute_value_is_taken_per_example():
  """Two examples whose derivatives cancel still score."""
  rows = examples.rows_of(examples.tiny_split(9))
  prompt = np.asarray(examples.random_prompt(1, examples.TINY_P, 12))
  masks = masks_lib.full_masks(1, examples.TINY_P, examples.TINY_K)
  batch = next(rows.every_example(9))
  derivatives, _ = mask_derivatives(prompt, masks, batch)
  derivatives = np.asarray(derivatives)
  # There are examples of both signs, or the test would show nothing.
  assert ((derivatives > 0).any(axis=0) & (derivatives < 0).any(axis=0)).any()
  token, _ = scoring.score_table(prompt, masks, rows, **TINY, batch_size=9)
  assert_close(token[0], np.abs(derivatives).mean(axis=0))
  assert (token[0] > np.abs(derivatives.mean(axis=0)) + 1e-6).any()


def test_a_token_scores_as_the_sum_of_its_kept_pieces():
  rows = examples.rows_of(examples.tiny_split(3), (0, 1))
  prompt = np.asarray(examples.random_prompt(2, examples.TINY_P, 12))
  masks = examples.random_masks(2, examples.TINY_P, examples.TINY_K)
  batch = next(rows.every_example(6))
  token, piece = mask_derivatives(prompt, masks, batch)
  kept = masks.piece_mask[batch.row_ids]
  np.testing.assert_allclose(token, (np.asarray(piece) * kept).sum(-1), 1e-5)
  assert (np.asarray(piece)[masks.token_mask[batch.row_ids] == 0] == 0).all()


def test_scoring_is_traced_once_for_each_bucket():
  scoring._score_sums.clear_cache()
  short = [[5, 1]] * 5
  long = [[5] * 12 + [1]] * 5
  split = examples.make_split(short + long, [[6, 1]] * 10)
  scoring.score_table(
      np.asarray(examples.random_prompt(1, examples.TINY_P, 12)),
      masks_lib.full_masks(1, examples.TINY_P, examples.TINY_K),
      examples.rows_of(split),
      **TINY,
      batch_size=2,
  )
  assert scoring._score_sums._cache_size() == 2
