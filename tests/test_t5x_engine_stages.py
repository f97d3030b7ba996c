"""`t5x train --engine=t5x` against the native engine, stage by stage.

Tables in this process; `test_t5x_engine_commands.py` has whole commands.
"""

import contextlib
import dataclasses

import jax
import numpy as np
import pytest

from tests import t5x_required
from tests.t5x_examples import allowed, shape_of
from tests.t5x_tables import Stopped, stopping
from tests.tiny_experiment import (
    CHECKSUM,
    CONFIG,
    arrays_of,
    make_experiment,
    result_of,
)
from xprompt_jax import artifacts, search, stages

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
    found = run(folder / "native", SMALL), run(folder / "t5x", INSIDE)
  yield found
  for experiment, _ in found:
    experiment.close()


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


def test_tables_share_what_is_compiled(both):
  """One program for each length, of one bucket; the weights are placed once."""
  _, (inside, _) = both
  engines = inside.t5x_engines
  steps = {
      key: one._trainer._partitioned_train_step.func._pjitted_fn._cache_size()
      for key, one in engines._made.items()
  }
  assert steps == {(5, 4): 1, (3, 4): 1}
  assert len(engines._placed) == 1


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
    experiment = make_experiment(tmp_path, INSIDE, (CHECKSUM,))
    with pytest.raises(Stopped), contextlib.closing(experiment):
      stages.run_tune(experiment)
  assert not (tmp_path / "tune" / artifacts.RESULT).exists()
  stopped = make_experiment(tmp_path, INSIDE, (CHECKSUM,))
  with contextlib.closing(stopped):
    stages.run_tune(stopped)
  assert table_files(stopped) == table_files(whole)


def test_a_run_stopped_while_it_retrains_goes_on_bit_for_bit(
    both, tmp_path, monkeypatch
):
  """In the second row of the tickets of tokens."""
  _, (whole, _) = both

  def make():
    made = make_experiment(tmp_path, INSIDE, (CHECKSUM,))
    vars(made)["t5x_engines"] = whole.t5x_engines  # Compiled already.
    return made

  with monkeypatch.context() as patch:
    # Two rows of two evaluations in each table.
    kind = type(whole)
    patch.setattr(kind, "evaluate", stopping(kind.evaluate, 7))
    with pytest.raises(Stopped):
      search.run_experiment(make())
  stage = tmp_path / "search_token"
  assert (stage / "state" / "row_0" / "checkpoint_4").exists()
  assert not (stage / artifacts.RESULT).exists()
  search.run_experiment(make())
  for folder in FOLDERS:
    for name in (artifacts.PROMPT, artifacts.METRICS):
      expected = whole.workdir / folder / name
      assert (tmp_path / folder / name).read_bytes() == expected.read_bytes()
