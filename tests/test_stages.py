"""Stages over files: done is done, another config is refused, rewind is exact."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest

from tests import examples
from xprompt_jax import artifacts, search, stages, vocabularies
from xprompt_jax import masks as masks_lib
from xprompt_jax.experiment import Experiment, ExperimentConfig, TaskConfig
from xprompt_jax.optimizer import OptimizerConfig
from xprompt_jax.prompts import PromptConfig
from xprompt_jax.pruning import SearchConfig
from xprompt_jax.trainer import TrainConfig
from xprompt_jax.types import UserError

CONFIG = ExperimentConfig(
    model=examples.TINY,
    checkpoint="random:3",
    task=TaskConfig(
        name="tiny",
        module="none",
        inputs_length=8,
        targets_length=4,
        buckets=(8,),
        vocabulary="bytes",
        extra_ids=0,
    ),
    prompt=PromptConfig(
        length=examples.TINY_P,
        num_pieces=examples.TINY_K,
        init="random_uniform",
    ),
    optimizer=OptimizerConfig(),
    train=TrainConfig(
        batch_size=3, num_epochs=None, num_steps=4, eval_every_steps=2
    ),
    search=SearchConfig(token_ratios=(0.2, 0.6), piece_ratios=(0.25, 0.5)),
    seeds=(3, 8),
    eval_batch_size=32,
    score_batch_size=32,
)


def make_experiment(
    workdir: pathlib.Path, config: ExperimentConfig = CONFIG
) -> Experiment:
  return Experiment(
      config=config,
      workdir=workdir,
      model=examples.TINY_MODEL,
      frozen_params=examples.tiny_params(),
      fingerprint="f",
      vocabulary=vocabularies.load_vocabulary("bytes", 0),
      splits={
          "train": examples.tiny_split(7),
          "validation": examples.tiny_split(4, seed=1),
          "test": examples.tiny_split(5, seed=2),
      },
  )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
  """A whole linear search: its experiment and its summary."""
  experiment = make_experiment(tmp_path_factory.mktemp("run"))
  return experiment, search.run_experiment(experiment)


def files_of(folder):
  return {
      str(p.relative_to(folder)): p.read_bytes()
      for p in sorted(folder.rglob("*"))
      if p.is_file() and artifacts.TENSORBOARD not in p.parts
  }


def arrays_of(experiment, folder, name=artifacts.PROMPT):
  return artifacts.load_arrays(experiment.workdir / folder / name)


def result_of(experiment, folder):
  return artifacts.read_json(experiment.workdir / folder / artifacts.RESULT)


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
      "evaluate/result.json",
      "tickets.jsonl",
      "result.json",
  }


def test_a_finished_run_again_changes_no_file(finished):
  experiment, summary = finished
  before = files_of(experiment.workdir)
  times = {p: p.stat().st_mtime_ns for p in experiment.workdir.rglob("*")}
  assert search.run_experiment(make_experiment(experiment.workdir)) == (
      json.loads(json.dumps(summary))
  )
  # Stage by stage, too.
  (experiment.workdir / artifacts.RESULT).unlink()
  search.run_experiment(make_experiment(experiment.workdir))
  assert files_of(experiment.workdir) == before
  for path, time in times.items():
    if path.name not in ("result.json", "tickets.jsonl", path.parts[-1]):
      assert path.stat().st_mtime_ns == time


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


def test_a_run_stopped_in_any_stage_ends_where_another_ends(finished, tmp_path):
  """Stopped at every evaluation in turn and started again each time."""
  experiment, _ = finished
  evaluate = Experiment.evaluate
  for attempt in range(1, 40):
    again = make_experiment(tmp_path)
    calls = []

    def stopping(*args, calls=calls, again=again, attempt=attempt):
      calls.append(1)
      # Late enough in the end for the stage that evaluates three times.
      if len(calls) == (2 if attempt < 14 else 5):
        raise KeyboardInterrupt
      return evaluate(again, *args)

    object.__setattr__(again, "evaluate", stopping)
    try:
      search.run_experiment(again)
      break
    except KeyboardInterrupt:
      continue
  assert attempt > 6
  # Results hold wall times; what they say of tickets is compared below.
  found, expected = (
      {
          name: content
          for name, content in files_of(folder).items()
          if not name.endswith("result.json")
      }
      for folder in (tmp_path, experiment.workdir)
  )
  assert found == expected
  first, second = (
      artifacts.read_json(folder / artifacts.RESULT)
      for folder in (experiment.workdir, tmp_path)
  )
  assert first["methods"] == second["methods"]


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
  masks = arrays_of(experiment, "rewind")["token_mask"]
  # A pruned token's pieces have no derivative left.
  assert (scores["piece_scores"][masks == 0] == 0).all()
  assert (scores["piece_scores"][masks == 1] > 0).any(axis=-1).all()


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
  tickets = tuple(
      stages.Ticket(seed=seed, token_ratio=ratio)
      for seed in (1, 2)
      for ratio in (0.1, 0.5, 0.9)
  )
  return stages.Table(
      tickets=tickets,
      prompt=np.zeros((6, 1, 2), np.float32),
      masks=masks_lib.full_masks(6, 1, 1),
      validation=tuple({"score": score} for score in scores),
  )


def test_each_seed_selects_its_own_best_ratio_and_ties_go_to_the_first():
  table = table_with([1.0, 3.0, 3.0, 5.0, 2.0, 4.0])
  assert search.best_rows(table, "token") == [1, 3]


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
