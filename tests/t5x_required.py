"""Imports of google-research/t5x, which is in no package index.

A test module that needs it skips where it is missing. `make test-t5x` sets
XPROMPT_REQUIRE_T5X, and then it fails.
"""

import importlib
import os
from types import ModuleType
import warnings

import pytest

REASON = "needs google-research/t5x on PYTHONPATH: docs/t5x.md says how"


def t5x_module(name: str) -> ModuleType:
  """Imports a module of T5X, or one of this project that needs it.

  What keeps T5X from being imported is the reason to skip; an error of this
  project's own modules is one.
  """
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
  is_own = not name.startswith("t5x.")
  with warnings.catch_warnings():
    # T5X warns when imported.
    warnings.simplefilter("ignore")
    try:
      module = importlib.import_module("t5x.models" if is_own else name)
    except ImportError as error:
      reason = f"{REASON} ({error})"
      if os.environ.get("XPROMPT_REQUIRE_T5X"):
        pytest.fail(reason, pytrace=False)
      pytest.skip(reason, allow_module_level=True)
    return importlib.import_module(name) if is_own else module
