"""T5X's own gin files with the packaged ones: whose vocabulary a model has."""

import copy
import pathlib

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


def model_of(*files):
  """MODEL of gin files, with the task's name."""
  gin.clear_config()
  for folder in FOLDERS:
    gin.add_config_file_search_path(str(folder))
  module, name = TASK
  bindings = (
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
