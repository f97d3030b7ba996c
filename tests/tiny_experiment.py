"""A whole experiment so small that tests can afford to run it many times."""

from collections.abc import Sequence
import dataclasses
import pathlib

from tests import examples
from xprompt_jax import artifacts, vocabularies
from xprompt_jax.experiment import Experiment, ExperimentConfig, TaskConfig
from xprompt_jax.model import PromptedT5
from xprompt_jax.optimizer import OptimizerConfig
from xprompt_jax.prompts import PromptConfig
from xprompt_jax.pruning import SearchConfig
from xprompt_jax.token_cache import CachedSplit
from xprompt_jax.trainer import TrainConfig

EXACT_MATCH = "xprompt_jax.tasks.metrics:accuracy"
CHECKSUM = "tests.tiny_experiment:checksum"
# One layer of each stack: what is compiled again and again compiles sooner.
MODEL = dataclasses.replace(examples.TINY, num_encoder_layers=1)
CONFIG = ExperimentConfig(
    model=MODEL,
    checkpoint="random:3",
    task=TaskConfig(
        name="tiny",
        module="none",
        inputs_length=8,
        targets_length=4,
        buckets=(8,),
        vocabulary="bytes",
        extra_ids=0,
    ),
    prompt=PromptConfig(
        length=examples.TINY_P,
        num_pieces=examples.TINY_K,
        init="random_uniform",
    ),
    optimizer=OptimizerConfig(),
    train=TrainConfig(
        batch_size=3, num_epochs=None, num_steps=4, eval_every_steps=2
    ),
    search=SearchConfig(token_ratios=(0.2, 0.6), piece_ratios=(0.25, 0.5)),
    seeds=(3, 8),
    eval_batch_size=32,
    score_batch_size=32,
)


def _params():
  params = examples.tiny_params()
  encoder = {k: v for k, v in params["encoder"].items() if k != "layers_1"}
  return {**params, "encoder": encoder}


def checksum(targets, predictions):
  """A metric that changes whenever a prediction does."""
  return {"checksum": sum(map(ord, "".join(predictions))) % 101}


def _split(num_examples: int, seed: int, metrics: Sequence[str]) -> CachedSplit:
  split = examples.tiny_split(num_examples, seed)
  described = [{"function": name, "kwargs": {}} for name in metrics]
  return dataclasses.replace(split, info={**split.info, "metrics": described})


def make_experiment(
    workdir: pathlib.Path,
    config: ExperimentConfig = CONFIG,
    metrics: Sequence[str] = (EXACT_MATCH,),
) -> Experiment:
  """The experiment of a config, over 7, 4 and 5 examples.

  Args:
    workdir: where stages write.
    config: `CONFIG`, or a variation of it.
    metrics: what the splits are measured by; `CHECKSUM` tells prompts apart.
  """
  return Experiment(
      config=config,
      workdir=workdir,
      model=PromptedT5(
          t5_config=config.model, pruned_tokens=config.prompt.pruned_tokens
      ),
      frozen_params=_params(),
      fingerprint="f",
      vocabulary=vocabularies.load_vocabulary("bytes", 0),
      splits={
          "train": _split(7, 0, metrics),
          "validation": _split(4, 1, metrics),
          "test": _split(5, 2, metrics),
      },
  )


def files_of(folder):
  """What a run leaves, by name; event files hold wall times."""
  return {
      str(p.relative_to(folder)): p.read_bytes()
      for p in sorted(folder.rglob("*"))
      if p.is_file() and artifacts.TENSORBOARD not in p.parts
  }


def arrays_of(experiment, folder, name=artifacts.PROMPT):
  return artifacts.load_arrays(experiment.workdir / folder / name)


def result_of(experiment, folder):
  return artifacts.read_json(experiment.workdir / folder / artifacts.RESULT)
