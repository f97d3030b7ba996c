"""Which examples a row answers right: `evaluate/correct.safetensors`.

Percentages alone cannot say whether two methods fail on the same examples.
What counts as right is the task's own share (accuracy, MultiRC's em by
question) of one example alone; F1 and correlations have no such thing.
`comparisons.py` resamples and pairs what stands here.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import pathlib

from jaxtyping import UInt8
import numpy as np

from xprompt_jax import artifacts, counts
from xprompt_jax.mixtures import MixedSplit
from xprompt_jax.token_cache import CachedSplit

CORRECT = "correct.safetensors"
# Which metric counts where a task has several; the first that there is.
_SHARES = ("accuracy", "em")

# By role, what each row answers right; None where nothing counts as right.
Right = Mapping[str, Sequence[np.ndarray | None]]


def _units(split: CachedSplit, metric: str) -> list[list[int]]:
  """Places of the examples that count together: a question's answers, or one."""
  if metric != "em":
    return [[i] for i in range(len(split))]
  groups: dict[object, list[int]] = {}
  for i, target in enumerate(split.targets_for_metrics()):
    grouped = isinstance(target, Mapping) and "group" in target
    groups.setdefault(target["group"] if grouped else ("alone", i), []).append(
        i
    )
  return list(groups.values())


def right_answers(
    split: CachedSplit, texts: Sequence[Sequence[str]]
) -> UInt8[np.ndarray, "R N"] | None:
  """Which examples of a split each row answers right.

  Args:
    split: what all rows read.
    texts: for each row its predictions, in the order of the split.

  Returns:
    [R, N], 1 where the share of the example alone is 100. N counts examples;
    where the share is MultiRC's em, questions, in the order they first stand
    in. The members of a mixture follow one another. None where the task, or a
    member, has no share.
  """
  if isinstance(split, MixedSplit):
    parts, start = [], 0
    for member in split.members:
      end = start + len(member)
      part = right_answers(member, [row[start:end] for row in texts])
      if part is None:
        return None
      parts.append(part)
      start = end
    return np.concatenate(parts, axis=1)
  metric = next((n for n in _SHARES if n in split.metric_sizes()), None)
  if metric is None:
    return None
  # Other metrics may have nothing to say of one example.
  functions = [
      described
      for described in split.info["metrics"]
      if metric in counts.metric_sizes((), [described])
  ]
  rows: list[list[bool]] = [[] for _ in texts]
  for unit in _units(split, metric):
    alone = dataclasses.replace(
        split,
        examples=[split.examples[i] for i in unit],
        info={**split.info, "metrics": functions},
    )
    for row, predicted in zip(rows, texts, strict=True):
      said = [split.postprocess(predicted[i], i) for i in unit]
      row.append(alone.compute_metrics(said)[metric] == 100.0)
  return np.array(rows, np.uint8)


def save(path: pathlib.Path, methods: Mapping[str, Right]) -> None:
  """Writes what the rows of each method answer right; nothing where no row does.

  Args:
    path: `evaluate/correct.safetensors` of a run.
    methods: by name, in the order of their rows.
  """
  arrays: dict[str, np.ndarray] = {}
  for method, by_role in methods.items():
    for role, rows in by_role.items():
      known = [row for row in rows if row is not None]
      if len(known) == len(rows) and len({len(row) for row in known}) == 1:
        arrays[f"{method}/{role}"] = np.stack(known)
        continue
      for i, row in enumerate(rows):
        if row is not None:
          arrays[f"{method}/{role}/{i}"] = row
  if arrays:
    artifacts.save_arrays(path, arrays)


def load(workdir: pathlib.Path) -> dict[str, np.ndarray]:
  """What `save` wrote in a run's folder, by key; nothing in older runs.

  Raises:
    UserError: the file is damaged.
  """
  path = workdir / artifacts.EVALUATE / CORRECT
  return dict(artifacts.load_arrays(path)) if path.exists() else {}


def rows_of(
    arrays: Mapping[str, np.ndarray], method: str, role: str, num_rows: int
) -> list[np.ndarray | None]:
  """The rows of a method in their order; None for those that nothing is known of.

  Args:
    arrays: from `load`.
    method: its name in `result.json`.
    role: `heldout`, `test` or `validation`.
    num_rows: of the method.
  """
  whole = arrays.get(f"{method}/{role}")
  if whole is not None:
    return list(whole) if len(whole) == num_rows else [None] * num_rows
  return [arrays.get(f"{method}/{role}/{i}") for i in range(num_rows)]
