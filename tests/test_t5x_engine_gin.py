"""T5X's own gin files with the packaged ones: whose vocabulary a model has."""

import copy
import os
import pathlib
import subprocess
import sys

import gin
import pytest

from tests import t5x_required

t5x = t5x_required.t5x_module("t5x.models")
utils = t5x_required.t5x_module("t5x.utils")
for needed in ("t5x.examples.t5.network", "t5x.adafactor", "t5x.partitioning"):
  t5x_required.t5x_module(needed)

pytestmark = [pytest.mark.t5x, pytest.mark.filterwarnings("ignore")]

FOLDERS = (
    pathlib.Path(__file__).parent.parent / "xprompt_jax" / "gin",
    pathlib.Path(t5x.__file__).parent.parent,
)
# As T5X has it; gin keeps what files import, so one network in one process.
SIZES = "t5x/examples/t5/t5_1_1/large.gin"
TASK = ("xprompt_jax.tasks.super_glue", "wsc")


def model_of(*files, bindings=()):
  """MODEL of gin files, with the task's name."""
  gin.clear_config()
  for folder in FOLDERS:
    gin.add_config_file_search_path(str(folder))
  module, name = TASK
  bindings = (
      *bindings,
      f"MIXTURE_OR_TASK_MODULE = {module!r}",
      f"MIXTURE_OR_TASK_NAME = {name!r}",
      "DROPOUT_RATE = 0.0",
      "OPTIMIZER = None",
  )
  try:
    gin.parse_config_files_and_bindings(files, bindings)
    # So gin makes what a macro names.
    return copy.deepcopy(gin.query_parameter("MODEL/macro.value"))
  finally:
    gin.clear_config()


@pytest.fixture(scope="module")
def dataset():
  module, name = TASK
  return utils.DatasetConfig(
      mixture_or_task_name=name,
      module=module,
      task_feature_lengths={"inputs": 8, "targets": 8},
      split="train",
      batch_size=1,
      shuffle=False,
      seed=0,
  )


def test_the_model_has_the_tasks_vocabulary(dataset):
  """T5X's own model, whose gin files name another, would be refused."""
  model = model_of(SIZES, "t5x/prompt.gin")
  assert "xprompt_jax" in type(model).__module__
  utils.verify_matching_vocabs(dataset, model)
  start = model.module.start
  assert (start.vocabulary, start.extra_ids) == (
      "gs://t5-data/vocabs/cc_all.32000/sentencepiece.model",
      100,
  )
  # `verify_matching_vocabs` would read the file to say so.
  (found, _), other = utils.get_vocabulary(dataset), model_of(SIZES)
  assert found != other.input_vocabulary


UMT5 = """
from tests import test_t5x_engine_gin
folder = "t5x/examples/scalable_t5"
model = test_t5x_engine_gin.model_of(
    f"{folder}/mt5/large.gin",
    f"{folder}/umt5/vocab.gin",
    f"{folder}/umt5/architectures/encoder_decoder.gin",
    "t5x/prompt.gin",
    "t5x/scalable_t5.gin",
    bindings=("SCAN_LAYERS = False",),
)
config = model.module.config
print(
    type(model).__name__, type(model.module).__name__,
    config.vocab_size, config.emb_dim, config.scan_layers, config.remat_policy,
)
"""


def test_umt5_is_mt5_with_other_files():
  """As docs/t5x.md has it; in a process of its own, with its own network."""
  done = subprocess.run(
      [sys.executable, "-W", "ignore", "-c", UMT5],
      cwd=pathlib.Path(__file__).parent.parent,
      env={**os.environ, "JAX_PLATFORMS": "cpu"},
      capture_output=True,
      text=True,
      check=False,
  )
  assert done.returncode == 0, done.stderr[-3000:]
  assert done.stdout.splitlines()[-1] == (
      "PromptedEncoderDecoderModel PromptedTransformer 256384 1024 False none"
  )
