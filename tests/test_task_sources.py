"""The registered tasks, from official files, TFDS and the mini language."""

import functools
import json
import pathlib

import gin
import numpy as np
import pytest

from tests import shared_data
from xprompt_jax import token_cache, tokenization, vocabularies
from xprompt_jax.types import UserError

SUPER_GLUE = "xprompt_jax.tasks.super_glue"
MINI = "xprompt_jax.tasks.mini"
GIN = pathlib.Path(__file__).parents[1] / "xprompt_jax" / "gin" / "tasks"


@pytest.fixture
def official(monkeypatch):
  """SUPER_GLUE_DIR set to the real files."""
  folder = shared_data.path("super_glue")
  monkeypatch.setenv("SUPER_GLUE_DIR", str(folder))
  return folder


@pytest.fixture(scope="module")
def mini_cache(tmp_path_factory):
  """A cache that the tests of the mini tasks share."""
  return tmp_path_factory.mktemp("mini")


@pytest.fixture
def make(tmp_path):
  """`ensure_token_cache` of a SuperGLUE task with T5's vocabulary."""

  def call(task, split, *, cache="cache", vocabulary=None, length=256):
    if vocabulary is None:
      vocabulary = vocabularies.load_vocabulary(shared_data.t5_vocabulary())
    return token_cache.ensure_token_cache(
        task=task,
        split=split,
        module=SUPER_GLUE,
        cache_dir=tmp_path / cache,
        inputs_length=length,
        targets_length=16,
        vocabulary=vocabulary,
    )

  return call


@pytest.mark.parametrize(
    ("task", "split", "count", "unlabelled"),
    [
        ("wsc", "train", 259, 0),
        ("wsc", "validation", 104, 0),
        ("wsc", "test", 146, 146),
        ("rte", "validation", 277, 0),
    ],
)
def test_counts_of_the_real_splits(
    official, make, task, split, count, unlabelled
):
  found = make(task, split)
  assert len(found) == count
  assert found.info["num_unlabelled"] == unlabelled
  ids = [int(example["id"]) for example in found.examples]
  assert ids == sorted(ids)
  assert list(found.info["source_files"]) == [
      str(official / task.upper() / {"validation": "val"}.get(split, split))
      + ".jsonl"
  ]


def test_wsc_is_scored_by_its_referent(official, make):
  split = make("wsc", "validation")
  # Says the referent always: right wherever the label is true.
  texts = [example["targets_pretokenized"] for example in split.examples]
  predictions = [split.postprocess(text, i) for i, text in enumerate(texts)]
  assert set(predictions) == {1}
  assert split.compute_metrics(predictions) == {
      "accuracy": pytest.approx(100 * 38 / 104)
  }


def test_wsc_ids_are_t5s(official, make):
  split = make("wsc", "validation")
  assert split.examples[0]["inputs_pretokenized"] == (
      "Bernard , who had not told the government official that he was less than"
      " 21 when he filed for a homestead claim, did not consider that he had"
      " done anything dishonest. Still, anyone who knew that he was 19 years"
      " old could take his claim away from *him* ."
  )
  assert split.examples[0]["targets_pretokenized"] == "anyone"
  assert split.pad_targets(np.array([0]), 3).tolist() == [[1321, 1, 0]]
  assert split.examples[0]["target"] == 0


@pytest.mark.parametrize(
    ("task", "named", "prefix"),
    [
        ("rte", "super_glue_rte_v102", "rte "),
        ("wsc", "super_glue_wsc_v102_simple", "wsc: "),
    ],
)
def test_the_named_variants_only_add_the_name(
    official, make, task, named, prefix
):
  plain, with_name = make(task, "validation"), make(named, "validation")
  for one, other in zip(plain.examples, with_name.examples, strict=True):
    inputs = prefix + one["inputs_pretokenized"]
    assert {**one, "inputs_pretokenized": inputs} == other


def test_long_inputs_are_counted(official, make):
  assert make("rte", "validation").info["num_truncated_inputs"] == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "counts"), [("wsc", [259, 104, 146]), ("cb", [250, 56, 250])]
)
def test_tfds_gives_the_same_examples(
    official, make, monkeypatch, tmp_path, task, counts
):
  """TFDS's own builder on the same files; only its download is replaced.

  `test_task_tfds.py` compares the rows of the larger tasks.
  """
  tfds = shared_data.quiet_import("tensorflow_datasets")
  splits = ("train", "validation", "test")
  ours = [make(task, split, length=64) for split in splits]
  assert list(map(len, ours)) == counts
  monkeypatch.delenv("SUPER_GLUE_DIR")
  monkeypatch.setattr(
      tfds.core.download.DownloadManager,
      "download_and_extract",
      lambda self, url: str(official),
  )
  monkeypatch.setattr(
      tfds, "builder", functools.partial(tfds.builder, data_dir=tmp_path)
  )
  module = shared_data.quiet_import("xprompt_jax.tasks.official")
  monkeypatch.setattr(module, "_check_reachable", lambda url: None)
  for split, expected in zip(splits, ours, strict=True):
    found = make(task, split, cache="tfds", length=64)
    assert found.examples == expected.examples
    np.testing.assert_array_equal(found.inputs, expected.inputs)
    np.testing.assert_array_equal(found.targets, expected.targets)
    assert found.fingerprint == expected.fingerprint
    assert found.info["source_files"] == {}


class TestMistakes:
  """What the user can mend, in one line."""

  @pytest.fixture
  def folder(self, monkeypatch, tmp_path):
    monkeypatch.setenv("SUPER_GLUE_DIR", str(tmp_path / "data"))
    (tmp_path / "data" / "RTE").mkdir(parents=True)
    return tmp_path / "data"

  @pytest.fixture
  def read(self, make):
    return lambda split: make(
        "rte", split, vocabulary=vocabularies.ByteVocabulary()
    )

  def test_no_such_file(self, folder, read):
    with pytest.raises(UserError, match=r"RTE/train\.jsonl: cannot be read"):
      read("train")

  def test_an_empty_file(self, folder, read):
    (folder / "RTE/train.jsonl").write_text("\n")
    with pytest.raises(
        UserError,
        match=r"train\.jsonl: has 0 rows, expected the official 2,490; another"
        " data set is a task of its own$",
    ):
      read("train")

  def test_a_bad_line(self, folder, read, tmp_path):
    row = {"premise": "P", "hypothesis": "H", "idx": 0, "label": "entailment"}
    text = json.dumps(row) + "\n{"
    (folder / "RTE/val.jsonl").write_text(text)
    with pytest.raises(UserError, match=r"val\.jsonl, line 2: is not JSON"):
      read("validation")
    assert not (tmp_path / "cache").exists()

  def test_no_network(self, monkeypatch, read, tmp_path):
    tfds = shared_data.quiet_import("tensorflow_datasets")
    monkeypatch.delenv("SUPER_GLUE_DIR", raising=False)
    monkeypatch.setattr(
        tfds, "builder", functools.partial(tfds.builder, data_dir=tmp_path)
    )
    module = shared_data.quiet_import("xprompt_jax.tasks.official")

    def unreachable(url):
      raise OSError(f"no route to {url}")

    monkeypatch.setattr(module, "_check_reachable", unreachable)
    with pytest.raises(
        UserError,
        match=r"super_glue/rte: .*train \(no route to .*RTE\.zip\); set"
        r" SUPER_GLUE_DIR to a folder with the official RTE/train\.jsonl$",
    ):
      read("train")

  def test_the_folder_counts_when_read(
      self, official, folder, read, monkeypatch
  ):
    with pytest.raises(UserError, match="cannot be read"):
      read("validation")
    monkeypatch.setenv("SUPER_GLUE_DIR", str(official))
    assert len(read("validation")) == 277


class TestNames:
  """Names that seqio knows already."""

  @pytest.fixture
  def add(self):
    """Registers RTE's task under a new name, over a source."""
    seqio = shared_data.quiet_import("seqio")
    sources = shared_data.quiet_import("xprompt_jax.tasks.sources")
    shared_data.quiet_import(SUPER_GLUE)
    own = seqio.TaskRegistry.get("rte")
    name = "taken"

    def call(rows):
      sources.add_task(
          name,
          source=sources.RowSource(lambda split: rows, splits=["train"]),
          text=dict,
          vocabulary=own.output_features["inputs"].vocabulary,
          postprocess_fn=own.postprocess_fn,
          metric_fns=[],
      )

    yield call
    if name in seqio.TaskRegistry.names():
      seqio.TaskRegistry.remove(name)

  def test_ours_may_be_registered_again(self, add):
    seqio = shared_data.quiet_import("seqio")
    add([])
    first = seqio.TaskRegistry.get("taken")
    add([])
    assert seqio.TaskRegistry.get("taken") is first

  def test_others_are_refused(self, add):
    seqio = shared_data.quiet_import("seqio")
    source = seqio.FunctionDataSource(
        lambda split, shuffle_files: None, splits=["train"]
    )
    seqio.TaskRegistry.add("taken", source=source, output_features={})
    with pytest.raises(
        UserError,
        match="^task taken: is registered already, over a FunctionDataSource,"
        " expected a free name; import one of the modules that register it$",
    ):
      add([])


class TestMini:
  """The packaged model's tasks."""

  @pytest.mark.parametrize(
      ("task", "train", "few", "labels"),
      [
          ("mini_boolq", 2000, {"False": 16, "True": 16}, {0, 1}),
          (
              "mini_rte",
              2000,
              {"entailment": 16, "not_entailment": 16},
              {0, 1},
          ),
          (
              "mini_cb",
              2000,
              {"entailment": 11, "contradiction": 11, "neutral": 10},
              {0, 1, 2},
          ),
          ("mini_wsc", 2000, None, {1}),
      ],
  )
  def test_splits(self, mini_cache, task, train, few, labels):
    ensure = functools.partial(
        token_cache.ensure_token_cache,
        module=MINI,
        cache_dir=mini_cache,
        inputs_length=32,
        targets_length=4,
    )
    split = ensure(task=task, split="train")
    assert len(split) == train
    (source,) = split.info["source_files"]
    assert source.endswith("mini_language.py")
    assert {example["target"] for example in split.examples} == labels
    shots = ensure(task=f"{task}_32shot", split="train")
    assert len(shots) == 32
    texts = [example["targets_pretokenized"] for example in shots.examples]
    if few is not None:
      assert {text: texts.count(text) for text in texts} == few
    full = {example["id"]: example for example in split.examples}
    assert all(full[e["id"]] == e for e in shots.examples)
    validation = ensure(task=task, split="validation")
    assert len(validation) == 200
    few_validation = ensure(task=f"{task}_32shot", split="validation")
    assert few_validation.fingerprint == validation.fingerprint


@pytest.mark.parametrize(
    "path", sorted(GIN.glob("*.gin")), ids=lambda p: p.stem
)
def test_gin_files_name_tasks_that_exist(path, mini_cache):
  with gin.unlock_config():
    gin.clear_config()
    gin.add_config_file_search_path(str(GIN.parent))
    # The vocabulary belongs to the model.
    model = "bundled" if path.stem.startswith("mini_") else "t5_1_1_small"
    gin.parse_config_file(f"models/{model}.gin")
    gin.parse_config_file(str(path))

    def macro(name):
      return gin.query_parameter(f"{name}/gin.macro.value")

    settings = {
        name: macro(name)
        for name in (
            "MIXTURE_OR_TASK_NAME",
            "MIXTURE_OR_TASK_MODULE",
            "TRAIN_SPLIT",
            "VALIDATION_SPLIT",
            "TEST_SPLIT",
            "INPUTS_LENGTH",
            "TARGETS_LENGTH",
            "VOCABULARY",
            "EXTRA_IDS",
        )
    }
    gin.clear_config()
  seqio = shared_data.quiet_import("seqio")
  module = settings["MIXTURE_OR_TASK_MODULE"]
  tokenization.import_task_module(module)
  task = seqio.TaskRegistry.get(settings["MIXTURE_OR_TASK_NAME"])
  for split in ("TRAIN_SPLIT", "VALIDATION_SPLIT", "TEST_SPLIT"):
    # The diagnostics have no more, so that `t5x train` refuses them.
    if split == "TEST_SPLIT" or path.stem not in ("axb", "axg"):
      assert settings[split] in (*task.splits, None)
  own = task.output_features["inputs"].vocabulary
  assert own.extra_ids == settings["EXTRA_IDS"]
  if module != MINI:
    assert own.sentencepiece_model_file == settings["VOCABULARY"]
    return
  vocabulary = vocabularies.load_vocabulary(
      settings["VOCABULARY"], settings["EXTRA_IDS"]
  )
  split = token_cache.ensure_token_cache(
      task=task.name,
      split=settings["TRAIN_SPLIT"],
      module=module,
      cache_dir=mini_cache,
      inputs_length=settings["INPUTS_LENGTH"],
      targets_length=settings["TARGETS_LENGTH"],
      vocabulary=vocabulary,
  )
  assert split.info["num_truncated_inputs"] == 0
  assert split.info["num_truncated_targets"] == 0
