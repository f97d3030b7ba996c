"""Texts, answers and metrics of the tasks: T5's, literally."""

import subprocess
import sys

import pytest

from tests import shared_data
from xprompt_jax.tasks import (
    metrics,
    mini_language,
    postprocessors,
    preprocessors,
    rows,
    schemas,
)
from xprompt_jax.types import UserError

RTE = {
    "premise": "No Weapons of Mass Destruction Found in Iraq Yet.",
    "hypothesis": "Weapons of Mass Destruction Found in Iraq.",
    "idx": 0,
    "label": 1,
}
WSC = {
    "text": "Mark told Pete many lies . He should have been sceptical.",
    "span1_text": "Pete",
    "span1_index": 2,
    "span2_text": "He",
    "span2_index": 6,
    "idx": 4,
    "label": 1,
}
WHIP = (
    "The boy continued to whip the pony , and eventually the pony threw him"
    ' over. John laughed out quite loud. "Good for him," he said. '
)
PEBBLE = (
    "When they had eventually calmed down a bit , and had gotten home, Mr."
    " Farley put the magic pebble in an iron safe . Some day they might want to"
    " use it , but really for now, what more could they wish for?"
)


class TestText:
  """What the model reads and should say."""

  @pytest.mark.parametrize(
      ("name", "inputs"),
      [
          (
              "",
              "hypothesis: Weapons of Mass Destruction Found in Iraq. premise:"
              " No Weapons of Mass Destruction Found in Iraq Yet.",
          ),
          (
              "rte",
              "rte hypothesis: Weapons of Mass Destruction Found in Iraq."
              " premise: No Weapons of Mass Destruction Found in Iraq Yet.",
          ),
      ],
  )
  def test_rte(self, name, inputs):
    schema = schemas.SCHEMAS["rte"]
    example = preprocessors.classification(
        RTE, fields=schema.fields, labels=schema.labels, name=name
    )
    assert example == {
        "inputs": inputs,
        "targets": "not_entailment",
        "idx": 0,
        "label": 1,
        "candidates": ["entailment", "not_entailment"],
    }

  def test_boolq(self):
    schema = schemas.SCHEMAS["boolq"]
    row = {"question": "is it", "passage": "It is.", "idx": 2, "label": 0}
    example = preprocessors.classification(
        row, fields=schema.fields, labels=schema.labels
    )
    assert example["inputs"] == "passage: It is. question: is it"
    assert example["targets"] == "False"

  def test_a_row_without_a_label(self):
    schema = schemas.SCHEMAS["cb"]
    row = {"premise": "P", "hypothesis": "H", "idx": 2, "label": -1}
    example = preprocessors.classification(
        row, fields=schema.fields, labels=schema.labels
    )
    assert example["inputs"] == "hypothesis: H premise: P"
    assert (example["targets"], example["label"]) == ("<unk>", -1)

  @pytest.mark.parametrize("label", [1, 0, -1])
  def test_wsc(self, label):
    assert preprocessors.wsc(WSC | {"label": label}) == {
        "inputs": "Mark told Pete many lies . *He* should have been sceptical.",
        "targets": "Pete",
        "idx": 4,
        "label": label,
    }

  def test_wsc_with_its_name(self):
    assert preprocessors.wsc(WSC, name="wsc")["inputs"] == (
        "wsc: Mark told Pete many lies . *He* should have been sceptical."
    )

  @pytest.mark.parametrize(
      ("row", "inputs"),
      [
          (
              {"text": WHIP, "span2_text": "him", "span2_index": 22},
              "The boy continued to whip the pony , and eventually the pony"
              ' threw him over. John laughed out quite loud. "Good for *him*'
              ' ," he said.',
          ),
          (
              {"text": PEBBLE, "span2_text": "it", "span2_index": 30},
              "When they had eventually calmed down a bit , and had gotten"
              " home, Mr. Farley put the magic pebble in an iron safe . Some"
              " day they might want to use *it* , but really for now, what more"
              " could they wish for?",
          ),
      ],
      ids=["pronoun and comma in one word", "index off by one"],
  )
  def test_the_two_official_texts_whose_index_misses(self, row, inputs):
    assert preprocessors.wsc(WSC | row)["inputs"] == inputs

  @pytest.mark.parametrize(
      ("change", "message"),
      [
          ({"span2_index": 99}, "span2_index is 99"),
          ({"span2_text": "She"}, "word 6 .* is 'He', expected .* 'She'"),
          ({"span2_text": "H"}, "word 6 .* is 'He', expected .* 'H'"),
      ],
  )
  def test_a_pronoun_that_is_not_there(self, change, message):
    with pytest.raises(UserError, match=f"WSC row 4: {message}"):
      preprocessors.wsc(WSC | change)

  @pytest.mark.parametrize("task", mini_language.TASKS)
  def test_the_mini_tasks_have_the_same_texts(self, task):
    schema = schemas.SCHEMAS[task.removeprefix("mini_")]
    found = mini_language.rows(task, "validation")
    checked = rows.check_rows(
        ((str(i), row) for i, row in enumerate(found)), schema, labelled=True
    )
    for row, flat in zip(found, checked, strict=True):
      if schema.layout == "wsc":
        example = preprocessors.wsc(flat)
      else:
        example = preprocessors.classification(
            flat, fields=schema.fields, labels=schema.labels
        )
      texts = (example["inputs"], example["targets"])
      assert texts == mini_language.model_text(task, row)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("entailment", 0),
        ("not_entailment", 1),
        ("Entailment", -1),
        ("entailment ", -1),
        ("", -1),
    ],
)
def test_class_id(text, expected):
  labels = ("entailment", "not_entailment")
  assert postprocessors.class_id(text, labels=labels) == expected


@pytest.mark.parametrize(
    ("said", "referent", "expected"),
    [
        ("turnip", "turnip", 1),
        ("potato", "turnip", 0),
        ("potato", "Potato", 1),
        ("the cat", "cat", 1),
        ("a potato", "my potato", 1),
        ("fuzzy bunny", "fuzzy hungry bunny", 1),
        ("bunny", "the fuzzy bunny", 1),
        ("fuzzy cat", "fuzzy bunny", 0),
        ("Bob's hat", "Bob", 0),
        ("Bob's hat", "Bob's hat", 1),
        ("", "cat", -1),
        ("a this", "cat", -1),
        ("  Cat ", "cat", 1),
    ],
)
def test_referent_match(said, referent, expected):
  for text in (referent, referent.encode()):
    example = {"targets_pretokenized": text, "label": 1}
    assert postprocessors.referent_match(said, example=example) == expected


@pytest.mark.parametrize("label", [1, 0, -1])
def test_a_referents_target_is_its_label(label):
  found = postprocessors.referent_match(
      "cat", example={"label": label}, is_target=True
  )
  assert found == label


class TestMetrics:
  """Percentages, with sklearn's definitions."""

  def test_accuracy(self):
    assert metrics.accuracy([1, 0, 1, -1], [1, 1, 1, 0]) == {"accuracy": 50.0}

  @pytest.mark.parametrize(
      ("targets", "predictions", "expected"),
      [
          # F1 by class: 2/3, 2/3, 1.
          ([0, 0, 1, 2], [0, 1, 1, 2], 100 * 7 / 9),
          ([0, 1, 2], [0, 1, 2], 100.0),
          # Class 2 is not there at all and counts as 0.
          ([0, 1], [0, 1], 100 * 2 / 3),
          # An answer that is no class: recall of 0 falls, 1 is perfect.
          ([0, 0, 1], [0, -1, 1], 100 * (2 / 3 + 1) / 3),
          ([0, 1, 2], [-1, -1, -1], 0.0),
      ],
  )
  def test_mean_3class_f1(self, targets, predictions, expected):
    found = metrics.mean_3class_f1(targets, predictions)
    assert found == {"mean_3class_f1": pytest.approx(expected)}


def test_evaluation_imports_no_tensorflow():
  code = """
import sys
sys.modules.update(tensorflow=None, seqio=None, tensorflow_datasets=None)
import xprompt_jax.tasks
from xprompt_jax.tasks import metrics, postprocessors, preprocessors, rows
from xprompt_jax import batches, token_cache, tokenization, vocabularies
"""
  subprocess.run([sys.executable, "-c", code], check=True)


def test_real_rows_keep_their_spans():
  path = shared_data.path("super_glue/WSC/train.jsonl")
  found = rows.read_jsonl(path, schemas.SCHEMAS["wsc"], labelled=True)
  whole = [
      (row["span1_text"] in row["text"], row["span2_text"] in row["text"])
      for row in found
  ]
  assert len(found) == 554
  assert all(map(all, whole))
  assert sum(row["label"] for row in found) == 259
