"""Prompts of mixed lengths and pieces in one table and in one batch."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import examples
from tests.mixed_library import ANSWERS, PROMPTS, TEXTS, alone, library
from xprompt_jax import evaluation, prompt_library
from xprompt_jax import masks as masks_lib
from xprompt_jax.prompts import masked_prompts
from xprompt_jax.types import PromptMasks

BUCKETS = (16, 24, 32)
# Of logits as large as 20: a product of another shape may add up in another
# order.
BOUND = 2e-5


def split():
  vocabulary = examples.bundled_vocabulary()
  inputs = [[*vocabulary.encode(text), 1] for text in TEXTS]
  return examples.make_split(inputs, [[5, 6, 1]] * len(TEXTS))


def model_that(pruned_tokens):
  model, params = examples.bundled_model()
  return dataclasses.replace(model, pruned_tokens=pruned_tokens), params


def predict(
    table, model, params, indices, row_ids, batch_size, buckets=BUCKETS
):
  """Predictions of some of the texts, each behind the row it names."""
  prompt, masks = table
  inputs = [split().pad_inputs(np.array([i]), 32)[0] for i in indices]
  inputs = [row[row > 0].tolist() for row in inputs]
  return evaluation.predict_named(
      prompt,
      masks,
      examples.make_split(inputs, [[1]] * len(inputs)),
      np.array(row_ids),
      buckets=buckets,
      targets_length=6,
      model=model,
      frozen_params=params,
      vocabulary=examples.bundled_vocabulary(),
      batch_size=batch_size,
  )


def test_prompts_are_padded_at_the_left_and_masked():
  first = np.array([[1, 2, 3, 4], [5, 6, 7, 8]], np.float32)
  second = np.array([[9, 8, 7, 6], [1, 1, 1, 1], [2, 3, 4, 5]], np.float32)
  prompts = [
      (
          first,
          PromptMasks(
              token_mask=np.array([1, 1], np.float32),
              piece_mask=np.array([[1, 0], [1, 1]], np.float32),
          ),
      ),
      (
          second,
          PromptMasks(
              token_mask=np.array([1, 0, 1], np.float32),
              piece_mask=np.array([[1], [0], [1]], np.float32),
          ),
      ),
  ]
  for pruned_tokens, seen in (("zero", [1, 1, 1]), ("ignore", [1, 0, 1])):
    model = dataclasses.replace(
        examples.TINY_MODEL, pruned_tokens=pruned_tokens
    )
    table, masks, joined = prompt_library.join_prompts(prompts, model)
    assert table.tolist() == [
        [[0, 0, 0, 0], [1, 2, 0, 0], [5, 6, 7, 8]],
        [[9, 8, 7, 6], [0, 0, 0, 0], [2, 3, 4, 5]],
    ]
    assert masks.token_mask.tolist() == [[0, 1, 1], seen]
    assert masks.piece_mask.tolist() == [
        [[0], [1], [1]],
        [[place] for place in seen],
    ]
    assert joined.pruned_tokens == "ignore"
    assert joined.t5_config == model.t5_config


def logits(prompt, masks, row_ids, indices, model):
  """Logits [B, 4, V] of some of the texts, each behind the row it names."""
  _, params = examples.bundled_model()
  return _logits(params, prompt, masks, row_ids, indices, model)


@functools.partial(jax.jit, static_argnames="model")
def _logits(params, prompt, masks, row_ids, indices, model):
  every = np.arange(len(TEXTS))
  targets = split().pad_targets(every, 4)
  batch = {
      "encoder_input_tokens": jnp.asarray(split().pad_inputs(every, 24)),
      "decoder_input_tokens": jnp.pad(targets[:, :-1], ((0, 0), (1, 0))),
  }
  return model.logits(
      params,
      masked_prompts(prompt, masks, row_ids),
      model.prompt_visible(masks_lib.take_rows(masks, row_ids)),
      {name: array[indices] for name, array in batch.items()},
  )


# Texts and prompts interleaved: 12 examples.
INDICES, ROW_IDS = np.tile(np.arange(3), 4), np.arange(12) % 4


@pytest.mark.parametrize(
    ("pruned_tokens", "dtype", "names"),
    [
        ("zero", "float32", tuple(PROMPTS)),
        # Those with pruned tokens: the others are computed as with zeros.
        ("ignore", "float32", ("thing", "clash")),
        # The one with the most pads.
        ("zero", "bfloat16", ("color",)),
    ],
)
def test_logits_of_a_mixed_library_equal_each_prompts_alone(
    pruned_tokens, dtype, names
):
  model, _ = model_that(pruned_tokens)
  model = dataclasses.replace(
      model, t5_config=dataclasses.replace(model.t5_config, dtype=dtype)
  )
  *table, joined = prompt_library.join_prompts(library(), model)
  mixed = np.asarray(logits(*table, ROW_IDS, INDICES, joined))
  for row, (name, one) in enumerate(zip(PROMPTS, library(), strict=True)):
    if name not in names:
      continue
    mine = row == ROW_IDS
    expected = logits(*alone(*one), np.zeros(3, int), INDICES[mine], model)
    np.testing.assert_allclose(mixed[mine], expected, rtol=0, atol=BOUND)


def test_a_prompt_without_a_pad_is_computed_as_ever():
  model, _ = model_that("ignore")
  one = library()[2]
  *table, joined = prompt_library.join_prompts([one], model)
  row_ids = np.zeros(3, int)
  found = logits(*table, row_ids, np.arange(3), joined)
  expected = logits(*alone(*one), row_ids, np.arange(3), model)
  np.testing.assert_array_equal(found, expected)


def test_a_pad_that_is_seen_would_be_another_prompt():
  model, _ = model_that("zero")
  *table, joined = prompt_library.join_prompts(library(), model)
  mixed, seen = (
      np.asarray(logits(*table, ROW_IDS, INDICES, m)) for m in (joined, model)
  )
  apart = np.abs(seen - mixed).max(axis=(1, 2))
  # The first two prompts are shorter than the longest.
  assert (apart[ROW_IDS < 2] > 0.1).all()
  np.testing.assert_allclose(apart[ROW_IDS >= 2], 0.0, atol=BOUND)


def test_predictions_of_each_prompt_alone():
  model, params = model_that("zero")
  for name, one in zip(PROMPTS, library(), strict=True):
    table, rows = alone(*one), (0, 0, 0)
    # One bucket: a compilation for each length of a prompt.
    found = predict(table, model, params, (0, 1, 2), rows, 3, buckets=(32,))
    assert found == ANSWERS[name]


@pytest.mark.parametrize("pruned_tokens", ["zero", "ignore"])
def test_predictions_of_a_mixed_library_equal_each_prompts_alone(pruned_tokens):
  model, params = model_that(pruned_tokens)
  *table, joined = prompt_library.join_prompts(library(), model)
  order = np.random.default_rng(0).permutation(12)
  indices, row_ids = order // 4, order % 4
  found = predict(table, joined, params, indices, row_ids, 5)
  names = list(PROMPTS)
  assert found == [
      ANSWERS[names[row]][index]
      for index, row in zip(indices, row_ids, strict=True)
  ]


def test_a_mixed_library_is_traced_once_for_each_bucket():
  model, params = model_that("zero")
  *table, joined = prompt_library.join_prompts(library(), model)
  evaluation.generate.clear_cache()
  for row_ids in ([0, 1, 2, 3], [3, 3, 1, 0], [2, 2, 2, 2]):
    # Texts of 15 and of 21 tokens: buckets 16 and 24.
    predict(table, joined, params, (0, 2, 1, 2), row_ids, 2)
  assert evaluation.generate._cache_size() == 2
