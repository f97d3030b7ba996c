"""Our own file: prompts [P, H] or [R, P, H] with masks and scores.

safetensors under the names of `arrays.AXES`; a run's `prompt.safetensors` is
one, and so is what anyone writes with `safetensors` under the name `prompt`.
"""

from collections.abc import Mapping
import pathlib

import numpy as np

from xprompt_jax import artifacts
from xprompt_jax.prompt_formats.arrays import AXES

FILE = "prompt.safetensors"
TENSOR = "prompt"


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
  """Reads what is there of the names in `arrays.AXES`.

  Raises:
    UserError: the file is missing or damaged.
  """
  arrays = artifacts.load_arrays(path)
  return {name: arrays[name] for name in AXES if name in arrays}


def write(path: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
  """Writes prompts, masks and scores as they are given."""
  artifacts.save_arrays(path, arrays)
