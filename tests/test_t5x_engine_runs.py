"""`python -m t5x.train`, `eval` and `infer` with the packaged gin files.

The bundled model, as a checkpoint of T5X, on a bundled task; every run is a
process of its own, as a user starts it.
"""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from tests import examples, t5x_required
from xprompt_jax import artifacts, prompts
from xprompt_jax.prompts import PromptConfig
from xprompt_jax.t5x_engine import moving, names
from xprompt_jax.weights import bundled, checkpoints, t5x_native, t5x_writer

t5x_required.t5x_module("t5x.train")

pytestmark = [pytest.mark.t5x, pytest.mark.slow]

ROOT = pathlib.Path(__file__).parent.parent
GIN = ROOT / "xprompt_jax" / "gin"
# P, K, H of the bundled model's default prompt.
P, K, H = 20, 16, 128
# What a user takes from t5x/examples/t5/t5_1_1/large.gin.
SIZES = """
from __gin__ import dynamic_registration
from t5x.examples.{family} import network
include 't5x/examples/{family}/t5_1_1/base.gin'
network.T5Config:
  vocab_size = 288
  dtype = 'float32'
  emb_dim = 128
  num_heads = 4
  num_encoder_layers = 3
  num_decoder_layers = 2
  head_dim = 32
  mlp_dim = 256
"""
TASK = (
    "MIXTURE_OR_TASK_MODULE='xprompt_jax.tasks.mini'",
    "MIXTURE_OR_TASK_NAME='mini_boolq'",
)
TRAIN = (
    *TASK,
    "TASK_FEATURE_LENGTHS={'inputs': 64, 'targets': 8}",
    "CHECKPOINT_PERIOD=2",
    "EVAL_PERIOD=4",
    "EVAL_STEPS=1",
    "EVALUATOR_NUM_EXAMPLES=16",
)
WITHOUT_EVALUATION = (
    "train.train_eval_dataset_cfg=None",
    "train.infer_eval_dataset_cfg=None",
)


class Runs:
  """A folder with the frozen weights, in which T5X is run."""

  def __init__(self, folder):
    self.folder = folder
    config = bundled.bundled_config()
    stored = checkpoints.open_checkpoint("bundled", config)
    self.frozen = str(
        t5x_writer.write_checkpoint(folder, config, stored, step=1_100_000)
    )
    for family in ("t5", "scalable_t5"):
      self.sizes(family).write_text(SIZES.format(family=family))

  def sizes(self, family):
    return self.folder / f"{family}_sizes.gin"

  def run(self, script, *arguments, devices=1, family="t5"):
    """Runs a script of T5X to its end, on gin files and bindings."""
    flags = f"--xla_force_host_platform_device_count={devices}"
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            f"t5x.{script}",
            f"--gin_search_paths={GIN}",
            f"--gin_file={self.sizes(family)}",
            *(
                f"--gin.{argument}" if "=" in argument
                # As in the files' heads.
                else f"--gin_file=t5x/{argument}.gin"
                for argument in arguments
            ),
        ],
        env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        cwd=self.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]

  def train(self, name, *bindings, files=("prompt_tune",), **kwargs):
    """Trains in MODEL_DIR `name`, which is returned."""
    model_dir = self.folder / name
    self.run(
        "train",
        *files,
        f"MODEL_DIR={str(model_dir)!r}",
        f"INITIAL_CHECKPOINT_PATH={self.frozen!r}",
        *TRAIN,
        *bindings,
        **kwargs,
    )
    return model_dir


def prompt_of(model_dir, step):
  """The prompt file that was written beside a checkpoint."""
  return artifacts.load_arrays(
      model_dir / "prompts" / f"checkpoint_{step}" / artifacts.PROMPT
  )


def parameters(path):
  leaves = t5x_native.open_checkpoint(str(path), bundled.bundled_config())
  return {name: leaf.whole() for name, leaf in leaves.items()}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
  return Runs(tmp_path_factory.mktemp("t5x"))


@pytest.fixture(scope="module")
def trained(runs):
  """Four steps without a stop, and an evaluation of 16 examples after them."""
  return runs.train("whole", "TRAIN_STEPS=4")


def test_only_the_prompt_is_trained(runs, trained):
  before = parameters(runs.frozen)
  after = parameters(trained / "checkpoint_4")
  found = {
      "prompt": after.pop(names.PROMPT),
      "token_mask": after.pop(names.TOKEN_MASK),
      "piece_mask": after.pop(names.PIECE_MASK),
  }
  assert after.keys() == before.keys()
  for name, array in after.items():
    expected = before[name].astype(np.float32)
    assert array.tobytes() == expected.tobytes(), name
  assert (found["token_mask"] == 1).all() and (found["piece_mask"] == 1).all()
  assert found["piece_mask"].shape == (P, K)
  states = {
      path.name for path in (trained / "checkpoint_4").glob("state.param*")
  }
  assert states == {f"state.param_states.{names.PROMPT.replace('/', '.')}.v"}
  saved = prompt_of(trained, 4)
  for name, array in found.items():
    np.testing.assert_array_equal(saved[name], array[None])
  read = moving.read_checkpoint(str(trained / "checkpoint_4"))
  np.testing.assert_array_equal(read["prompt"], saved["prompt"])
  assert np.abs(saved["prompt"] - prompt_of(trained, 0)["prompt"]).max() > 0.5


def test_the_prompt_starts_as_this_program_starts_it(runs, trained):
  embedding = parameters(runs.frozen)["token_embedder/embedding"]
  expected = prompts.initial_prompts(
      PromptConfig(), [0], embedding, examples.bundled_vocabulary()
  )
  np.testing.assert_array_equal(prompt_of(trained, 0)["prompt"], expected)


def test_a_run_that_was_stopped_goes_on(runs, trained):
  """Bit for bit, the order of the examples included; from MODEL_DIR alone."""
  first = runs.train("stopped", "TRAIN_STEPS=2", *WITHOUT_EVALUATION)
  assert not (first / "prompts" / "checkpoint_4").exists()
  gone = "INITIAL_CHECKPOINT_PATH='/gone/checkpoint_1100000'"
  runs.train("stopped", "TRAIN_STEPS=4", gone, *WITHOUT_EVALUATION)
  found, expected = prompt_of(first, 4), prompt_of(trained, 4)
  assert found["prompt"].tobytes() == expected["prompt"].tobytes()


def test_four_devices_two_of_which_share_a_model(runs, trained):
  found = runs.train(
      "four",
      "TRAIN_STEPS=4",
      # On CPUs T5X passes over num_partitions: all would share one model.
      "PjitPartitioner.num_partitions=None",
      "PjitPartitioner.model_parallel_submesh=(1, 2)",
      *WITHOUT_EVALUATION,
      devices=4,
  )
  np.testing.assert_allclose(
      prompt_of(found, 4)["prompt"],
      prompt_of(trained, 4)["prompt"],
      rtol=1e-3,
      atol=1e-3,
  )


def json_lines(path):
  return [json.loads(line) for line in path.read_text().splitlines()]


def test_evaluation_and_inference_use_the_prompt(runs, trained):
  """A run's checkpoint, and the frozen weights with a prompt's file."""
  evaluated = runs.folder / "evaluated"
  common = (*TASK, "DatasetConfig.split='validation'")
  runs.run(
      "eval",
      "eval",
      f"CHECKPOINT_PATH={str(trained / 'checkpoint_4')!r}",
      f"EVAL_OUTPUT_DIR={str(evaluated)!r}",
      "Evaluator.num_examples=16",
      *common,
  )
  place = pathlib.Path("inference_eval")
  metrics = place / "mini_boolq-metrics.jsonl"
  assert json_lines(evaluated / metrics) == json_lines(trained / metrics)

  inferred = runs.folder / "inferred"
  file = trained / "prompts" / "checkpoint_4" / artifacts.PROMPT
  runs.run(
      "infer",
      "infer",
      f"CHECKPOINT_PATH={runs.frozen!r}",
      f"PROMPT_FILE={str(file)!r}",
      f"INFER_OUTPUT_DIR={str(inferred)!r}",
      "TASK_FEATURE_LENGTHS={'inputs': 64, 'targets': 8}",
      *common,
  )
  predictions = inferred / "mini_boolq-predict.jsonl-00000-of-00001"
  found = [line["prediction"] for line in json_lines(predictions)]
  answers = json_lines(evaluated / place / "mini_boolq-000004.jsonl")
  assert len(answers) == 16
  assert found[:16] == [line["output"] for line in answers]


def test_a_ticket_is_retrained(runs, trained):
  masks = examples.random_masks(2, P, K, seed=1)
  file = runs.folder / "prune_piece" / artifacts.MASKS
  artifacts.save_arrays(
      file, {"token_mask": masks.token_mask, "piece_mask": masks.piece_mask}
  )
  tuned = trained / "prompts" / "checkpoint_4" / artifacts.PROMPT
  found = runs.train(
      "ticket",
      f"PROMPT_INIT_FILE={str(tuned)!r}",
      f"MASKS_FILE='{file}#1'",
      "TRAIN_STEPS=2",
      *WITHOUT_EVALUATION,
      files=("retrain_ticket",),
  )
  factor = np.repeat(masks.piece_mask[1], H // K, axis=-1)
  assert (factor == 0).any()
  start, end = (prompt_of(found, step) for step in (0, 2))
  rewound = prompt_of(trained, 4)["prompt"][0] * factor
  assert start["prompt"][0].tobytes() == rewound.tobytes()
  assert (end["prompt"][0][factor == 0] == 0).all()
  assert (end["prompt"][0] != rewound).any()
  for arrays in (start, end):
    np.testing.assert_array_equal(arrays["token_mask"], masks.token_mask[1:])
    np.testing.assert_array_equal(arrays["piece_mask"], masks.piece_mask[1:])


def test_scalable_t5(runs):
  """Scanned layers, recomputed in the backward pass; weights from scratch."""
  found = runs.train(
      "scalable",
      "CheckpointConfig.restore=None",
      "PROMPT_INIT='random_uniform'",
      "TRAIN_STEPS=2",
      *WITHOUT_EVALUATION,
      files=("prompt_tune", "scalable_t5"),
      family="scalable_t5",
  )
  start, end = (prompt_of(found, step)["prompt"] for step in (0, 2))
  assert start.shape == (1, P, H)
  assert np.abs(end - start).max() > 0.3
  stored = moving.read_checkpoint(str(found / "checkpoint_2"))
  np.testing.assert_array_equal(stored["prompt"], end)
