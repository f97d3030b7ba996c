"""Rows of different tasks in one table compute what each computes alone."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest

from tests import command_line, examples, shared_data
from xprompt_jax import artifacts, scoring, task_data, train_step
from xprompt_jax import masks as masks_lib
from xprompt_jax import optimizer as optimizer_lib
from xprompt_jax.experiment import TaskConfig
from xprompt_jax.methods.prompt_tuning import PromptTuning
from xprompt_jax.model import PromptedT5
from xprompt_jax.optimizer import OptimizerConfig
from xprompt_jax.t5.config import T5Config
from xprompt_jax.tables import TableRows

MINI = (
    *command_line.TINY,
    "--gin.MIXTURE_OR_TASK_NAME='four_equal'",
    "--gin.MIXTURE_OR_TASK_MODULE='tests.mixed_tasks'",
    "--gin.TaskConfig.max_examples=6",
    "--gin.SEEDS=(5,)",
    # Rows of one chunk round together.
    "--gin.ROWS_PER_CHUNK=1",
)
TASKS = ["mini_boolq", "mini_cb", "mini_rte", "mini_wsc"]
SIZES = {
    "emb_dim": 32,
    "num_heads": 2,
    "head_dim": 8,
    "num_encoder_layers": 1,
    "num_decoder_layers": 1,
    "mlp_dim": 24,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
  """A table of R rows that read R tasks, and the model behind it."""

  model: PromptedT5
  params: dict
  rows: TableRows
  prompt: np.ndarray
  masks: object

  def row(self, row, buckets):
    """The table of one row alone, padded to other lengths."""
    return dataclasses.replace(
        self,
        rows=dataclasses.replace(
            self.rows,
            seeds=self.rows.seeds[row : row + 1],
            splits=self.rows.splits[row : row + 1],
            buckets=buckets,
        ),
        prompt=self.prompt[row : row + 1],
        masks=masks_lib.take_rows(self.masks, np.array([row])),
    )


def setting(splits, vocab_size, buckets, targets_length):
  rows = len(splits)
  config = T5Config(vocab_size=vocab_size, **SIZES)
  params = examples.random_params(config)
  prompt = examples.random_prompt(rows, 4, config.emb_dim)
  return Setting(
      model=PromptedT5(t5_config=config),
      params=params,
      rows=TableRows(
          seeds=(0,) * rows,
          splits=tuple(splits),
          buckets=buckets,
          targets_length=targets_length,
      ),
      prompt=np.asarray(prompt),
      masks=examples.random_masks(rows, 4, 8),
  )


@pytest.fixture(scope="module")
def mini():
  """The four bundled tasks on a random T5."""
  splits = [examples.bundled_split(task, 12) for task in TASKS]
  return setting(splits, 288, (16, 32), 4)


@pytest.fixture(scope="module")
def super_glue(tmp_path_factory):
  """The paper's seven tasks, 32 rows of each, on a random T5."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv("FEWGLUE_DIR", str(shared_data.path("fewglue")))
    cache_dir = tmp_path_factory.mktemp("cache")
    splits = []
    for task in ("boolq", "cb", "copa", "multirc", "rte", "wic", "wsc"):
      config = TaskConfig(
          name=f"{task}_fewglue",
          module="xprompt_jax.tasks.super_glue",
          inputs_length=64,
          targets_length=16,
          max_examples=6,
          vocabulary=shared_data.t5_vocabulary(),
      )
      _, found = task_data.load_splits(config, cache_dir, 32128, ("train",))
      splits.append(found["train"])
  return setting(splits, 32128, (48, 64), 16)


def one_step(table, batch_size=3):
  """Losses, gradients and the prompts after the first step."""
  batch = table.rows.batch(0, batch_size)
  seeds = jnp.asarray(table.rows.seeds, jnp.uint32)
  step = jnp.asarray(0, jnp.int32)
  common = {
      "method": PromptTuning(),
      "model": table.model,
      "rows_per_chunk": 1,
  }
  trained = {"prompt": jnp.array(table.prompt)}
  losses, gradients = train_step.table_gradients(
      trained, table.masks, table.params, batch, seeds, step, **common
  )
  optimizer = OptimizerConfig()
  state = train_step.TrainState(
      trained=trained, optimizer=optimizer_lib.init_rows(optimizer, trained)
  )
  state, _ = train_step.train_step(
      state,
      table.masks,
      table.params,
      batch,
      seeds,
      step,
      optimizer=optimizer,
      **common,
  )
  found = {"losses": losses, "gradients": gradients["prompt"], **state.trained}
  length = batch["encoder_input_tokens"].shape[-1]
  return {k: np.asarray(v) for k, v in found.items()}, length


@pytest.mark.parametrize(
    "which", ["mini", pytest.param("super_glue", marks=pytest.mark.slow)]
)
def test_a_row_of_a_mixed_table_computes_what_it_computes_alone(which, request):
  table = request.getfixturevalue(which)
  together, length = one_step(table)
  assert np.isfinite(together["gradients"]).all()
  assert (together["prompt"] != table.prompt).any(axis=(1, 2)).all()
  shorter = 0
  for row in range(len(table.prompt)):
    # Padded to the same shape: bit for bit.
    alone, same = one_step(table.row(row, (length,)))
    assert same == length
    for name, array in alone.items():
      np.testing.assert_array_equal(array[0], together[name][row], err_msg=name)
    # Padded to what the row itself needs.
    alone, own = one_step(table.row(row, table.rows.buckets))
    shorter += own < length
    for name, array in alone.items():
      scale = np.abs(together[name][row]).max()
      np.testing.assert_allclose(
          array[0], together[name][row], rtol=1e-5, atol=1e-5 * scale
      )
  # Some rows had been padded further for the sake of others.
  assert shorter > 0


def test_a_row_of_a_mixed_table_is_scored_over_its_own_examples(mini):
  def scores(table):
    return scoring.score_table(
        table.prompt,
        table.masks,
        table.rows,
        model=table.model,
        frozen_params=table.params,
        batch_size=8,
    )

  together = scores(mini)
  for row in range(len(TASKS)):
    for found, alone in zip(
        together, scores(mini.row(row, (16, 32))), strict=True
    ):
      np.testing.assert_allclose(found[row], alone[0], rtol=1e-5, atol=1e-7)


@pytest.fixture(scope="module")
def by_task(tmp_path_factory):
  """WORKDIR of a run with a row for each task."""
  workdir = tmp_path_factory.mktemp("by_task") / "run"
  status = command_line.run(
      "train", *MINI, "--gin.MIXTURE_ROWS='task'", f"--workdir={workdir}"
  )
  assert status == 0
  return workdir


def test_each_task_has_its_own_row_everywhere(by_task):
  summary = artifacts.read_json(by_task / artifacts.RESULT)
  assert summary["task"] == "four_equal"
  counts = {"train": 6, "validation": 6, "test": 6}
  assert summary["members"] == dict.fromkeys(TASKS, counts)
  assert [m["method"] for m in summary["methods"]] == [
      "no_prompt",
      "prompt_tuning",
      "token",
      "xprompt",
  ]
  for method in summary["methods"]:
    assert [row["task"] for row in method["rows"]] == TASKS
    for row in method["rows"]:
      several = row["task"] == "mini_cb"
      names = ["mean_3class_f1", "accuracy"] if several else ["accuracy"]
      assert [k for k in row["test"] if k != "score"] == names
  lines = artifacts.read_json_lines(by_task / artifacts.TICKETS)
  assert [(t["folder"], t["task"], t["seed"]) for t in lines] == [
      (folder, task, 5)
      for folder in ("tune", "search_token", "search_piece")
      for task in TASKS
  ]
  curves = artifacts.read_json_lines(by_task / "tune/metrics.jsonl")
  assert [line["task"] for line in curves] == TASKS * 2


def test_a_row_among_others_ends_where_its_task_alone_ends(by_task, tmp_path):
  status = command_line.run(
      "train",
      *MINI,
      "--gin.MIXTURE_OR_TASK_NAME='mini_rte'",
      f"--workdir={tmp_path}",
  )
  assert status == 0
  name = "cache/mini_rte/train.jsonl"
  assert (tmp_path / name).read_bytes() == (by_task / name).read_bytes()
  mixed = artifacts.load_arrays(by_task / "tune/prompt.safetensors")
  alone = artifacts.load_arrays(tmp_path / "tune/prompt.safetensors")
  np.testing.assert_array_equal(mixed["start"][2], alone["start"][0])
  of_rte = [
      line
      for line in artifacts.read_json_lines(by_task / "tune/metrics.jsonl")
      if line["task"] == "mini_rte"
  ]
  own = artifacts.read_json_lines(tmp_path / "tune/metrics.jsonl")
  # All inputs are padded to the one bucket of 32.
  assert [line["loss"] for line in of_rte] == [line["loss"] for line in own]
  np.testing.assert_array_equal(mixed["prompt"][2], alone["prompt"][0])


def test_the_printed_tables_of_a_mixed_run(by_task, capsys):
  assert (
      command_line.run(
          "train", *MINI, "--gin.MIXTURE_ROWS='task'", f"--workdir={by_task}"
      )
      == 0
  )
  printed = "\n".join(
      line.rstrip() for line in capsys.readouterr().out.splitlines()
  )
  for task in TASKS:
    assert f"{task}: 1 seed\n" in printed
  assert "score of each task" in printed
  assert "\naverage " in printed


def test_eval_and_score_know_the_task_of_a_row(by_task, capsys):
  summary = artifacts.read_json(by_task / artifacts.RESULT)
  arguments = (*MINI, "--gin.MIXTURE_ROWS='task'", f"--workdir={by_task}")
  assert command_line.run("eval", *arguments) == 0
  lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
  of_rows = [line for line in lines if isinstance(line["row"], int)]
  assert [line["task"] for line in of_rows[:4]] == TASKS
  for line, row in zip(of_rows, summary["methods"][-1]["rows"], strict=False):
    assert line["score"] == row["test"]["score"]
  assert command_line.run("score", *arguments) == 0
  assert json.loads(capsys.readouterr().out)["num_examples"] == 6


@pytest.mark.parametrize(
    ("changes", "stated"),
    [
        (
            ("--gin.MIXTURE_ROWS='mixture'",),
            "MIXTURE_OR_TASK_NAME = 'four_equal' and MIXTURE_ROWS = 'mixture'",
        ),
        (
            ("--gin.MIXTURE_OR_TASK_NAME='mini_rte'",),
            "MIXTURE_OR_TASK_NAME = 'mini_rte' and MIXTURE_ROWS = 'mixture'",
        ),
    ],
)
@pytest.mark.parametrize("command", ["eval", "score"])
def test_rows_are_not_measured_on_tasks_that_are_not_theirs(
    by_task, capsys, command, changes, stated
):
  found = command_line.refused(
      capsys, command, *MINI, *changes, f"--workdir={by_task}"
  )
  assert found == (
      f"{by_task}/rewind/prompt.safetensors: holds rows of the tasks"
      f" mini_boolq, mini_cb, mini_rte, mini_wsc, found {stated}, expected the"
      " mixture they were trained as, and MIXTURE_ROWS = 'task'"
  )


def test_an_exported_row_is_measured_on_its_own_task(by_task, tmp_path, capsys):
  status = command_line.run(
      "export",
      *MINI,
      "--gin.MIXTURE_ROWS='task'",
      f"--workdir={by_task}",
      "--format=npy",
      "--row=1",
      "--remove_pruned_tokens",
      f"--output={tmp_path / 'out'}",
  )
  assert status == 0
  line = json.loads(capsys.readouterr().out)
  (ticket,) = line["tickets"]
  assert (ticket["task"], ticket["seed"]) == ("mini_cb", 5)
  summary = artifacts.read_json(by_task / artifacts.RESULT)
  row = summary["methods"][-1]["rows"][1]
  assert line["validation"]["before"] == row["validation"]
  card = (tmp_path / "out/README.md").read_text()
  assert "| row | task | seed |" in card
  assert "| 1 | 5 | validation | 6 | accuracy |" in card


def test_one_prompt_for_a_mixture(tmp_path):
  status = command_line.run("train", *MINI, f"--workdir={tmp_path}")
  assert status == 0
  summary = artifacts.read_json(tmp_path / artifacts.RESULT)
  assert summary["num_examples"] == dict.fromkeys(
      ("train", "validation", "test"), 24
  )
  assert "members" not in summary
  for method in summary["methods"]:
    (row,) = method["rows"]
    assert "task" not in row
    found = row["validation"]
    assert list(found) == [
        "mini_boolq/accuracy",
        "mini_cb/mean_3class_f1",
        "mini_cb/accuracy",
        "mini_rte/accuracy",
        "mini_wsc/accuracy",
        "score",
    ]
    of_cb = (found["mini_cb/mean_3class_f1"] + found["mini_cb/accuracy"]) / 2
    others = [found[f"{t}/accuracy"] for t in TASKS if t != "mini_cb"]
    assert found["score"] == pytest.approx((of_cb + sum(others)) / 4)
    # Referents have no candidates, and three of four tasks no score.
    assert list(row["ways"]["generate"]) == list(found)
    assert list(row["ways"]["rank"]) == list(found)[:4]
    assert row["not_possible"]["rank"] == (
        "task mini_wsc, split test: found no candidates, expected a closed set"
        " of answers"
    )
  scored = artifacts.read_json(tmp_path / "score_token/result.json")
  assert scored["num_examples"] == 24
