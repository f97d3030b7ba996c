"""Tasks a prompt was not trained on, with the same answers: domain shift.

`EVAL_TASKS` and `t5x eval --task` name them, as `NAME` or `NAME/SPLIT`. What a
prompt has learned to say must be an answer there, so the sets of candidates
have to be the same: RTE's prompt answers AX-b, and not CB.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import pathlib
from typing import Any

from xprompt_jax.task_config import TaskConfig
from xprompt_jax.task_data import load_splits
from xprompt_jax.token_cache import CachedSplit
from xprompt_jax.types import UserError

_SHOWN = 4


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
    UserError: names both sets.
  """
  wanted, found = answer_set(own), answer_set(other)
  if wanted is None or found is None:
    missing = own if wanted is None else other
    raise UserError(
        f"--task={name}: task {missing.task}, split {missing.split}: found no"
        " candidates, expected two tasks with the same closed set of answers"
    )
  if wanted != found:
    raise UserError(
        f"--task={name}: found the answers {_shown(found)}, expected those of"
        f" task {own.task}: {_shown(wanted)}"
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
    splits: its own, by role; without `validation` and `test` nothing is
      loaded.
    names: `NAME`, read in the split of the run's last role, or `NAME/SPLIT`.
    cache_dir: where token caches are.
    vocab_size: V of the model.

  Returns:
    Splits by name.

  Raises:
    UserError: a task that is not there, or has other answers.
  """
  role = next((r for r in ("test", "validation") if r in splits), None)
  found: dict[str, CachedSplit] = {}
  if role is None:
    return found
  for name in names:
    task, _, split = name.partition("/")
    changed: dict[str, Any] = {"name": task}
    if split:
      changed[f"{role}_split"] = split
    other = dataclasses.replace(config, **changed)
    _, loaded = load_splits(other, cache_dir, vocab_size, (role,))
    check_same_answers(name, splits[role], loaded[role])
    found[name] = loaded[role]
  return found
