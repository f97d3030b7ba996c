"""Predictions of many rows in one batch, and what they score."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from tests import examples
from xprompt_jax import evaluation, prompts, vocabularies
from xprompt_jax import masks as masks_lib
from xprompt_jax.prompts import masked_prompts
from xprompt_jax.types import PromptMasks


def generate(prompt, masks, row_ids, tokens):
  return np.asarray(
      evaluation.generate(
          prompt,
          masks,
          examples.tiny_params(),
          np.array(row_ids),
          np.array(tokens),
          model=examples.TINY_MODEL,
          max_length=4,
      )
  )


def test_an_example_is_answered_by_the_row_it_names():
  prompt = 3.0 * examples.random_prompt(2, examples.TINY_P, 12)
  masks = examples.random_masks(2, examples.TINY_P, examples.TINY_K)
  tokens = [[5, 6, 7, 1, 0, 0, 0, 0], [9, 8, 1, 0, 0, 0, 0, 0]]
  mixed = generate(prompt, masks, [1, 0, 1], [tokens[0], tokens[0], tokens[1]])
  for row in (0, 1):
    one = PromptMasks(
        token_mask=masks.token_mask[row : row + 1],
        piece_mask=masks.piece_mask[row : row + 1],
    )
    alone = generate(
        prompt[row : row + 1], one, [0, 0, 0], [*tokens, tokens[0]]
    )
    for place, named in enumerate((1, 0, 1)):
      if named == row:
        example = 1 if place == 2 else 0
        assert mixed[place].tolist() == alone[example].tolist()


def test_cached_decoding_equals_teacher_forced_argmax_with_a_prompt():
  prompt = 3.0 * examples.random_prompt(2, examples.TINY_P, 12, seed=4)
  masks = examples.random_masks(2, examples.TINY_P, examples.TINY_K)
  tokens = np.array([[5, 6, 7, 1, 0], [9, 8, 1, 0, 0], [4, 4, 30, 31, 1]])
  row_ids = jnp.array([0, 1, 1])
  found = generate(prompt, masks, row_ids, tokens)
  batch = {
      "encoder_input_tokens": jnp.array(tokens),
      "decoder_input_tokens": jnp.pad(found[:, :-1], ((0, 0), (1, 0))),
  }
  logits = examples.tiny_logits(
      masked_prompts(prompt, masks, row_ids),
      jnp.ones((3, examples.TINY_P), bool),
      batch,
  )
  forced = np.asarray(logits.argmax(-1))
  # After EOS decoding pads; up to it both must agree.
  ended = np.cumsum(found == 1, axis=1) - (found == 1) > 0
  np.testing.assert_array_equal(found, np.where(ended, 0, forced))


def test_no_prompt_is_a_table_of_length_zero():
  prompt, masks = prompts.zero_length_table(examples.TINY_K, 12)
  found = generate(prompt, masks, [0], [[5, 6, 7, 1]])
  logits = examples.tiny_logits(
      jnp.zeros((1, 0, 12)),
      jnp.ones((1, 0), bool),
      {
          "encoder_input_tokens": jnp.array([[5, 6, 7, 1]]),
          "decoder_input_tokens": jnp.array([[0]]),
      },
  )
  assert found[0, 0] == int(logits[0, 0].argmax())


def token_masks(mask):
  """Masks of one row that keep or prune whole tokens."""
  mask = jnp.array([mask])
  return PromptMasks(token_mask=mask, piece_mask=mask[..., None])


def test_an_ignored_token_is_not_seen():
  """With `ignore`, a prompt whose tail is pruned is the shorter prompt."""
  model = dataclasses.replace(examples.TINY_MODEL, pruned_tokens="ignore")
  masks = token_masks([1.0, 0.0, 1.0])
  visible = model.prompt_visible(masks)
  assert visible.tolist() == [[True, False, True]]
  visible = examples.TINY_MODEL.prompt_visible(masks)
  assert visible.tolist() == [[True, True, True]]
  batch = {
      "encoder_input_tokens": jnp.array([[5, 6, 7, 1]]),
      "decoder_input_tokens": jnp.array([[0, 9]]),
  }
  prompt = examples.random_prompt(1, 3, 12)
  zero = prompt.at[:, 1].set(0.0)

  def logits(model, masked, mask):
    visible = model.prompt_visible(token_masks(mask))
    return examples.tiny_logits(masked, visible, batch, model)

  ignored = logits(model, zero, [1.0, 0.0, 1.0])
  # What an ignored position holds changes nothing ...
  np.testing.assert_array_equal(ignored, logits(model, prompt, [1.0, 0.0, 1.0]))
  # ... while a zero that is seen takes attention.
  seen = logits(examples.TINY_MODEL, zero, [1.0, 0.0, 1.0])
  assert np.abs(np.asarray(seen - ignored)).max() > 1e-3


BYTES = vocabularies.load_vocabulary("bytes", 0)


def test_predictions_go_back_to_their_place():
  split = examples.tiny_split(7)
  rows = examples.rows_of(split, (0, 1))
  prompt = 3.0 * examples.random_prompt(2, examples.TINY_P, 12)
  masks = masks_lib.full_masks(2, examples.TINY_P, examples.TINY_K)
  settings = {
      "model": examples.TINY_MODEL,
      "frozen_params": examples.tiny_params(),
      "vocabulary": BYTES,
  }
  together = evaluation.predict_table(
      prompt, masks, rows, **settings, batch_size=64
  )
  assert [len(row) for row in together] == [7, 7]
  in_parts = evaluation.predict_table(
      prompt, masks, rows, **settings, batch_size=3
  )
  assert in_parts == together
  # The fourth example of row 1, decoded alone.
  ids = generate(prompt, masks, [1], split.pad_inputs(np.array([3]), 8))
  assert together[1][3] == BYTES.decode(ids[0].tolist())
  # Rows answer differently, so a mix-up would show.
  assert together[0] != together[1]

  # Two of the seven targets are what row 1 says, the others are not.
  right = dataclasses.replace(
      split,
      examples=[
          {**example, "target": together[1][i] if i in (2, 5) else "no"}
          for i, example in enumerate(split.examples)
      ],
  )
  found = evaluation.evaluate_table(
      prompt, masks, examples.rows_of(right, (0, 1)), **settings, batch_size=64
  )
  assert found[1]["accuracy"] == pytest.approx(100 * 2 / 7)
  assert found[1]["score"] == found[1]["accuracy"]


def test_decoding_is_traced_once_for_each_bucket():
  evaluation.generate.clear_cache()
  split = examples.make_split(
      [[5, 1]] * 5 + [[5] * 12 + [1]] * 5, [[6, 1]] * 10
  )
  masks = masks_lib.full_masks(1, examples.TINY_P, examples.TINY_K)
  for seed in (0, 1):
    evaluation.predict_table(
        examples.random_prompt(1, examples.TINY_P, 12, seed),
        masks,
        examples.rows_of(split),
        model=examples.TINY_MODEL,
        frozen_params=examples.tiny_params(),
        vocabulary=BYTES,
        batch_size=2,
    )
  # Buckets 8 and 16; the last short example fills a batch with long ones.
  assert evaluation.generate._cache_size() == 2


def test_a_shorter_prompt_of_a_table_is_a_table_of_that_length():
  """A row whose first two positions are absent, beside one that has all."""
  batch = {
      "encoder_input_tokens": jnp.array([[5, 6, 7, 1], [5, 6, 7, 1]]),
      "decoder_input_tokens": jnp.array([[0, 9], [0, 9]]),
  }
  prompt = examples.random_prompt(1, 5, 12)
  both = PromptMasks(
      token_mask=jnp.array([[0.0, 0, 1, 1, 1], [1, 1, 1, 1, 1]]),
      piece_mask=jnp.array([[0.0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])[..., None],
      present=jnp.array([[0.0, 0, 1, 1, 1], [1, 1, 1, 1, 1]]),
  )
  rows = jnp.array([0, 1])

  def logits(prompt, masks, batch, rows):
    masked = masked_prompts(prompt, masks, rows)
    visible = examples.TINY_MODEL.prompt_visible(
        masks_lib.take_rows(masks, rows)
    )
    return examples.tiny_logits(masked, visible, batch)

  found = logits(jnp.tile(prompt, (2, 1, 1)), both, batch, rows)
  one = {name: tokens[:1] for name, tokens in batch.items()}
  short = logits(prompt[:, 2:], masks_lib.full_masks(1, 3, 1), one, rows[:1])
  whole = logits(prompt, masks_lib.full_masks(1, 5, 1), one, rows[:1])
  np.testing.assert_allclose(found[0], short[0], rtol=1e-5, atol=1e-5)
  np.testing.assert_allclose(found[1], whole[0], rtol=1e-5, atol=1e-5)
  assert abs(short - whole).max() > 1e-3
