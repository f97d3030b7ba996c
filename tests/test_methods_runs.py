"""Whole runs of baselines from the command line, on the smallest model."""

import dataclasses
import json

import numpy as np
import pytest

from tests import command_line
from tests.tiny_experiment import files_of
from xprompt_jax import artifacts, main
from xprompt_jax.baseline_rows import ADAPTER
from xprompt_jax.experiment_config import result_fields
from xprompt_jax.types import UserError

NAMES = ("fine_tuning", "prefix_tuning", "p_tuning", "p_tuning_v2")
# H 32, heads 2 x 8, one layer each side, P 4, K 8: see command_line.TINY.
SIZES = {
    # Embedding and output 2 x 288 x 32; attention 3 x 4 x 32 x 16; MLP 2 x 3 x
    # 32 x 48; seven norms of 32; two position biases of 2 x 32.
    "fine_tuning": (34_144, None, None),
    # 3 (4 x 32 + 33 x 512) + 513 x 2 x 16 x 3; folded 2 x 4 x 16 x 3.
    "prefix_tuning": (100_320, 384, None),
    # 4 x 32 + 8 x 32 x (32 + 32 + 2) + 8 x 32 x (64 + 32 + 2) + 32 x (65 + 33);
    # folded 4 x 32.
    "p_tuning": (45_248, 128, 4),
    "p_tuning_v2": (384, None, None),
}


def arguments_of(name, workdir):
  return (
      *command_line.TINY[:1],
      f"--gin_file=methods/{name}.gin",
      *command_line.TINY[1:],
      f"--workdir={workdir}",
  )


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
  """WORKDIR of each baseline, made on first use; not to be written in."""
  made = {}

  def run(name):
    if name not in made:
      workdir = tmp_path_factory.mktemp(name) / "run"
      assert command_line.run("train", *arguments_of(name, workdir)) == 0
      made[name] = workdir
    return made[name]

  return run


def tables_of(workdir, name):
  """Folders of the tables that hold the rows of two seeds."""
  tune = workdir / artifacts.TUNE
  if name != "fine_tuning":
    return [tune]
  # A whole model a row: one after another, and no state is left of them.
  found = [tune / "row_0", tune / "row_1"]
  assert not any((folder / artifacts.STATE).exists() for folder in found)
  assert {path.name for path in tune.iterdir()} == {
      "row_0",
      "row_1",
      "state",
      artifacts.METRICS,
      artifacts.RESULT,
  }
  lines = artifacts.read_json_lines(tune / artifacts.METRICS)
  assert [(line["row"], line["seed"], line["step"]) for line in lines] == [
      (0, 0, 1),
      (0, 0, 2),
      (1, 5, 1),
      (1, 5, 2),
  ]
  return found


@pytest.mark.parametrize("name", NAMES)
def test_a_baseline_runs_from_tuning_to_its_summary(runs, name, capsys):
  workdir = runs(name)
  summary = artifacts.read_json(workdir / artifacts.RESULT)
  assert [method["method"] for method in summary["methods"]] == [
      "no_prompt",
      name,
  ]
  assert summary["tickets_tried"] == 0
  trained, needed, kept = SIZES[name]
  rows = summary["methods"][1]["rows"]
  assert [row["seed"] for row in rows] == [0, 5]
  for row in rows:
    assert row["tunable_parameters"] == trained
    assert row.get("inference_parameters") == needed
    assert row["kept_tokens"] == kept
    assert row["kept_pieces"] is None
    assert {"validation", "test", "ways"} <= row.keys()
  file = artifacts.PROMPT if name == "p_tuning" else ADAPTER
  found = tables_of(workdir, name)
  for folder in found:
    names = {path.name for path in folder.iterdir()}
    assert names == {file, artifacts.METRICS, artifacts.RESULT, "state"}
  arrays = [artifacts.load_arrays(folder / file) for folder in found]
  for one in arrays:
    for other in [k for k in one if "mask" in k or k == "start"]:
      del one[other]
    assert sum(v[0].size for v in one.values()) == (needed or trained)
  for leaf in arrays[0]:
    first, second = (row for table in arrays for row in table[leaf])
    # Answers of one piece or two leave biases of longer distances alone.
    assert (first != second).any() or "relpos_bias" in leaf, leaf
  # The same command again.
  before = files_of(workdir)
  assert command_line.run("train", *arguments_of(name, workdir)) == 0
  assert files_of(workdir) == before
  assert "test" in capsys.readouterr().out


def test_a_folded_prompt_is_an_ordinary_one(runs, capsys, tmp_path):
  workdir = runs("p_tuning")
  arrays = artifacts.load_arrays(workdir / "tune" / artifacts.PROMPT)
  assert arrays["prompt"].shape == (2, 4, 32)
  assert (arrays["start"] != arrays["prompt"]).any()
  capsys.readouterr()
  where = (*command_line.TINY, f"--workdir={workdir}")
  assert command_line.run("eval", *where, "--split=validation") == 0
  printed = [json.loads(x) for x in capsys.readouterr().out.splitlines()]
  summary = artifacts.read_json(workdir / artifacts.RESULT)
  rows = summary["methods"][1]["rows"]
  lines = [line for line in printed if "row" in line]
  assert [line["accuracy"] for line in lines] == [
      row["validation"]["accuracy"] for row in rows
  ]
  out = tmp_path / "prompt"
  assert (
      command_line.run(
          "export", *where, "--row=1", "--format=safetensors", f"--output={out}"
      )
      == 0
  )
  (exported,) = out.rglob("*.safetensors")
  found = artifacts.load_arrays(exported)["prompt"]
  np.testing.assert_array_equal(found.reshape(4, 32), arrays["prompt"][1])


def test_a_prefix_is_no_prompt_file(runs, capsys):
  workdir = runs("p_tuning_v2")
  capsys.readouterr()
  message = command_line.refused(
      capsys, "eval", *command_line.TINY, f"--workdir={workdir}"
  )
  assert message == (
      f"{workdir}: a run of p_tuning_v2: its results are in result.json; eval,"
      " infer, score and export know prompts alone"
  )


def test_another_method_in_the_same_workdir_is_refused(runs, capsys):
  workdir = runs("p_tuning_v2")
  capsys.readouterr()
  message = command_line.refused(
      capsys, "train", *arguments_of("prefix_tuning", workdir)
  )
  assert "belongs to another config" in message


def test_a_method_that_is_not_known_is_refused(capsys, tmp_path):
  message = command_line.refused(
      capsys,
      "train",
      *command_line.TINY,
      "--gin.METHOD='lora'",
      f"--workdir={tmp_path}",
  )
  assert message.startswith("METHOD: found 'lora', expected one of")


def config_of(*files):
  return main.parse_gin(["xprompt_wsc.gin", *files], [])


def test_method_files_hold_their_papers_settings():
  plain = config_of()
  assert config_of("methods/prompt_tuning.gin") == plain
  found = {name: config_of(f"methods/{name}.gin") for name in NAMES}
  optimizers = {
      name: (o.name, o.learning_rate, o.schedule, o.weight_decay_rate)
      for name, o in ((n, c.optimizer) for n, c in found.items())
  }
  assert optimizers == {
      "fine_tuning": ("adafactor", 1e-3, "constant", 0.0),
      "prefix_tuning": ("adamw", 5e-5, "linear", 0.0),
      "p_tuning": ("adamw", 1e-4, "linear", 0.0),
      "p_tuning_v2": ("adamw", 7e-3, "linear", 0.0),
  }
  tuned = found["fine_tuning"]
  assert tuned.optimizer.factored and tuned.optimizer.parameter_scale
  assert tuned.model.dropout_rate == 0.1
  lengths = {name: c.prompt.length for name, c in found.items()}
  assert lengths == {
      "fine_tuning": 20,
      "prefix_tuning": 10,
      "p_tuning": 20,
      "p_tuning_v2": 8,
  }
  # The same data, batches and epochs.
  for name, c in found.items():
    z_loss = 1e-4 if name == "fine_tuning" else 0.0
    assert c.train == dataclasses.replace(plain.train, z_loss=z_loss)
    assert c.task == plain.task


def test_runs_made_before_there_were_methods_go_on():
  fields = result_fields(config_of())
  assert "method" not in fields
  assert fields["optimizer"] == {
      "learning_rate": 0.3,
      "decay_rate": 0.8,
      "clipping_threshold": 1.0,
      "weight_decay_rate": 1e-05,
  }


def test_fields_that_a_method_does_not_use_are_not_in_its_digest():
  fields = result_fields(config_of("methods/p_tuning.gin"))
  assert fields["method"] == {"name": "p_tuning", "prompt_encoder": "lstm"}
  assert fields["prompt"] == {"length": 20, "pruned_tokens": "zero"}
  assert fields["optimizer"] == {
      "learning_rate": 1e-4,
      "weight_decay_rate": 0.0,
      "name": "adamw",
      "schedule": "linear",
  }
  fields = result_fields(config_of("methods/fine_tuning.gin"))
  assert fields["method"] == {"name": "fine_tuning"}
  assert fields["prompt"] == {}
  assert fields["optimizer"]["clipping_threshold"] == 1.0


@pytest.mark.parametrize(
    ("files", "flag", "message"),
    [
        (
            (),
            "METHOD = 'p_tuning'",
            "METHOD: found 'p_tuning' with the optimizer of prompt tuning,"
            " adafactor at 0.3, expected --gin_file=methods/p_tuning.gin after"
            " the recipe",
        ),
        (
            ("methods/p_tuning.gin",),
            "METHOD = 'prompt_tuning'",
            "METHOD: found 'prompt_tuning' with OptimizerConfig.name = 'adamw',"
            " expected --gin_file=methods/prompt_tuning.gin after the recipe",
        ),
        (
            ("methods/fine_tuning.gin",),
            "METHOD = 'prompt_tuning'",
            "METHOD: found 'prompt_tuning' with OptimizerConfig.parameter_scale"
            " = True, expected --gin_file=methods/prompt_tuning.gin after the"
            " recipe",
        ),
        (
            ("methods/p_tuning.gin",),
            "MASKING_COUNTS = (30,)",
            "MASKING_COUNTS: found (30,), expected () with METHOD = 'p_tuning',"
            " which has no search",
        ),
        (
            ("methods/p_tuning.gin",),
            "CONTROLS = ('random',)",
            "CONTROLS: found ('random',), expected () with METHOD = 'p_tuning',"
            " which has no search",
        ),
        (
            ("methods/p_tuning.gin",),
            "AUTO_RATIO = True",
            "AUTO_RATIO: found True, expected False with METHOD = 'p_tuning',"
            " which has no search",
        ),
        (
            ("methods/p_tuning.gin",),
            "IMPORTANCES = ('gradient', 'random')",
            "IMPORTANCES: found ('gradient', 'random'), expected ('gradient',)"
            " with METHOD = 'p_tuning', which has no search",
        ),
    ],
)
def test_settings_of_another_method_are_refused(files, flag, message):
  with pytest.raises(UserError) as refused:
    main.parse_gin(["xprompt_wsc.gin", *files], [flag])
  assert str(refused.value).partition("\n")[0] == message


def test_pieces_do_not_matter_to_a_baseline():
  # 1024 is no multiple of 7.
  config = main.parse_gin(
      ["xprompt_wsc.gin", "methods/p_tuning.gin"], ["NUM_PIECES = 7"]
  )
  assert config.prompt.num_pieces == 7
