"""The small T5 that travels inside the package, for tests and scripts.

How it was made and what it can do stands in `xprompt_jax/bundled/README.md`;
the language it knows is `xprompt_jax/tasks/mini_language.py`. Runs reach it
through gin (`gin/models/bundled.gin`) and `loading.py`.
"""

import json

import jax
import numpy as np

from xprompt_jax.t5.config import T5Config
from xprompt_jax.weights import checkpoints, loading


def bundled_config() -> T5Config:
  """The sizes of the bundled network."""
  fields = json.loads((checkpoints.BUNDLED / "config.json").read_text())
  fields["mlp_activations"] = tuple(fields["mlp_activations"])
  return T5Config(**fields)


def load_bundled() -> tuple[T5Config, dict]:
  """Loads the bundled network.

  Returns:
    Its sizes, and its parameters as a nested dict of float32 numpy arrays.

  Raises:
    UserError: the packaged weights do not fit.
  """
  config = bundled_config()
  params = loading.load_frozen("bundled", config).params
  return config, jax.tree.map(np.asarray, params)
