"""Stages over files: their names, their masks, and where rewinding starts."""

import dataclasses

import numpy as np

from tests import examples
from tests.tiny_experiment import (
    CONFIG,
    arrays_of,
    files_of,
    make_experiment,
    result_of,
)
from xprompt_jax import artifacts, scoring, search, stages, strategies, tickets
from xprompt_jax import masks as masks_lib
from xprompt_jax.pruning import SearchConfig
from xprompt_jax.types import PromptMasks


def test_a_run_leaves_the_files_of_every_stage(finished):
  experiment, _ = finished
  names = files_of(experiment.workdir).keys()
  trained = {"metrics.jsonl", "prompt.safetensors", "result.json"}
  trained |= {"state/config.json", "state/state.safetensors"}
  assert names == {
      *(
          f"{folder}/{name}"
          for folder in ("tune", "search_token", "search_piece")
          for name in trained
      ),
      *(
          f"{folder}_{granularity}/{name}"
          for granularity in ("token", "piece")
          for folder, name in (
              ("score", "scores.safetensors"),
              ("score", "result.json"),
              ("prune", "masks.safetensors"),
              ("prune", "result.json"),
          )
      ),
      "rewind/metrics.jsonl",
      "rewind/prompt.safetensors",
      "rewind/result.json",
      "evaluate/correct.safetensors",
      "evaluate/result.json",
      "tickets.jsonl",
      "result.json",
  }


def test_the_first_step_after_rewinding_starts_from_mask_times_tuned(finished):
  experiment, _ = finished
  tuned = arrays_of(experiment, "tune")
  for granularity in ("token", "piece"):
    start = arrays_of(experiment, f"search_{granularity}")["start"]
    arrays = arrays_of(experiment, f"prune_{granularity}", artifacts.MASKS)
    factor = arrays["token_mask"][..., None] * arrays["piece_mask"]
    factor = np.repeat(factor, 3, axis=-1)  # H 12 in K 4 pieces.
    # Two ratios for each of two seeds.
    np.testing.assert_array_equal(start, tuned["prompt"][[0, 0, 1, 1]] * factor)


def test_pruned_entries_are_zero_in_every_trained_ticket(finished):
  experiment, _ = finished
  for folder in ("search_token", "search_piece", "rewind"):
    arrays = arrays_of(experiment, folder)
    factor = np.repeat(
        arrays["token_mask"][..., None] * arrays["piece_mask"], 3, axis=-1
    )
    assert (arrays["prompt"][factor == 0] == 0).all()
    assert (factor == 0).any()


def test_masks_hold_the_requested_counts_and_only_shrink(finished):
  experiment, _ = finished
  rows = result_of(experiment, "prune_token")["rows"]
  # Of 5 tokens 0.2 removes 1 and 0.6 removes 3; a token has 4 pieces.
  assert [
      (r["seed"], r["token_ratio"], r["kept_tokens"], r["kept_pieces"])
      for r in rows
  ] == [(3, 0.2, 4, 16), (3, 0.6, 2, 8), (8, 0.2, 4, 16), (8, 0.6, 2, 8)]
  before = arrays_of(experiment, "search_token")
  after = arrays_of(experiment, "rewind")
  winners = result_of(experiment, "rewind")["rows"]
  token_rows = result_of(experiment, "search_token")["rows"]
  for row, winner in enumerate(winners):
    parent = next(
        i
        for i, t in enumerate(token_rows)
        if (t["seed"], t["token_ratio"])
        == (winner["seed"], winner["token_ratio"])
    )
    np.testing.assert_array_equal(
        after["token_mask"][row], before["token_mask"][parent]
    )
    assert (after["piece_mask"][row] <= before["piece_mask"][parent]).all()
    kept = 16 if winner["token_ratio"] == 0.2 else 8
    share = 1 - winner["piece_ratio"]
    assert winner["kept_pieces"] == kept * share
    assert winner["tunable_parameters"] == 3 * kept * share


def test_pieces_are_scored_at_the_tuned_prompt_behind_the_token_masks(finished):
  experiment, _ = finished
  scores = arrays_of(experiment, "score_piece", artifacts.SCORES)
  winners = arrays_of(experiment, "rewind")
  token_mask = winners["token_mask"]
  assert (token_mask == 0).any()

  def score(prompt, token_mask):
    token, piece = scoring.score_table(
        prompt,
        PromptMasks(
            token_mask=token_mask,
            # No piece of a kept token is pruned yet.
            piece_mask=np.repeat(token_mask[..., None], examples.TINY_K, 2),
        ),
        experiment.rows("train", CONFIG.seeds),
        model=experiment.model,
        frozen_params=experiment.frozen_params,
        batch_size=CONFIG.score_batch_size,
    )
    return {"token_scores": token, "piece_scores": piece}

  tuned = arrays_of(experiment, "tune")["prompt"]
  expected = score(tuned, token_mask)
  for name in ("token_scores", "piece_scores"):
    np.testing.assert_array_equal(scores[name], expected[name])
  # A pruned token's pieces have no derivative left.
  assert (scores["piece_scores"][token_mask == 0] == 0).all()
  assert (scores["piece_scores"][token_mask == 1] > 0).any(axis=-1).all()
  # Another prompt, or other masks, would have shown.
  for other in (
      score(winners["prompt"], token_mask),
      score(tuned, np.ones_like(token_mask)),
  ):
    assert (other["piece_scores"] != scores["piece_scores"]).any()


def test_the_summary_compares_methods_on_both_splits(finished):
  _, summary = finished
  assert [m["method"] for m in summary["methods"]] == [
      "no_prompt",
      "prompt_tuning",
      "token",
      "xprompt",
  ]
  assert summary["tickets_tried"] == 8
  tuning = summary["methods"][1]["rows"]
  assert [row["seed"] for row in tuning] == [3, 8]
  assert tuning[0]["kept_tokens"] == 5
  assert tuning[0]["tunable_parameters"] == 60
  for method in summary["methods"]:
    for row in method["rows"]:
      assert row["validation"].keys() == {"accuracy", "score"}
      assert row["test"].keys() == {"accuracy", "score"}


def test_tickets_jsonl_has_a_line_for_each_ticket(finished):
  experiment, _ = finished
  lines = artifacts.read_json_lines(experiment.workdir / artifacts.TICKETS)
  assert [(t["folder"], t["row"]) for t in lines] == [
      *(("tune", row) for row in range(2)),
      *(("search_token", row) for row in range(4)),
      *(("search_piece", row) for row in range(4)),
  ]


def table_with(scores):
  """Tickets of seeds 1 and 2 with made-up validation scores."""
  rows = tuple(
      tickets.Ticket(seed=seed, token_ratio=ratio)
      for seed in (1, 2)
      for ratio in (0.1, 0.5, 0.9)
  )
  return tickets.Table(
      tickets=rows,
      prompt=np.zeros((6, 1, 2), np.float32),
      masks=masks_lib.full_masks(6, 1, 1),
      validation=tuple({"score": score} for score in scores),
  )


def test_each_seed_selects_its_own_best_ratio_and_ties_go_to_the_first():
  table = table_with([1.0, 3.0, 3.0, 5.0, 2.0, 4.0])
  assert strategies.best_rows(table, "token") == [1, 3]


def test_grid_tries_all_pairs_and_each_granularity_alone(tmp_path):
  config = dataclasses.replace(
      CONFIG,
      seeds=(3,),
      search=dataclasses.replace(CONFIG.search, strategy="grid"),
      train=dataclasses.replace(CONFIG.train, num_steps=1),
  )
  experiment = make_experiment(tmp_path, config)
  summary = search.run_experiment(experiment)
  lines = artifacts.read_json_lines(tmp_path / artifacts.TICKETS)
  tried = [
      (t["token_ratio"], t["piece_ratio"])
      for t in lines
      if t["folder"] == "search_grid"
  ]
  assert tried == [
      (0.2, None),
      (0.6, None),
      (None, 0.25),
      (None, 0.5),
      (0.2, 0.25),
      (0.2, 0.5),
      (0.6, 0.25),
      (0.6, 0.5),
  ]
  assert [m["method"] for m in summary["methods"]] == [
      "no_prompt",
      "prompt_tuning",
      "token",
      "piece",
      "xprompt",
  ]


def test_rewinding_to_the_initial_prompt(tmp_path):
  config = dataclasses.replace(
      CONFIG,
      search=SearchConfig(
          granularities=("token",), token_ratios=(0.4,), rewind_to="initial"
      ),
      train=dataclasses.replace(CONFIG.train, num_steps=1),
  )
  experiment = make_experiment(tmp_path, config)
  search.run_experiment(experiment)
  initial = stages.initial_table(experiment).prompt
  np.testing.assert_array_equal(arrays_of(experiment, "tune")["start"], initial)
  arrays = arrays_of(experiment, "search_token")
  np.testing.assert_array_equal(
      arrays["start"], initial * arrays["token_mask"][..., None]
  )
