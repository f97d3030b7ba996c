"""The packaged recipes: what they say, and transfer from one run to another."""

import json
import pathlib

import numpy as np
import pytest

from tests import command_line
import xprompt_jax
from xprompt_jax import artifacts, main

GIN = pathlib.Path(xprompt_jax.__file__).parent / "gin"
SEVEN = ("wsc", "wic", "rte", "cb", "copa", "boolq", "multirc")
SUITES = {
    "xprompt_superglue": [f"tasks/{name}.gin" for name in SEVEN],
    "fewshot_superglue": [f"tasks/{name}.gin" for name in SEVEN],
    "fewshot_fewglue": [f"tasks/{name}_fewglue.gin" for name in SEVEN],
}
NEEDS = {
    "transfer_task": ["PROMPT_INIT_FILE='source'"],
    "transfer_xprompt": ["PROMPT_INIT_FILE='source'"],
}
RECIPES = sorted(path.stem for path in GIN.glob("*_*.gin"))


def configs_of(recipe):
  """The configs of a recipe by task: several for a suite."""
  bindings = NEEDS.get(recipe, [])
  main._read_gin([f"{recipe}.gin"], bindings, [])
  files = main._task_files()
  assert files == SUITES.get(recipe, [])
  found = [
      main.parse_gin([f"{recipe}.gin", *name], bindings)
      for name in ([[file] for file in files] or [[]])
  ]
  return {config.task.name: config for config in found}


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_is_whole_and_opens_with_its_command(recipe):
  text = (GIN / f"{recipe}.gin").read_text()
  header = text[: text.index("\ninclude")]
  assert f"t5x train --gin_file={recipe}.gin" in header
  assert "Needs" in header
  for config in configs_of(recipe).values():
    if recipe != "xprompt_demo":
      # T5-Large LM-adapted, and the paper's prompt.
      assert config.model.emb_dim == 1024
      assert config.checkpoint.endswith(
          "t5_1_1_lm100k_large/checkpoint_1100000"
      )
      assert (config.prompt.length, config.prompt.num_pieces) == (20, 16)


@pytest.mark.parametrize("name", SEVEN)
def test_recipes_of_a_task(name):
  (config,) = configs_of(f"xprompt_{name}").values()
  assert config.task.name == name
  assert config.task.few_shot is None
  assert (config.train.num_epochs, config.seeds) == (100, (0,))
  (few,) = configs_of(f"fewshot_{name}").values()
  assert few.task.name == name
  assert (few.task.few_shot, few.task.few_shot_seed) == (32, None)
  assert few.task.few_shot_balanced
  assert few.seeds == (0, 1, 2)


def test_the_papers_numbers_stand_in_the_headers():
  numbers = {
      "wsc": "97.11",
      "cb": "100.00",
      "rte": "94.94",
      "boolq": "90.87",
      "multirc": "88.90",
  }
  for name, number in numbers.items():
    for recipe in (f"xprompt_{name}", "xprompt_superglue"):
      assert number in (GIN / f"{recipe}.gin").read_text()


def test_fewglue_trains_on_its_own_splits():
  found = configs_of("fewshot_fewglue")
  assert list(found) == [f"{name}_fewglue" for name in SEVEN]
  for config in found.values():
    task = config.task
    assert (task.train_split, task.validation_split, task.test_split) == (
        "train",
        "validation",
        "test",
    )
    assert task.few_shot is None


def test_mixture_and_table_differ_in_rows():
  (one,) = configs_of("mixture_superglue").values()
  (table,) = configs_of("table_superglue").values()
  assert (one.task.name, one.task.mixture_rows) == (
      "super_glue_proportional",
      "mixture",
  )
  assert (table.task.name, table.task.mixture_rows) == (
      "super_glue_equal",
      "task",
  )
  assert one.train == table.train
  assert (one.train.num_epochs, one.train.num_steps) == (None, 30000)


def test_transfer_needs_a_source(capsys):
  for recipe in ("transfer_task", "transfer_xprompt"):
    found = command_line.refused(capsys, "train", f"--gin_file={recipe}.gin")
    assert found == (
        "PROMPT_INIT_FILE: found no value, expected a gin file that sets it, or"
        " --gin.NAME=VALUE"
    )


@pytest.mark.parametrize(
    ("recipe", "folder"),
    [("transfer_task", "tune"), ("transfer_xprompt", "rewind")],
)
def test_transfer_starts_where_the_source_ended(
    tiny_run, tmp_path, recipe, folder
):
  source = tiny_run / folder / artifacts.PROMPT
  target = (GIN / f"{recipe}.gin").read_text().partition("include")[2]
  file = tmp_path / "transfer.gin"
  # The recipe's own lines, on the bundled task.
  lines = target.splitlines()[1:]
  file.write_text("\n".join(lines))
  status = command_line.run(
      "train",
      *command_line.TINY,
      f"--gin_file={file}",
      "--gin_file=tasks/mini_rte.gin",
      f"--gin.PROMPT_INIT_FILE={str(source)!r}",
      f"--workdir={tmp_path / 'run'}",
  )
  assert status == 0
  ended = artifacts.load_arrays(source)
  began = artifacts.load_arrays(tmp_path / "run/tune" / artifacts.PROMPT)
  pieces = np.repeat(ended["piece_mask"], 4, axis=2)
  factor = ended["token_mask"][..., None] * pieces
  np.testing.assert_array_equal(began["start"], ended["prompt"] * factor)
  if folder == "rewind":
    # Pruned entries start at zero, and all may move again.
    assert (factor == 0).any()
    assert (began["prompt"][factor == 0] != 0).any()
    assert (began["token_mask"] == 1).all()
  result = json.loads((tmp_path / "run" / artifacts.RESULT).read_text())
  assert result["init_file"] == str(source)
