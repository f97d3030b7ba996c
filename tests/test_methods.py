"""Baselines on the common trainer: what moves, what rows see, how they resume."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests import examples
from xprompt_jax import artifacts, trained_leaves
from xprompt_jax import optimizer as optimizer_lib
from xprompt_jax.methods.fine_tuning import FineTuning
from xprompt_jax.methods.p_tuning import PTuning
from xprompt_jax.methods.p_tuning_v2 import PTuningV2
from xprompt_jax.methods.prefix_tuning import PrefixTuning
from xprompt_jax.optimizer import OptimizerConfig
from xprompt_jax.t5.network import T5
from xprompt_jax.train_step import TrainState, train_step
from xprompt_jax.trainer import TableTrainer, TrainConfig
from xprompt_jax.types import UserError

ADAMW = OptimizerConfig(name="adamw", learning_rate=1e-2, weight_decay_rate=0.0)
# T5's own settings, faster; no leaf of the tiny model is large enough to be factored.
RELATIVE = OptimizerConfig(
    learning_rate=1e-2,
    weight_decay_rate=0.0,
    factored=True,
    parameter_scale=True,
)
METHODS = {
    "fine_tuning": (FineTuning(), RELATIVE),
    "prefix_tuning": (PrefixTuning(length=3, mid_dim=7), ADAMW),
    "p_tuning": (PTuning(length=3, encoder="lstm"), ADAMW),
    "p_tuning_mlp": (PTuning(length=3, encoder="mlp"), ADAMW),
    "p_tuning_v2": (PTuningV2(length=3), ADAMW),
}


def start_of(method, seeds):
  rows = [
      method.initial(
          jax.random.key(seed), examples.TINY, examples.tiny_params()
      )
      for seed in seeds
  ]
  return trained_leaves.stacked(rows)


def steps(method, optimizer, trained, seeds, num_steps, batch_of):
  """The state after some steps, and each step's losses."""
  state = TrainState(
      trained=jax.tree.map(jnp.array, trained),
      optimizer=optimizer_lib.init_rows(optimizer, trained),
  )
  losses = []
  for step in range(num_steps):
    state, found = train_step(
        state,
        {},
        examples.tiny_params(),
        batch_of(step),
        jnp.array(seeds, jnp.uint32),
        jnp.asarray(step, jnp.int32),
        method=method,
        model=examples.TINY_MODEL,
        optimizer=optimizer,
        rows_per_chunk=1,
    )
    losses.append(np.asarray(found))
  return state, np.stack(losses)


@pytest.mark.parametrize("name", METHODS)
def test_only_its_own_leaves_move_and_no_row_sees_another(name):
  method, optimizer = METHODS[name]
  frozen = examples.tiny_params()
  before = jax.tree.map(np.array, frozen)
  rows = examples.rows_of(examples.tiny_split(9), (4, 7))
  start = start_of(method, (4, 7))
  together, _ = steps(
      method, optimizer, start, (4, 7), 3, lambda step: rows.batch(step, 4)
  )
  jax.tree.map(np.testing.assert_array_equal, frozen, before)
  moved = trained_leaves.by_name(
      jax.tree.map(
          lambda a, b: (np.asarray(a) != b).any(axis=tuple(range(1, b.ndim))),
          together.trained,
          start,
      )
  )
  assert all(rows.all() for rows in moved.values()), moved
  # Row 1 beside a copy of itself.
  twice = [1, 1]
  copies, _ = steps(
      method,
      optimizer,
      jax.tree.map(lambda x: x[twice], start),
      (7, 7),
      3,
      lambda step: {k: v[twice] for k, v in rows.batch(step, 4).items()},
  )
  for one, many in zip(
      jax.tree.leaves(copies.trained),
      jax.tree.leaves(together.trained),
      strict=True,
  ):
    np.testing.assert_array_equal(one[0], many[1])


def test_a_row_of_deep_prompts_is_what_it_is_alone():
  method, optimizer = METHODS["p_tuning_v2"]
  rows = examples.rows_of(examples.tiny_split(9), (4, 7))
  start = start_of(method, (4, 7))
  together, losses = steps(
      method, optimizer, start, (4, 7), 3, lambda step: rows.batch(step, 4)
  )
  alone, loss = steps(
      method,
      optimizer,
      jax.tree.map(lambda x: x[1:], start),
      (7,),
      3,
      lambda step: {k: v[1:] for k, v in rows.batch(step, 4).items()},
  )
  np.testing.assert_allclose(loss[:, 0], losses[:, 1], rtol=1e-6)
  # One row is not mapped over: sums in another order, nothing else.
  for part, leaf in alone.trained.items():
    np.testing.assert_allclose(leaf[0], together.trained[part][1], atol=1e-6)


@pytest.mark.parametrize("name", METHODS)
def test_the_loss_of_a_small_batch_falls_over_30_steps(name):
  method, optimizer = METHODS[name]
  batch = examples.rows_of(examples.tiny_split(4), (4, 7)).batch(0, 4)
  _, losses = steps(
      method,
      optimizer,
      start_of(method, (4, 7)),
      (4, 7),
      30,
      lambda step: batch,
  )
  assert np.isfinite(losses).all()
  assert (losses[-1] < 0.95 * losses[0]).all(), losses


def test_a_step_of_fine_tuning_is_adafactor_on_the_whole_tree():
  """T5X's recipe, with optax and flax alone."""
  frozen = examples.tiny_params()
  batch = examples.rows_of(examples.tiny_split(6), (1,)).batch(0, 6)
  found, _ = steps(
      FineTuning(),
      RELATIVE,
      start_of(FineTuning(), (1,)),
      (1,),
      1,
      lambda step: batch,
  )
  one = {k: jnp.array(v[0]) for k, v in batch.items()}

  def loss(params):
    logits = T5(examples.TINY).apply(
        {"params": params},
        one["encoder_input_tokens"],
        one["decoder_input_tokens"],
    )
    each = optax.softmax_cross_entropy_with_integer_labels(
        logits, one["decoder_target_tokens"]
    )
    weights = one["decoder_loss_weights"]
    return jnp.sum(each * weights) / jnp.sum(weights)

  adafactor = optax.adafactor(
      1e-2, multiply_by_parameter_scale=True, decay_rate=0.8, factored=True
  )

  @jax.jit
  def step(params):
    updates, _ = adafactor.update(
        jax.grad(loss)(params), adafactor.init(params), params
    )
    return optax.apply_updates(params, updates)

  expected = trained_leaves.by_name(step(frozen))
  start = trained_leaves.by_name(frozen)
  for name, leaf in trained_leaves.by_name(found.trained).items():
    moved = np.abs(np.asarray(expected[name]) - start[name]).max()
    error = np.abs(leaf[0] - expected[name]).max()
    # The first step is the gradient's sign; no entry's is rounding noise.
    assert error < 0.02 * moved, (name, error, moved)


def test_adamw_falls_linearly_to_nothing():
  optimizer = OptimizerConfig(
      name="adamw", learning_rate=0.5, weight_decay_rate=0.0, schedule="linear"
  ).over(4)
  trained = {"a": jnp.zeros((2, 3))}
  state = optimizer_lib.init_rows(optimizer, trained)
  # A constant gradient: each update is the learning rate, against its sign.
  gradient = {"a": jnp.array([[1.0, 1.0, 1.0], [-2.0, -2.0, -2.0]])}
  found = []
  for _ in range(5):
    before = trained["a"]
    trained, state = optimizer_lib.update_rows(
        optimizer, gradient, state, trained
    )
    found.append(np.asarray(trained["a"] - before)[:, 0])
  np.testing.assert_allclose(
      found,
      [[-0.5, 0.5], [-0.375, 0.375], [-0.25, 0.25], [-0.125, 0.125], [0, 0]],
      rtol=2e-5,
  )


class Stopped(Exception):
  """Stands for the machine going away."""


def trainer_of(folder, method, optimizer, evaluate):
  return TableTrainer(
      config=TrainConfig(
          batch_size=3, num_epochs=None, num_steps=6, eval_every_steps=2
      ),
      optimizer=optimizer,
      method=method,
      model=examples.TINY_MODEL,
      frozen_params=examples.tiny_params(),
      constants={},
      rows=examples.rows_of(examples.tiny_split(10), (4, 9)),
      evaluate=evaluate,
      folder=folder,
  )


@pytest.mark.parametrize("name", ["fine_tuning", "p_tuning"])
def test_a_stopped_baseline_ends_bit_for_bit_where_another_one_ends(
    tmp_path, name
):
  method, optimizer = METHODS[name]
  if name == "p_tuning":
    optimizer = OptimizerConfig(
        name="adamw", learning_rate=1e-2, schedule="linear"
    )
  start = start_of(method, (4, 9))
  calls = []

  def scores(trained):
    leaf = jax.tree.leaves(trained)[0]
    return [{"score": float(np.abs(row).sum())} for row in np.asarray(leaf)]

  def stopping(trained):
    calls.append(1)
    if len(calls) == 2:
      raise Stopped
    return scores(trained)

  whole = trainer_of(tmp_path / "a", method, optimizer, scores).train(start)
  with pytest.raises(Stopped):
    trainer_of(tmp_path / "b", method, optimizer, stopping).train(start)
  again = trainer_of(tmp_path / "b", method, optimizer, scores).train(start)
  jax.tree.map(np.testing.assert_array_equal, again.trained, whole.trained)
  for file in (artifacts.STATE, artifacts.METRICS):
    assert (tmp_path / "a" / file).read_bytes() == (
        tmp_path / "b" / file
    ).read_bytes()
  names = artifacts.load_arrays(tmp_path / "a" / artifacts.STATE).keys()
  leaf = {"fine_tuning": "decoder/decoder_norm/scale", "p_tuning": "embedding"}
  assert {leaf[name], f"best_{leaf[name]}", "optimizer/0", "step"} <= names


def two_ones(trained):
  return [{"score": 1.0}] * 2


def test_a_state_that_lacks_a_leaf_is_refused(tmp_path):
  method, optimizer = METHODS["p_tuning_v2"]
  start = start_of(method, (4, 9))
  trainer_of(tmp_path, method, optimizer, two_ones).train(start)
  arrays = artifacts.load_arrays(tmp_path / artifacts.STATE)
  del arrays["cross"]
  artifacts.save_arrays(tmp_path / artifacts.STATE, arrays)
  with pytest.raises(UserError, match=r"cross: found None, expected shape"):
    trainer_of(tmp_path, method, optimizer, two_ones).train(start)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"optimizer/0": None}, r"optimizer/0: found None, expected shape"),
        ({"optimizer/1": np.zeros((2, 9))}, r"optimizer/1: found \(2, 9\)"),
        ({"optimizer/7": np.zeros(2)}, r"/7: found \(2,\), expected no such"),
        ({"loss_sum": None}, r"loss_sum: found None, expected shape \(2,\)"),
        (
            {"best_step": np.zeros(3)},
            r"best_step: found \(3,\), expected shape",
        ),
    ],
)
def test_a_state_of_another_optimizer_is_refused(tmp_path, changed, message):
  method, optimizer = METHODS["p_tuning_v2"]
  start = start_of(method, (4, 9))
  leaves = jax.tree.leaves(optimizer_lib.init_rows(optimizer, start))
  assert len(leaves) == 7  # Of AdamW: a count, and two moments of each leaf.
  arrays = {
      **start,
      **{f"best_{name}": leaf for name, leaf in start.items()},
      **{f"optimizer/{i}": leaf for i, leaf in enumerate(leaves)},
      "step": np.array(0),
      "best_step": np.zeros(2, np.int64),
      "loss_sum": np.zeros(2),
      "loss_steps": np.array(0),
      **changed,
  }
  artifacts.save_arrays(
      tmp_path / artifacts.STATE,
      {name: leaf for name, leaf in arrays.items() if leaf is not None},
  )
  with pytest.raises(UserError, match=message):
    trainer_of(tmp_path, method, optimizer, two_ones).train(start)


def test_rows_start_from_their_seed_alone():
  for method, _ in METHODS.values():
    both, one = start_of(method, (4, 9)), start_of(method, (9,))
    jax.tree.map(
        lambda a, b: np.testing.assert_array_equal(a[1], b[0]), both, one
    )
  first, second = start_of(METHODS["p_tuning_v2"][0], (4, 9))["cross"]
  assert (first != second).all()
