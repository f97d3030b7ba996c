"""Every way that a split allows, and what several rows say together."""

import dataclasses

import numpy as np
import pytest

from tests import examples, tiny_experiment
from xprompt_jax import (
    answers,
    artifacts,
    candidates,
    evaluation,
    mixtures,
    search,
)
from xprompt_jax import masks as masks_lib
from xprompt_jax.token_cache import CachedSplit
from xprompt_jax.types import UserError


def closed(split: CachedSplit, texts=("!", " ", "\t!")) -> CachedSplit:
  """The split with the same candidates for every example."""
  return dataclasses.replace(
      split,
      examples=[
          {**e, "target": texts[0], "fields": {"candidates": list(texts)}}
          for e in split.examples
      ],
  )


def make(workdir, config=tiny_experiment.CONFIG, texts=("!", " ", "\t!")):
  made = tiny_experiment.make_experiment(workdir, config)
  splits = {k: closed(split, texts) for k, split in made.splits.items()}
  return dataclasses.replace(made, splits=splits)


def table(rows=2):
  prompt = 3.0 * examples.random_prompt(rows, examples.TINY_P, 12)
  masks = examples.random_masks(rows, examples.TINY_P, examples.TINY_K)
  return prompt, masks


def test_majority_vote():
  """Where as many say one as the other, the lowest row decides."""
  assert answers.majority_vote(
      [
          ["a", "a", "c", "a", "x"],
          ["b", "b", "b", "a", "y"],
          ["b", "a", "a", "c", "y"],
      ]
  ) == ["b", "a", "c", "a", "y"]
  assert answers.majority_vote([["a"], ["b"]]) == ["a"]
  assert answers.majority_vote([["a"], ["b"], ["b"], ["a"]]) == ["a"]


def test_every_way_is_what_it_is_alone(tmp_path):
  experiment = make(tmp_path)
  prompt, masks = table()
  rows = experiment.rows("test", (3, 8))
  found = answers.answer(experiment, rows, prompt, masks)
  assert list(found.texts) == list(evaluation.WAYS)
  for way in evaluation.WAYS:
    alone = evaluation.predict_table(
        prompt, masks, rows, **experiment.predicting, predict_by=way
    )
    assert [found.texts[way][row] for row in (0, 1)] == alone
  assert found.reasons(0) == {}
  # The metrics are those of the way that counts.
  assert found.result(1) == experiment.evaluate("test", prompt, masks)[1]
  ranked = dataclasses.replace(found, predict_by="rank")
  assert ranked.result(1) == found.by_other_ways(1)["rank"]
  assert list(ranked.by_other_ways(1)) == ["generate", "first_token"]


def test_rows_whose_splits_differ_in_what_they_allow(tmp_path):
  """One row has all ways, one no first token, and one writes freely."""
  experiment = make(tmp_path)
  whole = experiment.splits["test"]
  splits = [whole, closed(whole, ("!!", "! ")), examples.tiny_split(4)]
  prompt, masks = table(3)
  rows = experiment.rows_of(splits, (0, 0, 0))
  found = answers.answer(experiment, rows, prompt, masks)
  assert [sorted(found.texts[way]) for way in evaluation.WAYS] == [
      [0, 1, 2],
      [0, 1],
      [0],
  ]
  assert [sorted(found.reasons(row)) for row in range(3)] == [
      [],
      ["first_token"],
      ["first_token", "rank"],
  ]
  # Row 1 is scored with its own prompt.
  one = candidates.score_table(
      prompt[1:2],
      type(masks)(
          token_mask=masks.token_mask[1:2], piece_mask=masks.piece_mask[1:2]
      ),
      experiment.rows_of(splits[1:2], (0,)),
      "rank",
      **experiment.predicting,
  )
  np.testing.assert_allclose(found.scores["rank"][1], one[0], rtol=1e-5)


def test_members_of_a_mixture_are_ranked_where_they_have_candidates(tmp_path):
  """What is missing is named, and there is no score without it."""
  experiment = make(tmp_path)
  tasks = {
      "a": closed(examples.tiny_split(5), [chr(c) for c in range(1, 34)]),
      "b": closed(examples.tiny_split(4, 1), ("!!", "! ")),
      "free": examples.tiny_split(3, 2),
  }
  checksum = [{"function": tiny_experiment.CHECKSUM, "kwargs": {}}]
  members = [
      dataclasses.replace(s, task=task, info={**s.info, "metrics": checksum})
      for task, s in tasks.items()
  ]
  mixed = mixtures.mix("all", members, [1.0, 1.0, 1.0])
  prompt, masks = table(3)
  splits = [members[0], mixed, mixed]
  rows = experiment.rows_of(splits, (0, 0, 0))
  found = answers.answer(experiment, rows, prompt, masks)
  assert list(found.result(2)) == [
      "a/checksum",
      "b/checksum",
      "free/checksum",
      "score",
  ]
  ways = found.by_other_ways(2)
  assert {way: list(metrics) for way, metrics in ways.items()} == {
      "rank": ["a/checksum", "b/checksum"],
      "first_token": ["a/checksum"],
  }
  assert list(found.by_other_ways(0)["rank"]) == ["checksum", "score"]
  # Each row's own prompt answers, as on the task alone.
  for row in (1, 2):
    alone = answers.answer(
        experiment,
        experiment.rows_of([members[0]], (0,)),
        prompt[row : row + 1],
        masks_lib.take_rows(masks, np.array([row])),
    )
    for way, metrics in alone.by_other_ways(0).items():
      found_there = found.by_other_ways(row)[way]
      assert found_there["a/checksum"] == metrics["checksum"]
  assert found.by_other_ways(1)["rank"] != found.by_other_ways(2)["rank"]
  none = "found no candidates, expected a closed set of answers"
  assert found.reasons(2) == {
      "rank": f"task free, split train: {none}",
      "first_token": (
          "task b, split train: '!!' and '! ' start with the same token,"
          " expected candidates that differ in their first;"
          f" task free, split train: {none}"
      ),
  }
  # Neither votes nor submissions take what some members lack.
  assert list(found.scores["rank"]) == list(found.texts["rank"]) == [0]
  config = dataclasses.replace(experiment.config, predict_by="rank")
  ranked = dataclasses.replace(experiment, config=config)
  with pytest.raises(UserError) as refused:
    answers.answer(ranked, rows, prompt, masks)
  assert str(refused.value) == (
      f"PREDICT_BY = 'rank': task free, split train: {none}"
  )


def test_one_beam_is_greedy_and_more_are_not(tmp_path):
  experiment = make(tmp_path)
  prompt, masks = table()
  rows = experiment.rows("train", (3, 8))
  run = experiment.predicting
  greedy = evaluation.predict_table(prompt, masks, rows, **run)
  assert (
      evaluation.predict_table(prompt, masks, rows, **run, num_beams=1)
      == greedy
  )
  beams = evaluation.predict_table(prompt, masks, rows, **run, num_beams=3)
  assert beams != greedy
  config = dataclasses.replace(experiment.config, num_beams=3)
  searched = dataclasses.replace(experiment, config=config)
  found = answers.answer(searched, rows, prompt, masks, ways=())
  assert [found.texts["generate"][row] for row in (0, 1)] == beams


def test_training_selects_by_the_way_that_is_configured(tmp_path):
  """Some target is among the candidates; what the model writes never is."""
  config = dataclasses.replace(
      tiny_experiment.CONFIG, predict_by="rank", seeds=(3,)
  )
  experiment = make(tmp_path / "rank", config)
  prompt, masks = table(1)
  (by_rank,) = experiment.evaluate("train", prompt, masks)
  texts = answers.answer(
      experiment, experiment.rows("train", (3,)), prompt, masks
  ).texts
  expected = 100 * texts["rank"][0].count("!") / 7
  assert by_rank["accuracy"] == pytest.approx(expected)
  plain = make(tmp_path / "generate", tiny_experiment.CONFIG)
  # A run made before there was a choice goes on.
  assert "predict_by" not in plain.stage_config
  assert "num_beams" not in plain.stage_config
  assert experiment.stage_config["predict_by"] == "rank"


def test_a_run_reports_every_way_and_other_tasks(tmp_path):
  config = dataclasses.replace(
      tiny_experiment.CONFIG, seeds=(3,), eval_tasks=("other",)
  )
  experiment = make(tmp_path, config)
  others = {"other": closed(examples.tiny_split(3, 5))}
  experiment = dataclasses.replace(experiment, others=others)
  summary = search.run_experiment(experiment)
  assert summary["config"]["other_tasks"] == {
      "other": others["other"].fingerprint
  }
  assert "eval_tasks" not in summary["config"]
  for method in summary["methods"]:
    (row,) = method["rows"]
    assert row["ways"]["generate"] == row["test"]
    assert list(row["ways"]) == ["generate", "rank", "first_token"]
    assert row["not_possible"] == {}
    assert row["metric_sizes"] == {
        "test": {"accuracy": 5},
        "validation": {"accuracy": 4},
        "other": {"accuracy": 3},
    }
    assert list(row["other_tasks"]) == ["other"]
  stage = artifacts.read_json(tmp_path / "evaluate" / "result.json")
  assert stage["methods"] == summary["methods"]


def test_what_is_not_possible_is_reported_and_refused_where_it_counts(tmp_path):
  experiment = tiny_experiment.make_experiment(tmp_path)
  prompt, masks = table()
  lines = answers.final_lines(experiment, prompt, masks, [None, None])
  assert list(lines[1]["ways"]) == ["generate"]
  reason = (
      "task tiny, split train: found no candidates, expected a closed set of"
      " answers"
  )
  assert lines[1]["not_possible"] == {"rank": reason, "first_token": reason}
  config = dataclasses.replace(experiment.config, predict_by="rank")
  ranked = dataclasses.replace(experiment, config=config)
  with pytest.raises(UserError) as refused:
    answers.final_lines(ranked, prompt, masks, [None, None])
  assert str(refused.value) == f"PREDICT_BY = 'rank': {reason}"
