"""Hugging Face folders that are written."""

import dataclasses
import errno
import json
import os
import pathlib

import ml_dtypes
import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

from tests import huggingface_folders as folders
from tests.huggingface_folders import CONFIG, refused
from xprompt_jax.weights import huggingface, loading, safetensors_file
from xprompt_jax.weights.leaves import Leaf

QUERY = "encoder.block.0.layer.0.SelfAttention.q.weight"


def opened(folder, config=CONFIG):
  return huggingface.open_folder(folder, config)


def stored(folder):
  """Every tensor of a folder's safetensors files, by name."""
  found = {}
  for file in sorted(folder.glob("*.safetensors")):
    part = safetensors_numpy.load_file(file)
    assert not part.keys() & found.keys()
    found |= part
  return found


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_what_is_read_is_written_bit_for_bit(dtype, tmp_path):
  found = folders.tensors(dtype)
  source = folders.write(tmp_path / "source", found)
  target = tmp_path / "new" / "target"
  huggingface.write_folder(target, CONFIG, opened(source))
  written = stored(target)
  assert written.keys() == found.keys()
  for name, array in found.items():
    assert written[name].dtype == array.dtype
    assert written[name].tobytes() == array.tobytes()
  assert sorted(path.name for path in target.iterdir()) == [
      "config.json",
      "generation_config.json",
      "model.safetensors",
  ]
  assert [path.name for path in target.parent.iterdir()] == ["target"]
  assert huggingface.read_config(target) == CONFIG


def test_written_config(tmp_path):
  source = folders.write(tmp_path / "source")
  huggingface.write_folder(tmp_path / "target", CONFIG, opened(source))
  assert json.loads((tmp_path / "target/config.json").read_text()) == {
      "architectures": ["T5ForConditionalGeneration"],
      "model_type": "t5",
      "vocab_size": 10,
      "d_model": 4,
      "d_kv": 3,
      "d_ff": 5,
      "num_heads": 2,
      "num_layers": 1,
      "num_decoder_layers": 1,
      "feed_forward_proj": "gated-gelu",
      "dense_act_fn": "gelu_new",
      "is_gated_act": True,
      "relative_attention_num_buckets": 8,
      "relative_attention_max_distance": 20,
      "layer_norm_epsilon": 1e-06,
      "dropout_rate": 0.1,
      "tie_word_embeddings": False,
      "is_encoder_decoder": True,
      "decoder_start_token_id": 0,
      "eos_token_id": 1,
      "pad_token_id": 0,
      "use_cache": True,
      "torch_dtype": "float32",
  }
  generation = (tmp_path / "target/generation_config.json").read_text()
  assert json.loads(generation) == {
      "decoder_start_token_id": 0,
      "eos_token_id": 1,
      "pad_token_id": 0,
  }


def random_checkpoint(config):
  rng = np.random.default_rng(0)
  found = {}
  for name, shape in loading.parameter_shapes(config).items():
    array = rng.standard_normal(shape, np.float32)
    found[name] = Leaf(
        shape=shape,
        dtype=array.dtype,
        file="memory",
        tensor=name,
        read=lambda index, array=array: array[index],
    )
  return found


@pytest.mark.parametrize(
    ("changes", "model_type"),
    [
        ({"logits_via_embedding": True, "mlp_activations": ("relu",)}, "t5"),
        ({"num_encoder_layers": 3}, "t5"),
        ({"mlp_activations": ("silu", "linear")}, "t5"),
        ({"mlp_activations": ("gelu",)}, "t5"),
        ({"relpos_per_layer": True, "num_decoder_layers": 2}, "umt5"),
    ],
)
def test_networks_that_are_written_and_read(changes, model_type, tmp_path):
  config = dataclasses.replace(CONFIG, **changes)
  checkpoint = random_checkpoint(config)
  huggingface.write_folder(tmp_path / "a", config, checkpoint)
  fields = json.loads((tmp_path / "a/config.json").read_text())
  assert fields["model_type"] == model_type
  assert huggingface.read_config(tmp_path / "a") == config
  read = opened(tmp_path / "a", config)
  assert read.keys() == checkpoint.keys()
  for name, leaf in checkpoint.items():
    np.testing.assert_array_equal(read[name].whole(), leaf.whole())


def test_shards(tmp_path):
  source = folders.write(tmp_path / "source")
  target = tmp_path / "target"
  # The two tables have 160 bytes each, all tensors 1,984.
  huggingface.write_folder(target, CONFIG, opened(source), max_shard_bytes=1000)
  index = json.loads((target / "model.safetensors.index.json").read_text())
  total = sum(array.nbytes for array in folders.tensors().values())
  assert index["metadata"] == {"total_size": total}
  files = sorted(path.name for path in target.glob("*.safetensors"))
  count = len(files)
  assert files == [
      f"model-{i:05d}-of-{count:05d}.safetensors" for i in range(1, count + 1)
  ]
  assert sorted(set(index["weight_map"].values())) == files
  for file in files:
    part = safetensors_numpy.load_file(target / file)
    assert sum(array.nbytes for array in part.values()) <= 1000
    assert {index["weight_map"][name] for name in part} == {file}
  for name, array in folders.tensors().items():
    assert stored(target)[name].tobytes() == array.tobytes()
  # A tensor that is larger than a shard has one of its own.
  small = tmp_path / "small"
  huggingface.write_folder(small, CONFIG, opened(source), max_shard_bytes=1)
  assert len(list(small.glob("*.safetensors"))) == len(folders.shapes())


def test_mixed_dtypes_are_kept(tmp_path):
  found = folders.tensors()
  found[QUERY] = found[QUERY].astype(ml_dtypes.bfloat16)
  source = folders.write(tmp_path / "source", found)
  huggingface.write_folder(tmp_path / "target", CONFIG, opened(source))
  assert stored(tmp_path / "target")[QUERY].dtype == ml_dtypes.bfloat16
  fields = json.loads((tmp_path / "target/config.json").read_text())
  assert "torch_dtype" not in fields


def test_a_large_tensor_is_written_in_parts(tmp_path, monkeypatch):
  monkeypatch.setattr(safetensors_file, "_PART_BYTES", 50)
  found = folders.tensors()
  source = folders.write(tmp_path / "source", found)
  huggingface.write_folder(tmp_path / "target", CONFIG, opened(source))
  for name, array in stored(tmp_path / "target").items():
    assert array.tobytes() == found[name].tobytes()


def test_folders_that_are_not_written(tmp_path):
  checkpoint = dict(opened(folders.write(tmp_path / "source")))
  full = tmp_path / "full"
  full.mkdir()
  (full / "notes").write_text("")
  write = huggingface.write_folder
  expected = "exists, expected a new or an empty folder"
  assert refused(write, full, CONFIG, checkpoint) == f"{full}: {expected}"
  file = full / "notes"
  assert refused(write, file, CONFIG, checkpoint) == f"{file}: {expected}"
  below = file / "target"
  message = refused(write, below, CONFIG, checkpoint)
  assert message.startswith(f"{below}: cannot write: ")
  empty = tmp_path / "empty"
  empty.mkdir()
  write(empty, CONFIG, checkpoint)
  assert (empty / "model.safetensors").exists()


@pytest.mark.parametrize("name", [".", "../empty", "link"])
def test_an_empty_folder_under_another_name(name, tmp_path, monkeypatch):
  checkpoint = opened(folders.write(tmp_path / "source"))
  empty = tmp_path / "empty"
  empty.mkdir()
  if name == "link":
    (tmp_path / "link").symlink_to(empty)
  monkeypatch.chdir(tmp_path if name == "link" else empty)
  huggingface.write_folder(pathlib.Path(name), CONFIG, checkpoint)
  # A program that works there finds it.
  assert len(opened(pathlib.Path(name))) == 29
  assert sorted(path.name for path in empty.iterdir()) == [
      "config.json",
      "generation_config.json",
      "model.safetensors",
  ]
  assert refused(
      huggingface.write_folder, pathlib.Path(name), CONFIG, checkpoint
  ) == (f"{name}: exists, expected a new or an empty folder")


def test_an_empty_folder_stays_empty_where_writing_fails(tmp_path):
  source = folders.write(tmp_path / "source")
  checkpoint = opened(source)
  (source / "model.safetensors").unlink()
  empty = tmp_path / "empty"
  empty.mkdir()
  refused(huggingface.write_folder, empty, CONFIG, checkpoint)
  assert list(empty.iterdir()) == []


@pytest.mark.parametrize("exists", [False, True])
def test_a_full_disk_is_said_of_the_users_path(tmp_path, monkeypatch, exists):
  checkpoint = opened(folders.write(tmp_path / "source"))
  target = tmp_path / "above" / "target"
  if exists:
    target.mkdir(parents=True)

  def full(descriptor):
    raise OSError(errno.ENOSPC, "No space left on device")

  monkeypatch.setattr(os, "fsync", full)
  assert refused(huggingface.write_folder, target, CONFIG, checkpoint) == (
      f"{target}/model.safetensors: cannot write: No space left on device"
  )
  # What was there stays, what was made goes.
  assert target.exists() == target.parent.exists() == exists
  assert not list(tmp_path.glob("**/*.part*"))


def test_files_moved_before_a_failure_are_taken_back(tmp_path, monkeypatch):
  checkpoint = opened(folders.write(tmp_path / "source"))
  target = tmp_path / "target"
  target.mkdir()
  replace, moved = os.replace, []

  def fail(old, new):
    if new.name == "config.json":
      raise OSError(errno.EIO, "Input/output error")
    replace(old, new)
    moved.append(new.name)

  monkeypatch.setattr(os, "replace", fail)
  assert refused(huggingface.write_folder, target, CONFIG, checkpoint) == (
      f"{target}: cannot write: Input/output error"
  )
  assert moved == ["generation_config.json", "model.safetensors"]
  assert list(target.iterdir()) == []


def test_files_that_appear_meanwhile_are_not_overwritten(tmp_path):
  checkpoint = dict(opened(folders.write(tmp_path / "source")))
  target = tmp_path / "target"
  target.mkdir()
  leaf = checkpoint["encoder/encoder_norm/scale"]

  def read(index):
    (target / "config.json").write_text("mine")
    return leaf.read(index)

  checkpoint["encoder/encoder_norm/scale"] = dataclasses.replace(
      leaf, read=read
  )
  assert refused(huggingface.write_folder, target, CONFIG, checkpoint) == (
      f"{target}: is no longer empty, expected an empty folder"
  )
  assert [path.name for path in target.iterdir()] == ["config.json"]
  assert (target / "config.json").read_text() == "mine"


def test_parameters_missing_or_unexpected_are_not_written(tmp_path):
  checkpoint = dict(opened(folders.write(tmp_path / "source")))
  del checkpoint["encoder/encoder_norm/scale"]
  checkpoint["more"] = checkpoint["decoder/decoder_norm/scale"]
  target = tmp_path / "target"
  assert refused(huggingface.write_folder, target, CONFIG, checkpoint) == (
      f"{target}: not written: missing: encoder/encoder_norm/scale; unexpected:"
      f" more; expected the {len(folders.shapes())} parameters of T5Config"
  )


def test_a_gate_that_transformers_does_not_have(tmp_path):
  config = dataclasses.replace(CONFIG, mlp_activations=("gelu", "relu"))
  checkpoint = opened(folders.write(tmp_path / "source"))
  target = tmp_path / "target"
  assert refused(huggingface.write_folder, target, config, checkpoint) == (
      "T5Config.mlp_activations: found ('gelu', 'relu'), expected one"
      " activation, or one and 'linear': transformers has no other gate"
  )


def test_a_folder_that_fails_leaves_nothing(tmp_path):
  source = folders.write(tmp_path / "source")
  checkpoint = opened(source)
  (source / "model.safetensors").unlink()
  refused(huggingface.write_folder, tmp_path / "target", CONFIG, checkpoint)
  assert [path.name for path in tmp_path.iterdir()] == ["source"]
