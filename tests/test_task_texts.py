"""Texts, answers and metrics of MultiRC, ReCoRD, COPA, WiC and diagnostics."""

import pathlib
import re

import numpy as np
import pytest

from tests import shared_data
from xprompt_jax.tasks import (
    metrics,
    postprocessors,
    preprocessors,
    schemas,
)
from xprompt_jax.types import UserError

tasks = shared_data.quiet_import("xprompt_jax.tasks.super_glue")
shared_data.quiet_import("xprompt_jax.tasks.mini")
seqio = shared_data.quiet_import("seqio")

MULTIRC = {
    "question": "Who <b>sang</b>?",
    "answer": "Ann<br>Ben",
    "paragraph": "<b>Sent 1: </b>Ann sang.<br>Ben <i>slept</i>.",
    "idx/paragraph": 7,
    "idx/question": 12,
    "idx/answer": 30,
    "label": 1,
}
RECORD = {
    "query": "@placeholder lost.",
    "passage": (
        'He said: "No."\n@highlight\nRome won\n@highlight\nBonn lost!\n@highlight\n'
        "It rained"
    ),
    "entities": ["Bonn", "Rome"],
    "answers": ["Bonn", "The city of Bonn"],
    "idx/passage": 4,
    "idx/query": 9,
}


# What any postprocessor asks for.
FIELDS = {
    "idx": 0,
    "idx/question": 0,
    "targets_pretokenized": "cat",
    "label": 1,
}


def grouped(*pairs):
  return [{"group": group, "value": value} for group, value in pairs]


def example_of(task, row):
  """The example a registered task makes of a row."""
  to_text = seqio.TaskRegistry.get(task).preprocessors[0]
  (found,) = to_text(
      shared_data.quiet_import("xprompt_jax.tasks.sources").to_dataset([row])
  ).as_numpy_iterator()
  return {
      name: [part.decode() for part in value]
      if isinstance(value, np.ndarray)
      else value.decode()
      if isinstance(value, bytes)
      else int(value)
      for name, value in found.items()
  }


class TestText:
  """What registered tasks make of a row."""

  @pytest.mark.parametrize(
      ("task", "prefix"),
      [("multirc", ""), ("super_glue_multirc_v102", "multirc ")],
  )
  def test_multirc(self, task, prefix):
    # `<br>` is a space, `<b>` and `</b>` are nothing, other tags stay.
    assert example_of(task, MULTIRC) == {
        "inputs": prefix
        + "question: Who sang? answer: Ann Ben paragraph: Sent 1: Ann sang. Ben"
        " <i>slept</i>.",
        "targets": "True",
        "idx/paragraph": 7,
        "idx/question": 12,
        "idx/answer": 30,
        "label": 1,
        "candidates": ["False", "True"],
    }

  @pytest.mark.parametrize(
      ("task", "prefix"),
      [("record", ""), ("super_glue_record_v102", "record ")],
  )
  def test_record(self, task, prefix):
    assert example_of(task, RECORD) == {
        "inputs": prefix
        + "query: @placeholder lost. entities: Bonn, Rome passage: He said:"
        ' "No." Rome won. Bonn lost! It rained',
        "targets": "Bonn",
        "idx/passage": 4,
        "idx/query": 9,
        "answers": ["Bonn", "The city of Bonn"],
        "candidates": ["Bonn", "Rome"],
    }

  def test_record_trains_on_each_answer(self):
    found = [
        preprocessors.record(row) for row in tasks.one_for_each_answer([RECORD])
    ]
    assert [example["targets"] for example in found] == RECORD["answers"]
    assert [example["idx/answer"] for example in found] == [0, 1]
    assert {example["inputs"] for example in found} == {found[0]["inputs"]}

  def test_record_without_answers(self):
    assert example_of("record", RECORD | {"answers": []})["targets"] == "<unk>"

  def test_copa(self):
    row = {
        "choice1": "I sang.",
        "choice2": "I got wet.",
        "premise": "It rained.",
        "question": "effect",
        "idx": 3,
        "label": 1,
    }
    assert example_of("copa", row) == {
        "inputs": (
            "choice1: I sang. choice2: I got wet. premise: It rained. question:"
            " effect"
        ),
        "targets": "choice2",
        "idx": 3,
        "label": 1,
        "candidates": ["choice1", "choice2"],
    }
    named = example_of("super_glue_copa_v102", row | {"label": -1})
    assert named["inputs"].startswith("copa choice1: I sang. ")
    assert named["targets"] == "<unk>"

  def test_wic_says_nothing_of_the_places(self):
    row = {
        "word": "run",
        "sentence1": "A run.",
        "sentence2": "To run.",
        "idx": 0,
        "label": 0,
        "start1": 2,
        "start2": 3,
        "end1": 5,
        "end2": 6,
    }
    assert example_of("super_glue_wic_v102", row) == {
        "inputs": "wic sentence1: A run. sentence2: To run. word: run",
        "targets": "False",
        "idx": 0,
        "label": 0,
        "candidates": ["False", "True"],
    }

  def test_diagnostics_are_asked_as_rte(self):
    axb = {"sentence1": "P", "sentence2": "H", "idx": 0, "label": 1}
    axg = {"premise": "P", "hypothesis": "H", "idx": 0, "label": 1}
    for name, row in (("axb", axb), ("axg", axg)):
      found = example_of(f"super_glue_{name}_v102", row)
      assert found == example_of("super_glue_rte_v102", axg)
      assert found["inputs"] == "rte hypothesis: H premise: P"
      assert example_of(name, row)["inputs"] == "hypothesis: H premise: P"


class TestPostprocessors:
  """What a text means."""

  @pytest.mark.parametrize(
      ("text", "value"), [("True", 1), ("False", 0), ("true", -1), ("", -1)]
  )
  def test_multirc(self, text, value):
    fn = seqio.TaskRegistry.get("multirc").postprocess_fn
    for is_target in (False, True):
      found = fn(text, example=MULTIRC, is_target=is_target)
      assert found == {"group": 12, "value": value}

  def test_axg_pairs_rows(self):
    fn = seqio.TaskRegistry.get("axg").postprocess_fn
    groups = [
        fn("entailment", example={"idx": idx}, is_target=False)["group"]
        for idx in range(4)
    ]
    assert groups == [0, 0, 1, 1]

  def test_record(self):
    example = {"answers": np.array([b"Bonn", "Z\u00fcrich".encode()], object)}
    fn = postprocessors.answer_text
    assert fn("Bonn", example=example) == "Bonn"
    assert fn("Bonn", example=example, is_target=True) == [
        "Bonn",
        "Z\u00fcrich",
    ]


class TestMetrics:
  """Percentages, worked by hand."""

  @pytest.mark.parametrize(
      ("targets", "predictions", "expected"),
      [
          ([1, 1, 0, 0], [1, 0, 1, 0], 50.0),
          ([1, 1, 0], [1, 1, 0], 100.0),
          # Malformed is the other class: a miss, then a false alarm.
          ([1, 1, 0], [1, -1, 0], 100 * 2 / 3),
          ([1, 1, 0], [1, 1, -1], 80.0),
          # No positives on either side.
          ([0, 0], [0, 0], 0.0),
          ([0, 0], [0, -1], 0.0),
          ([1], [-1], 0.0),
      ],
  )
  def test_f1a(self, targets, predictions, expected):
    found = metrics.f1a(
        grouped(*((0, value) for value in targets)),
        [{"value": value} for value in predictions],
    )
    assert found == {"f1a": pytest.approx(expected)}

  def test_em_is_by_question(self):
    targets = grouped((5, 1), (6, 0), (5, 0), (7, 0))
    assert metrics.grouped_em(targets, targets) == {"em": 100.0}
    said = grouped((5, 1), (6, 0), (5, 1), (7, -1))
    assert metrics.grouped_em(targets, said) == {"em": pytest.approx(100 / 3)}

  @pytest.mark.parametrize(
      ("targets", "predictions", "expected"),
      [
          ([0, 1, 1, 0], [0, 1, 1, 0], 100.0),
          ([0, 1, 1, 0], [1, 0, 0, 1], -100.0),
          ([0, 0, 0, 1], [0, 0, 1, 1], 100 / 3**0.5),
          ([0, 1, 1, 0], [1, 1, 1, 1], 0.0),
          ([0, 1, 1, 0], [-1, -1, -1, -1], 0.0),
          # 3 of 4 right and one malformed: (12 - 6) / sqrt(8 * 10).
          ([0, 1, 1, 0], [0, 1, 1, -1], 100 * 6 / 80**0.5),
      ],
  )
  def test_matthews_corrcoef(self, targets, predictions, expected):
    found = metrics.matthews_corrcoef(targets, predictions)
    assert found == {"matthews_corrcoef": pytest.approx(expected)}

  def test_gender_parity(self):
    targets = grouped((0, 0), (0, 0), (1, 1), (1, 1), (2, 0), (2, 0), (3, 0))
    said = [{"value": value} for value in (0, 0, 0, 1, -1, -1, 0)]
    # Pair 1 differs, pair 2 says nothing, pair 3 is half there.
    assert metrics.gender_parity(targets, said) == {
        "gender_parity": pytest.approx(100 / 3)
    }
    assert metrics.grouped_accuracy(targets, said) == {
        "accuracy": pytest.approx(100 * 4 / 7)
    }
    assert metrics.gender_parity(targets[6:], said[6:]) == {
        "gender_parity": 0.0
    }

  @pytest.mark.parametrize(
      ("answers", "said", "em", "f1"),
      [
          (["Bonn"], "Bonn", 100.0, 100.0),
          (["Bonn"], " the BONN. ", 100.0, 100.0),
          (["Bonn"], "Rome", 0.0, 0.0),
          (["Bonn"], "", 0.0, 0.0),
          (["the city of Bonn", "Rome"], "Bonn city", 0.0, 80.0),
          (["Rome", "Bonn"], "Bonn", 100.0, 100.0),
          # Nothing but articles is nothing.
          (["The"], "a", 100.0, 0.0),
          (["Bonn Bonn"], "Bonn", 0.0, 100 * 2 / 3),
      ],
  )
  def test_squad(self, answers, said, em, f1):
    assert metrics.squad([answers], [said]) == {
        "em": em,
        "f1": pytest.approx(f1),
    }


MIXED = ("boolq", "cb", "copa", "multirc", "rte", "wic", "wsc")
COUNTS = (9427, 250, 400, 27243, 2490, 5428, 259)


@pytest.mark.parametrize(
    ("ending", "rates"),
    [
        ("proportional", COUNTS),
        ("equal", (1,) * 7),
        ("temperature_2", tuple(count**0.5 for count in COUNTS)),
    ],
)
def test_mixtures_know_their_rates_without_reading(monkeypatch, ending, rates):
  monkeypatch.setenv("SUPER_GLUE_DIR", "/nowhere")
  mixture = seqio.MixtureRegistry.get(f"super_glue_{ending}")
  found = {task.name: mixture.get_rate(task) for task in mixture.tasks}
  assert found == pytest.approx(dict(zip(MIXED, rates, strict=True)))
  named = seqio.MixtureRegistry.get(f"super_glue_v102_seven_{ending}")
  assert [named.get_rate(task) for task in named.tasks] == pytest.approx(rates)
  assert {task.name for task in named.tasks} == {
      f"super_glue_{name}_v102{'_simple' if name == 'wsc' else ''}"
      for name in MIXED
  }


def test_other_counts(monkeypatch):
  def count(task, split):
    return seqio.TaskRegistry.get(task).num_input_examples(split)

  assert count("record", "train") == 138_854
  assert count("wsc", "validation") == 104
  assert count("mini_rte", "test") == 400
  monkeypatch.delenv("FEWGLUE_DIR", raising=False)
  with pytest.raises(UserError, match="FEWGLUE_DIR"):
    count("cb_fewglue", "train")


@pytest.mark.parametrize(
    ("task", "splits"),
    [
        ("record", ["train", "validation", "test"]),
        ("axb", ["test"]),
        ("super_glue_axg_v102", ["test"]),
        ("super_glue_wsc_v102_simple_train", ["train"]),
        ("super_glue_wsc_v102_simple_eval", ["validation", "test"]),
        ("multirc_fewglue", ["train", "validation", "test"]),
    ],
)
def test_splits(task, splits):
  assert list(seqio.TaskRegistry.get(task).splits) == splits


def test_documented_tasks():
  """docs/tasks.md names every task, with its metrics and splits."""
  text = (pathlib.Path(__file__).parents[1] / "docs" / "tasks.md").read_text()
  table = re.findall(
      r"^\| `(\w+)` \| `(\w+)` \| .+ \| ([\w, ]+) \|$", text, re.MULTILINE
  )
  assert [name for name, _, _ in table] == list(schemas.SCHEMAS)
  for name, t5_name, named in table:
    task = seqio.TaskRegistry.get(name)
    said = [task.postprocess_fn("", example=FIELDS) for _ in range(2)]
    targets = [["a"]] * 2 if name == "record" else said
    found = [key for fn in task.metric_fns for key in fn(targets, said)]
    assert found == named.split(", ")
    assert seqio.TaskRegistry.get(t5_name).metric_fns == task.metric_fns
  counts = re.findall(
      r"^\| `(\w+)` \| ([\d,]*).*? \| ([\d,]*).*? \| ([\d,]+)",
      text,
      re.MULTILINE,
  )
  assert {
      name: [int(number.replace(",", "")) for number in numbers if number]
      for name, *numbers in counts
  } == {
      name: [split.rows for split in schema.splits.values()]
      for name, schema in schemas.SCHEMAS.items()
  }
