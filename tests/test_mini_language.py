"""The mini-language: its rows, splits and texts."""

from collections import Counter
import random

import pytest

from xprompt_jax.tasks import mini_language as lang
from xprompt_jax.tasks import preprocessors, schemas
from xprompt_jax.tasks import rows as superglue
from xprompt_jax.types import UserError

FACTS = [("leo", "red", "drum"), ("tom", "black", "toy")]


def test_first_validation_rows():
  first = {task: lang.rows(task, "validation")[0] for task in lang.TASKS}
  assert first == {
      "mini_boolq": {
          "question": "does leo have a black ball",
          "passage": (
              "felix has a brown bag . jack has a pink cup ."
              " leo has a black ball ."
          ),
          "label": True,
          "idx": 0,
      },
      "mini_rte": {
          "premise": (
              "felix has a red ring . david has a white cup ."
              " maria has a pink bag ."
          ),
          "hypothesis": "maria has a pink bag .",
          "label": "entailment",
          "idx": 0,
      },
      "mini_cb": {
          "premise": "mark has a pink kite . nina has a blue hat .",
          "hypothesis": "mark has a pink drum .",
          "label": "contradiction",
          "idx": 0,
      },
      "mini_wsc": {
          "text": "nina called david at the zoo because she was lonely .",
          "target": {
              "span1_index": 0,
              "span1_text": "nina",
              "span2_index": 7,
              "span2_text": "she",
          },
          "label": True,
          "idx": 0,
      },
  }


@pytest.mark.parametrize("task", lang.TASKS)
def test_splits_have_their_sizes_and_share_no_input(task):
  train = 4000 if task == "mini_wsc" else 2000
  sizes = {"train": train, "validation": 200, "test": 400}
  inputs = []
  for split, size in sizes.items():
    rows = lang.rows(task, split)
    assert [row["idx"] for row in rows] == list(range(size))
    inputs += [lang.model_text(task, row)[0] for row in rows]
  assert len(set(inputs)) == sum(sizes.values())


@pytest.mark.parametrize(
    ("task", "split", "counts"),
    [
        ("mini_boolq", "test", {True: 200, False: 200}),
        ("mini_boolq", "train_32", {True: 16, False: 16}),
        ("mini_rte", "test", {"entailment": 200, "not_entailment": 200}),
        ("mini_rte", "train_32", {"entailment": 16, "not_entailment": 16}),
        (
            "mini_cb",
            "test",
            {"entailment": 134, "contradiction": 133, "neutral": 133},
        ),
        (
            "mini_cb",
            "train_32",
            {"entailment": 11, "contradiction": 11, "neutral": 10},
        ),
        ("mini_wsc", "test", {True: 200, False: 200}),
        ("mini_wsc", "train_32", {True: 32, False: 32}),
    ],
)
def test_labels_are_balanced(task, split, counts):
  rows = lang.rows(task, split)
  assert Counter(row["label"] for row in rows) == counts


@pytest.mark.parametrize("task", lang.TASKS)
def test_rows_are_the_same_at_every_call_and_their_own(task):
  first = lang.rows(task, "validation")
  first[0]["label"] = "changed"
  assert lang.rows(task, "validation")[0]["label"] != "changed"
  assert lang.rows(task, "validation")[1:] == first[1:]


@pytest.mark.parametrize("task", lang.TASKS)
def test_few_shot_rows_come_from_train(task):
  train = lang.rows(task, "train")
  for row in lang.rows(task, "train_32"):
    assert row == train[row["idx"]]


@pytest.mark.parametrize("task", lang.TASKS)
def test_texts_are_those_of_the_superglue_tasks(task):
  schema = schemas.SCHEMAS[task.removeprefix("mini_")]
  rows = lang.rows(task, "validation")
  checked = superglue.check_rows(
      ((str(row["idx"]), row) for row in rows), schema, labelled=True
  )
  for row, same in zip(rows, checked, strict=True):
    if schema.layout == "wsc":
      example = preprocessors.wsc(same)
    else:
      example = preprocessors.classification(
          same, fields=schema.fields, labels=schema.labels
      )
    text = (example["inputs"], example["targets"])
    assert text == lang.model_text(task, row)


def test_a_changed_fact_never_holds():
  rng = random.Random(1)
  for slot in (0, 1, 2):
    for known in (True, False):
      changed = [lang.change(rng, FACTS, slot, known=known) for _ in range(50)]
      assert not set(changed) & set(FACTS)
      used = {fact[slot] for fact in FACTS}
      assert {fact[slot] in used for fact in changed} == {known}


def test_one_person_has_two_things():
  facts = lang.draw_facts(random.Random(2), 3, two_things=1.0)
  assert [len(set(words)) for words in zip(*facts, strict=True)] == [2, 3, 3]
  facts = lang.draw_facts(random.Random(2), 3)
  assert [len(set(words)) for words in zip(*facts, strict=True)] == [3, 3, 3]


def _facts(text):
  """[(name, colour, thing)] of sentences "anna has a red ball ."."""
  words = text.split()
  starts = range(0, len(words), 6)
  return [(words[i], words[i + 3], words[i + 4]) for i in starts]


def test_labels_follow_from_the_facts():
  for row in lang.rows("mini_boolq", "test"):
    words = row["question"].split()
    asked = (words[1], words[4], words[5])
    assert row["label"] is (asked in _facts(row["passage"]))
  for row in lang.rows("mini_rte", "test"):
    stated = _facts(row["hypothesis"])[0] in _facts(row["premise"])
    assert row["label"] == ("entailment" if stated else "not_entailment")
  for row in lang.rows("mini_cb", "test"):
    said, facts = _facts(row["hypothesis"])[0], _facts(row["premise"])
    if said in facts:
      expected = "entailment"
    else:
      known = said[0] in [fact[0] for fact in facts]
      expected = "contradiction" if known else "neutral"
    assert row["label"] == expected


def test_the_referent_agrees_with_gender_and_reason():
  for row in lang.rows("mini_wsc", "test"):
    words = row["text"].split()
    does, deed, other = words[:3]
    one_who_does, one_it_is_done_to = lang.DEEDS[deed]
    assert one_who_does != one_it_is_done_to
    meant = does if words[9] == one_who_does else other
    assert (words[7] == "she") == (meant in lang.WOMEN)
    target = row["target"]
    assert target["span1_text"] == words[target["span1_index"]]
    assert row["label"] is (target["span1_text"] == meant)


@pytest.mark.parametrize(
    ("task", "split", "message"),
    [
        ("boolq", "train", "task: found 'boolq', expected one of mini_boolq,"),
        (
            "mini_cb",
            "dev",
            "split of mini_cb: found 'dev', expected one of train,",
        ),
    ],
)
def test_unknown_names_are_refused(task, split, message):
  with pytest.raises(UserError, match=message):
    lang.rows(task, split)
