"""The experiments' gin files."""

import dataclasses
import pathlib

import pytest

from docs import claims
import xprompt_jax
from xprompt_jax import flags, main, sweeps

GIN = pathlib.Path(xprompt_jax.__file__).parent / "gin"
FILES = sorted(path.stem for path in (GIN / "experiments").glob("*.gin"))
LARGE = "experiments/settings/t5_1_1_large.gin"
RUNS = {
    "table1_baselines": [
        "prompt_tuning",
        "fine_tuning",
        "prefix_tuning",
        "p_tuning",
        "p_tuning_v2",
    ],
    "table1_baselines_paper": [
        "prompt_tuning",
        "fine_tuning",
        "prefix_tuning",
        "p_tuning",
        "p_tuning_v2",
    ],
    "table2_few_shot": ["shots_16", "shots_32"],
    "table5_length": ["length_10", "length_20", "length_100"],
    "table6_initialisation": ["sampled_vocab", "random_uniform", "first_rows"],
    "table7_transfer": [
        "source",
        "sampled_vocab",
        "task_transfer",
        "xprompt_transfer",
    ],
    "pieces": ["pieces_4", "pieces_16", "pieces_32"],
    "figure1_size": ["small", "large"],
}
MINI = ["mini_boolq", "mini_rte", "mini_cb", "mini_wsc"]


def configs_of(*gin_files, task):
  """The configs of an experiment on one task, by run."""
  arguments, bindings = flags.parse_arguments(
      [
          "train",
          *(f"--gin_file={name}" for name in gin_files),
          f"--gin.TASK_FILES=('tasks/{task}.gin',)",
      ]
  )
  main._read_gin(arguments.gin_file, bindings, [])
  found = {}
  for run, statements in (
      sweeps.check_runs(main._macro("RUNS")) or {"": ()}
  ).items():
    calls = main._calls(
        arguments,
        bindings,
        pathlib.Path("W"),
        run=run,
        statements=statements,
    )
    found[run] = calls[f"{task}/{run}" if run else task].config
  return found


@pytest.mark.parametrize("name", FILES)
def test_every_experiment_opens_with_its_command(name):
  text = (GIN / f"experiments/{name}.gin").read_text()
  header = text[: text.index("\ninclude")]
  assert f"t5x train --gin_file=experiments/{name}.gin" in header
  assert f"--workdir=runs/experiments/{name}" in header
  assert "# Needs" in header
  assert LARGE in text


@pytest.mark.parametrize("name", FILES)
def test_every_experiment_on_the_bundled_model(name):
  found = configs_of(f"experiments/{name}.gin", task="mini_cb")
  assert list(found) == RUNS.get(name, [""])
  for run, config in found.items():
    assert config.checkpoint == (
        "bundled_small" if run == "small" else "bundled"
    )
    assert config.seeds == tuple(range(10))
    baselines = name.startswith("table1_baselines")
    assert config.train.num_steps == (48 if baselines else 24)
    protocol = "paper" if name.endswith("_paper") else "heldout"
    assert config.task.protocol == protocol


def test_the_four_tasks_of_the_package():
  main._read_gin(["experiments/settings/bundled.gin"], [], [])
  assert main._task_files() == [f"tasks/{task}.gin" for task in MINI]


@pytest.mark.parametrize("name", FILES)
def test_the_same_file_on_t5_large(name):
  found = configs_of(f"experiments/{name}.gin", LARGE, task="cb")
  if name == "figure1_size":
    assert list(found) == ["small", "base", "large", "xl"]
  else:
    assert list(found) == RUNS.get(name, [""])
  widths = [config.model.emb_dim for config in found.values()]
  sizes = [512, 768, 1024, 2048]
  assert widths == (sizes if name == "figure1_size" else [1024] * len(found))
  (paper,) = configs_of("xprompt_cb.gin", task="cb").values()
  for config in found.values():
    # The z-loss is the method's own.
    train = dataclasses.replace(config.train, z_loss=paper.train.z_loss)
    assert train == paper.train
    assert config.task.max_examples is None
    assert config.task.test_split is None
    if name != "figure1_size" and config.method.name == "prompt_tuning":
      assert config.model == paper.model
      assert config.checkpoint == paper.checkpoint


@pytest.mark.parametrize("name", [f for f in FILES if f != "figure1_size"])
def test_what_a_file_tests_is_the_same_on_t5_large(name):
  small = configs_of(f"experiments/{name}.gin", task="mini_cb")
  large = configs_of(f"experiments/{name}.gin", LARGE, task="cb")
  for run, config in small.items():
    search, same = config.search, large[run].search
    for field in ("granularities", "strategy", "importances", "controls"):
      assert getattr(same, field) == getattr(search, field)
    for field in ("token_ratios", "piece_ratios"):
      # The bundled model takes some of the paper's.
      ratios = getattr(search, field)
      whole = ratios == (0.1, 0.3, 0.6) or name == "table5_length"
      expected = tuple(i / 10 for i in range(1, 10)) if whole else ratios
      assert getattr(same, field) == expected
    assert large[run].seeds == config.seeds
    assert large[run].task.protocol == config.task.protocol


def test_pieces_are_pruned_alone_whatever_the_model():
  found = configs_of("experiments/pieces.gin", LARGE, task="cb")
  for config in found.values():
    assert config.search.granularities == ("piece",)
    assert config.search.piece_ratios == (0.1, 0.4)


@pytest.mark.parametrize("name", ["table1_methods", "table1_paper"])
def test_table_1_has_random_tickets_and_a_retrained_prompt(name):
  (config,) = configs_of(f"experiments/{name}.gin", task="mini_cb").values()
  assert config.search.importances == ("gradient", "random")
  assert config.search.controls == ("retrained",)


def test_transfer_starts_from_the_source():
  found = configs_of("experiments/table7_transfer.gin", task="mini_boolq")
  files = {run: config.prompt.init_file for run, config in found.items()}
  assert files == {
      "source": None,
      "sampled_vocab": None,
      "task_transfer": "W/mini_boolq/../mini_boolq/source/tune",
      "xprompt_transfer": "W/mini_boolq/../mini_boolq/source/rewind",
  }


def test_every_claim_names_an_experiment_and_its_runs():
  titles = [claim.title for claim in claims.CLAIMS]
  assert len({*titles}) == len(titles)
  bases = {
      c.pairs[0][1].method for c in claims.CLAIMS if "table1" in c.experiment
  }
  assert bases == {"prompt_tuning", "retrained"}
  for claim in claims.CLAIMS:
    assert claim.experiment in FILES
    known = RUNS.get(claim.experiment, [""])
    assert {side.run for pair in claim.pairs for side in pair} <= {*known}
    assert claim.without in (None, "source")
  assert claims.MARGIN == 1.0
