"""PROTOCOL = "heldout": what selects is not what is reported."""

import collections
import dataclasses
import json
import pathlib

import pytest

from tests import examples, shared_data, tiny_experiment
from xprompt_jax import (
    artifacts,
    correctness,
    experiment_config,
    halves,
    mixtures,
    search,
    task_data,
)
from xprompt_jax.task_config import TaskConfig
from xprompt_jax.types import PromptMasks, UserError


def _example(example_id, target="", **fields):
  return {
      "id": example_id,
      "target": target,
      "fields": {k.replace("__", "/"): v for k, v in fields.items()},
  }


def _split(made, task="tiny"):
  split = examples.tiny_split(len(made))
  return dataclasses.replace(split, examples=made, task=task)


def _ids(split):
  return [example["id"] for example in split.examples]


def test_the_division_depends_on_ids_alone():
  """sha256 of 9, 8, 4, 3, 0, 1, 7, 2, 6, 5 ascends; every other is reported."""
  made = [_example(str(i)) for i in range(10)]
  selects, reports = halves.divide(_split(made))
  assert _ids(selects) == ["0", "4", "6", "7", "9"]
  assert _ids(reports) == ["1", "2", "3", "5", "8"]
  # Neither the order nor what the examples say counts.
  other = [_example(str(i), "x", label=1) for i in reversed(range(10))]
  again = halves.divide(_split(other))
  assert [sorted(_ids(half)) for half in again] == [
      _ids(selects),
      _ids(reports),
  ]


def test_a_division_of_tokens_is_that_of_examples():
  split = _split([_example(str(i)) for i in range(10)])
  _, reports = halves.divide(split)
  for place, example in enumerate(reports.examples):
    source = int(example["id"])
    start, end = split.input_offsets[source : source + 2]
    first, last = reports.input_offsets[place : place + 2]
    assert (
        reports.inputs[first:last].tolist() == split.inputs[start:end].tolist()
    )
  assert reports.fingerprint != split.fingerprint


def test_what_shares_a_paragraph_or_a_question_stays_together():
  """As MultiRC: paragraphs 0, 1, 2 with questions, each with two answers."""
  made = [
      _example(
          f"{p}-{q}-{a}",
          {"group": q, "value": a},
          idx__paragraph=p,
          idx__question=q,
          idx__answer=a,
      )
      for p, q in ((0, 0), (0, 1), (1, 2), (2, 3), (2, 4), (2, 5))
      for a in (0, 1)
  ]
  assert sorted(map(sorted, halves.groups(made))) == [
      [0, 1, 2, 3],
      [4, 5],
      [6, 7, 8, 9, 10, 11],
  ]
  parts = halves.divide(_split(made))
  paragraphs = [
      {example["fields"]["idx/paragraph"] for example in part.examples}
      for part in parts
  ]
  assert not paragraphs[0] & paragraphs[1]
  assert abs(len(parts[0]) - len(parts[1])) <= 6
  assert len(parts[0]) + len(parts[1]) == 12


@pytest.mark.parametrize(
    "shared",
    [
        {"idx__passage": 4},
        {"idx__question": 4},
        {"target": {"group": 4, "value": 0}},
    ],
)
def test_what_ties_examples(shared):
  made = [_example("a", **shared), _example("b"), _example("c", **shared)]
  assert sorted(halves.groups(made)) == [[0, 2], [1]]


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        # BoolQ, with T5's prefix; RTE and CB.
        (
            (
                "boolq passage: Oil - oil. question: is it",
                "boolq passage: Oil. question: is it",
                "boolq passage: Oil - oil. question: was it",
            ),
            [[0, 2], [1]],
        ),
        (
            (
                "hypothesis: It rains. premise: It pours.",
                "hypothesis: It pours. premise: It pours.",
                "hypothesis: It pours. premise: It rains.",
            ),
            [[0, 1], [2]],
        ),
        # WSC; the third marks the same pronoun as T5 parts a word.
        (
            (
                'He said to *him* ,"go with him."',
                "He said nothing to *him* .",
                'He said to him,"go with *him*."',
            ),
            [[0, 2], [1]],
        ),
    ],
)
def test_what_shares_a_text_stays_together(texts, expected):
  made = [
      {**_example(str(i)), "inputs_pretokenized": text}
      for i, text in enumerate(texts)
  ]
  assert sorted(halves.groups(made)) == expected


@pytest.mark.parametrize(
    ("task", "field", "shared", "total", "most"),
    [
        ("boolq", "passage", 576, 3270, 9),
        ("rte", "premise", 6, 277, 2),
        ("wsc", "text", 94, 104, 8),
    ],
)
def test_no_official_text_is_cut(
    tmp_path, monkeypatch, task, field, shared, total, most
):
  """Examples that share one, as counted in the official file itself."""
  folder = {"boolq": "BoolQ", "rte": "RTE", "wsc": "WSC"}[task]
  source = shared_data.path("super_glue")
  monkeypatch.setenv("SUPER_GLUE_DIR", str(source))
  lines = (source / folder / "val.jsonl").read_text().splitlines()
  texts = {row["idx"]: row[field] for row in map(json.loads, lines)}
  counts = collections.Counter(texts.values())
  assert sum(n for n in counts.values() if n > 1) == shared
  config = _config(
      name=task,
      module="xprompt_jax.tasks.super_glue",
      protocol="heldout",
      inputs_length=8,
  )
  roles = ("validation", "heldout")
  _, splits = task_data.load_splits(config, tmp_path, 384, roles)
  made = [splits[role].examples for role in roles]
  first, second = (
      {texts[example["fields"]["idx"]] for example in half} for half in made
  )
  assert not first & second
  assert len(made[0]) + len(made[1]) == total
  assert abs(len(made[0]) - len(made[1])) <= most


def test_one_group_cannot_be_divided():
  made = [_example("a", idx__passage=1), _example("b", idx__passage=1)]
  with pytest.raises(UserError) as refused:
    halves.divide(_split(made))
  assert str(refused.value) == (
      "PROTOCOL = 'heldout': task tiny, split train: found 1 group of examples"
      " that share a question or passage, expected two or more to divide"
  )


def test_each_member_of_a_mixture_is_divided():
  members = [
      _split([_example(str(i)) for i in range(n)], task)
      for task, n in (("a", 10), ("b", 4))
  ]
  parts = halves.divide(mixtures.mix("all", members, [1.0, 2.0]))
  for part, which in zip(parts, (0, 1), strict=True):
    assert part.rates == (1.0, 2.0)
    for member, whole in zip(part.members, members, strict=True):
      assert _ids(member) == _ids(halves.divide(whole)[which])


def _config(**changes):
  return dataclasses.replace(tiny_experiment.CONFIG.task, **changes)


def test_splits_by_role(monkeypatch):
  """`t5x eval` asks for validation alone, and gets all of it."""
  made = {
      split: _split([_example(f"{split}{i}") for i in range(10)])
      for split in ("train", "validation")
  }
  monkeypatch.setattr(
      task_data.token_cache,
      "ensure_token_cache",
      lambda split, **_: made[split],
  )
  monkeypatch.setattr(task_data.mixtures, "ensure_mixture", lambda **_: None)

  def ids(protocol, *roles):
    config = _config(protocol=protocol)
    _, splits = task_data.load_splits(config, pathlib.Path(), 384, roles)
    return {role: _ids(split) for role, split in splits.items()}

  whole = {split: _ids(part) for split, part in made.items()}
  # sha256 of validation3, 4, 7, 0, 9, 2, 5, 8, 6, 1 ascends.
  selects, reports = [3, 5, 6, 7, 9], [0, 1, 2, 4, 8]
  every = ("train", "validation", "test", "heldout")
  assert ids("heldout", *every) == {
      "train": whole["train"],
      "validation": [f"validation{i}" for i in selects],
      "heldout": [f"validation{i}" for i in reports],
  }
  assert ids("paper", *every) == whole
  assert ids("heldout", "validation") == {"validation": whole["validation"]}


def test_an_unknown_protocol_is_refused():
  with pytest.raises(UserError) as refused:
    _config(protocol="half")
  assert str(refused.value) == (
      "PROTOCOL: found 'half', expected paper or heldout"
  )


def test_the_default_protocol_leaves_configs_as_they_were():
  config = tiny_experiment.CONFIG
  assert "protocol" not in experiment_config.result_fields(config)["task"]
  heldout = dataclasses.replace(config, task=_config(protocol="heldout"))
  fields = experiment_config.result_fields(heldout)
  assert fields["task"]["protocol"] == "heldout"


@pytest.fixture(scope="module")
def heldout_run(tmp_path_factory):
  """A run whose validation of four was divided, with test beside it."""
  workdir = tmp_path_factory.mktemp("heldout")
  config = dataclasses.replace(
      tiny_experiment.CONFIG, seeds=(3,), task=_config(protocol="heldout")
  )
  experiment = tiny_experiment.make_experiment(workdir, config)
  validation, heldout = halves.divide(experiment.splits["validation"])
  splits = {
      "train": experiment.splits["train"],
      "validation": validation,
      "heldout": heldout,
      "test": experiment.splits["test"],
  }
  experiment = dataclasses.replace(experiment, splits=splits)
  return experiment, search.run_experiment(experiment)


def test_a_run_reports_the_other_half(heldout_run):
  experiment, summary = heldout_run
  assert summary["num_examples"] == {
      "train": 7,
      "validation": 2,
      "heldout": 2,
      "test": 5,
  }
  config = summary["config"]
  assert config["splits"]["validation"] == (
      experiment.splits["validation"].fingerprint
  )
  assert config["test"] == {
      role: experiment.splits[role].fingerprint for role in ("heldout", "test")
  }
  tuned = artifacts.load_arrays(experiment.workdir / "tune" / artifacts.PROMPT)
  for method in summary["methods"]:
    (row,) = method["rows"]
    assert row["ways"]["generate"] == row["test"]
    assert row["metric_sizes"] == {
        "validation": {"accuracy": 2},
        "heldout": {"accuracy": 2},
        "test": {"accuracy": 5},
    }
  found = experiment.evaluate(
      "heldout",
      tuned["prompt"],
      PromptMasks(
          token_mask=tuned["token_mask"], piece_mask=tuned["piece_mask"]
      ),
  )
  assert summary["methods"][1]["rows"][0]["heldout"] == found[0]


def test_what_each_row_answers_right_is_kept(heldout_run):
  experiment, summary = heldout_run
  arrays = correctness.load(experiment.workdir)
  assert {k: v.shape for k, v in arrays.items()} == {
      f"{method['method']}/{role}": (1, size)
      for method in summary["methods"]
      for role, size in (("heldout", 2), ("test", 5))
  }
  for method in summary["methods"]:
    for role in ("heldout", "test"):
      (right,) = correctness.rows_of(arrays, method["method"], role, 1)
      assert 100 * right.mean() == method["rows"][0][role]["accuracy"]


def test_seeds_and_machines_agree():
  """The data of a row is the same whatever its seed."""
  made = _split([_example(str(i)) for i in range(10)])
  validation, heldout = halves.divide(made)
  data = task_data.RowData(
      config=_config(protocol="heldout"),
      splits={"validation": validation, "heldout": heldout},
  )
  assert data.split("heldout", 0) is data.splits["heldout"]
  assert data.split("heldout", 7) is data.splits["heldout"]
  assert data.num_examples(0) == {"validation": 5, "heldout": 5}


def test_a_task_config_names_its_protocol():
  assert TaskConfig(name="a", module="b", vocabulary="bytes").protocol == (
      "paper"
  )


def test_paragraphs_of_multirc_are_not_cut(tmp_path, monkeypatch):
  """300 of its official answers."""
  monkeypatch.setenv("SUPER_GLUE_DIR", str(shared_data.path("super_glue")))
  config = _config(
      name="multirc",
      module="xprompt_jax.tasks.super_glue",
      protocol="heldout",
      inputs_length=8,
      max_examples=300,
  )
  roles = ("validation", "heldout")
  _, splits = task_data.load_splits(config, tmp_path, 384, roles)
  made = [splits[role].examples for role in roles]
  paragraphs = [{e["fields"]["idx/paragraph"] for e in half} for half in made]
  assert paragraphs[0] and paragraphs[1]
  assert not paragraphs[0] & paragraphs[1]
  assert len(made[0]) + len(made[1]) == 300
  largest = max(len(group) for half in made for group in halves.groups(half))
  assert abs(len(made[0]) - len(made[1])) <= largest
  # The same on a machine that has but the cache.
  _, again = task_data.load_splits(config, tmp_path, 384, roles)
  for role in roles:
    assert again[role].fingerprint == splits[role].fingerprint
