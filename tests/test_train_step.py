"""Rows of a table compute what they compute alone; only the prompt moves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import examples
from xprompt_jax import batches
from xprompt_jax import masks as masks_lib
from xprompt_jax import optimizer as optimizer_lib
from xprompt_jax.methods.prompt_tuning import PromptTuning
from xprompt_jax.model import target_losses
from xprompt_jax.optimizer import OptimizerConfig
from xprompt_jax.t5.network import T5
from xprompt_jax.train_step import (
    TrainState,
    row_loss,
    table_gradients,
    train_step,
)
from xprompt_jax.trainer import TrainConfig
from xprompt_jax.types import PromptMasks

OPTIMIZER = OptimizerConfig()
METHOD = PromptTuning()
STEP = jnp.zeros((), jnp.int32)


def start(prompt):
  trained = {"prompt": jnp.array(prompt)}
  return TrainState(
      trained=trained,
      optimizer=optimizer_lib.init_rows(OPTIMIZER, trained),
  )


def take(tree, row):
  return jax.tree.map(lambda x: x[row : row + 1], tree)


def bundled_table():
  """Three tickets with other seeds, masks and values: R 3, P 20, H 128."""
  model, params = examples.bundled_model()
  rows = examples.rows_of(
      examples.bundled_split("mini_boolq", 100), seeds=(5, 6, 7)
  )
  embedding = params["token_embedder"]["embedding"]
  prompt = jnp.stack([embedding[10 * r : 10 * r + 20] for r in (3, 4, 5)])
  masks = examples.random_masks(3, 20, 16)
  return model, params, rows, prompt, masks


def largest_relative(found, expected):
  found, expected = np.asarray(found), np.asarray(expected)
  return np.abs(found - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize(
    # Rows computed together are summed in another order.
    ("rows_per_chunk", "bound"),
    [(1, 1e-6), (None, 1e-5)],
)
def test_gradients_and_one_update_equal_single_rows(rows_per_chunk, bound):
  model, params, rows, prompt, masks = bundled_table()
  batch = rows.batch(0, 8)
  seeds = jnp.array(rows.seeds, jnp.uint32)
  losses, gradients = table_gradients(
      {"prompt": prompt},
      masks,
      params,
      batch,
      seeds,
      STEP,
      method=METHOD,
      model=model,
      rows_per_chunk=rows_per_chunk,
  )
  # Adafactor's first step is the sign of the gradient: of rows computed together
  # an entry whose gradient is rounding noise may point either way.
  apart = rows_per_chunk == 1
  settings = {"method": METHOD, "model": model, "optimizer": OPTIMIZER}
  if apart:
    state, _ = train_step(
        start(prompt),
        masks,
        params,
        batch,
        seeds,
        STEP,
        **settings,
        rows_per_chunk=1,
    )
  for row in range(3):
    args = (
        take(masks, row),
        params,
        take(batch, row),
        seeds[row : row + 1],
        STEP,
    )
    loss, gradient = table_gradients(
        {"prompt": prompt[row : row + 1]}, *args, method=METHOD, model=model
    )
    assert largest_relative(losses[row], loss[0]) < bound
    assert (
        largest_relative(gradients["prompt"][row], gradient["prompt"][0])
        < bound
    )
    if apart:
      alone, _ = train_step(start(prompt[row : row + 1]), *args, **settings)
      moved, expected = state.trained["prompt"][row], alone.trained["prompt"][0]
      assert largest_relative(moved, expected) < bound


def test_masked_prompts_agree_after_20_steps():
  model, params, rows, prompt, masks = bundled_table()
  seeds = jnp.array(rows.seeds, jnp.uint32)
  together = start(prompt)
  alone = [start(prompt[r : r + 1]) for r in range(3)]
  for step in range(20):
    batch = rows.batch(step, 8)
    number = jnp.asarray(step, jnp.int32)
    settings = {
        "method": METHOD,
        "model": model,
        "optimizer": OPTIMIZER,
        "rows_per_chunk": TrainConfig().rows_per_chunk,
    }
    together, _ = train_step(
        together, masks, params, batch, seeds, number, **settings
    )
    for row in range(3):
      alone[row], _ = train_step(
          alone[row],
          take(masks, row),
          params,
          take(batch, row),
          seeds[row : row + 1],
          number,
          **settings,
      )
  masked = masks_lib.apply_masks(together.trained["prompt"], masks)
  for row in range(3):
    single = masks_lib.apply_masks(
        alone[row].trained["prompt"], take(masks, row)
    )
    assert largest_relative(masked[row], single[0]) < 1e-3


def test_masks_of_ones_are_plain_prompt_tuning_bitwise():
  prompt = examples.random_prompt(1, examples.TINY_P, 12)[0]
  batch = take(examples.rows_of(examples.tiny_split(6)).batch(0, 6), 0)
  batch = {key: jnp.array(value[0]) for key, value in batch.items()}
  ones = masks_lib.full_masks(1, examples.TINY_P, examples.TINY_K)
  params = jax.tree.map(jnp.array, examples.tiny_params())

  def plain(prompt, params, batch):
    """Lester et al.'s prompt in front of the embedded input, no masks."""
    t5, variables = T5(examples.TINY), {"params": params}
    tokens = batch["encoder_input_tokens"]
    embedded = t5.apply(variables, tokens, method="embed")
    front = jnp.broadcast_to(prompt[None], (6, *prompt.shape))
    visible = jnp.concatenate([jnp.ones((6, 5), bool), tokens > 0], axis=1)
    encoded = t5.apply(
        variables,
        jnp.concatenate([front, embedded], axis=1),
        visible,
        method="encode",
    )
    logits = t5.apply(
        variables,
        encoded,
        visible,
        batch["decoder_input_tokens"],
        method="decode",
    )
    # The loss has its own tests in test_model.py.
    num_tokens = jnp.sum(batch["decoder_loss_weights"])
    return jnp.sum(target_losses(logits, batch)) / num_tokens

  def masked(prompt, params, batch, masks):
    trained = {"prompt": prompt}
    return row_loss(trained, masks, METHOD, examples.TINY_MODEL, params, batch)

  # An argument, as in a training step: XLA must not fold the ones away.
  masks = jax.tree.map(lambda x: jnp.array(x[0]), ones)
  expected = jax.jit(jax.value_and_grad(plain))(prompt, params, batch)
  found = jax.jit(jax.value_and_grad(masked))(prompt, params, batch, masks)
  for ours, theirs in zip(found, expected, strict=True):
    assert np.asarray(theirs).any()
    np.testing.assert_array_equal(ours, theirs)


def test_pruned_entries_are_exactly_zero_after_any_number_of_steps():
  masks = examples.random_masks(2, examples.TINY_P, examples.TINY_K)
  prompt = masks_lib.apply_masks(
      examples.random_prompt(2, examples.TINY_P, 12), masks
  )
  rows = examples.rows_of(examples.tiny_split(9), seeds=(0, 1))
  state = start(prompt)
  for step in range(7):
    state, _ = train_step(
        state,
        masks,
        examples.tiny_params(),
        rows.batch(step, 3),
        jnp.array([0, 1], jnp.uint32),
        jnp.asarray(step, jnp.int32),
        method=METHOD,
        model=examples.TINY_MODEL,
        optimizer=OPTIMIZER,
    )
  factor = np.asarray(masks_lib.expand(masks, 12))
  moved = np.asarray(state.trained["prompt"])
  assert (moved[factor == 0] == 0).all()
  assert (moved[factor == 1] != np.asarray(prompt)[factor == 1]).all()


def test_frozen_leaves_are_bit_identical_and_the_prompt_has_changed():
  params = jax.tree.map(jnp.array, examples.tiny_params())
  before = jax.tree.map(np.array, params)
  prompt = examples.random_prompt(1, examples.TINY_P, 12)
  rows = examples.rows_of(examples.tiny_split(9))
  state = start(prompt)
  for step in range(3):
    state, _ = train_step(
        state,
        masks_lib.full_masks(1, examples.TINY_P, examples.TINY_K),
        params,
        rows.batch(step, 4),
        jnp.array([0], jnp.uint32),
        jnp.asarray(step, jnp.int32),
        method=METHOD,
        model=examples.TINY_MODEL,
        optimizer=OPTIMIZER,
    )
  jax.tree.map(np.testing.assert_array_equal, params, before)
  assert (np.asarray(state.trained["prompt"]) != np.asarray(prompt)).all()


def test_results_do_not_depend_on_the_bucket():
  split = examples.tiny_split(6)
  params = examples.tiny_params()
  masks = jax.tree.map(
      lambda x: jnp.array(x[0]), examples.random_masks(1, examples.TINY_P, 4)
  )
  prompt = examples.random_prompt(1, examples.TINY_P, 12)[0]

  def loss(buckets):
    batch = batches.gather_batch(
        [(split, np.arange(6))], buckets=buckets, targets_length=4
    )
    batch = jax.tree.map(jnp.array, batch)
    return jax.jit(
        lambda p: row_loss(
            {"prompt": p}, masks, METHOD, examples.TINY_MODEL, params, batch
        )
    )(prompt)

  np.testing.assert_allclose(loss((8,)), loss((32,)), rtol=1e-6)


def test_a_compiled_step_is_traced_once_for_each_bucket():
  masks = masks_lib.full_masks(1, examples.TINY_P, examples.TINY_K)
  short = examples.make_split([[5, 1]] * 4, [[6, 1]] * 4)
  long = examples.make_split([[5] * 12 + [1]] * 4, [[6, 1]] * 4)
  train_step.clear_cache()
  state = start(examples.random_prompt(1, examples.TINY_P, 12))
  for step, split in enumerate((short, short, long, long, short, long)):
    state, _ = train_step(
        state,
        masks,
        examples.tiny_params(),
        examples.rows_of(split).batch(step, 2),
        jnp.array([0], jnp.uint32),
        jnp.asarray(step, jnp.int32),
        method=METHOD,
        model=examples.TINY_MODEL,
        optimizer=OPTIMIZER,
    )
  assert train_step._cache_size() == 2


def test_dropout_follows_seed_and_step():
  import dataclasses

  # One layer of each stack, which compiles sooner.
  config = dataclasses.replace(
      examples.TINY, dropout_rate=0.5, num_encoder_layers=1
  )
  model = dataclasses.replace(examples.TINY_MODEL, t5_config=config)
  batch = examples.rows_of(examples.tiny_split(6), (0, 0)).batch(0, 4)
  prompt = examples.random_prompt(1, examples.TINY_P, 12)
  masks = masks_lib.full_masks(2, examples.TINY_P, examples.TINY_K)

  def losses(seeds, step):
    return table_gradients(
        {"prompt": jnp.concatenate([prompt, prompt])},
        masks,
        examples.tiny_params(),
        batch,
        jnp.array(seeds, jnp.uint32),
        jnp.asarray(step, jnp.int32),
        method=METHOD,
        model=model,
    )[0]

  first = losses((1, 2), 0)
  assert first[0] != first[1]
  np.testing.assert_array_equal(first, losses((1, 2), 0))
  assert losses((1, 2), 1)[0] != first[0]


def adafactor_by_hand(prompt, gradients):
  """Shazeer and Stern 2018, algorithm 5 unfactored, in float64."""
  second_moment = np.zeros_like(prompt)
  for step, gradient in enumerate(gradients, 1):
    decay = 1 - step**-0.8
    second_moment = decay * second_moment + (1 - decay) * (gradient**2 + 1e-30)
    update = gradient / np.sqrt(second_moment)
    update /= max(1.0, np.sqrt(np.mean(update**2)))
    prompt = prompt - 0.3 * update - 1e-5 * prompt
  return prompt


def test_adafactor_is_the_published_recipe():
  rng = np.random.default_rng(0)
  prompt = rng.normal(size=(2, 3, 4))
  gradients = (
      rng.normal(size=(5, 2, 3, 4)) * np.array([1.0, 1e-3])[:, None, None]
  )
  state = optimizer_lib.init_rows(OPTIMIZER, jnp.array(prompt, jnp.float32))
  found = jnp.array(prompt, jnp.float32)
  for gradient in gradients:
    found, state = optimizer_lib.update_rows(
        OPTIMIZER, jnp.array(gradient, jnp.float32), state, found
    )
  for row in range(2):
    expected = adafactor_by_hand(prompt[row], gradients[:, row])
    np.testing.assert_allclose(found[row], expected, rtol=2e-5, atol=2e-6)


def test_masks_are_a_pytree():
  masks = masks_lib.full_masks(2, 3, 4)
  assert isinstance(jax.tree.map(lambda x: x + 1, masks), PromptMasks)


def test_adafactor_clips_a_shorter_prompt_of_a_table_as_one_of_its_length():
  """A prompt of two tokens, behind one that it lacks, and alone."""
  rng = np.random.default_rng(1)
  prompt = rng.normal(size=(2, 3, 4)).astype(np.float32)
  gradients = rng.normal(size=(4, 2, 3, 4)).astype(np.float32)
  # Clipping starts once an update is larger than the first was.
  gradients *= np.array([1.0, 30.0, 1.0, 9.0], np.float32)[:, None, None, None]
  present = np.array([[0, 1, 1], [1, 1, 1]], np.float32)
  prompt *= present[..., None]
  gradients *= present[..., None]
  state = optimizer_lib.init_rows(OPTIMIZER, jnp.array(prompt))
  found = jnp.array(prompt)
  for gradient in gradients:
    found, state = optimizer_lib.update_rows(
        OPTIMIZER, jnp.array(gradient), state, found, present=present
    )
  short = adafactor_by_hand(prompt[0, 1:], gradients[:, 0, 1:])
  np.testing.assert_allclose(found[0, 1:], short, rtol=2e-5, atol=2e-6)
  assert not np.asarray(found[0, :1]).any()
  whole = adafactor_by_hand(prompt[1], gradients[:, 1])
  np.testing.assert_allclose(found[1], whole, rtol=2e-5, atol=2e-6)
  # The mean over three tokens would have clipped it less.
  other = adafactor_by_hand(prompt[0], gradients[:, 0])[1:]
  assert np.abs(other - short).max() > 1e-2
