"""The token cache: made once through seqio, read everywhere without it."""

import dataclasses
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from tests import shared_data
from xprompt_jax import token_cache, tokenization, vocabularies
from xprompt_jax.types import UserError

# A user's own task module, on the bundled vocabulary. Row 1 does not fit.
MODULE = """
import functools
import pathlib

import seqio
import tensorflow as tf

from xprompt_jax.tasks import metrics, postprocessors
from xprompt_jax.tasks.sources import RowSource, to_dataset

HERE = pathlib.Path(__file__).parent
ROWS = [
    {"inputs": "anna has a red ball .", "targets": "True", "idx": 5},
    {"inputs": "ben has a ball . anna has a", "targets": "False", "idx": 6},
    {"inputs": "red", "targets": "True", "idx": 7},
]


def read(split):
  if split == "doubled":
    return ROWS + ROWS
  if split == "unlabelled":
    return [row | {"label": -1, "targets": "<unk>"} for row in ROWS]
  if split == "placed":
    return [{k: row[k] for k in ("inputs", "targets")} for row in ROWS]
  if split == "parts":
    return [
        {k: row[k] for k in ("inputs", "targets")}
        | {"idx/paragraph": 3, "idx/answer": row["idx"]}
        for row in ROWS
    ]
  return ROWS


class Closure:
  def named(targets, predictions):
    return {"hits": sum(t == p for t, p in zip(targets, predictions))}


vocabulary = seqio.SentencePieceVocabulary(VOCABULARY, 32)
classes = functools.partial(postprocessors.class_id, labels=["False", "True"])
for name, postprocess_fn, metric_fns in (
    ("toy", classes, [metrics.accuracy]),
    ("toy_text", None, [Closure.named]),
):
  seqio.TaskRegistry.add(
      name,
      source=RowSource(
          read,
          splits=["train", "doubled", "unlabelled", "placed", "parts"],
          files=lambda split: [HERE / "toy_rows.txt"],
      ),
      preprocessors=[
          seqio.preprocessors.tokenize,
          seqio.preprocessors.append_eos_after_trim,
      ],
      output_features={
          k: seqio.Feature(vocabulary) for k in ("inputs", "targets")
      },
      postprocess_fn=postprocess_fn,
      metric_fns=metric_fns,
  )
seqio.MixtureRegistry.add("toy_mix", [("toy", 1), ("toy_text", 1)])
"""
TOY = {"task": "toy", "split": "train", "module": "toy_tasks"}
LENGTHS = {"inputs_length": 7, "targets_length": 4}


@pytest.fixture(scope="module")
def modules(tmp_path_factory):
  """The folder of `toy_tasks`, importable, registered once."""
  folder = tmp_path_factory.mktemp("modules")
  path = vocabularies.load_vocabulary("bundled", 32).path
  code = MODULE.replace("VOCABULARY", repr(path))
  (folder / "toy_tasks.py").write_text(code)
  (folder / "toy_rows.txt").write_text("rows")
  sys.path.insert(0, str(folder))
  yield folder
  sys.path.remove(str(folder))


@pytest.fixture
def make(modules, tmp_path):
  """`ensure_token_cache` on the toy task, with changes."""

  def call(**changes):
    settings = {**TOY, **LENGTHS, "cache_dir": tmp_path / "cache", **changes}
    return token_cache.ensure_token_cache(**settings)

  return call


@pytest.fixture
def no_tensorflow(monkeypatch):
  """A machine that has neither TensorFlow nor seqio."""
  for name in ("tensorflow", "seqio"):
    monkeypatch.setitem(sys.modules, name, None)


def ids_of(split, feature):
  """The ids of each example, from the two flat arrays."""
  ids, offsets = getattr(split, f"{feature}s"), f"{feature}_offsets"
  return [
      part.tolist() for part in np.split(ids, getattr(split, offsets)[1:-1])
  ]


def pieces(split, feature):
  vocabulary = vocabularies.load_vocabulary("bundled", 32)
  return [
      " ".join(vocabulary.piece(i) for i in ids)
      for ids in ids_of(split, feature)
  ]


def test_texts_are_tokenised_trimmed_and_ended(make):
  split = make()
  assert pieces(split, "input") == [
      "▁anna ▁has ▁a ▁red ▁ball ▁. </s>",
      "▁ben ▁has ▁a ▁ball ▁. ▁anna </s>",
      "▁red </s>",
  ]
  assert pieces(split, "target") == [
      "▁True </s>",
      "▁False </s>",
      "▁True </s>",
  ]
  assert split.input_lengths.tolist() == [7, 7, 2]
  assert split.target_lengths.tolist() == [2, 2, 2]
  assert split.info["num_truncated_inputs"] == 1
  assert split.info["num_truncated_targets"] == 0
  assert split.inputs.dtype == split.targets.dtype == np.int32


def test_examples_hold_what_evaluation_needs(make):
  assert make().examples[1] == {
      "id": "6",
      "inputs_pretokenized": "ben has a ball . anna has a",
      "targets_pretokenized": "False",
      "target": 0,
      "fields": {"idx": 6},
  }


@pytest.mark.parametrize(
    ("split", "ids"),
    [("placed", ["0", "1", "2"]), ("parts", ["3-5", "3-6", "3-7"])],
)
def test_ids_come_from_idx_or_the_place(make, split, ids):
  assert [example["id"] for example in make(split=split).examples] == ids


def test_metrics_are_found_by_name(make):
  split = make()
  predictions = [split.postprocess(t, i) for i, t in enumerate(["True"] * 3)]
  assert predictions == [1, 1, 1]
  assert split.targets_for_metrics() == [1, 0, 1]
  found = split.compute_metrics(predictions)
  assert found == {"accuracy": pytest.approx(200 / 3)}
  assert split.info["metrics"] == [
      {"function": "xprompt_jax.tasks.metrics:accuracy", "kwargs": {}}
  ]
  assert split.info["postprocessor"] == {
      "function": "xprompt_jax.tasks.postprocessors:class_id",
      "kwargs": {"labels": ["False", "True"]},
  }


def test_answers_are_closed_without_candidates_where_classes_are_named(make):
  """As in the caches of older versions, whose examples name none."""
  split = make()
  assert "candidates" not in split.examples[0]["fields"]
  assert [split.candidates(i) for i in range(3)] == [("False", "True")] * 3
  named = {**split.examples[0], "fields": {"candidates": ["yes", "no"]}}
  split = dataclasses.replace(split, examples=[named, *split.examples[1:]])
  assert split.candidates(0) == ("yes", "no")
  assert split.candidates(1) == ("False", "True")
  assert make(task="toy_text").candidates(0) == ()


def test_metrics_without_a_name_come_from_the_task(make):
  split = make(task="toy_text")
  assert split.info["postprocessor"] is None
  assert split.info["metrics"] == [
      {"task": "toy_text", "module": "toy_tasks", "metric": 0}
  ]
  assert split.postprocess("red", 0) == "red"
  assert split.compute_metrics(["True", "True", "True"]) == {"hits": 2}


def test_max_examples_takes_the_first(make):
  assert [e["id"] for e in make(max_examples=2).examples] == ["5", "6"]


def test_another_vocabulary_can_take_the_tasks_place(make):
  split = make(task="toy_text", vocabulary=vocabularies.ByteVocabulary())
  assert ids_of(split, "input")[2] == [117, 104, 103, 1]
  assert split.info["vocabulary_path"] == "bytes"
  assert split.info["vocab_size"] == 259


def test_making_a_cache_needs_tensorflow(make, tmp_path, no_tensorflow):
  with pytest.raises(UserError, match=r"TensorFlow cannot .*`t5x cache`"):
    make()
  assert not (tmp_path / "cache").exists()


def test_other_machines_need_no_tensorflow(make, tmp_path):
  make()
  code = """
import sys
sys.modules.update(tensorflow=None, seqio=None)
from xprompt_jax import token_cache
split = token_cache.ensure_token_cache(
    task="toy", split="train", module="toy_tasks", cache_dir=sys.argv[1],
    inputs_length=7, targets_length=4)
print(split.postprocess("True", 0), split.compute_metrics([1, 0, 1]))
"""
  done = subprocess.run(
      [sys.executable, "-c", code, str(tmp_path / "cache")],
      capture_output=True,
      text=True,
      check=True,
  )
  assert done.stdout == "1 {'accuracy': 100.0}\n"


def test_the_second_call_reads_what_the_first_wrote(
    make, monkeypatch, tmp_path
):
  first = make()
  files = {p: p.read_bytes() for p in sorted(tmp_path.rglob("*.*"))}
  assert [p.name for p in files] == [
      "train.json",
      "train.jsonl",
      "train.safetensors",
  ]
  monkeypatch.delattr(tokenization, "tokenize_task")
  second = make()
  np.testing.assert_array_equal(second.inputs, first.inputs)
  np.testing.assert_array_equal(second.target_offsets, first.target_offsets)
  assert second.examples == first.examples
  assert second.fingerprint == first.fingerprint
  assert files == {p: p.read_bytes() for p in sorted(tmp_path.rglob("*.*"))}


def test_a_cache_made_again_is_the_same(make, tmp_path):
  make()
  files = {p: p.read_bytes() for p in sorted(tmp_path.rglob("*.*"))}
  shutil.rmtree(tmp_path / "cache")
  make()
  assert files == {p: p.read_bytes() for p in sorted(tmp_path.rglob("*.*"))}


def test_a_cache_that_was_not_finished_is_made_again(make, tmp_path):
  make()
  (tmp_path / "cache/toy/train.json").unlink()
  (tmp_path / "cache/toy/train.jsonl").write_text("half")
  assert len(make()) == 3


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"inputs_length": 9}, "inputs_length is 7 there and 9 now"),
        ({"targets_length": 5}, "targets_length is 4 there and 5 now"),
        ({"max_examples": 2}, "max_examples is None there and 2 now"),
        ({"module": "other"}, "module is 'toy_tasks' there and 'other' now"),
    ],
)
def test_other_settings_are_refused(make, changes, difference):
  make()
  with pytest.raises(UserError, match=rf"train\.json: .*{difference}"):
    make(**changes)


def test_another_vocabulary_is_refused(make):
  make(vocabulary=vocabularies.load_vocabulary("bundled", 32))
  make()  # Without one the task's own counts, which this is.
  with pytest.raises(UserError, match="vocabulary.extra_ids is 32 there and 5"):
    make(vocabulary=vocabularies.load_vocabulary("bundled", 5))
  with pytest.raises(UserError, match=r"vocabulary\.(sha256|extra_ids)"):
    make(vocabulary=vocabularies.ByteVocabulary())


def test_a_changed_source_is_refused(make, modules):
  make()
  rows = modules / "toy_rows.txt"
  rows.write_text("other rows")
  with pytest.raises(UserError, match=r"toy_rows\.txt: has changed since"):
    make()
  rows.unlink()  # A machine that only has the cache.
  assert len(make()) == 3
  rows.write_text("rows")


class TestDamage:
  """A cache whose files are not what was written."""

  def test_changed_text(self, make, tmp_path):
    make()
    path = tmp_path / "cache/toy/train.jsonl"
    path.write_text(path.read_text().replace("anna", "nina"))
    with pytest.raises(UserError, match=r"train\.jsonl: contents have sha256"):
      make()

  def test_changed_ids(self, make, tmp_path):
    make()
    path = tmp_path / "cache/toy/train.safetensors"
    content = bytearray(path.read_bytes())
    content[-4] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(
        UserError, match=r"train.safetensors: targets: contents"
    ):
      make()

  def test_ids_of_another_cache(self, make, tmp_path):
    make()
    make(split="placed", max_examples=2)
    folder = tmp_path / "cache/toy"
    shutil.copy(folder / "placed.safetensors", folder / "train.safetensors")
    with pytest.raises(UserError, match=r"train\.safetensors: contents have"):
      make()

  @pytest.mark.parametrize("name", ["train.jsonl", "train.safetensors"])
  def test_missing_file(self, make, tmp_path, name):
    make()
    (tmp_path / "cache/toy" / name).unlink()
    with pytest.raises(UserError, match=f"{name}: cannot read"):
      make()

  def test_not_an_info(self, make, tmp_path):
    make()
    (tmp_path / "cache/toy/train.json").write_text(json.dumps({"a": 1}))
    with pytest.raises(UserError, match=r"train\.json: lacks 'arrays_sha256'"):
      make()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "tyo"}, "tyo: toy_tasks registers no .* such as toy"),
        ({"task": "toy_mix"}, "toy_mix: is a mixture, expected a task"),
        ({"split": "test"}, "toy: has no split test, expected one of train, "),
        ({"split": "doubled"}, "id 5 occurs twice in split doubled"),
        ({"module": "no.such"}, "MIXTURE_OR_TASK_MODULE no.such: cannot be"),
        ({"inputs_length": 1}, "inputs_length: found 1, expected 2 or more"),
        ({"max_examples": 0}, "max_examples: found 0, expected 1 or more"),
    ],
)
def test_refusals(make, tmp_path, changes, message):
  with pytest.raises(UserError, match=message):
    make(**changes)
  assert not list(tmp_path.rglob("*.*"))


def test_evaluation_needs_labels(make):
  make().check_labelled()
  with pytest.raises(
      UserError, match="3 of 3 examples have no label, .* another split"
  ):
    make(split="unlabelled").check_labelled()


def test_a_read_only_folder_is_named(make, tmp_path):
  (tmp_path / "cache").write_text("a file where the folder should be")
  with pytest.raises(UserError, match=r"train\.safetensors: cannot write"):
    make()


@pytest.mark.interop
def test_ids_are_those_of_seqios_own_pipeline(make, modules):
  seqio = shared_data.quiet_import("seqio")
  shared_data.quiet_import("toy_tasks")
  theirs = seqio.get_mixture_or_task("toy").get_dataset(
      sequence_length={"inputs": 7, "targets": 4}, split="train", shuffle=False
  )
  theirs = list(theirs.as_numpy_iterator())
  split = make()
  for feature in ("input", "target"):
    assert ids_of(split, feature) == [
        example[f"{feature}s"].tolist() for example in theirs
    ]
