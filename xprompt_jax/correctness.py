"""Which examples each row answered right: `evaluate/correct.safetensors`.

Percentages alone cannot say whether two methods fail on the same examples.
`right_answers.py` decides what is right; `comparisons.py` resamples and pairs
what stands here. Nothing here needs JAX.
"""

from collections.abc import Mapping, Sequence
import pathlib

import numpy as np

from xprompt_jax import artifacts

CORRECT = "correct.safetensors"

# By role, what each row answers right; None where nothing counts as right.
Right = Mapping[str, Sequence[np.ndarray | None]]


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
