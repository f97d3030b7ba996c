"""Rows are those of TFDS's own reader, on every real file."""

import dataclasses
import functools
import json

import pytest

from tests import shared_data
from xprompt_jax.tasks import rows, schemas

tfds = shared_data.quiet_import("tensorflow_datasets")


@pytest.fixture
def tfds_rows(tmp_path):
  """Rows of a file as TFDS's builder makes them, nested ids flattened."""

  def call(schema, path):
    builder = tfds.builder(schema.tfds_name, data_dir=tmp_path)
    features = builder.info.features
    found = []
    for _, row in builder._generate_examples(path, "test"):
      numbers = row.pop("idx")
      if isinstance(numbers, dict):
        row.update({f"idx/{name}": value for name, value in numbers.items()})
      else:
        row["idx"] = int(numbers)
      if "label" in features:
        row["label"] = features["label"].encode_example(row["label"])
      found.append(row)
    return found

  return call


@pytest.mark.parametrize(
    "path",
    [
        f"{folder}/{schema.folder}/{split.file}"
        for schema in schemas.SCHEMAS.values()
        for folder, splits in (
            ("super_glue", schema.splits),
            ("fewglue", schema.few_shot),
        )
        for split in splits.values()
    ],
)
def test_every_real_file(tfds_rows, path):
  file = shared_data.path(path)
  (schema,) = (
      s for s in schemas.SCHEMAS.values() if s.folder == file.parent.name
  )
  found = rows.read_jsonl(file, schema, labelled=file.name != "test.jsonl")
  assert found == tfds_rows(schema, file)


# Two rows of each diagnostic, as its file writes them.
AXB = {
    "sentence1": "The cat sat on the mat.",
    "sentence2": "The cat did not sit on the mat.",
    "idx": "0",
    "label": "not_entailment",
    "logic": "Negation",
}
AXG = {
    "hypothesis": "The accountant sought help filing taxes.",
    "idx": 0,
    "label": "not_entailment",
    "pair_id": 551646,
    "premise": (
        "The taxpayer met with the accountant to get help filing his taxes."
    ),
}


@pytest.mark.parametrize(
    ("task", "row", "other"),
    [
        ("axb", AXB, {"idx": "1", "label": "entailment"}),
        (
            "axg",
            AXG,
            {"idx": 1, "premise": AXG["premise"].replace("his", "her")},
        ),
    ],
)
def test_diagnostics(tfds_rows, tmp_path, task, row, other):
  schema = schemas.SCHEMAS[task]
  file = tmp_path / schema.splits["test"].file
  file.write_text("".join(json.dumps(r) + "\n" for r in (row, row | other)))
  found = rows.read_jsonl(file, schema, labelled=True)
  assert [r["idx"] for r in found] == [0, 1]
  assert found == tfds_rows(schema, file)


@pytest.mark.parametrize("task", ["multirc", "record", "axb"])
def test_nested_ids_through_tfds(monkeypatch, tmp_path, task):
  """TFDS's files hold `idx` as TFDS nests it; only its download is replaced."""
  official = shared_data.quiet_import("xprompt_jax.tasks.official")
  schema = schemas.SCHEMAS[task]
  folder = tmp_path / "files" / schema.folder
  folder.mkdir(parents=True)
  if task == "axb":
    contents = [json.dumps(AXB) + "\n"]
  else:
    few = shared_data.path(f"fewglue/{schema.folder}")
    contents = [
        (few / name).read_text()
        for name in ("train.jsonl", "dev32.jsonl", "dev32.jsonl")
    ]
  splits = {}
  for (name, split), content in zip(
      schema.splits.items(), contents, strict=True
  ):
    (folder / split.file).write_text(content)
    found = rows.read_jsonl(folder / split.file, schema, labelled=True)
    splits[name] = dataclasses.replace(
        split,
        rows=len(found),
        passages=None,
        labelled=True,
        chosen=True,
        # Other content is refused by it, so TFDS's rows must be the same.
        sha256=rows.rows_sha256(sorted(found, key=rows.row_id)),
    )
  monkeypatch.delenv("SUPER_GLUE_DIR", raising=False)
  monkeypatch.setattr(
      tfds.core.download.DownloadManager,
      "download_and_extract",
      lambda self, url: str(folder.parent),
  )
  prepared = functools.partial(tfds.builder, data_dir=tmp_path)
  monkeypatch.setattr(tfds, "builder", prepared)
  monkeypatch.setattr(official, "_check_reachable", lambda url: None)
  changed = dataclasses.replace(schema, splits=splits)
  for name, split in splits.items():
    found = official._read_official(changed, name)
    assert len(found) == split.rows
    ids = [rows.row_id(row) for row in found]
    assert ids == sorted(set(ids))
