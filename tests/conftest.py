"""Makes every test run strictly; warnings are errors through pyproject.toml.

The import hook checks each shape annotation of the package when its function
is called, so this file must be read before any module of it is imported.
"""

import os
import pathlib

import jax
import jaxtyping
import pytest

# What is compiled once serves every process of the tests, those that tests start
# included, and the next run. Models are so small that compiling takes most of the
# time, so it is done in a hurry; `make test-interop` and `make test-t5x` compile as
# for a user.
_CACHE = pathlib.Path(__file__).parent.parent / ".pytest_cache" / "jax"
for _name, _value in (
    ("jax_compilation_cache_dir", str(_CACHE)),
    ("jax_persistent_cache_min_compile_time_secs", 0),
    ("jax_disable_most_optimizations", "XPROMPT_OPTIMIZED" not in os.environ),
):
  os.environ.setdefault(_name.upper(), str(_value))
  jax.config.update(_name, _value)

# An int where a float is asked for is fine, as everywhere in Python.
jaxtyping.install_import_hook(
    "xprompt_jax",
    "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))",
)

# [B] + [B, P] is a mistake far more often than it is meant.
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def torch():
  """PyTorch, where it is installed; a test that asks for it is `interop`."""
  reason = "needs torch: pip install -e '.[torch]'"
  return pytest.importorskip("torch", reason=reason)


def pytest_collection_modifyitems(items):
  for item in items:
    if "torch" in getattr(item, "fixturenames", ()):
      item.add_marker(pytest.mark.interop)
  # The files with slow tests first: of those handed out last, one would keep a
  # worker busy for minutes while the others have nothing left.
  slow = {item.path for item in items if item.get_closest_marker("slow")}
  items.sort(key=lambda item: item.path not in slow)


@pytest.fixture
def unchecked():
  """Annotations are not checked, as for a user.

  For tests of what gin may hand over: a config's own check of a wrong type
  must be reached.
  """
  jaxtyping.config.update("jaxtyping_disable", True)
  yield
  jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory):
  """WORKDIR of a whole run of `command_line.TINY`; not to be written in."""
  from tests import command_line

  workdir = tmp_path_factory.mktemp("tiny") / "run"
  assert (
      command_line.run("train", *command_line.TINY, f"--workdir={workdir}") == 0
  )
  return workdir


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
  """A whole linear search in this process: its experiment and its summary."""
  from tests import tiny_experiment
  from xprompt_jax import search

  workdir = tmp_path_factory.mktemp("finished")
  experiment = tiny_experiment.make_experiment(workdir)
  return experiment, search.run_experiment(experiment)


@pytest.fixture(scope="session")
def tiny_cache(tiny_run):
  """The token cache of that run."""
  return tiny_run / "cache"
