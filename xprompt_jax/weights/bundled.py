"""The small T5s that travel inside the package, for tests and scripts.

How they were made and what they can do stands in `xprompt_jax/bundled/README.md`;
the language they know is `xprompt_jax/tasks/mini_language.py`. Runs reach
them through gin (`gin/models/bundled.gin`, `bundled_small.gin`) and `loading.py`.
"""

import json

import jax
import numpy as np

from xprompt_jax.t5.config import T5Config
from xprompt_jax.weights import checkpoints, loading


def bundled_config(name: str = "bundled") -> T5Config:
  """The sizes of a bundled network, by its CHECKPOINT."""
  path = checkpoints.BUNDLED_MODELS[name] / "config.json"
  fields = json.loads(path.read_text())
  fields["mlp_activations"] = tuple(fields["mlp_activations"])
  return T5Config(**fields)


def load_bundled(name: str = "bundled") -> tuple[T5Config, dict]:
  """Loads a bundled network.

  Args:
    name: its CHECKPOINT.

  Returns:
    Its sizes, and its parameters as a nested dict of float32 numpy arrays.

  Raises:
    UserError: the packaged weights do not fit.
  """
  config = bundled_config(name)
  params = loading.load_frozen(name, config).params
  return config, jax.tree.map(np.asarray, params)
