"""One experiment: its whole config, and what is loaded to run it.

`ExperimentConfig` is the root that gin files bind. `Experiment` holds the
frozen model, the token caches and the vocabulary, which every stage shares.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import functools
import pathlib
from typing import Any

import jax
from jax import Array
from jax.sharding import Mesh
import numpy as np

from xprompt_jax import (
    artifacts,
    batches,
    evaluation,
    partitioning,
    token_cache,
    vocabularies,
)
from xprompt_jax.model import PromptedT5
from xprompt_jax.optimizer import OptimizerConfig
from xprompt_jax.prompts import PromptConfig
from xprompt_jax.pruning import SearchConfig
from xprompt_jax.t5.config import T5Config
from xprompt_jax.tables import TableRows
from xprompt_jax.token_cache import CachedSplit
from xprompt_jax.trainer import TrainConfig
from xprompt_jax.types import PromptMasks, require, require_int
from xprompt_jax.vocabularies import Vocabulary
from xprompt_jax.weights import loading

ROLES = ("train", "validation", "test")
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
    ),
    "model": ("remat",),
    "task": ("vocabulary", "test_split"),
    "train": ("save_every_steps", "rows_per_chunk"),
}
_DTYPES = ("float32", "bfloat16")
_SPLIT_FIELDS = tuple(f"{role}_split" for role in ROLES)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskConfig:
  """The task, its splits and its sizes.

  Attributes:
    name: seqio task (T5X's MIXTURE_OR_TASK_NAME).
    module: Python module that registers it (MIXTURE_OR_TASK_MODULE).
    train_split: trained and scored on.
    validation_split: evaluated during training; selects checkpoint and ticket.
    test_split: evaluated once, at the end; None for none.
    inputs_length: T at most, EOS included; longer inputs are cut.
    targets_length: L at most, EOS included.
    buckets: lengths that inputs are padded to; empty means powers of two.
    max_examples: take this many from each split; None takes all.
    vocabulary: SentencePiece file, or `bytes`.
    extra_ids: sentinel ids after the pieces.
  """

  name: str
  module: str
  train_split: str = "train"
  validation_split: str = "validation"
  test_split: str | None = None
  inputs_length: int = 512
  targets_length: int = 16
  buckets: tuple[int, ...] = ()
  max_examples: int | None = None
  vocabulary: str
  extra_ids: int = 100

  def __post_init__(self):
    require_int("TaskConfig.inputs_length", self.inputs_length, 2)
    require_int("TaskConfig.targets_length", self.targets_length, 2)
    for name in ("name", "module", "vocabulary", *_SPLIT_FIELDS):
      found = getattr(self, name)
      optional = name == "test_split"
      require(
          (isinstance(found, str) and bool(found))
          or (optional and found is None),
          f"TaskConfig.{name}",
          found,
          "a name, or None" if optional else "a name",
      )
    require_int("TaskConfig.extra_ids", self.extra_ids, 0)
    if self.max_examples is not None:
      require_int("TaskConfig.max_examples", self.max_examples, 1)
    require(
        self.buckets is None
        or (
            isinstance(self.buckets, (list, tuple))
            and all(type(length) is int for length in self.buckets)
        ),
        "TaskConfig.buckets",
        self.buckets,
        "a list of lengths",
    )
    buckets = self.buckets or batches.default_buckets(self.inputs_length)
    batches.check_buckets(buckets, self.inputs_length)
    object.__setattr__(self, "buckets", tuple(buckets))


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
    optimizer: Adafactor.
    train: steps of tuning, and of retraining after each rewind.
    search: which tickets are tried.
    seeds: one prompt is tuned for each.
    eval_batch_size: examples decoded together, all rows counted.
    score_batch_size: examples scored together, all rows counted.
    num_model_partitions: devices that share one copy of the model; the others
      take a share of each batch.
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
  eval_batch_size: int = 128
  score_batch_size: int = 32
  num_model_partitions: int = 1

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
    self.prompt.check_embed_dim(self.model.emb_dim)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
  """A config with the model, data and vocabulary it names, loaded.

  Attributes:
    config: the root config.
    workdir: where stages write.
    model: the prompted T5.
    frozen_params: its parameters.
    fingerprint: sha256 of them.
    vocabulary: text from and to ids.
    splits: by role: `train`, `validation`, and `test` if it is configured.
    mesh: where several devices share the work.
  """

  config: ExperimentConfig
  workdir: pathlib.Path
  model: PromptedT5
  frozen_params: Mapping
  fingerprint: str
  vocabulary: Vocabulary
  splits: Mapping[str, CachedSplit]
  mesh: Mesh | None = None

  def rows(self, role: str, seeds: Sequence[int]) -> TableRows:
    """Rows that all read one split, each in the order of its seed."""
    split = self.splits[role]
    return TableRows(
        seeds=tuple(seeds),
        splits=(split,) * len(seeds),
        # Dropout draws by shape: with one shape, no row sees another.
        buckets=self.config.task.buckets[-1:]
        if self.config.model.dropout_rate > 0.0
        else self.config.task.buckets,
        targets_length=self.config.task.targets_length,
    )

  def evaluate(
      self, role: str, prompt: Array | np.ndarray, masks: PromptMasks
  ) -> list[dict[str, float]]:
    """The metrics of every row of a table on one split."""
    return evaluation.evaluate_table(
        prompt,
        masks,
        self.rows(role, range(prompt.shape[0])),
        model=self.model,
        frozen_params=self.frozen_params,
        vocabulary=self.vocabulary,
        batch_size=self.whole_batches(self.config.eval_batch_size),
        mesh=self.mesh,
    )

  @functools.cached_property
  def stage_config(self) -> dict[str, Any]:
    """What the result of training and scoring depends on, JSON-able.

    What only decides where and how fast it is computed is left out, so that a
    run that ran out of memory goes on with other settings. Paths are left out
    too: fingerprints stand for what they hold.
    """
    config = dataclasses.asdict(self.config)
    for section, names in _NOT_RESULTS.items():
      for name in names:
        del (config[section] if section else config)[name]
    if self.config.prompt.init != "from_file":
      del config["prompt"]["init_file"]
    return {
        **config,
        "frozen_params": self.fingerprint,
        "splits": self.split_fingerprints("train", "validation"),
    }

  def split_fingerprints(self, *roles: str) -> dict[str, str]:
    """sha256 of those of the splits that are configured."""
    return {
        role: self.splits[role].fingerprint
        for role in roles
        if role in self.splits
    }

  def whole_batches(self, size: int) -> int:
    """A batch size, rounded up so that the mesh's data axis divides it."""
    along = 1 if self.mesh is None else self.mesh.shape["data"]
    return -(-size // along) * along


class SharedWeights:
  """The frozen weights of the last experiment, for the next one like it."""

  def __init__(self) -> None:
    self._key: Any = None
    self._frozen: loading.Frozen | None = None

  def load(self, config: ExperimentConfig, mesh: Mesh | None) -> loading.Frozen:
    """Loads what a config names, unless the last one named the same.

    Args:
      config: with the dtype that the backend decides.
      mesh: where the weights go.

    Raises:
      UserError: whatever is wrong with the weights.
    """
    dtype = config.frozen_dtype
    assert dtype is not None
    key = (config.checkpoint, config.model, dtype, config.num_model_partitions)
    if self._frozen is None or key != self._key:
      # Two models at once may not fit.
      self._frozen = None
      self._frozen = loading.load_frozen(
          config.checkpoint,
          config.model,
          dtype=dtype,
          shardings=mesh and partitioning.param_shardings(config.model, mesh),
      )
      self._key = key
    return self._frozen


def load_splits(
    task: TaskConfig,
    cache_dir: pathlib.Path,
    vocab_size: int,
    roles: Sequence[str] = ROLES,
) -> tuple[Vocabulary, dict[str, CachedSplit]]:
  """The token caches of a task's splits, made first where they are missing.

  Args:
    task: the task.
    cache_dir: where token caches are.
    vocab_size: V of the model; the vocabulary has to fit it.
    roles: which splits; `test` counts only where it is configured.

  Returns:
    The vocabulary, and splits by role.

  Raises:
    UserError: whatever is wrong with the vocabulary or the data.
  """
  vocabulary = vocabularies.load_vocabulary(task.vocabulary, task.extra_ids)
  vocabularies.check_fits(vocabulary, vocab_size)
  splits = {}
  for role in roles:
    name = getattr(task, f"{role}_split")
    if name is not None:
      splits[role] = token_cache.ensure_token_cache(
          task=task.name,
          split=name,
          module=task.module,
          cache_dir=cache_dir,
          inputs_length=task.inputs_length,
          targets_length=task.targets_length,
          max_examples=task.max_examples,
          vocabulary=vocabulary,
      )
      splits[role].check_labelled()
  return vocabulary, splits


def load_experiment(
    config: ExperimentConfig,
    workdir: pathlib.Path,
    roles: Sequence[str] = ROLES,
    weights: SharedWeights | None = None,
) -> Experiment:
  """Loads what a config names.

  Data first: its mistakes are found before minutes go into loading weights.

  Args:
    config: the root config.
    workdir: where stages will write.
    roles: the splits that are needed.
    weights: of the experiment before; None loads them.

  Raises:
    UserError: whatever is wrong with vocabulary, data or weights.
  """
  # What the backend decides becomes part of the config.
  dtype = config.frozen_dtype or loading.default_dtype()
  config = dataclasses.replace(config, frozen_dtype=dtype)
  vocabulary, splits = load_splits(
      config.task, workdir / artifacts.CACHE, config.model.vocab_size, roles
  )
  mesh = None
  if jax.device_count() > 1 or config.num_model_partitions > 1:
    mesh = partitioning.make_mesh(config.num_model_partitions)
    require(
        config.train.batch_size % mesh.shape["data"] == 0,
        "TrainConfig.batch_size",
        config.train.batch_size,
        f"a multiple of the {mesh.shape['data']} devices along the mesh's data"
        " axis",
    )
  frozen = (weights or SharedWeights()).load(config, mesh)
  return Experiment(
      config=config,
      workdir=workdir,
      model=PromptedT5(
          t5_config=config.model, pruned_tokens=config.prompt.pruned_tokens
      ),
      frozen_params=frozen.params,
      fingerprint=frozen.fingerprint,
      vocabulary=vocabulary,
      splits=splits,
      mesh=mesh,
  )
