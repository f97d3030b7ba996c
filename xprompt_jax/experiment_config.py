"""Everything that decides what a run computes: the root that gin files bind.

gin files name it `experiment.ExperimentConfig`; `experiment.py` loads what it
names.
"""

import dataclasses
from typing import Any

from xprompt_jax import evaluation
from xprompt_jax.methods.config import PROMPT_TUNING, MethodConfig
from xprompt_jax.optimizer import OptimizerConfig
from xprompt_jax.prompts import PromptConfig
from xprompt_jax.pruning import SearchConfig
from xprompt_jax.t5.config import T5Config
from xprompt_jax.t5x_engine import requirements
from xprompt_jax.task_config import TaskConfig
from xprompt_jax.trainer import TrainConfig
from xprompt_jax.types import UserError, require, require_int

# Fields that say where and how fast results are computed, by section of the root
# config. They change results by rounding alone, of which training at 0.3 makes
# more; a run that ran out of memory must be able to change them all the same.
_NOT_RESULTS = {
    "": (
        "search",
        "checkpoint",
        "eval_batch_size",
        "score_batch_size",
        "num_model_partitions",
        "eval_tasks",
    ),
    "model": ("remat",),
    "task": ("vocabulary", "test_split"),
    "train": ("save_every_steps", "rows_per_chunk"),
}
# Fields that came later, with the values that leave results as they were: a
# run that was made without them goes on.
_LATER_FIELDS: dict[str, dict[str, Any]] = {
    "": {
        "predict_by": evaluation.GENERATE,
        "num_beams": 1,
        "method": dataclasses.asdict(MethodConfig()),
        "engine": requirements.NATIVE,
    },
    "optimizer": {
        "name": "adafactor",
        "factored": False,
        "parameter_scale": False,
        "schedule": "constant",
        "decay_steps": None,
    },
    "task": {
        "protocol": "paper",
        "mixture_rows": "mixture",
        "few_shot": None,
        "few_shot_seed": None,
        "few_shot_balanced": True,
    },
}
_DTYPES = ("float32", "bfloat16")
_PROMPT_RATE = 0.3
# What a baseline does with a field: the methods that use it. Fields that are not
# here are used by all.
_USED_BY = {
    ("prompt", "length"): ("prefix_tuning", "p_tuning", "p_tuning_v2"),
    ("prompt", "num_pieces"): (),
    ("prompt", "init"): (),
    ("prompt", "init_text"): (),
    ("prompt", "init_file"): (),
    # Of P-tuning's prompt, which may be exported.
    ("prompt", "pruned_tokens"): ("p_tuning",),
    ("method", "mid_dim"): ("prefix_tuning",),
    ("method", "prompt_encoder"): ("p_tuning",),
}
_USED_BY_OPTIMIZER = {
    "decay_rate": "adafactor",
    "clipping_threshold": "adafactor",
    "factored": "adafactor",
    "parameter_scale": "adafactor",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExperimentConfig:
  """Everything that decides what a run computes.

  Attributes:
    model: the frozen T5's sizes.
    checkpoint: where its weights come from; see `weights/checkpoints.py`.
    frozen_dtype: what its weights are kept in; None becomes bfloat16 on
      accelerators and float32 on CPUs.
    task: data.
    prompt: size and initial values.
    optimizer: Adafactor, or what a baseline is trained with.
    train: steps of tuning, and of retraining after each rewind.
    search: which tickets are tried.
    seeds: one prompt is tuned for each.
    method: prompt tuning, which the search goes on from, or a baseline.
    predict_by: how answers are predicted that select checkpoints and tickets:
      `generate`, `rank` or `first_token` (`evaluation.WAYS`).
    num_beams: of `generate`; 1 is greedy.
    eval_tasks: other tasks of the same answers that final prompts are evaluated
      on, as `NAME` or `NAME/SPLIT`.
    eval_batch_size: examples decoded together, all rows counted.
    score_batch_size: examples scored together, all rows counted.
    num_model_partitions: devices that share one copy of the model; the others
      take a share of each batch.
    engine: what trains prompts: `native`, or `t5x` for T5X's trainer; --engine
      sets it.
  """

  model: T5Config
  checkpoint: str
  frozen_dtype: str | None = None
  task: TaskConfig
  prompt: PromptConfig
  optimizer: OptimizerConfig
  train: TrainConfig
  search: SearchConfig
  seeds: tuple[int, ...] = (0,)
  method: MethodConfig = dataclasses.field(default_factory=MethodConfig)
  predict_by: str = evaluation.GENERATE
  num_beams: int = 1
  eval_tasks: tuple[str, ...] = ()
  eval_batch_size: int = 128
  score_batch_size: int = 32
  num_model_partitions: int = 1
  engine: str = requirements.NATIVE

  def __post_init__(self):
    for field in dataclasses.fields(self):
      kind, found = field.type, getattr(self, field.name)
      if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        require(
            isinstance(found, kind),
            f"ExperimentConfig.{field.name}",
            found,
            f"a {kind.__name__}",
        )
    require(
        isinstance(self.checkpoint, str) and bool(self.checkpoint),
        "ExperimentConfig.checkpoint",
        self.checkpoint,
        "a path, a hub id, 'bundled' or 'random:SEED'",
    )
    require(
        self.frozen_dtype in (None, *_DTYPES),
        "ExperimentConfig.frozen_dtype",
        self.frozen_dtype,
        f"one of {', '.join(_DTYPES)}, or None",
    )
    require(
        self.predict_by in evaluation.WAYS,
        "PREDICT_BY",
        self.predict_by,
        f"one of {', '.join(evaluation.WAYS)}",
    )
    require_int("NUM_BEAMS", self.num_beams, 1)
    names = self.eval_tasks
    require(
        isinstance(names, (list, tuple))
        and all(isinstance(name, str) and bool(name) for name in names),
        "EVAL_TASKS",
        names,
        "a list of names, NAME or NAME/SPLIT",
    )
    object.__setattr__(self, "eval_tasks", tuple(names))
    require_int("ExperimentConfig.eval_batch_size", self.eval_batch_size, 1)
    require_int("ExperimentConfig.score_batch_size", self.score_batch_size, 1)
    seeds = self.seeds
    require(
        isinstance(seeds, (list, tuple))
        and len(seeds) > 0
        and all(type(s) is int and 0 <= s < 2**32 for s in seeds)
        and len(set(seeds)) == len(seeds),
        "ExperimentConfig.seeds",
        seeds,
        "a list of different integers in [0, 2**32)",
    )
    object.__setattr__(self, "seeds", tuple(seeds))
    # Before a baseline's own fields, which no engine would mend.
    requirements.check_config(
        self.engine, self.method.name, self.model, self.optimizer
    )
    _check_method(self)
    if self.method.name == PROMPT_TUNING:
      self.prompt.check_embed_dim(self.model.emb_dim)
      self.search.check_prompt_length(self.prompt.length)


def _check_method(config: ExperimentConfig) -> None:
  """Refuses another method's optimizer, and a search where there is none.

  METHOD alone does not bring the settings of its paper.
  """
  name, optimizer = config.method.name, config.optimizer
  file = f"--gin_file=methods/{name}.gin after the recipe"
  tuning = name == PROMPT_TUNING
  others = {
      "name": "adafactor",
      "schedule": "constant",
      "parameter_scale": False,
  }
  differing = [n for n, v in others.items() if getattr(optimizer, n) != v]
  if tuning and differing:
    found = f"OptimizerConfig.{differing[0]}"
    raise UserError(
        f"METHOD: found {name!r} with {found} ="
        f" {getattr(optimizer, differing[0])!r}, expected {file}"
    )
  if tuning:
    return
  if not differing and optimizer.learning_rate == _PROMPT_RATE:
    raise UserError(
        f"METHOD: found {name!r} with the optimizer of prompt tuning, adafactor"
        f" at {_PROMPT_RATE}, expected {file}"
    )
  default = SearchConfig()
  for field in ("controls", "masking_counts", "auto_ratio", "importances"):
    found, expected = getattr(config.search, field), getattr(default, field)
    require(
        found == expected,
        field.upper(),
        found,
        f"{expected!r} with METHOD = {name!r}, which has no search",
    )


def result_fields(config: ExperimentConfig) -> dict[str, Any]:
  """The fields that results depend on, JSON-able, paths left out."""
  fields = dataclasses.asdict(config)
  for section, names in _NOT_RESULTS.items():
    for name in names:
      del (fields[section] if section else fields)[name]
  for section, later in _LATER_FIELDS.items():
    part = fields[section] if section else fields
    for name, value in later.items():
      if part[name] == value:
        del part[name]
  if config.prompt.init != "from_file":
    del fields["prompt"]["init_file"]
  if config.method.name != PROMPT_TUNING:
    _drop_unused(fields, config)
  return fields


def _drop_unused(fields: dict[str, Any], config: ExperimentConfig) -> None:
  """Takes off what a baseline does not use, which may be anything."""
  for (section, name), users in _USED_BY.items():
    if config.method.name not in users:
      fields[section].pop(name, None)
  for name, optimizer in _USED_BY_OPTIMIZER.items():
    if config.optimizer.name != optimizer:
      fields["optimizer"].pop(name, None)
