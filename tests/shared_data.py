"""Where tests find the real data, and imports that warn when imported.

The real SuperGLUE files and T5's vocabulary are not part of the repository.
XPROMPT_TEST_DATA names the folder that holds `super_glue` and `t5_vocab`;
otherwise it is looked for beside the checkout. Tests that need it skip without.
"""

import importlib
import os
import pathlib
from types import ModuleType
import warnings

import pytest

_BESIDE = pathlib.Path(__file__).parents[2] / "shared" / "data"
_FOLDER = pathlib.Path(os.environ.get("XPROMPT_TEST_DATA") or _BESIDE)


def path(name: str) -> pathlib.Path:
  """Returns a path of the real data; skips the test where it is missing."""
  found = _FOLDER / name
  if not found.exists():
    pytest.skip(f"needs {found} (set XPROMPT_TEST_DATA)")
  return found


def t5_vocabulary() -> str:
  """Returns T5's own SentencePiece file; skips without."""
  return str(path("t5_vocab/sentencepiece.model"))


def quiet_import(name: str) -> ModuleType:
  """Imports a library whose import warns (TensorFlow's and what uses it)."""
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    return importlib.import_module(name)
