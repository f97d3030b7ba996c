"""Leaderboard files: the official format, whole splits, each row once."""

import dataclasses
import json

import pytest

from tests import shared_data
from xprompt_jax import submission
from xprompt_jax.tasks import rows, schemas
from xprompt_jax.types import UserError


def examples(*ids):
  """Examples as the token cache has them, with plain or nested ids."""
  names = {
      1: ("idx",),
      2: ("idx/passage", "idx/query"),
      3: ("idx/paragraph", "idx/question", "idx/answer"),
  }
  return [
      {
          "id": "-".join(map(str, number)),
          "fields": dict(zip(names[len(number)], number, strict=True)),
      }
      for number in ids
  ]


def write(monkeypatch, tmp_path, task, found, predictions):
  """The lines of a task whose official split has as many rows."""
  monkeypatch.setattr(
      submission,
      "FORMATS",
      {
          name: dataclasses.replace(known, count=len(found), passages=None)
          for name, known in submission.FORMATS.items()
      },
  )
  written = submission.write_submission(
      task=task, examples=found, predictions=predictions, folder=tmp_path / "to"
  )
  assert written.num_predictions == len(found)
  return written, written.path.read_text().splitlines()


THREE = examples((2,), (0,), (1,))


@pytest.mark.parametrize(
    ("task", "predictions", "file", "lines"),
    [
        (
            "boolq",
            [1, 0, -1],
            "BoolQ.jsonl",
            [
                '{"idx": 0, "label": "false"}',
                '{"idx": 1, "label": "false"}',
                '{"idx": 2, "label": "true"}',
            ],
        ),
        (
            "super_glue_cb_v102",
            [0, 1, -1],
            "CB.jsonl",
            [
                '{"idx": 0, "label": "contradiction"}',
                '{"idx": 1, "label": "neutral"}',
                '{"idx": 2, "label": "entailment"}',
            ],
        ),
        (
            "copa",
            [1, 0, -1],
            "COPA.jsonl",
            [
                '{"idx": 0, "label": 0}',
                '{"idx": 1, "label": 0}',
                '{"idx": 2, "label": 1}',
            ],
        ),
        (
            "rte",
            [1, 0, -1],
            "RTE.jsonl",
            [
                '{"idx": 0, "label": "entailment"}',
                '{"idx": 1, "label": "not_entailment"}',
                '{"idx": 2, "label": "not_entailment"}',
            ],
        ),
        (
            "wic",
            [1, 0, -1],
            "WiC.jsonl",
            [
                '{"idx": 0, "label": "false"}',
                '{"idx": 1, "label": "false"}',
                '{"idx": 2, "label": "true"}',
            ],
        ),
        (
            "super_glue_wsc_v102_simple_eval",
            [1, 0, -1],
            "WSC.jsonl",
            [
                '{"idx": 0, "label": "False"}',
                '{"idx": 1, "label": "False"}',
                '{"idx": 2, "label": "True"}',
            ],
        ),
        (
            "axb",
            [1, 0, -1],
            "AX-b.jsonl",
            [
                '{"idx": 0, "label": "entailment"}',
                '{"idx": 1, "label": "not_entailment"}',
                '{"idx": 2, "label": "not_entailment"}',
            ],
        ),
        (
            "axg",
            [{"group": g, "value": v} for g, v in ((1, 1), (0, 0), (0, -1))],
            "AX-g.jsonl",
            [
                '{"idx": 0, "label": "entailment"}',
                '{"idx": 1, "label": "not_entailment"}',
                '{"idx": 2, "label": "not_entailment"}',
            ],
        ),
    ],
)
def test_labels(monkeypatch, tmp_path, task, predictions, file, lines):
  written, found = write(monkeypatch, tmp_path, task, THREE, predictions)
  assert found == lines
  assert written.path == tmp_path / "to" / file
  assert written.num_malformed == 1


def test_multirc_is_nested(monkeypatch, tmp_path):
  found = examples((1, 2, 3), (0, 0, 0), (0, 0, 1), (0, 1, 2))
  predictions = [{"group": 0, "value": value} for value in (1, 0, 1, -1)]
  written, lines = write(monkeypatch, tmp_path, "multirc", found, predictions)
  assert written.path.name == "MultiRC.jsonl"
  assert lines == [
      '{"idx": 0, "passage": {"questions": [{"idx": 0, "answers": [{"idx": 0,'
      ' "label": 0}, {"idx": 1, "label": 1}]}, {"idx": 1, "answers": [{"idx":'
      ' 2, "label": 0}]}]}}',
      '{"idx": 1, "passage": {"questions": [{"idx": 2, "answers": [{"idx": 3,'
      ' "label": 1}]}]}}',
  ]


def test_record_has_texts(monkeypatch, tmp_path):
  found = examples((0, 1), (0, 0))
  _, lines = write(monkeypatch, tmp_path, "record", found, ["Bonn", ""])
  assert lines == ['{"idx": 0, "label": ""}', '{"idx": 1, "label": "Bonn"}']


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (range(145), "found 145 ids in 145 examples, expected each of the"),
        ([0, *range(145)], "found 145 ids in 146 examples, .* 146 rows"),
        (range(147), "found 147 ids in 147 examples"),
        (range(1, 147), "found idx 1 in the place of 0, expected the official"),
        (range(145, -1, -1), None),
        (
            [*range(145), 1000],
            "found idx 1000 in the place of 145, .* 0 to 145",
        ),
    ],
)
def test_other_rows_are_refused(tmp_path, ids, message):
  found = examples(*((number,) for number in ids))
  if message is None:
    submission.check_split("wsc", found)
    return
  with pytest.raises(UserError, match=f"^task wsc: {message}") as error:
    submission.check_split("wsc", found)
  assert "\n" not in str(error.value)
  with pytest.raises(UserError, match=f"^task wsc: {message}"):
    submission.write_submission(
        task="wsc",
        examples=found,
        predictions=[0] * len(found),
        folder=tmp_path / "to",
    )
  assert not (tmp_path / "to").exists()


def test_multirc_has_its_passages():
  found = examples(*((0, 0, number) for number in range(9_693)))
  with pytest.raises(
      UserError,
      match="^task multirc: found 1 passages, expected the 166 of the official",
  ):
    submission.check_split("multirc", found)


@pytest.mark.parametrize("task", ["mini_rte", "boolq_fewglue", "wsc_v102"])
def test_other_tasks_are_refused(tmp_path, task):
  message = (
      f"^task {task}: has no file on SuperGLUE's leaderboard, expected one"
  )
  with pytest.raises(UserError, match=f"{message} of boolq, cb, copa, "):
    submission.check_split(task, [])
  with pytest.raises(UserError, match=message):
    submission.write_submission(
        task=task, examples=[], predictions=[], folder=tmp_path
    )


def test_the_counts_are_those_of_the_test_splits():
  assert {
      name: (known.count, known.passages)
      for name, known in submission.FORMATS.items()
  } == {
      name: (schema.splits["test"].rows, schema.splits["test"].passages)
      for name, schema in schemas.SCHEMAS.items()
  }


def test_the_real_multirc_file_holds_every_answer_once(tmp_path):
  schema = schemas.SCHEMAS["multirc"]
  source = shared_data.path("super_glue/MultiRC/test.jsonl")
  found = rows.read_jsonl(source, schema, labelled=False)
  written = submission.write_submission(
      task="multirc",
      examples=examples(*map(rows.row_id, found)),
      predictions=[{"group": 0, "value": 1}] * len(found),
      folder=tmp_path,
  )

  def numbers(path):
    return [
        (line["idx"], question["idx"], answer["idx"])
        for line in map(json.loads, path.read_text().splitlines())
        for question in line["passage"]["questions"]
        for answer in question["answers"]
    ]

  assert numbers(written.path) == numbers(source)
