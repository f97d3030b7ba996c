"""Mixtures: members and rates, the order they are read in, and few-shot."""

import dataclasses
import hashlib
import json
import pathlib
import sys

import numpy as np
import pytest

from tests import command_line, examples
from xprompt_jax import artifacts, batches, few_shot, mixtures
from xprompt_jax.task_config import TaskConfig
from xprompt_jax.types import UserError

MODULE = "tests.mixed_tasks"
SOURCE = pathlib.Path(__file__).with_name("mixed_tasks.py")


@pytest.mark.parametrize(
    ("rates", "total", "shares"),
    [
        ((1, 1), 6, (3, 3)),
        # 1.75, 3.5 and 1.75: the two that are left go to .75 and .75.
        ((1, 2, 1), 7, (2, 3, 2)),
        # Equal remainders: the first.
        ((1.0, 1.0, 1.0), 4, (2, 1, 1)),
        ((250, 2490, 400), 3140, (250, 2490, 400)),
        ((0.1, 0.2, 0.7), 10, (1, 2, 7)),
    ],
)
def test_largest_remainders(rates, total, shares):
  assert mixtures.largest_remainders(rates, total) == shares


def split_of(task, first_token, count, target=7):
  """`count` examples whose first input token tells them apart."""
  return examples.make_split(
      [[first_token + i, 1] for i in range(count)],
      [[target, 1]] * count,
      task,
  )


A, B = split_of("a", 10, 2), split_of("b", 20, 4)


def read(split, seed, steps, batch_size):
  """First input tokens of each step."""
  found = []
  for step in range(steps):
    indices = batches.split_indices(
        split, seed=seed, step=step, batch_size=batch_size
    )
    found.append(split.pad_inputs(indices, 2)[:, 0].tolist())
  return found


def test_a_proportional_mixture_reads_every_example_once_an_epoch():
  both = mixtures.mix("both", [A, B], [2.0, 4.0])
  assert both.quotas == (2, 4)
  # Seed 3 takes b b b b a a, then a a b b b b.
  assert read(both, 3, 2, 6) == [
      [20, 21, 22, 23, 10, 11],
      [10, 11, 23, 20, 21, 22],
  ]
  assert read(both, 4, 1, 6) != read(both, 3, 1, 6)


def test_the_stream_of_a_member_is_that_of_the_task_alone():
  both = mixtures.mix("both", [A, B], [1.0, 1.0])
  # Three of each an epoch: `a` is read one and a half times.
  assert both.quotas == (3, 3)
  tokens = [token for step in read(both, 5, 8, 4) for token in step]
  for member in (A, B):
    first = member.inputs[0] // 10
    own = [token for token in tokens if token // 10 == first]
    alone = [token for step in read(member, 5, 5, 4) for token in step]
    assert own == alone[: len(own)]
  # Batches run across the ends of epochs; each epoch keeps its quotas.
  for epoch in np.split(np.array(tokens[:30]), 5):
    assert (epoch < 20).sum() == 3


def test_a_rate_too_small_for_an_epoch_is_refused():
  both = mixtures.mix("both", [A, B], [1.0, 100.0])
  message = "mixture both: examples of a in an epoch of 6: found 0, expected"
  with pytest.raises(UserError, match=message):
    _ = both.quotas


def test_a_mixture_of_some_members():
  both = mixtures.mix("three", [A, B, split_of("c", 30, 3)], [1.0, 2.0, 5.0])
  some = both.only([both.members[2], both.members[0]])
  assert [member.task for member in some.members] == ["a", "c"]
  assert some.rates == (1.0, 5.0)
  assert some.inputs.tolist() == [10, 1, 11, 1, 30, 1, 31, 1, 32, 1]


def test_examples_of_a_mixture_have_their_tasks_answers():
  described = {
      "function": "xprompt_jax.tasks.postprocessors:class_id",
      "kwargs": {"labels": ["no", "yes"]},
  }
  old = dataclasses.replace(B, info={**B.info, "postprocessor": described})
  both = mixtures.mix("both", [A, old], [1.0, 1.0])
  assert [both.candidates(i) for i in (1, 2)] == [(), ("no", "yes")]


def test_metrics_are_named_by_task_and_the_score_is_their_mean_over_tasks():
  metric = {"function": f"{__name__}:_two_metrics", "kwargs": {}}
  two = dataclasses.replace(A, info={**A.info, "metrics": [metric]})
  both = mixtures.mix("both", [two, B], [1.0, 1.0])
  found = both.compute_metrics(["", "x", "", "x", "x", "x"])
  assert found == {"a/f1a": 50.0, "a/em": 0.0, "b/accuracy": 25.0}
  # (50 + 0) / 2 and 25.
  assert both.score(found) == 25.0
  assert two.score({"f1a": 50.0, "em": 0.0}) == 25.0


def _two_metrics(targets, predictions):
  return {
      **{"f1a": examples.exact_match(targets, predictions)["accuracy"]},
      "em": 0.0,
  }


@pytest.mark.parametrize(
    ("mixture", "rates"),
    [
        (
            "four_equal",
            {"mini_boolq": 1, "mini_cb": 1, "mini_rte": 1, "mini_wsc": 1},
        ),
        (
            "four_proportional",
            {
                "mini_boolq": 2000,
                "mini_cb": 2000,
                "mini_rte": 2000,
                "mini_wsc": 2000,
            },
        ),
        (
            "four_temperature",
            {
                "mini_boolq": 2000**0.5,
                "mini_cb": 2000**0.5,
                "mini_rte": 2000**0.5,
                "mini_wsc": 2000**0.5,
            },
        ),
        ("nested", {"mini_cb": 1, "mini_rte": 3, "mini_wsc": 6}),
        ("mini_cb", None),
    ],
)
def test_members_and_rates_are_asked_once(
    monkeypatch, tmp_path, mixture, rates
):
  arguments = {
      "name": mixture,
      "module": MODULE,
      "cache_dir": tmp_path,
      "wanted": "here",
  }
  assert mixtures.ensure_mixture(**arguments) == rates
  if rates is None:
    return
  file = tmp_path / mixture / "mixture.json"
  assert json.loads(file.read_text()) == {
      "settings": {"format": 1, "mixture": mixture, "module": MODULE},
      "module_sha256": hashlib.sha256(SOURCE.read_bytes()).hexdigest(),
      "members": [{"task": k, "rate": v} for k, v in rates.items()],
  }
  for name in ("tensorflow", "seqio"):
    monkeypatch.setitem(sys.modules, name, None)
  assert mixtures.ensure_mixture(**arguments) == rates
  with pytest.raises(UserError, match="settings.module|module is"):
    mixtures.ensure_mixture(**(arguments | {"module": "other"}))
  file.write_text('{"settings": {"format": 1}}')
  with pytest.raises(UserError, match="belongs to another config"):
    mixtures.ensure_mixture(**arguments)


def labelled(labels):
  """A split of one example for each label."""
  split = split_of("labelled", 10, len(labels))
  found = [
      {**example, "fields": {"idx": i, "label": label}}
      for i, (example, label) in enumerate(
          zip(split.examples, labels, strict=True)
      )
  ]
  return dataclasses.replace(split, examples=found)


SKEWED = labelled([0, 0, 0, 0, 0, 0, 0, 1, 1, 2])


@pytest.mark.parametrize(
    ("count", "seed", "balanced", "chosen"),
    [
        (4, 0, True, [2, 3, 7, 9]),
        (4, 1, True, [2, 4, 8, 9]),
        # Label 2 has one, label 1 two: the rest is of label 0.
        (7, 0, True, [1, 2, 3, 4, 7, 8, 9]),
        (4, 0, False, [1, 2, 3, 4]),
        (10, 3, True, list(range(10))),
    ],
)
def test_few_shot_choices(count, seed, balanced, chosen):
  found = few_shot.chosen(SKEWED, count, seed, balanced=balanced)
  assert found.tolist() == chosen


def test_labels_of_any_kind_are_balanced():
  split = labelled([0, None, "0", 1, [0], 0, 0, None, "0"])
  found = few_shot.chosen(split, 5, 0, balanced=True)
  # One of each: None, "0", 1, [0] and 0.
  assert found.tolist() == [1, 2, 3, 4, 6]


def test_a_subset_holds_the_chosen_examples_and_says_so():
  found = few_shot.subset(SKEWED, 4, 0, balanced=True)
  assert found.pad_inputs(np.arange(4), 2).tolist() == [
      [12, 1],
      [13, 1],
      [17, 1],
      [19, 1],
  ]
  assert [e["fields"]["idx"] for e in found.examples] == [2, 3, 7, 9]
  other = few_shot.subset(SKEWED, 4, 1, balanced=True)
  prints = {s.fingerprint for s in (SKEWED, found, other)}
  assert len(prints) == 3
  again = few_shot.subset(SKEWED, 4, 0, balanced=True)
  assert again.fingerprint == found.fingerprint


def test_each_member_of_a_mixture_gives_as_many_shots():
  both = mixtures.mix("both", [SKEWED, B], [3.0, 1.0])
  found = few_shot.subset(both, 3, 0, balanced=True)
  assert found.sizes == (3, 3)
  assert found.rates == (3.0, 1.0)


def test_more_shots_than_examples_are_refused():
  with pytest.raises(UserError) as refusal:
    few_shot.subset(B, 5, 0, balanced=False)
  assert str(refusal.value) == (
      "TaskConfig.few_shot: found 5, expected at most the 4 examples of task b,"
      " split train"
  )


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (
            {"mixture_rows": "rows"},
            "TaskConfig.mixture_rows: found 'rows', expected mixture or task",
        ),
        (
            {"few_shot": 0},
            "TaskConfig.few_shot: found 0, expected an integer >= 1",
        ),
        (
            {"few_shot_seed": -1},
            "TaskConfig.few_shot_seed: found -1, expected an integer >= 0",
        ),
        (
            {"few_shot_balanced": 1},
            "TaskConfig.few_shot_balanced: found 1, expected True or False",
        ),
    ],
)
def test_refused_configs(unchecked, change, line):
  with pytest.raises(UserError) as refusal:
    TaskConfig(name="t", module="m", vocabulary="bytes", **change)
  assert str(refusal.value) == line


MIXED = (
    *command_line.TINY,
    "--gin.MIXTURE_OR_TASK_NAME='two_weighted'",
    f"--gin.MIXTURE_OR_TASK_MODULE={MODULE!r}",
)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ("--gin.NUM_EPOCHS=2", "--gin.NUM_STEPS=None"),
            "TrainConfig.num_steps: found None, expected a number, and"
            " num_epochs = None: rows that read different tasks have no epoch in"
            " common",
        ),
        (
            ("--gin.EVAL_EVERY_STEPS=None",),
            "TrainConfig.eval_every_steps: found None, expected a number,"
            " EVAL_EVERY_STEPS: rows that read different tasks have no epoch in"
            " common",
        ),
        (
            ("--gin.MIXTURE_OR_TASK_NAME='mini_cb'",),
            "TaskConfig.mixture_rows: found 'task, and the task mini_cb',"
            " expected a mixture",
        ),
    ],
)
def test_refused_tables(capsys, tmp_path, arguments, line):
  found = command_line.refused(
      capsys,
      "train",
      *MIXED,
      "--gin.MIXTURE_ROWS='task'",
      *arguments,
      f"--workdir={tmp_path}",
  )
  assert found == line


def test_few_shot_ids_are_on_record_and_another_draw_is_refused(
    capsys, tmp_path
):
  arguments = (
      "train",
      *command_line.TINY,
      "--gin.FEW_SHOT=4",
      f"--workdir={tmp_path}",
  )
  assert command_line.run(*arguments) == 0
  run = artifacts.read_json(tmp_path / artifacts.RUN)
  assert list(run["few_shot"]) == ["0", "5"]
  examples_of = artifacts.read_json_lines(
      tmp_path / "cache/mini_boolq/train.jsonl"
  )
  labels = {line["id"]: line["fields"]["label"] for line in examples_of}
  for ids in run["few_shot"].values():
    assert sorted(labels[i] for i in ids) == [0, 0, 1, 1]
  assert run["few_shot"]["0"] != run["few_shot"]["5"]
  summary = artifacts.read_json(tmp_path / artifacts.RESULT)
  assert summary["num_examples"] == {"train": 4, "validation": 12, "test": 12}
  capsys.readouterr()
  found = command_line.refused(capsys, *arguments, "--gin.FEW_SHOT_SEED=5")
  assert "few_shot.0 is" in found
