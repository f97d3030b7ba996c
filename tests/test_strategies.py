"""Searches that share tables: levels beside XPrompt, other importances."""

import collections
import dataclasses

import jax
import numpy as np
import pytest

from tests.tiny_experiment import CONFIG, arrays_of, make_experiment, result_of
from xprompt_jax import artifacts, importance, pruning, search, strategies
from xprompt_jax import masks as masks_lib
from xprompt_jax.tickets import Table, Ticket


def with_search(seeds, **fields):
  found = dataclasses.replace(CONFIG.search, **fields)
  return dataclasses.replace(CONFIG, search=found, seeds=seeds)


def test_each_importance_has_a_winner_of_its_own():
  rows = tuple(
      Ticket(seed=seed, token_ratio=ratio, importance=name)
      for name in ("gradient", "random")
      for seed in (1, 2)
      for ratio in (0.1, 0.5)
  )
  scores = [1.0, 3.0, 5.0, 5.0, 9.0, 2.0, 0.0, 4.0]
  table = Table(
      tickets=rows,
      prompt=np.zeros((8, 1, 2), np.float32),
      masks=masks_lib.full_masks(8, 1, 1),
      validation=tuple({"score": score} for score in scores),
  )
  assert strategies.best_rows(table, "token") == [1, 2, 4, 7]
  best = table.take([1, 2, 4, 7])
  assert [t.seed for t in best.ranked_by("random").tickets] == [1, 2]


@pytest.fixture(scope="module")
def levels(tmp_path_factory):
  config = with_search((3, 8), strategy="levels")
  experiment = make_experiment(tmp_path_factory.mktemp("levels"), config)
  return experiment, search.run_experiment(experiment)


def test_levels_need_two_tables(levels):
  experiment, summary = levels
  rows = result_of(experiment, "search_levels")["rows"]
  assert [
      (row["seed"], row["token_ratio"], row["piece_ratio"]) for row in rows
  ] == [
      *((seed, ratio, None) for seed in (3, 8) for ratio in (0.2, 0.6)),
      *((seed, None, ratio) for seed in (3, 8) for ratio in (0.25, 0.5)),
  ]
  assert [row["kept_pieces"] for row in rows[4:]] == [15, 10, 15, 10]
  assert [m["method"] for m in summary["methods"]] == [
      "no_prompt",
      "prompt_tuning",
      "token",
      "piece",
      "xprompt",
  ]
  assert summary["tickets_tried"] == 2 * (2 + 2 + 2)


def test_pieces_alone_are_ranked_at_the_whole_tuned_prompt(levels):
  experiment, _ = levels
  scores = arrays_of(experiment, "score_token", artifacts.SCORES)
  arrays = arrays_of(experiment, "search_levels")
  for row in (0, 1):
    lowest = np.sort(scores["piece_scores"][row].ravel())[:10]
    pruned = scores["piece_scores"][row][arrays["piece_mask"][5 + 2 * row] == 0]
    assert sorted(pruned) == lowest.tolist()
  assert (arrays["token_mask"][4:] == 1).all()


def test_levels_find_the_tickets_of_the_linear_search(levels, finished):
  experiment, _ = levels
  linear, _ = finished
  for folder in ("search_piece", "rewind"):
    found, expected = arrays_of(experiment, folder), arrays_of(linear, folder)
    assert found.keys() == expected.keys()
    for name, array in expected.items():
      np.testing.assert_array_equal(found[name], array)


@pytest.fixture(scope="module")
def four(tmp_path_factory):
  """One seed searched by all four importances."""
  config = with_search((3,), importances=pruning.IMPORTANCES)
  experiment = make_experiment(tmp_path_factory.mktemp("four"), config)
  return experiment, search.run_experiment(experiment)


def test_every_importance_has_the_same_budget_in_the_same_tables(four):
  experiment, summary = four
  rows = result_of(experiment, "search_token")["rows"]
  assert [(row.get("importance"), row["token_ratio"]) for row in rows] == [
      (name, ratio)
      for name in (None, "magnitude", "signed", "random")
      for ratio in (0.2, 0.6)
  ]
  lines = artifacts.read_json_lines(experiment.workdir / artifacts.TICKETS)
  tried = collections.Counter(
      line.get("importance", "gradient")
      for line in lines
      if line["folder"] != "tune"
  )
  assert tried == dict.fromkeys(pruning.IMPORTANCES, 4)
  assert [m["method"] for m in summary["methods"]] == [
      "no_prompt",
      "prompt_tuning",
      "token",
      "xprompt",
      "xprompt_magnitude",
      "xprompt_signed",
      "xprompt_random",
  ]
  assert all(len(method["rows"]) == 1 for method in summary["methods"])
  named = [m["rows"][0].get("importance") for m in summary["methods"]]
  assert named == [None] * 4 + ["magnitude", "signed", "random"]
  assert len(result_of(experiment, "rewind")["rows"]) == 1


def test_what_choosing_gained_is_kept_of_each_importance(four):
  experiment, summary = four
  lines = artifacts.read_json_lines(experiment.workdir / artifacts.TICKETS)
  assert [line["importance"] for line in summary["selection"]] == list(
      pruning.IMPORTANCES
  )
  for found in summary["selection"]:
    scores = [
        line["validation"]["score"]
        for line in lines
        if line["folder"] != "tune"
        and line.get("importance", "gradient") == found["importance"]
    ]
    assert found == {
        "seed": 3,
        "importance": found["importance"],
        "tickets": 4,
        "chosen": max(scores[-2:]),
        "mean": sum(scores) / 4,
    }


@pytest.mark.parametrize(
    ("strategy", "tickets", "mean"),
    # Pieces alone (90) cannot win; a grid has its tokens alone (60) besides.
    [("linear", 3, 40.0), ("levels", 3, 40.0), ("grid", 2, 30.0)],
)
def test_a_ticket_is_chosen_among_those_that_could_win(strategy, tickets, mean):
  ratios = [(0.2, None), (None, 0.5), (0.2, 0.25), (0.2, 0.5)]
  rows = [
      Ticket(seed=seed, token_ratio=token, piece_ratio=piece, task="t")
      for seed in (1, 2)
      for token, piece in ratios
  ]
  scores = (60.0, 90.0, 20.0, 40.0, 0.0, 0.0, 0.0, 0.0)
  table = Table(
      tickets=tuple(rows),
      prompt=np.zeros((8, 1, 2), np.float32),
      masks=masks_lib.full_masks(8, 1, 1),
      validation=tuple({"score": score} for score in scores),
  )
  found = strategies.Found(
      tuned=table,
      tried={"search": table},
      levels={"token+piece": table.take([3, 6])},
  )
  line, other = found.chosen_among(strategy)
  assert line == {
      "task": "t",
      "seed": 1,
      "importance": "gradient",
      "tickets": tickets,
      "chosen": 40.0,
      "mean": mean,
  }
  assert (other["seed"], other["mean"]) == (2, 0.0)


def test_xprompt_is_what_it_is_without_the_others(four, finished):
  experiment, _ = four
  alone, _ = finished
  for folder in ("search_token", "search_piece"):
    found, expected = arrays_of(experiment, folder), arrays_of(alone, folder)
    for name, array in expected.items():
      np.testing.assert_array_equal(found[name][:2], array[:2])


def test_masks_follow_the_scores_of_each_importance(four):
  experiment, _ = four
  tuned = arrays_of(experiment, "tune")
  scores = arrays_of(experiment, "score_token", artifacts.SCORES)
  assert scores["token_signed"].shape == (1, 5)
  # Examples of both signs, or the two would be the same.
  assert (np.abs(scores["token_signed"]) < scores["token_scores"]).all()
  by = {
      "gradient": scores["token_scores"][0],
      "magnitude": np.abs(tuned["prompt"][0]).mean(axis=1),
      "signed": scores["token_signed"][0],
      "random": importance.uniform(3, "tiny", 5, 10),
  }
  found = arrays_of(experiment, "search_token")["token_mask"]
  full = jax.tree.map(lambda x: np.asarray(x)[0], masks_lib.full_masks(1, 5, 4))
  for i, name in enumerate(pruning.IMPORTANCES):
    for j, ratio in enumerate((0.2, 0.6)):
      expected = pruning.prune_tokens(by[name], full, ratio).token_mask
      assert found[2 * i + j].tolist() == expected.tolist()
  # Seed 3 draws 0.33, 0.52, 0.94, 0.63, 0.52.
  assert found[6].tolist() == [0, 1, 1, 1, 1]


def test_pieces_of_each_importance_are_scored_behind_its_own_tokens(four):
  experiment, _ = four
  rows = result_of(experiment, "score_piece")["rows"]
  assert [row.get("importance") for row in rows] == [
      None,
      "magnitude",
      "signed",
      "random",
  ]
  winners = result_of(experiment, "search_piece")["rows"]
  arrays = arrays_of(experiment, "search_piece")
  scores = arrays_of(experiment, "score_piece", artifacts.SCORES)
  for i in range(4):
    assert winners[2 * i]["token_ratio"] == rows[i]["token_ratio"]
    pruned = arrays["token_mask"][2 * i] == 0
    assert (scores["piece_scores"][i][pruned] == 0).all()
    assert (scores["piece_scores"][i][~pruned] > 0).any()


def test_the_grid_has_them_too(tmp_path):
  config = with_search(
      (3,),
      strategy="grid",
      importances=("gradient", "random"),
      token_ratios=(0.4,),
      piece_ratios=(0.5,),
  )
  config = dataclasses.replace(
      config, train=dataclasses.replace(config.train, num_steps=1)
  )
  experiment = make_experiment(tmp_path, config)
  summary = search.run_experiment(experiment)
  rows = result_of(experiment, "search_grid")["rows"]
  assert [
      (row.get("importance"), row["token_ratio"], row["piece_ratio"])
      for row in rows
  ] == [
      (None, 0.4, None),
      ("random", 0.4, None),
      (None, None, 0.5),
      ("random", None, 0.5),
      (None, 0.4, 0.5),
      ("random", 0.4, 0.5),
  ]
  assert [m["method"] for m in summary["methods"]][-2:] == [
      "xprompt",
      "xprompt_random",
  ]
