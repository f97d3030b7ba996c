"""Official JSONL files: read whole, or refused with file and line."""

import json

import pytest

from xprompt_jax.tasks import rows, schemas
from xprompt_jax.types import UserError

RTE = schemas.SCHEMAS["rte"]
WSC = schemas.SCHEMAS["wsc"]
ROW = {"premise": "P", "hypothesis": "H", "label": "entailment", "idx": 0}
FLAT = {"premise": "P", "hypothesis": "H", "label": 0, "idx": 0}
SPANS = {
    "text": "Anna told Ben that she was late .",
    "target": {
        "span1_index": 0,
        "span1_text": "Anna",
        "span2_index": 4,
        "span2_text": "she",
    },
    "label": True,
    "idx": 0,
}


@pytest.fixture
def read(tmp_path):
  """Reads bytes as a file, `val.jsonl`."""

  def call(content, schema=RTE, *, labelled=True):
    path = tmp_path / "val.jsonl"
    path.write_bytes(content)
    return rows.read_jsonl(path, schema, labelled=labelled)

  return call


def lines(*values):
  return b"".join(json.dumps(value).encode() + b"\n" for value in values)


def wsc(**changes):
  """The WSC row with other spans."""
  return lines(SPANS | {"target": SPANS["target"] | changes})


@pytest.mark.parametrize(
    "content",
    [
        lines(ROW, ROW | {"idx": 1}),
        lines(ROW, ROW | {"idx": 1}).rstrip(b"\n"),
        lines(ROW, ROW | {"idx": 1}).replace(b"\n", b"\r\n"),
        b"\xef\xbb\xbf" + lines(ROW, ROW | {"idx": 1}) + b"\n\r\n",
    ],
    ids=["plain", "no last line end", "Windows", "byte order mark"],
)
def test_line_ends_and_marks_do_not_matter(read, content):
  assert read(content) == [FLAT, FLAT | {"idx": 1}]


def test_a_line_separator_inside_a_text_is_text(read):
  content = json.dumps(ROW | {"premise": "a\u2028b"}, ensure_ascii=False)
  assert read(content.encode())[0]["premise"] == "a\u2028b"


def test_wsc_is_flattened(read):
  assert read(lines(SPANS), WSC) == [
      {
          "text": "Anna told Ben that she was late .",
          "span1_index": 0,
          "span1_text": "Anna",
          "span2_index": 4,
          "span2_text": "she",
          "label": 1,
          "idx": 0,
      }
  ]


@pytest.mark.parametrize(
    ("changes", "repaired"),
    [
        ({"span1_text": "anna"}, "Anna"),
        ({"span1_text": "That she.", "span1_index": 3}, "that she"),
        ({"span1_text": "Anna\ntold"}, "Anna told"),
        # No words of the text, and known: TFDS leaves it.
        ({"span1_text": "Kamenev and Zinoviev"}, "Kamenev and Zinoviev"),
    ],
)
def test_spans_are_repaired_as_tfds_does(read, changes, repaired):
  assert read(wsc(**changes), WSC)[0]["span1_text"] == repaired


def test_rows_of_a_test_split_have_no_label(read):
  unlabelled = {k: v for k, v in ROW.items() if k != "label"}
  assert read(lines(unlabelled), labelled=False) == [FLAT | {"label": -1}]
  for label in ("entailment", None):
    with pytest.raises(UserError, match="expected none in a split without"):
      read(lines(ROW | {"label": label}), labelled=False)
  with pytest.raises(UserError, match="line 1: lacks the field 'label'"):
    read(lines(unlabelled))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"premise": \n', "is not JSON in UTF-8"),
        (b"\xff\xfe\n", "is not JSON in UTF-8"),
        (b"[1]\n", "found a list, expected an object"),
        (lines({"premise": "P"}), "lacks the field 'hypothesis'"),
        (lines(ROW | {"premise": 3}), "premise is 3, expected text"),
        (lines(ROW | {"premise": "\ud800"}), "premise is not Unicode text"),
        (lines(ROW | {"idx": "0"}), "idx is '0', expected an integer"),
        (lines(ROW | {"idx": True}), "idx is True, expected an integer"),
        (
            lines(ROW | {"label": "maybe"}),
            'label is "maybe", expected one of entailment, not_entailment',
        ),
        (lines(ROW | {"label": 1}), "label is 1, expected one of"),
        (lines(ROW | {"label": [1]}), r"label is \[1\], expected one of"),
        (lines(ROW | {"idx": 2**31}), "idx is 2147483648, expected at most"),
        (lines(ROW | {"idx": -1}), "idx is -1, expected an integer >= 0"),
        (b"[" * 10**5 + b"\n", "is not JSON in UTF-8"),
        (lines(ROW), r"idx 0 was seen before \(.*val\.jsonl, line 1\)"),
    ],
)
def test_a_bad_line_is_named(read, content, message):
  with pytest.raises(UserError, match=rf"val\.jsonl, line 2: {message}"):
    read(lines(ROW) + content)


def test_no_depth_is_too_deep_for_a_message(read):
  """There are depths that Python still reads and no longer writes."""
  for depth in range(700, 1000):
    label = b"[" * depth + b"]" * depth
    with pytest.raises(UserError, match=r"label is .* expected|is not JSON"):
      read(lines(ROW).replace(b'"entailment"', label))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lines(SPANS | {"target": 3}), "target is 3, expected an object"),
        (
            lines(SPANS | {"label": "yes"}),
            'label is "yes", expected one of false, true',
        ),
        (wsc(span1_index=8), "span1_index is 8, expected 0 to 7"),
        (wsc(span2_index=-1), "span2_index is -1, expected 0 to 7"),
        (wsc(span1_text="Clara"), "span1_text is 'Clara', expected words"),
        (wsc(span1_index=None), "span1_index is None, expected an integer"),
    ],
)
def test_bad_spans_are_named(read, content, message):
  with pytest.raises(UserError, match=rf"val\.jsonl, line 1: {message}"):
    read(content, WSC)


def test_a_missing_file_is_named(tmp_path):
  with pytest.raises(UserError, match=r"none\.jsonl: cannot be read"):
    rows.read_jsonl(tmp_path / "none.jsonl", RTE, labelled=True)
