"""`t5x train --engine`: what is refused, without T5X and with it."""

import dataclasses
import sys
import types

import pytest

from tests import command_line
from tests.tiny_experiment import CONFIG, make_experiment
from xprompt_jax import stages
from xprompt_jax.methods.config import MethodConfig
from xprompt_jax.t5x_engine import requirements
from xprompt_jax.types import UserError

INSIDE = dataclasses.replace(CONFIG, engine="t5x")


@pytest.fixture
def without_t5x(monkeypatch):
  """As where it is not installed, also where it is."""
  for name in ("t5x", *requirements._MODULES):
    monkeypatch.setitem(sys.modules, name, None)


def refused(capsys, tmp_path, *flags):
  """The line of `t5x train` with these flags, which writes nothing."""
  workdir = tmp_path / "run"
  flags = (*command_line.TINY, *flags, f"--workdir={workdir}")
  line = command_line.refused(capsys, "train", *flags)
  assert not workdir.exists()
  return line


@pytest.mark.parametrize(
    "files", [(), ("--gin.TASK_FILES=('tasks/mini_boolq.gin',)",)]
)
def test_without_t5x_one_line_says_how_to_install_it(
    without_t5x, capsys, tmp_path, files
):
  assert refused(capsys, tmp_path, "--engine=t5x", *files) == (
      "--engine=t5x: T5X cannot be imported (ModuleNotFoundError: import of"
      " t5x.trainer halted; None in sys.modules), expected clones of"
      " https://github.com/google-research/t5x (tested: commit cc342d4),"
      " https://github.com/google/airio and"
      " https://github.com/google-research/jestimator on PYTHONPATH, and 'pip"
      " install cached_property fiddle grain tensorboard': docs/t5x.md,"
      " Installing T5X"
  )


@pytest.mark.parametrize(
    "error", [TypeError("no such field\nmore"), AttributeError("no such field")]
)
def test_a_t5x_of_another_version_is_told_in_one_line(monkeypatch, error):
  def broken(name):
    raise error

  module = types.SimpleNamespace(import_module=broken)
  monkeypatch.setattr(requirements, "importlib", module)
  with pytest.raises(UserError) as raised:
    requirements.check_importable()
  message = str(raised.value)
  assert message.startswith(
      f"--engine=t5x: T5X cannot be imported ({type(error).__name__}: no such"
      " field), expected clones of"
  )
  assert "\n" not in message


def test_several_hosts_are_refused(capsys, tmp_path, monkeypatch):
  monkeypatch.setattr(requirements, "check_importable", lambda: None)
  monkeypatch.setattr(requirements.jax, "process_count", lambda: 4)
  assert refused(capsys, tmp_path, "--engine=t5x") == (
      "processes of --engine=t5x: found 4, expected 1; several hosts train with"
      " 'python -m t5x.train' (docs/t5x.md)"
  )


def test_another_engine_is_refused(capsys):
  line = command_line.refused(
      capsys, "train", "--engine=jax", *command_line.TINY
  )
  # Versions of Python quote the choices in their own ways.
  assert line.startswith("argument --engine: invalid choice: 'jax' (choose")


def test_the_command_line_alone_names_the_engine(capsys, tmp_path):
  flag = "--gin.ExperimentConfig.engine='t5x'"
  assert refused(capsys, tmp_path, flag) == (
      "ExperimentConfig.engine: found 't5x', expected --engine on the command"
      " line in its place"
  )


@pytest.mark.parametrize("command", ["eval", "infer", "score", "cache"])
def test_only_training_has_an_engine(capsys, command):
  line = command_line.refused(
      capsys, command, "--engine=t5x", *command_line.TINY
  )
  assert line.startswith("--engine=t5x: found no such flag")


def test_a_method_without_a_prompt_is_refused(capsys, tmp_path, monkeypatch):
  monkeypatch.setattr(requirements, "check_importable", lambda: None)
  flags = ("--engine=t5x", "--gin_file=methods/prefix_tuning.gin")
  assert refused(capsys, tmp_path, *flags) == (
      "METHOD: found 'prefix_tuning', expected 'prompt_tuning' with --engine=t5x"
  )


@pytest.mark.parametrize(
    ("section", "name", "value", "expected"),
    [
        ("optimizer", "factored", True, "False with --engine=t5x"),
        ("model", "relpos_num_buckets", 16, "32 with --engine=t5x"),
        ("model", "relpos_max_distance", 64, "128 with --engine=t5x"),
        ("model", "remat", True, "False with --engine=t5x"),
    ],
)
def test_what_t5x_does_not_have_is_refused(section, name, value, expected):
  part = dataclasses.replace(getattr(CONFIG, section), **{name: value})
  config = dataclasses.replace(CONFIG, **{section: part})
  kind = type(part).__name__
  with pytest.raises(UserError) as error:
    dataclasses.replace(config, engine="t5x")
  found = f"{kind}.{name}: found {value!r}, expected {expected}"
  assert str(error.value) == found


def test_float32_attention_logits_are_in_one_of_its_networks():
  def config(**model):
    model = dataclasses.replace(
        CONFIG.model, float32_attention_logits=True, **model
    )
    return dataclasses.replace(INSIDE, model=model)

  assert config().engine == "t5x"
  with pytest.raises(UserError, match="a position bias in every layer"):
    config(relpos_per_layer=True)


def test_a_baseline_names_the_engine_before_its_optimizer():
  with pytest.raises(UserError) as error:
    dataclasses.replace(INSIDE, method=MethodConfig(name="fine_tuning"))
  assert str(error.value) == (
      "METHOD: found 'fine_tuning', expected 'prompt_tuning' with --engine=t5x"
  )


def test_the_native_engine_is_in_no_config(finished):
  """So runs that were made before there was another go on."""
  experiment, _ = finished
  assert "engine" not in experiment.stage_config
  inside = make_experiment(experiment.workdir, INSIDE)
  assert inside.stage_config == {**experiment.stage_config, "engine": "t5x"}


def test_a_folder_of_one_engine_is_refused_by_the_other(finished):
  experiment, _ = finished
  with pytest.raises(UserError) as error:
    stages.run_tune(make_experiment(experiment.workdir, INSIDE))
  assert str(error.value) == (
      f"{experiment.workdir}/tune/result.json: belongs to another config:"
      " engine is None there and 't5x' now; expected the same config, or"
      " another --workdir"
  )
