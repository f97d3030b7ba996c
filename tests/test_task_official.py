"""Official splits: their counts and contents, however their files are written."""

import dataclasses
import json
import random

import pytest

from tests import shared_data
from xprompt_jax.tasks import rows, schemas
from xprompt_jax.types import UserError

official = shared_data.quiet_import("xprompt_jax.tasks.official")
CB = schemas.SCHEMAS["cb"]
PRESENT = [
    (name, split)
    for name, schema in schemas.SCHEMAS.items()
    for split in schema.splits
]


@pytest.fixture
def cb(monkeypatch, tmp_path):
  """Reads CB's validation split from a file with these bytes."""

  def call(content):
    path = tmp_path / "CB" / "val.jsonl"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    monkeypatch.setenv("SUPER_GLUE_DIR", str(tmp_path))
    source = official.super_glue_source(CB)
    return list(source.get_dataset("validation").as_numpy_iterator())

  return call


@pytest.fixture
def lines():
  """The lines of CB's official validation file."""
  path = shared_data.path("super_glue/CB/val.jsonl")
  return path.read_bytes().splitlines()


def shuffled(lines):
  """Other order of lines and keys, other escapes; the same 56 rows."""
  found = [dict(sorted(json.loads(line).items())) for line in lines]
  random.Random(3).shuffle(found)
  return [json.dumps(row, ensure_ascii=False).encode() for row in found]


def test_how_a_file_is_written_does_not_matter(cb, lines):
  expected = cb(b"\n".join(lines))
  assert len(expected) == 56
  assert [row["idx"] for row in expected] == list(range(56))
  assert cb(b"\r\n".join(lines) + b"\r\n") == expected
  assert cb(b"\xef\xbb\xbf" + b"\n".join(lines)) == expected
  assert cb(b"\n".join(shuffled(lines))) == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda lines: lines[:-1],
            "has 55 rows, expected the official 56; another data set is a task"
            " of its own$",
        ),
        (
            lambda lines: [*lines, lines[0].replace(b'"idx": 0', b'"idx": 56')],
            "has 57 rows, expected the official 56; ",
        ),
        (
            lambda lines: [*lines[:-1], lines[0]],
            r"line 56: idx 0 was seen before \(.*, line 1\)",
        ),
        (
            lambda lines: [
                lines[0].replace(b"Valence", b"valence"),
                *lines[1:],
            ],
            "its rows have sha256 [0-9a-f]{12}, expected the official"
            " 005dfed237d9; another data set",
        ),
        (
            lambda lines: [
                lines[0].replace(b'"contradiction"', b'"neutral"'),
                *lines[1:],
            ],
            "its rows have sha256 ",
        ),
        (
            lambda lines: [
                lines[0].replace(b'"contradiction"', b'"no"'),
                *lines[1:],
            ],
            'line 1: label is "no", expected one of entailment, contradiction,'
            " neutral$",
        ),
        (
            lambda lines: [line.decode().encode("utf-16") for line in lines],
            "line 1: is not JSON in UTF-8 ",
        ),
    ],
    ids=["short", "long", "twice", "text", "label", "no label", "UTF-16"],
)
def test_other_rows_are_refused(cb, lines, change, message):
  with pytest.raises(UserError, match=rf"CB/val\.jsonl[:,] {message}") as error:
    cb(b"\n".join(change(lines)))
  assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("names", "ids", "found"),
    [
        (["idx"], [(0,), (1,), (2,)], None),
        (["idx"], [(1,), (2,), (3,)], "idx 1 in the place of 0"),
        (["idx"], [(0,), (3,), (1,)], "idx 3 in the place of 2"),
        (["passage", "query"], [(0, 1), (1, 0), (1, 2)], None),
        (["passage", "query"], [(0, 0), (1, 1), (1, 3)], "idx 1-3 .* 2"),
        (["passage", "query"], [(0, 0), (2, 1), (2, 2)], "idx 2 .* 1"),
        (["passage", "query"], [(0, 0), (1, 0), (1, 1)], "idx 1-0 .* 1"),
        (
            ["paragraph", "question", "answer"],
            [(0, 0, 0), (0, 0, 1), (1, 1, 2)],
            None,
        ),
        (
            ["paragraph", "question", "answer"],
            [(0, 0, 0), (0, 0, 1), (1, 0, 2)],
            "idx 1-0 in the place of 1",
        ),
        (
            ["paragraph", "question", "answer"],
            [(0, 0, 0), (0, 1, 1), (1, 2, 0)],
            "idx 1-2-0 in the place of 1",
        ),
    ],
)
def test_official_ids_count_from_0(names, ids, found):
  """Few-shot rows, chosen from another split, keep theirs."""
  split = schemas.Split(file="val.jsonl", rows=3)
  name = "{}" if names == ["idx"] else "idx/{}"
  of_file = [
      {name.format(n): part for n, part in zip(names, number, strict=True)}
      for number in ids
  ]
  chosen = dataclasses.replace(split, chosen=True)
  assert rows.check_split(of_file, chosen, "file")
  if found is None:
    assert len(rows.check_split(of_file, split, "file")) == 3
    return
  with pytest.raises(UserError, match=f"^file: found {found}, expected") as e:
    rows.check_split(of_file, split, "file")
  assert "\n" not in str(e.value)


@pytest.mark.parametrize("variable", ["SUPER_GLUE_DIR", "FEWGLUE_DIR"])
def test_a_folder_of_no_user_is_refused(monkeypatch, variable):
  monkeypatch.setenv(variable, "~no such user/data")
  source = {
      "SUPER_GLUE_DIR": official.super_glue_source,
      "FEWGLUE_DIR": official.fewglue_source,
  }[variable](CB)
  with pytest.raises(
      UserError,
      match=r"^~no such user/data/CB/train\.jsonl: cannot be read \(No such",
  ):
    source.get_dataset("train")


@pytest.mark.parametrize(("task", "split"), PRESENT)
def test_the_real_splits(monkeypatch, task, split):
  schema = schemas.SCHEMAS[task]
  expected = schema.splits[split]
  path = f"super_glue/{schema.folder}/{expected.file}"
  monkeypatch.setenv("SUPER_GLUE_DIR", str(shared_data.path("super_glue")))
  shared_data.path(path)
  found = official._read_official(schema, split)
  assert len(found) == expected.rows
  labels = {row["label"] for row in found}
  assert (labels == {-1}) == (split == "test")


def test_few_shot_sets(monkeypatch):
  """Everything published has 32 lines, read in the order of their ids."""
  monkeypatch.setenv("FEWGLUE_DIR", str(shared_data.path("fewglue")))
  counts = {}
  for name, schema in schemas.SCHEMAS.items():
    if schema.few_shot:
      source = official.fewglue_source(schema)
      counts[name] = [
          source.num_input_examples(split) for split in ("train", "validation")
      ]
  assert counts.pop("multirc") == [154, 167]
  others = ("boolq", "cb", "copa", "record", "rte", "wic", "wsc")
  assert counts == {name: [32, 32] for name in others}


def test_few_shot_sets_are_checked(monkeypatch, tmp_path):
  source = official.fewglue_source(CB)
  monkeypatch.delenv("FEWGLUE_DIR", raising=False)
  with pytest.raises(
      UserError,
      match=r"^FEWGLUE_DIR: is not set, expected the folder that holds"
      r" FewGLUE's CB/train\.jsonl$",
  ):
    source.get_dataset("train")
  monkeypatch.setenv("FEWGLUE_DIR", str(tmp_path))
  with pytest.raises(UserError, match=r"CB/dev32\.jsonl: cannot be read"):
    source.get_dataset("validation")
  (tmp_path / "CB").mkdir()
  content = shared_data.path("fewglue/CB/train.jsonl").read_bytes()
  (tmp_path / "CB" / "dev32.jsonl").write_bytes(content)
  with pytest.raises(UserError, match=r"dev32\.jsonl: its rows have sha256"):
    source.get_dataset("validation")


def test_passages_are_counted():
  split = schemas.Split(file="val.jsonl", rows=2, passages=2)
  found = [{"idx/passage": 0, "idx/query": number} for number in (1, 0)]
  with pytest.raises(UserError, match="^file: has 1 passages, expected .* 2;"):
    rows.check_split(found, split, "file")
  one = dataclasses.replace(split, passages=1)
  assert rows.check_split(found, one, "file") == found[::-1]


def test_known_contents():
  """Splits whose official content is at hand have its sha256."""
  known = {
      (name, split)
      for name, schema in schemas.SCHEMAS.items()
      for split, expected in schema.splits.items()
      if expected.sha256
  }
  assert set(PRESENT) - known == {
      ("boolq", "train"),
      ("boolq", "test"),
      ("record", "train"),
      ("record", "validation"),
      ("record", "test"),
      # The rows at hand are put together from two sources.
      ("wic", "train"),
      ("wic", "test"),
      ("axb", "test"),
      ("axg", "test"),
  }
