"""One table inside T5X: what is trained, what is left alone, what fails."""

import dataclasses
import weakref

from flax import traverse_util
import jax
import numpy as np
import pytest

from tests import examples, t5x_required, t5x_tables
from tests.t5x_examples import allowed
from tests.tiny_experiment import CONFIG
from xprompt_jax import artifacts
from xprompt_jax.methods.prompt_tuning import PromptTuning
from xprompt_jax.trainer import TableTrainer
from xprompt_jax.types import UserError

one_prompt = t5x_required.t5x_module("xprompt_jax.t5x_engine.one_prompt")

pytestmark = [pytest.mark.t5x, pytest.mark.filterwarnings("ignore")]
# The fixture of every test here as well.
__all__ = ["allowed"]

UMT5 = dataclasses.replace(
    CONFIG.model, relpos_per_layer=True, logits_via_embedding=True
)


@pytest.fixture
def engines_of():
  """`make_engines`, whose engines are closed after the test."""
  made = []

  def make(*args, **kwargs):
    made.append(t5x_tables.make_engines(*args, **kwargs))
    return made[-1]

  yield make
  for engines in made:
    engines.close()


def flat(tree):
  return traverse_util.flatten_dict(dict(tree), sep="/")


# With bfloat16 activations the engines round apart from the second step on: the
# mean loss of three is compared, as their prompts are not.
@pytest.mark.parametrize(
    ("model", "settings", "bounds"),
    [
        (UMT5, {"z_loss": 0.01}, (1e-3, 1e-4)),
        (CONFIG.model, {"pruned_tokens": "ignore"}, (1e-3, 1e-4)),
        (CONFIG.model, {"dtype": "bfloat16"}, (1e-3, 1e-4)),
        (
            dataclasses.replace(CONFIG.model, float32_attention_logits=True),
            {},
            (1e-3, 1e-4),
        ),
        (
            dataclasses.replace(CONFIG.model, dtype="bfloat16"),
            {"dtype": "bfloat16"},
            (None, 5e-2),
        ),
    ],
    ids=[
        "umt5",
        "ignored",
        "bfloat16_weights",
        "float32_attention_logits",
        "bfloat16",
    ],
)
def test_a_table_is_trained_as_by_the_native_engine(
    engines_of, tmp_path, model, settings, bounds
):
  engines = engines_of(model, **settings)
  start = t5x_tables.start_of()
  z_loss = engines.z_loss
  inside = t5x_tables.make_inside(
      tmp_path / "t5x", engines, z_loss=z_loss
  ).train(start)
  found = inside.trained["prompt"]
  assert np.isfinite(found).all()
  assert np.abs(found - start["prompt"]).max() > 0.3
  common = t5x_tables.common_of(tmp_path / "native", 1, z_loss=z_loss)
  native = native_trainer(common, engines).train(start)
  expected = native.trained["prompt"]
  of_prompts, of_losses = bounds
  if of_prompts:
    np.testing.assert_allclose(
        found, expected, rtol=of_prompts, atol=of_prompts
    )
  assert inside.metrics == native.metrics == [t5x_tables.SCORE]
  assert inside.best_step.tolist() == native.best_step.tolist() == [3]
  assert inside.num_steps == native.num_steps == 3
  losses = [
      artifacts.read_json_lines(tmp_path / name / artifacts.METRICS)[0]["loss"]
      for name in ("native", "t5x")
  ]
  assert losses[1] == pytest.approx(losses[0], rel=of_losses)


def native_trainer(common, engines):
  """This program's own trainer of the same network."""
  num_rows = len(common["rows"].seeds)
  return TableTrainer(
      **common,
      optimizer=engines.optimizer,
      method=PromptTuning(),
      model=engines.model,
      frozen_params=engines.frozen_params,
      evaluate=lambda trained: [t5x_tables.SCORE] * num_rows,
  )


def test_rows_that_read_different_tasks(engines_of, tmp_path):
  engines = engines_of()
  start = t5x_tables.start_of(2)
  splits = (
      examples.tiny_split(7),
      dataclasses.replace(examples.tiny_split(4, seed=9), task="other"),
  )
  found = []
  for name in ("native", "t5x"):
    common = t5x_tables.common_of(tmp_path / name, 2)
    common["rows"] = dataclasses.replace(common["rows"], splits=splits)
    trainer = native_trainer(common, engines)
    if name == "t5x":
      inside = t5x_tables.make_inside(tmp_path / name, engines, rows=2)
      trainer = dataclasses.replace(inside, rows=common["rows"])
    prompt = trainer.train(start).trained["prompt"]
    lines = artifacts.read_json_lines(tmp_path / name / artifacts.METRICS)
    found.append((prompt, [line.pop("loss") for line in lines], lines))
  (expected, losses, lines), inside = found
  np.testing.assert_allclose(inside[0], expected, rtol=1e-3, atol=1e-3)
  assert inside[1] == pytest.approx(losses, rel=1e-4)
  assert inside[2] == lines
  assert [line["task"] for line in lines] == ["tiny", "other"]


def test_only_the_prompt_is_changed(engines_of, tmp_path):
  engines = engines_of()
  before = artifacts.digest_arrays(
      {name: np.array(a) for name, a in flat(engines.frozen_params).items()}
  )
  trainer = t5x_tables.make_inside(tmp_path, engines, rows=2)
  start = t5x_tables.start_of(2)
  trained = trainer.train(start).trained["prompt"]
  assert (np.abs(trained - start["prompt"]).max(axis=(1, 2)) > 0.3).all()
  (one,) = engines._made.values()
  for params in (engines.frozen_params, one._trainer._frozen):
    arrays = {name: np.array(a) for name, a in flat(params).items()}
    assert artifacts.digest_arrays(arrays) == before
  # Of the last row.
  masks = trainer.constants
  scope = "target/encoder/prompt"
  for name in ("token_mask", "piece_mask"):
    np.testing.assert_array_equal(
        one.state[f"{scope}/{name}"], getattr(masks, name)[1]
    )
  np.testing.assert_array_equal(one.state[f"{scope}/prompt/prompt"], trained[1])


def test_the_frozen_weights_stay_where_they_are(engines_of):
  """No second copy of them: T5X's step is given their own memory."""
  engines = engines_of()
  placed = flat(engines.of(5, 4)._trainer._frozen)
  own = flat(engines.frozen_params)
  assert placed.keys() == own.keys()
  assert all(placed[name] is own[name] for name in own)


def test_copied_kernels_are_let_go_with_the_engines(engines_of):
  """At once, not when Python next collects cycles."""
  engines = engines_of(UMT5)
  own = flat(engines.frozen_params)
  placed = flat(engines.of(5, 4)._trainer._frozen)
  assert engines.of(3, 4)._trainer._frozen is not None
  copies = [
      weakref.ref(array)
      for name, array in placed.items()
      if array is not own[name]
  ]
  # T5X's step, which knows them, is part of a cycle.
  assert callable(engines.of(5, 4)._trainer._partitioned_train_step)
  del placed
  assert copies
  assert all(copy() is not None for copy in copies)
  engines.close()
  assert all(copy() is None for copy in copies)


def test_dropout_is_drawn_by_t5x_of_each_rows_seed(engines_of, tmp_path):
  """Seeds 4 and 5 of one table, which share what is compiled."""
  model = dataclasses.replace(CONFIG.model, dropout_rate=0.5)
  engines = engines_of(model)
  trainer = t5x_tables.make_inside(tmp_path, engines, rows=2)
  start = t5x_tables.start_of(2)
  trained = trainer.train(start).trained["prompt"]
  one = engines.of(5, 4)
  for row, seed in enumerate((4, 5)):
    masks = jax.tree.map(lambda mask, row=row: mask[row], trainer.constants)
    for dropout_seed in (seed, 9):
      one.begin(start["prompt"][row], masks, dropout_seed)
      one.train(trainer._batches(row, 0), 3)
      apart = np.abs(one.prompt - trained[row]).max()
      assert apart == 0.0 if dropout_seed == seed else apart > 1e-2
  assert one._trainer._step._pjitted_fn._cache_size() == 1


def test_a_loss_that_is_not_finite(engines_of, tmp_path):
  """The last good state is kept, and the row and step are named."""
  trainer = t5x_tables.make_inside(tmp_path, engines_of())
  broken = {"prompt": np.full((1, 5, 12), np.nan, np.float32)}
  with pytest.raises(UserError) as error:
    trainer.train(broken)
  assert str(error.value) == (
      f"{tmp_path}: loss of row 0 (seed 4) at step 3 or up to 2 before: found"
      " NaN or infinity, expected finite numbers; the last good state is kept;"
      " try a smaller OptimizerConfig.learning_rate"
  )
  assert not list(tmp_path.rglob("checkpoint_*"))


def out_of_memory(*args):
  raise jax.errors.JaxRuntimeError(
      "RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes."
  )


class NeverReady:
  """What a device gives that runs out of memory later."""

  block_until_ready = staticmethod(out_of_memory)


def fails_at_once(state, batch):
  out_of_memory()


def fails_later(state, batch):
  return state, {"loss": NeverReady()}


@pytest.mark.parametrize("step", [fails_at_once, fails_later])
def test_a_device_that_is_out_of_memory(
    engines_of, tmp_path, monkeypatch, caplog, step
):
  engines = engines_of()
  trainer = t5x_tables.make_inside(
      tmp_path, engines, num_steps=1, eval_every_steps=1
  )
  monkeypatch.setattr(
      one_prompt._Trainer,
      "_partitioned_train_step",
      property(lambda self: step),
  )
  with pytest.raises(UserError) as error:
    trainer.train(t5x_tables.start_of())
  assert str(error.value) == (
      "the device is out of memory, expected less at once:"
      " NUM_MODEL_PARTITIONS larger, or BATCH_SIZE or the largest of BUCKETS"
      " smaller in another --workdir; what is done is kept"
  )
  assert caplog.records == []
  # Errors of T5X's threads that nobody asked for do not come up here.
  engines.close()
  assert engines._made == {}


def test_all_engines_are_closed_when_one_cannot_be(engines_of, monkeypatch):
  engines = engines_of()
  lengths = (5, 3)
  made = {length: engines.of(length, 4) for length in lengths}
  closed = []

  def close(self):
    closed.append(self)
    if self is made[3]:
      raise ValueError("stuck")

  monkeypatch.setattr(one_prompt.OnePrompt, "close", close)
  with pytest.raises(ValueError, match="stuck"):
    engines.close()
  assert set(closed) == set(made.values())
  assert engines._made == {}
