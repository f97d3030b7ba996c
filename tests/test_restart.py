"""Done is done, another config is refused, and a kill changes no result."""

import contextlib
import dataclasses
import json

import pytest

from tests.tiny_experiment import (
    CHECKSUM,
    CONFIG,
    EXACT_MATCH,
    files_of,
    make_experiment,
)
from xprompt_jax import artifacts, pruning, search, stages
from xprompt_jax.optimizer import OptimizerConfig
from xprompt_jax.pruning import SearchConfig
from xprompt_jax.types import UserError

# One seed and one ratio each, evaluated after both of its steps.
SHORT = dataclasses.replace(
    CONFIG,
    train=dataclasses.replace(CONFIG.train, num_steps=2, eval_every_steps=1),
    search=SearchConfig(token_ratios=(0.4,), piece_ratios=(0.25,)),
    seeds=(3,),
)
METRICS = (EXACT_MATCH, CHECKSUM)
# Everything else that a run may measure beside it.
COMPARED = dataclasses.replace(
    SHORT,
    search=dataclasses.replace(
        SHORT.search,
        strategy="levels",
        importances=pruning.IMPORTANCES,
        controls=pruning.CONTROLS,
        masking_counts=(1, 2),
        masking_draws=1,
        auto_ratio=True,
    ),
)


def times_of(folder):
  """When each file was last written, in ns."""
  return {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


def without_seconds(value):
  if not isinstance(value, dict):
    return value
  return {k: without_seconds(v) for k, v in value.items() if k != "seconds"}


def results_of(folder):
  """What a run leaves, wall times left out."""
  return {
      name: without_seconds(json.loads(content))
      if name.endswith(".json")
      else content
      for name, content in files_of(folder).items()
  }


def test_a_finished_run_again_touches_no_file(finished):
  experiment, summary = finished
  before = times_of(experiment.workdir)
  assert search.run_experiment(make_experiment(experiment.workdir)) == (
      json.loads(json.dumps(summary))
  )
  assert times_of(experiment.workdir) == before


def test_finished_stages_again_touch_no_file(finished):
  experiment, _ = finished
  content = files_of(experiment.workdir)
  before = times_of(experiment.workdir)
  summary = experiment.workdir / artifacts.RESULT
  summary.unlink()
  search.run_experiment(make_experiment(experiment.workdir))
  assert files_of(experiment.workdir) == content
  after = times_of(experiment.workdir)
  changed = {path for path in before if after[path] != before[path]}
  assert after.keys() == before.keys()
  # What the whole run writes beside the folders of its stages.
  assert changed == {summary, experiment.workdir / artifacts.TICKETS}


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"seeds": (3, 9)}, "seeds is [3, 8] there and [3, 9] now"),
        (
            {"optimizer": OptimizerConfig(learning_rate=0.1)},
            "optimizer.learning_rate is 0.3 there and 0.1 now",
        ),
        (
            {"search": SearchConfig(token_ratios=(0.2, 0.7))},
            "search.piece_ratios is [0.25, 0.5] there and",
        ),
    ],
)
def test_a_finished_run_refuses_another_config(finished, change, difference):
  experiment, _ = finished
  config = dataclasses.replace(CONFIG, **change)
  with pytest.raises(UserError) as error:
    search.run_experiment(make_experiment(experiment.workdir, config))
  assert difference in str(error.value)


def test_a_stage_that_was_stopped_refuses_another_config(finished, tmp_path):
  experiment = make_experiment(tmp_path)

  def stop(*unused):
    raise KeyboardInterrupt

  object.__setattr__(experiment, "evaluate", stop)
  with pytest.raises(KeyboardInterrupt):
    stages.run_tune(experiment)
  other = dataclasses.replace(
      CONFIG, optimizer=OptimizerConfig(learning_rate=1)
  )
  with pytest.raises(UserError, match=r"learning_rate is 0\.3 there and 1 now"):
    stages.run_tune(make_experiment(tmp_path, other))


class Killed(BaseException):
  """Nothing in the package catches it, as nothing catches a kill."""


@contextlib.contextmanager
def killed_at(monkeypatch, number):
  """Ends the process, as it were, where the `number`-th file is written.

  Files are numbered from 1, all that one run writes; yields those that were.
  """
  replacing, written = artifacts.replacing, []

  def stopping(path):
    if len(written) + 1 == number:
      raise Killed
    written.append(path.name)
    return replacing(path)

  with monkeypatch.context() as patch:
    patch.setattr(artifacts, "replacing", stopping)
    yield written


def whole_run(workdir, config):
  """What a run that nothing stops leaves, and the files in their order."""
  with pytest.MonkeyPatch.context() as patch, killed_at(patch, None) as written:
    search.run_experiment(make_experiment(workdir, config, METRICS))
  return results_of(workdir), written


@pytest.fixture(scope="module")
def short_run(tmp_path_factory):
  return whole_run(tmp_path_factory.mktemp("short"), SHORT)


def test_a_run_killed_anywhere_ends_where_another_ends(
    short_run, monkeypatch, tmp_path
):
  """Each file that a run writes is the one before which it is killed."""
  expected, written = short_run
  # 7 for each of three trainings, 2 for each scoring and pruning, 3 for the
  # winners, 2 for evaluation, and one each for tickets and the summary.
  assert len(written) == 3 * 7 + 4 * 2 + 3 + 4
  for number in range(1, len(written) + 1):
    workdir = tmp_path / str(number)
    with killed_at(monkeypatch, number) as before, pytest.raises(Killed):
      search.run_experiment(make_experiment(workdir, SHORT, METRICS))
    assert before == written[: number - 1]
    assert results_of(workdir).keys() < expected.keys()
    search.run_experiment(make_experiment(workdir, SHORT, METRICS))
    assert results_of(workdir) == expected


def check_killed_often(whole, config, at, monkeypatch, workdir):
  """Each start writes `at` - 1 files; the last of its steps is taken again."""
  expected, written = whole
  starts = 0
  while not (workdir / artifacts.RESULT).exists():
    starts += 1
    assert starts <= len(written)
    with killed_at(monkeypatch, at), contextlib.suppress(Killed):
      search.run_experiment(make_experiment(workdir, config, METRICS))
  assert starts > len(written) // (at - 1)
  assert results_of(workdir) == expected


def test_a_run_killed_again_and_again_ends_there_too(
    short_run, monkeypatch, tmp_path
):
  check_killed_often(short_run, SHORT, 4, monkeypatch, tmp_path)


@pytest.mark.slow
def test_a_run_of_everything_killed_again_and_again_ends_there_too(
    monkeypatch, tmp_path
):
  whole = whole_run(tmp_path / "whole", COMPARED)
  assert {"controls", "no_rewind", "masking", "auto_ratio"} <= {
      name.split("/")[0] for name in whole[0]
  }
  check_killed_often(whole, COMPARED, 5, monkeypatch, tmp_path / "killed")


def test_a_run_may_go_on_with_other_memory_settings(finished):
  experiment, summary = finished
  config = dataclasses.replace(
      CONFIG,
      checkpoint="moved/there",
      eval_batch_size=3,
      score_batch_size=5,
      model=dataclasses.replace(CONFIG.model, remat=True),
      train=dataclasses.replace(
          CONFIG.train, rows_per_chunk=None, save_every_steps=1
      ),
  )
  before = files_of(experiment.workdir)
  found = search.run_experiment(make_experiment(experiment.workdir, config))
  assert found["methods"] == summary["methods"]
  assert files_of(experiment.workdir) == before
