"""Importing the package costs neither TensorFlow nor an accelerator."""

import subprocess
import sys

_IMPORT_ALL = """
import importlib, pkgutil, sys
import xprompt_jax
names = [
    module.name
    for module in pkgutil.walk_packages(xprompt_jax.__path__, "xprompt_jax.")
    if not module.name.startswith(("xprompt_jax.tasks", "xprompt_jax.t5x_engine."))
]
names.append("xprompt_jax.t5x_engine.requirements")
for name in names:
  importlib.import_module(name)
heavy = {"tensorflow", "tensorflow_datasets", "tensorflow_text", "seqio", "t5x"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
from jax._src import xla_bridge
assert not xla_bridge._backends, xla_bridge._backends
print(len(names))
"""


def _run(*arguments):
  return subprocess.run(
      [sys.executable, *arguments], capture_output=True, text=True, check=False
  )


def test_no_module_loads_tensorflow_or_starts_jax():
  done = _run("-c", _IMPORT_ALL)
  assert done.returncode == 0, done.stderr
  assert int(done.stdout) > 5


def test_help_does_not_even_load_jax():
  done = _run("-X", "importtime", "-m", "xprompt_jax.main", "--help")
  assert done.returncode == 0, done.stderr
  assert "train" in done.stdout
  loaded = {
      line.rpartition("|")[2].strip() for line in done.stderr.splitlines()
  }
  assert "argparse" in loaded
  assert not loaded & {"jax", "flax", "tensorflow", "seqio", "numpy"}
