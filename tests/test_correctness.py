"""Which examples count as right, by the task's own share."""

import dataclasses

import numpy as np
import pytest

from tests import examples
from xprompt_jax import correctness, evaluation, mixtures, right_answers

METRICS = "xprompt_jax.tasks.metrics:"


def _split(targets, metrics, postprocessor=None, fields=None, task="tiny"):
  split = examples.tiny_split(len(targets))
  return dataclasses.replace(
      split,
      task=task,
      examples=[
          {"id": str(i), "target": target, "fields": (fields or {}).get(i, {})}
          for i, target in enumerate(targets)
      ],
      info={
          **split.info,
          "postprocessor": postprocessor,
          "metrics": [
              {"function": METRICS + name, "kwargs": {}} for name in metrics
          ],
      },
  )


ANSWERS = {
    "function": "xprompt_jax.tasks.postprocessors:grouped_class_id",
    "kwargs": {"labels": ["no", "yes"], "field": "idx/question"},
}


def test_accuracy_counts_examples_and_f1_nothing():
  split = _split(["a", "b", "a"], ["accuracy"])
  right = right_answers.right_answers(split, [["a", "a", "a"], ["b", "b", "b"]])
  assert right.dtype == np.uint8
  assert right.tolist() == [[1, 0, 1], [0, 1, 0]]
  # CB: only the accuracy of its two metrics is a share.
  both = _split([0, 1, 2], ["mean_3class_f1", "accuracy"])
  both.info["postprocessor"] = {
      "function": "xprompt_jax.tasks.postprocessors:class_id",
      "kwargs": {"labels": ["x", "y", "z"]},
  }
  assert right_answers.right_answers(both, [["x", "z", "z"]]).tolist() == [
      [1, 0, 1]
  ]
  none = _split(["a"], ["matthews_corrcoef"])
  assert right_answers.right_answers(none, [["a"]]) is None


def test_multirc_counts_questions():
  """Questions 7 (two answers, apart) and 5: all answers have to be right."""
  fields = {i: {"idx/question": q} for i, q in enumerate((7, 5, 7))}
  targets = [
      {"group": 7, "value": 1},
      {"group": 5, "value": 0},
      {"group": 7, "value": 0},
  ]
  split = _split(targets, ["f1a", "grouped_em"], ANSWERS, fields)
  texts = [["yes", "no", "no"], ["yes", "yes", "no"], ["yes", "no", "?"]]
  right = right_answers.right_answers(split, texts)
  assert right.tolist() == [[1, 1], [1, 0], [0, 1]]
  for row, said in zip(right, texts, strict=True):
    assert 100 * row.mean() == evaluation.measure(split, said)["em"]


def test_record_counts_examples():
  split = _split([["A", "B"], ["C"]], ["squad"])
  assert right_answers.right_answers(split, [["b.", "D"]]).tolist() == [[1, 0]]


def test_members_of_a_mixture_follow_one_another():
  members = [
      _split(["a", "b"], ["accuracy"], task="one"),
      _split(["c"], ["accuracy"], task="two"),
  ]
  mixed = mixtures.mix("all", members, [1.0, 1.0])
  right = right_answers.right_answers(mixed, [["a", "a", "c"]])
  assert right.tolist() == [[1, 0, 1]]
  members[1].info["metrics"][0]["function"] = METRICS + "matthews_corrcoef"
  assert right_answers.right_answers(mixed, [["a", "a", "c"]]) is None


def test_files(tmp_path):
  """Rows of one size stand together, others apart, unknown ones nowhere."""
  ones, zeros = np.ones(3, np.uint8), np.zeros(3, np.uint8)
  short = np.array([1, 0], np.uint8)
  path = tmp_path / "evaluate" / correctness.CORRECT
  correctness.save(
      path,
      {
          "a": {"test": [ones, zeros], "heldout": [ones, short]},
          "b": {"test": [None, ones]},
          "c": {"test": [None]},
      },
  )
  arrays = correctness.load(tmp_path)
  assert {k: v.tolist() for k, v in arrays.items()} == {
      "a/test": [[1, 1, 1], [0, 0, 0]],
      "a/heldout/0": [1, 1, 1],
      "a/heldout/1": [1, 0],
      "b/test/1": [1, 1, 1],
  }
  assert all(array.dtype == np.uint8 for array in arrays.values())

  def known(method, role, rows):
    found = correctness.rows_of(arrays, method, role, rows)
    return [None if row is None else row.tolist() for row in found]

  assert known("a", "test", 2) == [[1, 1, 1], [0, 0, 0]]
  assert known("a", "heldout", 2) == [[1, 1, 1], [1, 0]]
  assert known("b", "test", 2) == [None, [1, 1, 1]]
  assert known("c", "test", 1) == [None]
  # Of a file that does not fit nothing is taken.
  assert known("a", "test", 3) == [None, None, None]


@pytest.mark.parametrize("methods", [{}, {"a": {"test": [None]}}])
def test_no_file_where_nothing_is_known(tmp_path, methods):
  correctness.save(tmp_path / correctness.CORRECT, methods)
  assert list(tmp_path.iterdir()) == []
  assert correctness.load(tmp_path) == {}
