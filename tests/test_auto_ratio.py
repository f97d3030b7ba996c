"""Ratios that no training chose: a knee of scores, and masked losses."""

import dataclasses

import jax
import numpy as np
import pytest

from tests.tiny_experiment import (
    CONFIG,
    arrays_of,
    files_of,
    make_experiment,
    result_of,
)
from xprompt_jax import auto_ratio, pruning, scoring, stages
from xprompt_jax import masks as masks_lib
from xprompt_jax.types import UserError

AUTO = dataclasses.replace(
    CONFIG, search=dataclasses.replace(CONFIG.search, auto_ratio=True)
)


@pytest.mark.parametrize(
    ("scores", "ratio"),
    [
        # Shares of units run ahead by 0.25 - 0.0625, 0.5 - 0.1875, 0.75 - 0.375.
        ([1, 2, 3, 10], 0.75),
        # The order does not matter; 2 is the mean and stays.
        ([4, 1, 1, 2], 0.5),
        ([40, 10, 10, 20], 0.5),
        ([0, 0, 0, 10], 0.75),
        ([1, 9, 10, 10, 10], 0.2),
        # Nothing to tell apart, to the last digit.
        ([1, 1, 1, 1], 0.0),
        ([0.1, 0.1, 0.1], 0.0),
        ([0, 0], 0.0),
        ([5], 0.0),
    ],
)
def test_the_knee_is_where_scores_reach_their_mean(scores, ratio):
  found = auto_ratio.knee_ratio(np.array(scores, np.float64))
  assert found == ratio
  below = sum(score < np.mean(scores) - 1e-9 for score in scores)
  assert pruning.num_pruned(found, len(scores)) == below


@pytest.fixture(scope="module")
def run(finished, tmp_path_factory):
  source, _ = finished
  tuned = stages.run_tune(source)
  experiment = make_experiment(tmp_path_factory.mktemp("auto"), AUTO)
  return experiment, tuned, auto_ratio.run_auto_ratio(experiment, tuned)


def test_scores_choose_the_knee_of_the_units_that_are_kept(run):
  experiment, _, _ = run
  for granularity, folder in (
      ("token", "score_token"),
      ("piece", "auto_ratio/score_piece"),
  ):
    scores = arrays_of(experiment, folder, "scores.safetensors")
    rows = result_of(experiment, f"auto_ratio/{granularity}")["rows"]
    trained = result_of(experiment, "auto_ratio/tickets")["rows"]
    kept = arrays_of(experiment, "auto_ratio/tickets")["token_mask"]
    for row in (0, 1):
      assert rows[row]["rule"] == "scores"
      units = scores[f"{granularity}_scores"][row]
      if granularity == "piece":
        units = units[kept[4 + row] > 0].ravel()
      assert rows[row]["ratio"] == auto_ratio.knee_ratio(units)
      at = row if granularity == "token" else 4 + row
      assert trained[at][f"{granularity}_ratio"] == rows[row]["ratio"]
      # What is left of 5 tokens, or of the pieces of the kept ones.
      count = trained[at][f"kept_{granularity}s"]
      if granularity == "token":
        assert count == 5 - (units < units.mean()).sum()


def test_losses_choose_the_masked_prompt_that_loses_least(run):
  experiment, tuned, _ = run
  rows = result_of(experiment, "auto_ratio/token")["rows"][2:]
  scores = stages.run_score(experiment, "token", tuned)["token_scores"]
  full = jax.tree.map(lambda x: np.asarray(x)[0], masks_lib.full_masks(1, 5, 4))
  for row, line in enumerate(rows):
    assert line["rule"] == "loss"
    losses = {}
    # The search has no 0, which prunes nothing.
    for ratio in (0.0, 0.2, 0.6):
      masks = pruning.prune_tokens(scores[row], full, ratio)
      losses[str(ratio)] = scoring.loss_table(
          tuned.prompt[row : row + 1],
          stages.stack_masks([masks]),
          experiment.rows("train", [line["seed"]]),
          **stages.scoring_settings(experiment),
      )[0]
    assert line["losses"] == pytest.approx(losses, rel=1e-5)
    assert line["losses"]["0.2"] != pytest.approx(line["losses"]["0.6"], 1e-4)
    assert str(line["ratio"]) == min(losses, key=losses.get)


def test_the_tickets_train_once_in_one_table(run):
  experiment, tuned, found = run
  result = result_of(experiment, "auto_ratio")
  assert [
      (row["seed"], row["granularity"], row["rule"]) for row in result["rows"]
  ] == [
      (seed, granularity, rule)
      for granularity in ("token", "piece")
      for rule in ("scores", "loss")
      for seed in (3, 8)
  ]
  for row in result["rows"]:
    assert row["ratio"] == row[f"{row['granularity']}_ratio"]
    assert row.keys() >= {"validation", "test", "kept_tokens"}
  assert list(found) == ["auto_scores", "auto_loss"]
  for i, table in enumerate(found.values()):
    assert [t.seed for t in table.tickets] == [3, 8]
    assert table.tickets[0].granularity == "token+piece"
    expected = [row["validation"] for row in result["rows"][4 + 2 * i :][:2]]
    assert list(table.validation) == expected
  arrays = arrays_of(experiment, "auto_ratio/tickets")
  factor = arrays["token_mask"][..., None] * arrays["piece_mask"]
  np.testing.assert_array_equal(
      arrays["start"],
      tuned.prompt[[0, 1] * 4] * np.repeat(factor, 3, axis=-1),
  )
  assert result["seconds"] >= 0


def test_run_again_it_touches_no_file_and_refuses_other_ratios(run):
  experiment, tuned, _ = run
  before = files_of(experiment.workdir)
  auto_ratio.run_auto_ratio(experiment, tuned)
  assert files_of(experiment.workdir) == before
  config = dataclasses.replace(
      AUTO, search=dataclasses.replace(AUTO.search, token_ratios=(0.2, 0.4))
  )
  with pytest.raises(UserError, match="belongs to another config: ratios"):
    auto_ratio.run_auto_ratio(
        make_experiment(experiment.workdir, config), tuned
    )


def test_it_is_left_out_unless_asked_for(run, tmp_path):
  _, tuned, _ = run
  assert auto_ratio.run_auto_ratio(make_experiment(tmp_path), tuned) == {}
  assert not files_of(tmp_path)


def test_tokens_alone(run, tmp_path):
  _, tuned, _ = run
  search = dataclasses.replace(AUTO.search, granularities=("token",))
  config = dataclasses.replace(AUTO, search=search)
  experiment = make_experiment(tmp_path, config)
  found = auto_ratio.run_auto_ratio(experiment, tuned)
  assert [t.granularity for t in found["auto_loss"].tickets] == ["token"] * 2
  assert len(result_of(experiment, "auto_ratio")["rows"]) == 4
