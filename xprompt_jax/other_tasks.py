"""Tasks a prompt was not trained on, with the same answers: domain shift.

`EVAL_TASKS` and `t5x eval --task` name them, as `NAME` or `NAME/SPLIT`. What a
prompt has learned to say must be an answer there, so the sets of candidates
have to be the same: RTE's prompt answers AX-b, and not CB.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import pathlib
from typing import Any

from xprompt_jax import artifacts
from xprompt_jax.task_config import ROLES, TaskConfig
from xprompt_jax.task_data import load_splits
from xprompt_jax.token_cache import CachedSplit
from xprompt_jax.types import UserError

_SHOWN = 4


class OtherTaskError(UserError):
  """A task that cannot be evaluated on.

  Attributes:
    name: what the user called it.
    why: one line without the name.
    other_answers: whether all that is wrong is its set of answers.
  """

  def __init__(self, name: str, why: str, *, other_answers: bool = False):
    super().__init__(f"EVAL_TASKS: {name}: {why}")
    self.name = name
    self.why = why
    self.other_answers = other_answers


def answer_set(split: CachedSplit) -> frozenset[str] | None:
  """All candidates of a split; None where an example has none."""
  found = [split.candidates(i) for i in range(len(split))]
  return (
      frozenset(text for texts in found for text in texts)
      if all(found)
      else None
  )


def _shown(answers: frozenset[str]) -> str:
  texts = sorted(answers)
  more = f" and {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else ""
  return ", ".join(texts[:_SHOWN]) + more


def check_same_answers(name: str, own: CachedSplit, other: CachedSplit) -> None:
  """Refuses a task whose answers are others.

  Args:
    name: what the user called it.
    own: what the prompt was trained for.
    other: what it is evaluated on.

  Raises:
    OtherTaskError: names both sets.
  """
  wanted, found = answer_set(own), answer_set(other)
  if wanted is None or found is None:
    missing = own if wanted is None else other
    raise OtherTaskError(
        name,
        f"task {missing.task}, split {missing.split}: found no candidates,"
        " expected two tasks with the same closed set of answers",
        other_answers=True,
    )
  if wanted != found:
    raise OtherTaskError(
        name,
        f"found the answers {_shown(found)}, expected those of task {own.task}:"
        f" {_shown(wanted)}",
        other_answers=True,
    )


def load(
    config: TaskConfig,
    splits: Mapping[str, CachedSplit],
    names: Sequence[str],
    *,
    cache_dir: pathlib.Path,
    vocab_size: int,
) -> dict[str, CachedSplit]:
  """The splits of other tasks that a run's prompts are evaluated on.

  Args:
    config: the run's task; module, lengths and vocabulary are shared.
    splits: its own, by role; without any nothing is loaded.
    names: `NAME`, read in the split of the run's last role, or `NAME/SPLIT`.
    cache_dir: where token caches are.
    vocab_size: V of the model.

  Returns:
    Splits by name.

  Raises:
    OtherTaskError: a task that is not there, or has other answers.
    UserError: whatever is wrong with its data.
  """
  role = next((r for r in reversed(ROLES) if r in splits), None)
  found: dict[str, CachedSplit] = {}
  if role is None:
    return found
  for name in names:
    task, _, split = name.partition("/")
    changed: dict[str, Any] = {"name": task}
    if split:
      changed[f"{role}_split"] = split
    other = dataclasses.replace(config, **changed)
    try:
      _, loaded = load_splits(other, cache_dir, vocab_size, (role,))
    except UserError as e:
      # Which setting names a task is another one here.
      prefix = f"MIXTURE_OR_TASK_NAME {task}: "
      if not str(e).startswith(prefix):
        raise
      raise OtherTaskError(name, str(e).removeprefix(prefix)) from e
    check_same_answers(name, splits[role], loaded[role])
    found[name] = loaded[role]
  return found


def check_unchanged(path: pathlib.Path, config: Mapping[str, Any]) -> None:
  """Refuses to add or drop tasks of EVAL_TASKS where results are written.

  Args:
    path: a result that may be there.
    config: of this run, JSON-able, `other_tasks` among it.

  Raises:
    UserError: says what evaluates them without training anew; or the rest of
      the config is another.
  """
  if not path.exists():
    return
  old = artifacts.read_json(path).get("config")
  old = old if isinstance(old, dict) else {}
  key = "other_tasks"
  known, new = old.get(key, {}), config.get(key, {})
  if set(known) == set(new):
    return  # Contents are compared with the rest.
  artifacts.check_config(
      path,
      {name: value for name, value in old.items() if name != key},
      {name: value for name, value in config.items() if name != key},
  )
  raise UserError(
      f"EVAL_TASKS: found {tuple(new)}, expected {tuple(known)}, as {path} was"
      " written with; `t5x eval --task=NAME` evaluates on other tasks without"
      " training anew"
  )
