"""Nothing that a run trains or chooses depends on the splits that report."""

import dataclasses
import zlib

import pytest

from tests import tiny_experiment
from xprompt_jax import artifacts, search

SEARCH = dataclasses.replace(
    tiny_experiment.CONFIG.search,
    importances=("gradient", "random"),
    controls=("reversed", "retrained"),
    masking_counts=(1,),
    masking_draws=1,
    auto_ratio=True,
)
CONFIG = dataclasses.replace(tiny_experiment.CONFIG, search=SEARCH, seeds=(3,))
METRIC = "tests.test_selection:both"


def both(targets, predictions):
  """A metric that changes whenever a target or a prediction does."""
  return {"both": zlib.crc32(repr((targets, predictions)).encode()) % 101}


def _scrambled(split):
  """The same inputs with other answers."""
  made = [{**e, "target": f"{e['target']} not"} for e in split.examples]
  return dataclasses.replace(split, examples=made)


def _run(workdir, *scrambled):
  """A whole run with every kind of stage, some splits' answers replaced."""
  experiment = tiny_experiment.make_experiment(workdir, CONFIG, (METRIC,))
  splits = {
      **experiment.splits,
      "heldout": tiny_experiment._split(6, 3, (METRIC,)),
  }
  splits |= {role: _scrambled(splits[role]) for role in scrambled}
  return search.run_experiment(dataclasses.replace(experiment, splits=splits))


def _arrays(workdir):
  """Everything that was trained, scored and chosen, byte by byte."""
  return {
      name: data
      for name, data in tiny_experiment.files_of(workdir).items()
      if name.endswith(".safetensors") and "evaluate" not in name
  }


def _scores(summary, split):
  return [row[split] for m in summary["methods"] for row in m["rows"]]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
  workdir = tmp_path_factory.mktemp("plain")
  return workdir, _run(workdir)


def test_the_splits_that_report_choose_nothing(plain, tmp_path):
  workdir, summary = plain
  other = _run(tmp_path, "heldout", "test")
  for split in ("heldout", "test"):
    assert _scores(other, split) != _scores(summary, split)
  assert _scores(other, "validation") == _scores(summary, "validation")
  assert other["selection"] == summary["selection"]
  name = artifacts.TICKETS
  assert (tmp_path / name).read_bytes() == (workdir / name).read_bytes()
  found, expected = _arrays(tmp_path), _arrays(workdir)
  folders = {name.split("/")[0] for name in expected}
  assert folders >= {
      "tune",
      "search_token",
      "search_piece",
      "rewind",
      "controls",
      "auto_ratio",
  }
  assert found == expected


def test_validation_does_choose(plain, tmp_path):
  """Else the test above could not fail."""
  workdir, summary = plain
  other = _run(tmp_path, "validation")
  assert _scores(other, "validation") != _scores(summary, "validation")
  assert _arrays(tmp_path) != _arrays(workdir)
