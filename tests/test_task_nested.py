"""Rows of the tasks whose files nest, count or number in a way of their own."""

import json

import pytest

from xprompt_jax.tasks import rows, schemas
from xprompt_jax.types import UserError

MULTIRC = {
    "idx": 7,
    "version": 1.1,
    "passage": {
        "text": "<b>Sent 1: </b>Ann sang.<br>Ben slept.",
        "questions": [
            {
                "question": "Who sang?",
                "answers": [
                    {"text": "Ann", "idx": 30, "label": 1},
                    {"text": "Ben", "idx": 31, "label": 0},
                ],
                "idx": 12,
            },
            {
                "question": "Who slept?",
                "answers": [{"text": "Ann", "idx": 32, "label": 0}],
                "idx": 13,
            },
        ],
    },
}
RECORD = {
    "source": "CNN",
    "idx": 4,
    "passage": {
        "text": "Rome beat Bonn.\n@highlight\nRome won",
        "entities": [
            {"start": 27, "end": 30},
            {"start": 10, "end": 13},
            {"start": 0, "end": 3},
        ],
    },
    "qas": [
        {
            "query": "@placeholder lost.",
            "answers": [
                {"start": 10, "end": 13, "text": "Bonn"},
                {"start": 27, "end": 30, "text": "Bonn"},
                {"start": 0, "end": 3, "text": "At Bonn"},
            ],
            "idx": 9,
        },
        {"query": "@placeholder won.", "answers": [{"text": "Rome"}], "idx": 8},
    ],
}
COPA = {
    "premise": "It rained.",
    "choice1": "I sang.",
    "choice2": "I got wet.",
    "question": "effect",
    "label": 1,
    "idx": 0,
}
WIC = {
    "word": "run",
    "sentence1": "A run.",
    "sentence2": "To run.",
    "idx": 0,
    "label": False,
    "start1": 2,
    "start2": 3,
    "end1": 5,
    "end2": 6,
    "version": 1.1,
}


def check(task, *found, labelled=True):
  return rows.check_rows(
      ((f"line {i}", row) for i, row in enumerate(found, start=1)),
      schemas.SCHEMAS[task],
      labelled=labelled,
  )


def changed(row, path, value):
  """A copy of a row with the value at a path replaced; ... removes it."""
  copy = json.loads(json.dumps(row))
  part = copy
  for key in path[:-1]:
    part = part[key]
  if value is ...:
    del part[path[-1]]
  else:
    part[path[-1]] = value
  return copy


def test_multirc_has_a_row_for_each_answer():
  paragraph = "<b>Sent 1: </b>Ann sang.<br>Ben slept."
  assert check("multirc", MULTIRC) == [
      {
          "question": question,
          "answer": answer,
          "paragraph": paragraph,
          "idx/paragraph": 7,
          "idx/question": number,
          "idx/answer": place,
          "label": label,
      }
      for question, answer, number, place, label in [
          ("Who sang?", "Ann", 12, 30, 1),
          ("Who sang?", "Ben", 12, 31, 0),
          ("Who slept?", "Ann", 13, 32, 0),
      ]
  ]


def test_record_has_a_row_for_each_query():
  passage = "Rome beat Bonn.\n@highlight\nRome won"
  # Entities are cut from the passage, each once, sorted: so are the answers.
  assert check("record", RECORD) == [
      {
          "query": query,
          "passage": passage,
          "entities": ["Bonn", "Rome"],
          "answers": answers,
          "idx/passage": 4,
          "idx/query": number,
      }
      for query, answers, number in [
          ("@placeholder lost.", ["At Bonn", "Bonn"], 9),
          ("@placeholder won.", ["Rome"], 8),
      ]
  ]


def test_copa_and_wic():
  assert check("copa", COPA) == [COPA]
  flat = {k: v for k, v in WIC.items() if k != "version"}
  assert check("wic", WIC) == [flat | {"label": 0}]


def test_rows_of_the_test_splits_have_no_labels():
  partly = changed(
      MULTIRC, ("passage", "questions", 1, "answers", 0, "label"), ...
  )
  with pytest.raises(UserError, match="^line 1: lacks the field 'label'$"):
    check("multirc", partly)
  with pytest.raises(
      UserError,
      match="^line 1: label is 1, expected none in a split without labels$",
  ):
    check("multirc", partly, labelled=False)
  path = ("passage", "questions", 0, "answers")
  unlabelled = changed(partly, path, [{"text": "Ann", "idx": 30}])
  found = check("multirc", unlabelled, labelled=False)
  assert [row["label"] for row in found] == [-1, -1]


def test_queries_of_the_test_split_have_no_answers():
  partly = changed(RECORD, ("qas", 0, "answers"), ...)
  with pytest.raises(UserError, match="^line 1: lacks the field 'answers'$"):
    check("record", partly)
  with pytest.raises(
      UserError,
      match=r'^line 1: answers is \[{"text": "Rome"}\], expected none in a split',
  ):
    check("record", partly, labelled=False)
  unanswered = changed(partly, ("qas", 1, "answers"), ...)
  found = check("record", unanswered, labelled=False)
  assert [row["answers"] for row in found] == [[], []]


def test_entities_are_cut_as_tfds_cuts_them():
  entities = [{"start": 30, "end": 99}, {"start": 4, "end": 3}]
  row = changed(RECORD, ("passage", "entities"), entities)
  assert check("record", row)[0]["entities"] == ["", "e won"]
  none = changed(RECORD, ("passage", "entities"), [])
  assert check("record", none)[0]["entities"] == []


def test_axb_writes_its_numbers_as_text():
  row = {
      "sentence1": "The cat sat on the mat.",
      "sentence2": "The cat did not sit on the mat.",
      "idx": "0",
      "label": "not_entailment",
      "logic": "Negation",
  }
  flat = {k: v for k, v in row.items() if k != "logic"}
  assert check("axb", row) == [flat | {"idx": 0, "label": 1}]
  assert check("axb", row | {"idx": 0}) == check("axb", row)
  for text in ("a", "1" * 5000):
    with pytest.raises(UserError, match="^line 1: idx is '[a1]+.*an integer$"):
      check("axb", row | {"idx": text})
  with pytest.raises(UserError, match="idx is 9999999999, expected at most"):
    check("axb", row | {"idx": "9999999999"})


@pytest.mark.parametrize(
    ("task", "row", "message"),
    [
        (
            "multirc",
            changed(MULTIRC, ("passage",), "text"),
            "passage is 'text', expected an object",
        ),
        (
            "multirc",
            changed(MULTIRC, ("passage", "questions"), {}),
            "questions is {}, expected a list",
        ),
        (
            "multirc",
            changed(MULTIRC, ("passage", "questions"), []),
            r"questions is \[\], expected objects",
        ),
        (
            "multirc",
            changed(MULTIRC, ("passage", "questions", 0, "answers"), ["Ann"]),
            r'answers is \["Ann"\], expected objects',
        ),
        (
            "multirc",
            changed(
                MULTIRC, ("passage", "questions", 0, "answers", 0, "label"), 2
            ),
            "label is 2, expected one of 0, 1",
        ),
        (
            "multirc",
            changed(
                MULTIRC, ("passage", "questions", 0, "answers", 1, "idx"), 30
            ),
            r"idx 7-12-30 was seen before \(line 1\), expected every row",
        ),
        (
            "record",
            changed(RECORD, ("qas", 1, "idx"), 9),
            "idx 4-9 was seen before",
        ),
        (
            "record",
            changed(RECORD, ("passage", "entities", 0, "end"), "30"),
            "end is '30', expected an integer",
        ),
        ("copa", COPA | {"idx": -1}, "idx is -1, expected an integer >= 0"),
        (
            "record",
            changed(RECORD, ("qas", 0, "idx"), 2**31),
            "idx is 2147483648, expected at most 2147483647",
        ),
        (
            "record",
            changed(RECORD, ("qas", 0, "answers"), []),
            r"answers is \[\], expected objects",
        ),
        ("copa", COPA | {"label": 2}, "label is 2, expected one of 0, 1"),
        ("copa", COPA | {"label": True}, "label is true, expected one of 0, 1"),
        ("wic", WIC | {"label": 1}, "label is 1, expected one of false, true"),
        (
            "wic",
            WIC | {"label": "True"},
            'label is "True", expected one of false, true',
        ),
        ("wic", WIC | {"end2": "6"}, "end2 is '6', expected an integer"),
    ],
)
def test_a_bad_row_is_named(task, row, message):
  with pytest.raises(UserError, match=f"^line 1: {message}") as error:
    check(task, row)
  assert "\n" not in str(error.value)
