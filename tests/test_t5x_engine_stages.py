"""`t5x train --engine=t5x` against the native engine, stage by stage.

Tables in this process; `test_t5x_engine_commands.py` has whole commands.
"""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from tests import examples, t5x_required
from tests.t5x_examples import allowed, shape_of
from tests.tiny_experiment import (
    CHECKSUM,
    CONFIG,
    arrays_of,
    make_experiment,
    result_of,
)
from xprompt_jax import artifacts, search, stages
from xprompt_jax.methods.prompt_tuning import PromptTuning
from xprompt_jax.optimizer import OptimizerConfig
from xprompt_jax.trainer import TableTrainer, TrainConfig
from xprompt_jax.types import UserError
from xprompt_jax.weights import loading

table_trainer = t5x_required.t5x_module("xprompt_jax.t5x_engine.table_trainer")
one_prompt = t5x_required.t5x_module("xprompt_jax.t5x_engine.one_prompt")

pytestmark = [pytest.mark.t5x, pytest.mark.filterwarnings("ignore")]
# The fixture of every test here as well.
__all__ = ["allowed"]

# Two seeds, a ticket of each granularity, and a control of another length.
SEARCH = dataclasses.replace(
    CONFIG.search,
    token_ratios=(0.4,),
    piece_ratios=(0.25,),
    controls=("reversed", "length"),
)
SMALL = dataclasses.replace(CONFIG, search=SEARCH)
INSIDE = dataclasses.replace(SMALL, engine="t5x")
FOLDERS = ("tune", "search_token", "search_piece", "rewind", "controls")


def run(folder, config):
  experiment = make_experiment(folder, config, (CHECKSUM,))
  return experiment, search.run_experiment(experiment)


@pytest.fixture(scope="module")
def both(tmp_path_factory):
  """A whole run of each engine: experiment and summary."""
  folder = tmp_path_factory.mktemp("engines")
  with jax.numpy_rank_promotion("allow"):
    return run(folder / "native", SMALL), run(folder / "t5x", INSIDE)


def metrics_of(experiment, folder):
  return artifacts.read_json_lines(
      experiment.workdir / folder / artifacts.METRICS
  )


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_table_is_trained_alike(both, folder):
  (native, _), (inside, _) = both
  expected, found = arrays_of(native, folder), arrays_of(inside, folder)
  assert found.keys() == expected.keys()
  for name in ("token_mask", "piece_mask", "present"):
    if name in expected:
      np.testing.assert_array_equal(found[name], expected[name])
  for name in ("start", "prompt"):
    assert found[name].dtype == np.float32
    np.testing.assert_allclose(
        found[name], expected[name], rtol=1e-3, atol=1e-3
    )
  assert np.abs(found["prompt"] - found["start"]).max() > 0.3
  factor = np.repeat(found["piece_mask"], 3, axis=-1)
  assert (found["prompt"][factor == 0] == 0).all()

  lines = zip(
      metrics_of(native, folder), metrics_of(inside, folder), strict=True
  )
  for expected, found in lines:
    assert list(found) == list(expected)
    assert found.pop("loss") == pytest.approx(expected.pop("loss"), rel=1e-3)
    assert found == expected


def test_a_shorter_row_is_trained_as_a_prompt_of_its_own(both):
  """The control `length`: it has three of five tokens, at the end."""
  _, (inside, summary) = both
  present = arrays_of(inside, "controls")["present"]
  assert sorted(present.sum(axis=1).tolist()) == [3.0, 3.0, 5.0, 5.0]
  assert [m["method"] for m in summary["methods"]] == [
      "no_prompt",
      "prompt_tuning",
      "token",
      "xprompt",
      "reversed",
      "length",
  ]


def test_summaries_differ_in_the_engine_alone(both):
  (native, _), (inside, _) = both
  expected, found = result_of(native, ""), result_of(inside, "")
  assert found["config"].pop("engine") == "t5x"
  assert found["config"] == expected["config"]
  assert shape_of(found) == shape_of(expected)


def test_checkpoints_hold_what_is_trained_and_nothing_frozen(both):
  _, (inside, _) = both
  state = inside.workdir / "tune" / "state"
  assert sorted(p.name for p in state.iterdir()) == [
      "config.json",
      "row_0",
      "row_1",
  ]
  row = state / "row_1"
  assert sorted(p.name for p in row.iterdir()) == [
      "checkpoint_4",
      "metrics.jsonl",
      "records_4.safetensors",
  ]
  assert sorted(p.name for p in (row / "checkpoint_4").iterdir()) == [
      "checkpoint",
      "state.param_states.encoder.prompt.prompt.prompt.v",
      "target.encoder.prompt.piece_mask",
      "target.encoder.prompt.prompt.prompt",
      "target.encoder.prompt.token_mask",
  ]


def test_the_frozen_weights_stay_where_they_are(both):
  """No second copy of them: T5X's step is given their own memory."""
  params = examples.tiny_params()
  engine = one_prompt.OnePrompt(
      prompt=CONFIG.prompt,
      model=CONFIG.model,
      optimizer=OptimizerConfig(),
      z_loss=0.0,
      frozen_params=params,
      mesh=None,
      seed=0,
  )
  own = params["token_embedder"]["embedding"]
  placed = engine._trainer._frozen["token_embedder"]["embedding"]
  engine.close()
  (shard,) = placed.addressable_shards
  assert shard.data.unsafe_buffer_pointer() == own.unsafe_buffer_pointer()


class Stopped(Exception):
  """A run that ends where it stands."""


def stopping(function, calls):
  """A function that ends the run instead of its n-th call."""
  count = iter(range(1, calls + 1))

  @functools.wraps(function)
  def wrapped(*args, **kwargs):
    if next(count) == calls:
      raise Stopped
    return function(*args, **kwargs)

  return wrapped


def table_files(experiment):
  folder = experiment.workdir / "tune"
  return [
      (folder / name).read_bytes()
      for name in (artifacts.PROMPT, artifacts.METRICS)
  ]


# Two rows of two evaluations: in the second row, once nothing of it is saved, once
# in its middle, once between its records and T5X's checkpoint.
@pytest.mark.parametrize(
    ("where", "calls"), [("evaluate", 3), ("evaluate", 4), ("save", 4)]
)
def test_a_stopped_run_goes_on_bit_for_bit(
    both, tmp_path, monkeypatch, where, calls
):
  _, (whole, _) = both
  owner = {
      "evaluate": type(whole),
      "save": one_prompt.OnePrompt,
  }[where]
  with monkeypatch.context() as patch:
    patch.setattr(owner, where, stopping(getattr(owner, where), calls))
    with pytest.raises(Stopped):
      stages.run_tune(make_experiment(tmp_path, INSIDE, (CHECKSUM,)))
  assert not (tmp_path / "tune" / artifacts.RESULT).exists()
  stopped = make_experiment(tmp_path, INSIDE, (CHECKSUM,))
  stages.run_tune(stopped)
  assert table_files(stopped) == table_files(whole)


def make_trainer(kind, folder, evaluate, model, **config):
  """The trainer of one engine, of one row."""
  experiment = make_experiment(
      folder, dataclasses.replace(CONFIG, model=model), (CHECKSUM,)
  )
  return kind(
      config=TrainConfig(
          batch_size=3,
          num_epochs=None,
          num_steps=3,
          eval_every_steps=3,
          **config,
      ),
      optimizer=OptimizerConfig(),
      model=experiment.model,
      frozen_params=loading.load_frozen("random:3", model).params,
      constants=examples.random_masks(1, examples.TINY_P, examples.TINY_K),
      rows=experiment.rows("train", (4,)),
      evaluate=evaluate,
      folder=folder,
  )


def test_a_position_bias_in_every_layer_and_z_loss(tmp_path):
  """umT5's network, which is another one in T5X."""
  model = dataclasses.replace(
      CONFIG.model, relpos_per_layer=True, logits_via_embedding=True
  )
  start = {"prompt": np.asarray(examples.random_prompt(1, examples.TINY_P, 12))}
  score = {"score": 1.0}
  native = make_trainer(
      functools.partial(TableTrainer, method=PromptTuning()),
      tmp_path / "native",
      lambda trained: [score],
      model,
      z_loss=0.01,
  ).train(start)
  inside = make_trainer(
      table_trainer.RowByRowTrainer,
      tmp_path / "t5x",
      lambda row, trained: score,
      model,
      z_loss=0.01,
  ).train(start)
  np.testing.assert_allclose(
      inside.trained["prompt"], native.trained["prompt"], rtol=1e-3, atol=1e-3
  )
  assert inside.metrics == native.metrics == [score]
  assert inside.best_step.tolist() == native.best_step.tolist() == [3]
  assert inside.num_steps == native.num_steps == 3
  losses = [
      artifacts.read_json_lines(tmp_path / name / artifacts.METRICS)[0]["loss"]
      for name in ("native", "t5x")
  ]
  assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def test_dropout_is_drawn_by_t5x(tmp_path):
  """Another than here, but there is some."""
  start = {"prompt": np.asarray(examples.random_prompt(1, examples.TINY_P, 12))}
  found = []
  for rate in (0.0, 0.5):
    model = dataclasses.replace(CONFIG.model, dropout_rate=rate)
    trainer = make_trainer(
        table_trainer.RowByRowTrainer,
        tmp_path / str(rate),
        lambda row, trained: {"score": 1.0},
        model,
    )
    found.append(trainer.train(start).trained["prompt"])
  assert np.abs(found[0] - found[1]).max() > 1e-2


def test_a_loss_that_is_not_finite(tmp_path):
  """The last good state is kept, and the row and step are named."""
  start = {"prompt": np.asarray(examples.random_prompt(1, examples.TINY_P, 12))}
  trainer = make_trainer(
      table_trainer.RowByRowTrainer,
      tmp_path,
      lambda row, trained: {"score": 1.0},
      CONFIG.model,
  )
  broken = {"prompt": np.full_like(start["prompt"], np.nan)}
  with pytest.raises(UserError) as error:
    trainer.train(broken)
  assert str(error.value) == (
      f"{tmp_path}: loss of row 0 (seed 4) at step 3 or up to 2 before: found"
      " NaN or infinity, expected finite numbers; the last good state is kept;"
      " try a smaller OptimizerConfig.learning_rate"
  )
  assert not list(tmp_path.rglob("checkpoint_*"))


def test_a_damaged_checkpoint_is_refused(tmp_path):
  start = {"prompt": np.asarray(examples.random_prompt(1, examples.TINY_P, 12))}

  def make(num_steps):
    trainer = make_trainer(
        table_trainer.RowByRowTrainer,
        tmp_path,
        lambda row, trained: {"score": 1.0},
        CONFIG.model,
    )
    config = dataclasses.replace(trainer.config, num_steps=num_steps)
    return dataclasses.replace(trainer, config=config)

  make(3).train(start)
  row = tmp_path / "state" / "row_0"
  (row / "checkpoint_3" / "checkpoint").write_bytes(b"")
  with pytest.raises(UserError) as error:
    make(6).train(start)
  message = str(error.value)
  assert message.startswith(f"{row}/checkpoint_3: T5X cannot read it (")
  assert message.endswith(f"without {row} the row is trained afresh")
  assert "\n" not in message
