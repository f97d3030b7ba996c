"""What a baseline writes of its rows is what it trained, and is written once."""

import dataclasses

import jax
import pytest

from tests import tiny_experiment
from xprompt_jax import artifacts, baseline_rows, baselines, methods
from xprompt_jax.optimizer import OptimizerConfig

# So fast that predictions of the two rows differ after four steps.
# So large that rows answer differently.
RATES = {
    "fine_tuning": 0.3,
    "prefix_tuning": 1.0,
    "p_tuning": 100.0,
    "p_tuning_v2": 5.0,
}


class Killed(Exception):
  """Stands for the machine going away."""


def killed_before(monkeypatch, file):
  """No result is written to a file whose path ends so."""
  write = artifacts.write_json

  def stopping(path, value):
    if str(path).endswith(file):
      raise Killed
    write(path, value)

  monkeypatch.setattr(artifacts, "write_json", stopping)


@pytest.mark.parametrize(
    ("name", "folders"),
    [
        ("fine_tuning", ["row_0", "row_1"]),
        ("prefix_tuning", ["."]),
        ("p_tuning", ["."]),
        ("p_tuning_v2", ["."]),
    ],
)
def test_a_run_killed_before_its_result_goes_on_from_its_files(
    tmp_path, monkeypatch, name, folders
):
  config = dataclasses.replace(
      tiny_experiment.CONFIG,
      optimizer=OptimizerConfig(
          name="adamw", learning_rate=RATES[name], weight_decay_rate=0.0
      ),
      method=methods.MethodConfig(name=name, mid_dim=5),
  )
  experiment = tiny_experiment.make_experiment(
      tmp_path, config, (tiny_experiment.CHECKSUM,)
  )
  method = methods.build_baseline(config.method, config.prompt.length)
  tune = tmp_path / artifacts.TUNE
  last = tune / folders[-1]
  with monkeypatch.context() as patched:
    killed_before(patched, f"{last.name}/{artifacts.RESULT}")
    with pytest.raises(Killed):
      baselines.run_tune(experiment, method)
  assert not (last / artifacts.RESULT).exists()
  before = tiny_experiment.files_of(tune)
  recorded = baselines.run_tune(experiment, method)
  after = tiny_experiment.files_of(tune)
  # State and lines are those of the end already; nothing else is new.
  state = str((last / artifacts.STATE).relative_to(tune))
  kept = {k: v for k, v in before.items() if k != state}
  assert {k: after[k] for k in kept} == kept
  assert (state in after) == (name != "fine_tuning")
  assert [line["seed"] for line in recorded] == [3, 8]
  assert recorded == artifacts.read_json(tune / artifacts.RESULT)["rows"]

  models = [baseline_rows.read_row(experiment, method, row) for row in (0, 1)]
  found = [baselines.validate(experiment, model, None) for model in models]
  assert found == [line["validation"] for line in recorded]
  assert found[0] != found[1]
  leaves = jax.tree.leaves((models[0].params, models[0].prompt))
  others = jax.tree.leaves((models[1].params, models[1].prompt))
  assert any((a != b).any() for a, b in zip(leaves, others, strict=True))
  with pytest.raises(ValueError, match="has no row 2"):
    baseline_rows.read_row(experiment, method, 2)
