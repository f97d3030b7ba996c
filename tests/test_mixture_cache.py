"""A mixture in the token cache, when the module that registers it changes."""

import importlib
import json
import sys

import pytest

from xprompt_jax import mixtures
from xprompt_jax.types import UserError

MODULE = "changing_tasks"
TEXT = """
import seqio
from tests import mixed_tasks

seqio.MixtureRegistry.add("changing", [("mini_cb", {rate}), ("mini_rte", 1.0)])
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
  """Writes the module with another rate, as a new process would find it."""
  import seqio

  monkeypatch.syspath_prepend(str(tmp_path))

  def write(rate, comment=""):
    sys.modules.pop(MODULE, None)
    if "changing" in seqio.MixtureRegistry.names():
      seqio.MixtureRegistry.remove("changing")
    path = tmp_path / f"{MODULE}.py"
    path.write_text(TEXT.format(rate=rate) + comment)
    importlib.invalidate_caches()

  yield write
  write(1.0)
  sys.modules.pop(MODULE, None)


def ensure(folder):
  return mixtures.ensure_mixture(
      name="changing", module=MODULE, cache_dir=folder, wanted="here"
  )


def without_tensorflow(monkeypatch):
  for name in ("tensorflow", "seqio"):
    monkeypatch.setitem(sys.modules, name, None)


def test_other_rates_are_refused(module, tmp_path):
  module(3.0)
  rates = {"mini_cb": 3.0, "mini_rte": 1.0}
  assert ensure(tmp_path) == rates
  module(4.5)
  file = tmp_path / "changing" / "mixture.json"
  kept = file.read_bytes()
  with pytest.raises(UserError) as refusal:
    ensure(tmp_path)
  assert str(refusal.value) == (
      f"{file}: found mini_cb at 3, mini_rte at 1, expected mini_cb at 4.5,"
      " mini_rte at 1, as changing_tasks has mixture changing now; remove the"
      " file to go on with that"
  )
  assert file.read_bytes() == kept
  module(3.0)
  assert ensure(tmp_path) == rates


def test_a_module_that_changed_elsewhere_goes_on(module, tmp_path, monkeypatch):
  module(3.0)
  rates = ensure(tmp_path)
  file = tmp_path / "changing" / "mixture.json"
  old = json.loads(file.read_text())
  module(3.0, "# Another version.\n")
  assert ensure(tmp_path) == rates
  new = json.loads(file.read_text())
  assert new.pop("module_sha256") != old.pop("module_sha256")
  assert new == old
  # It is not asked a second time.
  without_tensorflow(monkeypatch)
  assert ensure(tmp_path) == rates


def test_without_tensorflow_a_changed_module_is_refused(
    module, tmp_path, monkeypatch
):
  module(3.0)
  rates = ensure(tmp_path)
  module(3.0, "# Another version.\n")
  without_tensorflow(monkeypatch)
  with pytest.raises(UserError) as refusal:
    ensure(tmp_path)
  file = tmp_path / "changing" / "mixture.json"
  assert str(refusal.value).startswith(
      f"changing_tasks has changed since {file} was made; its rates of today:"
      " not there, and TensorFlow cannot be imported"
  )
  # Machines without the module go on.
  (tmp_path / f"{MODULE}.py").unlink()
  importlib.invalidate_caches()
  assert ensure(tmp_path) == rates
