"""The small T5 that travels inside the package, for tests and scripts.

How it was made and what it can do stands in `xprompt_jax/bundled/README.md`;
the language it knows is `xprompt_jax/tasks/mini_language.py`. Runs reach it
through gin (`gin/models/bundled.gin`) and `loading.py`.
"""

import json
import pathlib

import jax
import numpy as np

from xprompt_jax.t5.config import T5Config
from xprompt_jax.weights import loading


def bundled_vocabulary_path() -> pathlib.Path:
  """The SentencePiece model, to be read with 32 extra ids behind it."""
  return loading.BUNDLED / "sentencepiece.model"


def load_bundled() -> tuple[T5Config, dict]:
  """Loads the bundled network.

  Returns:
    Its sizes, and its parameters as a nested dict of float32 numpy arrays.

  Raises:
    UserError: the packaged weights do not fit.
  """
  config = json.loads((loading.BUNDLED / "config.json").read_text())
  params = loading.load_frozen("bundled", T5Config(**config))
  return T5Config(**config), jax.tree.map(np.asarray, params)
