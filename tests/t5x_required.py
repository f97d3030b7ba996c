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
  """Imports a module of T5X or one that needs it; T5X warns when imported."""
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    try:
      return importlib.import_module(name)
    except ImportError as error:
      if os.environ.get("XPROMPT_REQUIRE_T5X"):
        pytest.fail(f"{REASON} ({error})", pytrace=False)
      pytest.skip(REASON, allow_module_level=True)
