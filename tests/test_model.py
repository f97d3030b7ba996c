"""Losses by hand, and what dtype and rematerialisation may change."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from tests import examples
from xprompt_jax import masks as masks_lib
from xprompt_jax import model as model_lib
from xprompt_jax import optimizer as optimizer_lib
from xprompt_jax.methods.prompt_tuning import PromptTuning
from xprompt_jax.optimizer import OptimizerConfig
from xprompt_jax.train_step import TrainState, table_gradients, train_step

OPTIMIZER = OptimizerConfig()
METHOD = PromptTuning()


def batch_of(targets, weights):
  return {
      "decoder_target_tokens": jnp.array(targets),
      "decoder_loss_weights": jnp.array(weights, jnp.float32),
  }


def test_target_losses_by_hand():
  # B 2, L 3, V 2: probabilities 1/4 and 3/4, 1/2 and 1/2, 9/10 and 1/10.
  logits = jnp.log(
      jnp.array([[[1, 3], [2, 2], [9, 1]], [[9, 1], [1, 3], [2, 2]]], float)
  )
  batch = batch_of([[1, 0, 1], [0, 0, 0]], [[1, 1, 1], [1, 1, 0]])
  # log(4/3 * 2 * 10) and log(10/9 * 4).
  np.testing.assert_allclose(
      model_lib.target_losses(logits, batch),
      [3.2834143460057716, 1.4916548767777166],
      rtol=1e-6,
  )
  # log(Z) is log 4, log 4, log 10 and log 10, log 4: their squares are
  # 1.9218120557 and 5.3018981104.
  np.testing.assert_allclose(
      model_lib.target_losses(logits, batch, 0.5),
      [
          3.2834143460057716
          + 0.5 * (2 * 1.9218120556728056 + 5.301898110478399),
          1.4916548767777166 + 0.5 * (1.9218120556728056 + 5.301898110478399),
      ],
      rtol=1e-6,
  )


def test_target_losses_equal_a_float64_log_softmax():
  rng = np.random.default_rng(0)
  # B 3, L 4, V 7; logits whose exponentials do not fit float32.
  logits = rng.normal(100, 30, (3, 4, 7)).astype(np.float32)
  targets = rng.integers(0, 7, (3, 4))
  weights = np.arange(4)[None] < np.array([[4], [2], [1]])
  exact = logits.astype(np.float64)
  highest = exact.max(axis=-1, keepdims=True)
  log_z = highest + np.log(np.exp(exact - highest).sum(axis=-1, keepdims=True))
  log_softmax = exact - log_z
  nll = -np.take_along_axis(log_softmax, targets[..., None], -1)[..., 0]
  batch = batch_of(targets, weights)
  for z_loss in (0.0, 1e-4, 0.5):
    found = model_lib.target_losses(jnp.array(logits), batch, z_loss)
    expected = nll + z_loss * log_z[..., 0] ** 2
    np.testing.assert_allclose(
        found, (expected * weights).sum(axis=-1), rtol=2e-6, atol=1e-4
    )


def table(**changes):
  """Two tickets of the tiny model with `changes` to its config."""
  model = dataclasses.replace(
      examples.TINY_MODEL,
      t5_config=dataclasses.replace(examples.TINY, **changes),
  )
  rows = examples.rows_of(examples.tiny_split(6), seeds=(0, 1))
  prompt = examples.random_prompt(2, examples.TINY_P, examples.TINY.emb_dim)
  arguments = (
      examples.random_masks(2, examples.TINY_P, examples.TINY_K),
      examples.tiny_params(),
      rows.batch(0, 3),
      jnp.array([0, 1], jnp.uint32),
      jnp.zeros((), jnp.int32),
  )
  return model, {"prompt": prompt}, arguments


def test_a_bfloat16_model_trains_a_float32_prompt():
  model, trained, arguments = table()
  exact, _ = table_gradients(trained, *arguments, method=METHOD, model=model)
  rounded, _, _ = table(dtype="bfloat16")
  start = TrainState(
      trained=jax.tree.map(jnp.array, trained),
      optimizer=optimizer_lib.init_rows(OPTIMIZER, trained),
  )
  state, losses = train_step(
      start, *arguments, method=METHOD, model=rounded, optimizer=OPTIMIZER
  )
  assert losses.dtype == jnp.float32
  # Eight bits of mantissa through three layers.
  np.testing.assert_allclose(losses, exact, rtol=0.02)
  assert (np.asarray(losses) != np.asarray(exact)).all()
  prompt = state.trained["prompt"]
  assert prompt.dtype == jnp.float32
  leaves = jax.tree.leaves(state.optimizer)
  assert jnp.bfloat16 not in {leaf.dtype for leaf in leaves}
  assert np.isfinite(prompt).all()
  kept = np.asarray(masks_lib.expand(arguments[0], 12)) == 1
  moved = np.asarray(prompt) != np.asarray(trained["prompt"])
  assert moved[kept].all()


def test_rematerialisation_changes_no_gradient_of_a_table():
  model, trained, arguments = table()
  remade, _, _ = table(remat=True)
  losses, gradient = table_gradients(
      trained, *arguments, method=METHOD, model=model
  )
  again, same = table_gradients(
      trained, *arguments, method=METHOD, model=remade
  )
  gradient, same = gradient["prompt"], same["prompt"]
  np.testing.assert_allclose(again, losses, rtol=1e-6)
  np.testing.assert_allclose(same, gradient, rtol=1e-4, atol=1e-7)
  assert (np.asarray(gradient) != 0).any(axis=(1, 2)).all()


def test_rematerialisation_is_used_where_it_is_asked_for():
  for remat in (False, True):
    model, trained, arguments = table(remat=remat)
    text = str(
        jax.make_jaxpr(
            lambda trained, model=model, arguments=arguments: table_gradients(
                trained, *arguments, method=METHOD, model=model
            )
        )(trained)
    )
    # Two encoder layers and one decoder layer.
    assert text.count("prevent_cse") == (3 if remat else 0)
