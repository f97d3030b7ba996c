"""One experiment: its whole config, and what is loaded to run it.

gin files bind `experiment.ExperimentConfig` and `experiment.TaskConfig`, which
have modules of their own. `Experiment` holds the frozen model, the token caches
and the vocabulary, which every stage shares.
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
    candidates,
    evaluation,
    other_tasks,
    partitioning,
    prompts,
)
from xprompt_jax.experiment_config import ExperimentConfig, result_fields
from xprompt_jax.model import PromptedT5
from xprompt_jax.tables import TableRows
from xprompt_jax.task_config import HELDOUT, ROLES, TaskConfig
from xprompt_jax.task_data import RowData, check_rows, load_splits
from xprompt_jax.token_cache import CachedSplit
from xprompt_jax.types import PromptMasks, require
from xprompt_jax.vocabularies import Vocabulary
from xprompt_jax.weights import loading

__all__ = [
    "Experiment",
    "ExperimentConfig",
    "SharedWeights",
    "TaskConfig",
    "load_experiment",
    "load_splits",
]


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
    splits: by role: `train`, `validation`, and `heldout` and `test` if they
      are configured.
    mesh: where several devices share the work.
    others: splits of other tasks with the same answers, as EVAL_TASKS names
      them.
  """

  config: ExperimentConfig
  workdir: pathlib.Path
  model: PromptedT5
  frozen_params: Mapping
  fingerprint: str
  vocabulary: Vocabulary
  splits: Mapping[str, CachedSplit]
  mesh: Mesh | None = None
  others: Mapping[str, CachedSplit] = dataclasses.field(default_factory=dict)

  @functools.cached_property
  def data(self) -> RowData:
    """What each row of a table reads."""
    return RowData(config=self.config.task, splits=self.splits)

  def rows(
      self,
      role: str,
      seeds: Sequence[int],
      tasks: Sequence[str | None] | None = None,
  ) -> TableRows:
    """Rows of one role, each in the order of its seed.

    Args:
      role: `train`, `validation`, `heldout` or `test`.
      seeds: R seeds.
      tasks: R tasks, as for `RowData.split`; None means None for each.
    """
    tasks = tasks or (None,) * len(seeds)
    splits = [
        self.data.split(role, seed, task)
        for seed, task in zip(seeds, tasks, strict=True)
    ]
    return self.rows_of(splits, seeds)

  def rows_of(
      self, splits: Sequence[CachedSplit], seeds: Sequence[int]
  ) -> TableRows:
    """Rows that read given splits, each in the order of its seed."""
    return TableRows(
        seeds=tuple(seeds),
        splits=tuple(splits),
        # Dropout draws by shape: with one shape, no row sees another.
        buckets=self.config.task.buckets[-1:]
        if self.config.model.dropout_rate > 0.0
        else self.config.task.buckets,
        targets_length=self.config.task.targets_length,
    )

  def evaluate(
      self,
      role: str,
      prompt: Array | np.ndarray,
      masks: PromptMasks,
      tasks: Sequence[str | None] | None = None,
  ) -> list[dict[str, float]]:
    """The metrics of every row of a table on one split.

    Args:
      role: `train`, `validation`, `heldout` or `test`.
      prompt: [R, P, H], unmasked.
      masks: [R, P] and [R, P, K].
      tasks: as for `rows`.
    """
    return evaluation.evaluate_table(
        prompt,
        masks,
        self.rows(role, [self.config.seeds[0]] * prompt.shape[0], tasks),
        **self.predicting,
        predict_by=self.config.predict_by,
        num_beams=self.config.num_beams,
    )

  @property
  def predicting(self) -> dict[str, Any]:
    """What every function of `evaluation` and `candidates` is told."""
    return {
        "model": self.model,
        "frozen_params": self.frozen_params,
        "vocabulary": self.vocabulary,
        "batch_size": self.whole_batches(self.config.eval_batch_size),
        "mesh": self.mesh,
    }

  @functools.cached_property
  def t5x_engines(self) -> Any:
    """T5X's trainers, which the tables of a run share; `close` ends them."""
    # Only who asks for it needs T5X.
    from xprompt_jax.t5x_engine.engines import Engines

    return Engines(
        model=self.model,
        frozen_params=self.frozen_params,
        optimizer=self.config.optimizer,
        z_loss=self.config.train.z_loss,
        mesh=self.mesh,
    )

  def close(self) -> None:
    """Ends what training began; training begins it again."""
    engines = vars(self).pop("t5x_engines", None)
    if engines is not None:
      engines.close()

  @functools.cached_property
  def stage_config(self) -> dict[str, Any]:
    """What the result of training and scoring depends on, JSON-able.

    What only decides where and how fast it is computed is left out, so that a
    run that ran out of memory goes on with other settings. Paths are left out
    too: fingerprints stand for what they hold.
    """
    config = result_fields(self.config)
    if "init_file" in config["prompt"]:
      config["prompt"]["init_file"] = self._init_file()
    if self.config.task.few_shot is not None:
      config["few_shot"] = {
          name: split.fingerprint
          for name, split in self.data.few_shots(self.config.seeds).items()
      }
    return {
        **config,
        "frozen_params": self.fingerprint,
        "splits": self.split_fingerprints("train", "validation"),
    }

  def _init_file(self) -> str | None:
    """What stands for PROMPT_INIT_FILE: what is in it, however it is spelt.

    Runs of earlier versions have its path, and go on with it; so do those whose
    source is gone, with what they began from.
    """
    path = self.config.prompt.init_file
    tuned = self.workdir / artifacts.TUNE / artifacts.RESULT
    known = None
    if tuned.exists():
      recorded = artifacts.read_json(tuned).get("config", {})
      known = recorded.get("prompt", {}).get("init_file")
    if path is None or known == path:
      return path
    if known is not None and not pathlib.Path(path.partition("#")[0]).exists():
      return known
    return prompts.start_digest(
        self.config.prompt, self.config.seeds, self.config.model.emb_dim
    )

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


def load_experiment(
    config: ExperimentConfig,
    workdir: pathlib.Path,
    roles: Sequence[str] = (*ROLES, HELDOUT),
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
  check_rows(
      config.task,
      num_steps=config.train.num_steps,
      eval_every_steps=config.train.eval_every_steps,
      splits=splits,
  )
  others = other_tasks.load(
      config.task,
      splits,
      config.eval_tasks,
      cache_dir=workdir / artifacts.CACHE,
      vocab_size=config.model.vocab_size,
  )
  _check_way(config, vocabulary, splits)
  mesh = _mesh(config)
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
      others=others,
  )


def _mesh(config: ExperimentConfig) -> Mesh | None:
  """All devices as data x model; None where there is one."""
  if jax.device_count() == 1 and config.num_model_partitions == 1:
    return None
  mesh = partitioning.make_mesh(config.num_model_partitions)
  require(
      config.train.batch_size % mesh.shape["data"] == 0,
      "TrainConfig.batch_size",
      config.train.batch_size,
      f"a multiple of the {mesh.shape['data']} devices along the mesh's data"
      " axis",
  )
  return mesh


def _check_way(
    config: ExperimentConfig,
    vocabulary: Vocabulary,
    splits: Mapping[str, CachedSplit],
) -> None:
  """Refuses a PREDICT_BY that what is evaluated does not allow."""
  if config.predict_by != evaluation.GENERATE:
    for role in ("validation", "test"):
      if role in splits:
        candidates.check_possible(config.predict_by, splits[role], vocabulary)
