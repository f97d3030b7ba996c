"""The data of an experiment: token caches by role, and what each row reads.

A row reads a whole split, one member of a mixture, or the few examples that
its seed chooses.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import functools
import pathlib
from typing import cast

from xprompt_jax import few_shot, halves, mixtures, token_cache, vocabularies
from xprompt_jax.mixtures import MixedSplit
from xprompt_jax.task_config import HELDOUT, ROLES, TaskConfig
from xprompt_jax.token_cache import CachedSplit
from xprompt_jax.types import require
from xprompt_jax.vocabularies import Vocabulary


@dataclasses.dataclass(frozen=True, kw_only=True)
class RowData:
  """What the rows of a table may read.

  Attributes:
    config: the task's.
    splits: by role; of a mixture all members together.
  """

  config: TaskConfig
  splits: Mapping[str, CachedSplit]

  @property
  def tasks(self) -> tuple[str | None, ...]:
    """What has a prompt of its own: the members of a mixture, or one None."""
    split = next(iter(self.splits.values()), None)
    if self.config.mixture_rows == "task" and isinstance(split, MixedSplit):
      return tuple(member.task for member in split.members)
    return (None,)

  def split(self, role: str, seed: int, task: str | None = None) -> CachedSplit:
    """What a row reads.

    Args:
      role: `train`, `validation`, `heldout` or `test`.
      seed: the row's, which may choose its examples.
      task: one member of a mixture; None means all that is configured.
    """
    key = (role, seed, task)
    if key not in self._row_splits:
      config = self.config
      whole = self.splits[role]
      if task is not None:
        whole = cast(MixedSplit, whole).member(task)
      if role == "train" and config.few_shot is not None:
        whole = few_shot.subset(
            whole,
            config.few_shot,
            seed if config.few_shot_seed is None else config.few_shot_seed,
            balanced=config.few_shot_balanced,
        )
      self._row_splits[key] = whole
    return self._row_splits[key]

  @functools.cached_property
  def _row_splits(self) -> dict[tuple[str, int, str | None], CachedSplit]:
    # Rows that read the same are batched together: they share an object.
    return {}

  def num_examples(self, seed: int, task: str | None = None) -> dict[str, int]:
    """Examples that a row reads, by role."""
    return {role: len(self.split(role, seed, task)) for role in self.splits}

  def few_shots(self, seeds: Sequence[int]) -> dict[str, CachedSplit]:
    """What rows of each seed train on, where it is not the whole split."""
    if self.config.few_shot is None or "train" not in self.splits:
      return {}
    return {
        "/".join(filter(None, (task, str(seed)))): self.split(
            "train", seed, task
        )
        for task in self.tasks
        for seed in seeds
    }


def load_splits(
    task: TaskConfig,
    cache_dir: pathlib.Path,
    vocab_size: int,
    roles: Sequence[str] = ROLES,
    *,
    labelled: bool = True,
) -> tuple[Vocabulary, dict[str, CachedSplit]]:
  """The token caches of a task's splits, made first where they are missing.

  Args:
    task: the task.
    cache_dir: where token caches are.
    vocab_size: V of the model; the vocabulary has to fit it.
    roles: which splits; `test` counts only where it is configured. With
      `heldout` among them, and as the protocol, `validation` is the half of
      its split that selects; without, it is whole.
    labelled: refuse splits without labels.

  Returns:
    The vocabulary, and splits by role.

  Raises:
    UserError: whatever is wrong with the vocabulary or the data.
  """
  vocabulary = vocabularies.load_vocabulary(task.vocabulary, task.extra_ids)
  vocabularies.check_fits(vocabulary, vocab_size)
  names = {
      role: getattr(task, f"{role}_split") for role in roles if role in ROLES
  }
  names = {role: name for role, name in names.items() if name is not None}
  if not names:
    return vocabulary, {}
  first = next(iter(names.values()))
  rates = mixtures.ensure_mixture(
      name=task.name,
      module=task.module,
      cache_dir=cache_dir,
      wanted=f"token cache of task {task.name}, split {first}",
  )

  def cached(member: str, split: str) -> CachedSplit:
    return _cached(task, member, split, cache_dir, vocabulary)

  splits: dict[str, CachedSplit] = {}
  for role, name in names.items():
    if rates is None:
      splits[role] = cached(task.name, name)
    else:
      members = [cached(member, name) for member in rates]
      splits[role] = mixtures.mix(task.name, members, list(rates.values()))
    if labelled:
      splits[role].check_labelled()
    if role == "validation" and HELDOUT in roles and task.protocol == HELDOUT:
      splits[role], splits[HELDOUT] = halves.divide(splits[role])
  return vocabulary, splits


def _cached(
    task: TaskConfig,
    member: str,
    split: str,
    cache_dir: pathlib.Path,
    vocabulary: Vocabulary,
) -> CachedSplit:
  """A split of a task, or of a member of a mixture, as it is tokenized."""
  return token_cache.ensure_token_cache(
      task=member,
      split=split,
      module=task.module,
      cache_dir=cache_dir,
      inputs_length=task.inputs_length,
      targets_length=task.targets_length,
      max_examples=task.max_examples,
      vocabulary=vocabulary,
  )


def check_rows(
    config: TaskConfig,
    *,
    num_steps: int | None,
    eval_every_steps: int | None,
    splits: Mapping[str, CachedSplit],
) -> None:
  """Refuses what rows of different tasks, or of no mixture, cannot do.

  Args:
    config: the task's.
    num_steps: of training; None counts epochs.
    eval_every_steps: steps between evaluations; None means each epoch.
    splits: by role.

  Raises:
    UserError: rows would depend on each other, or there is no mixture.
  """
  if config.mixture_rows != "task":
    return
  for split in splits.values():
    require(
        isinstance(split, MixedSplit),
        "TaskConfig.mixture_rows",
        f"task, and the task {config.name}",
        "a mixture",
    )
  require(
      num_steps is not None,
      "TrainConfig.num_steps",
      num_steps,
      "a number, and num_epochs = None: rows that read different tasks have no"
      " epoch in common",
  )
  # An epoch of the largest task would decide which checkpoints of the others
  # can win.
  require(
      eval_every_steps is not None,
      "TrainConfig.eval_every_steps",
      eval_every_steps,
      "a number, EVAL_EVERY_STEPS: rows that read different tasks have no epoch"
      " in common",
  )
