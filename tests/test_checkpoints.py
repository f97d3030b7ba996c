"""What CHECKPOINT may name, and what a checkpoint tells of itself."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from tests import huggingface_folders, vocabulary_files
from tests.huggingface_folders import CONFIG, refused
from xprompt_jax import artifacts, main
from xprompt_jax.weights import checkpoints, huggingface, loading, t5x_writer


@pytest.fixture
def folder(tmp_path):
  return huggingface_folders.write(tmp_path / "t5")


@pytest.fixture
def forms(tmp_path, folder):
  """The same weights in every form, by name."""
  opened = huggingface.open_folder(folder, CONFIG)
  t5x_writer.write_checkpoint(tmp_path / "native", CONFIG, opened, step=7)
  arrays = {name: leaf.whole() for name, leaf in opened.items()}
  artifacts.save_arrays(tmp_path / "named" / "model.safetensors", arrays)
  step = tmp_path / "native" / "checkpoint_7"
  return {
      "Hugging Face": folder,
      "T5X, the folder above": tmp_path / "native",
      "T5X": step,
      "T5X's file": step / "checkpoint",
      "T5X's names": tmp_path / "named",
      "the file": tmp_path / "named" / "model.safetensors",
  }


def test_the_same_weights_in_every_form(forms):
  found = {
      name: loading.load_frozen(str(path), CONFIG)
      for name, path in forms.items()
  }
  assert len({frozen.fingerprint for frozen in found.values()}) == 1
  first = found["Hugging Face"].params
  for frozen in found.values():
    same = jax.tree.map(np.array_equal, frozen.params, first)
    assert all(jax.tree.leaves(same))


def test_a_checkpoint_tells_its_sizes(forms):
  assert checkpoints.config_of(str(forms["Hugging Face"])) == CONFIG
  # T5X's format has no place for it.
  told = dataclasses.replace(CONFIG, relpos_max_distance=128)
  assert checkpoints.config_of(str(forms["T5X"])) == told


@pytest.mark.parametrize("name", ["bundled", "bundled_small", "random:0"])
def test_some_tell_no_sizes(name):
  assert refused(checkpoints.config_of, name) == (
      f"CHECKPOINT: {name} does not tell the network's sizes, expected a file"
      " of models/ that does"
  )


def test_another_network_is_refused_with_every_field(folder):
  other = dataclasses.replace(
      CONFIG, num_heads=3, logits_via_embedding=True, mlp_activations=("relu",)
  )
  assert refused(loading.load_frozen, str(folder), other) == (
      f"{folder / 'config.json'}: does not fit T5Config: found num_heads 3 for"
      " 2, mlp_activations ('relu',) for ('gelu', 'linear'),"
      " logits_via_embedding True for False; expected models/ of these sizes,"
      " or models/from_checkpoint.gin"
  )


def test_a_folder_without_a_checkpoint_is_refused(tmp_path):
  (tmp_path / "notes.txt").write_text("no weights here")
  message = refused(loading.load_frozen, str(tmp_path), CONFIG)
  assert message.startswith(f"{tmp_path}: ")
  assert "expected" in message


def test_the_vocabulary_lies_beside_the_weights(folder):
  assert refused(checkpoints.vocabulary_of, str(folder)) == (
      f"CHECKPOINT: {folder} holds no spiece.model, expected VOCABULARY to name"
      " the vocabulary"
  )
  (folder / "spiece.model").write_bytes(b"pieces")
  found = checkpoints.vocabulary_of(str(folder))
  assert found == str(folder / "spiece.model")


@pytest.mark.parametrize(
    ("tokenizer", "vocabulary", "extra_ids"),
    [
        ({"tokenizer_class": "ByT5Tokenizer"}, "bytes", 125),
        ({"tokenizer_class": "ByT5Tokenizer", "extra_ids": 9}, "bytes", 9),
        ({"tokenizer_class": "T5Tokenizer", "extra_ids": 0}, None, 0),
        ({"tokenizer_class": "T5Tokenizer"}, None, 100),
    ],
)
def test_the_tokenizer_tells_vocabulary_and_sentinels(
    folder, tokenizer, vocabulary, extra_ids
):
  (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
  assert checkpoints.extra_ids_of(str(folder)) == extra_ids
  if vocabulary is not None:
    assert checkpoints.vocabulary_of(str(folder)) == vocabulary


@pytest.mark.parametrize(("own", "extra_ids"), [(0, 100), (4, 0)])
def test_a_vocabulary_may_hold_its_sentinels_itself(folder, own, extra_ids):
  content = vocabulary_files.with_sentinels(own)
  (folder / "spiece.model").write_bytes(content)
  assert checkpoints.extra_ids_of(str(folder)) == extra_ids


def test_gin_takes_model_and_vocabulary_from_the_checkpoint(tmp_path, folder):
  tokenizer = {"tokenizer_class": "ByT5Tokenizer", "extra_ids": 3}
  (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
  recipe = tmp_path / "mine.gin"
  recipe.write_text(
      'include "xprompt.gin"\n'
      'include "models/from_checkpoint.gin"\n'
      'include "tasks/mini_boolq.gin"\n'
      f'CHECKPOINT = "{folder}"\n'
      "NUM_PIECES = 2\n"
  )
  config = main.parse_gin([str(recipe)], [])
  assert config.model == CONFIG
  assert (config.task.vocabulary, config.task.extra_ids) == ("bytes", 3)
  # What says how to compute is set as in every other recipe.
  switched = main.parse_gin(
      [str(recipe)], ["T5Config.dtype = 'bfloat16'", "T5Config.remat = True"]
  )
  assert switched.model == dataclasses.replace(
      CONFIG, dtype="bfloat16", remat=True
  )


def test_a_field_that_is_no_size_is_refused(folder):
  message = refused(checkpoints.size_of, str(folder), "remat")
  assert message.startswith("size_of.field: found 'remat', expected one of ")


@pytest.mark.parametrize("name", [None, 3, ""])
def test_a_name_that_is_no_text_is_refused(name, unchecked):
  assert refused(checkpoints.open_checkpoint, name, CONFIG) == (
      f"CHECKPOINT: found {name!r}, expected a name"
  )


def test_a_relative_path_is_no_hub_id():
  assert refused(checkpoints.open_checkpoint, "./nope", CONFIG).startswith(
      "CHECKPOINT: ./nope is missing, expected a checkpoint"
  )
