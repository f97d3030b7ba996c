"""Files of a Hugging Face folder: index and shards, missing and damaged ones."""

import json
import sys

import numpy as np
import pytest

from tests import huggingface_folders as folders
from tests.huggingface_folders import CONFIG, refused
from xprompt_jax.weights import huggingface

QUERY = "encoder.block.0.layer.0.SelfAttention.q.weight"


def opened(folder, config=CONFIG):
  return huggingface.open_folder(folder, config)


def test_no_weights(tmp_path):
  folders.write_config(tmp_path)
  (tmp_path / "tf_model.h5").write_bytes(b"")
  assert refused(opened, tmp_path) == (
      f"{tmp_path}: found no weights, expected one of model.safetensors,"
      " model.safetensors.index.json, pytorch_model.bin,"
      " pytorch_model.bin.index.json"
  )


@pytest.mark.parametrize(
    "name",
    ["../secret", "/etc/passwd", "a/b", "a\\b", "..", ".", "C:x", "x\0"],
)
def test_an_index_that_points_outside_its_folder(name, tmp_path):
  folders.write_shards(tmp_path, {QUERY: name})
  assert refused(opened, tmp_path) == (
      f"{tmp_path / 'model.safetensors.index.json'}: weight_map: {QUERY}:"
      f" {name!r} points outside the folder, expected the name of a file in it"
  )


@pytest.mark.parametrize("name", [3, "", None, ["model.safetensors"]])
def test_an_index_with_something_else_than_a_name(name, tmp_path):
  folders.write_shards(tmp_path, {QUERY: name})
  assert refused(opened, tmp_path) == (
      f"{tmp_path / 'model.safetensors.index.json'}: weight_map: {QUERY}:"
      f" found {name!r}, expected a file name"
  )


def test_a_shard_whose_name_is_too_long_for_a_file(tmp_path):
  name = "x" * 300
  folders.write_shards(tmp_path, {QUERY: name})
  assert refused(opened, tmp_path) == (
      f"{tmp_path / 'model.safetensors.index.json'}: found no {name}, expected"
      " all 3 shards in its folder"
  )


@pytest.mark.parametrize(
    "name",
    [
        "config.json",
        "model.safetensors.index.json",
        "model-00002-of-00002.safetensors",
    ],
)
def test_links(name, tmp_path):
  folder = folders.write_shards(tmp_path / "a" / "folder")
  file = folder / name

  def read():
    return opened(folder, huggingface.read_config(folder))

  # Within the folder, and a link to the folder itself.
  file.rename(folder / "moved")
  file.symlink_to("moved")
  assert len(read()) == 29
  (tmp_path / "link").symlink_to(folder)
  assert len(opened(tmp_path / "link")) == 29
  # No cache of the hub has it so, whatever the names.
  outside = tmp_path / "a" / "blobs" / ("0" * 64)
  outside.parent.mkdir()
  (folder / "moved").rename(outside)
  file.unlink()
  file.symlink_to(f"../blobs/{outside.name}")
  assert refused(read) == (
      f"{file}: points outside its folder, to {outside}; expected the file"
      " itself, or a link into the hub's cache as a snapshot there has it"
  )


@pytest.mark.parametrize("weight_map", [{}, None, []])
def test_an_index_without_a_map(weight_map, tmp_path):
  folders.write_shards(tmp_path)
  index = tmp_path / "model.safetensors.index.json"
  index.write_text(json.dumps({"weight_map": weight_map}))
  assert refused(opened, tmp_path) == (
      f"{index}: weight_map: found {weight_map!r}, expected the file of each"
      " tensor"
  )


def test_an_index_and_shards_that_do_not_agree(tmp_path):
  first = "model-00001-of-00002.safetensors"
  second = "model-00002-of-00002.safetensors"
  index = "model.safetensors.index.json"
  names = sorted(folders.shapes())
  folder = folders.write_shards(tmp_path / "moved", {names[0]: second})
  assert refused(opened, folder) == (
      f"{folder / first}: {names[0]}: found, expected only what {index} lists"
  )
  folder = folders.write_shards(tmp_path / "more", {"extra.weight": first})
  assert refused(opened, folder) == (
      f"{folder / first}: extra.weight: missing, expected what {index} lists"
  )
  folder = folders.write_shards(tmp_path / "gone")
  (folder / second).unlink()
  assert refused(opened, folder) == (
      f"{folder / index}: found no {second}, expected all 2 shards in its"
      " folder"
  )


def test_a_truncated_file(tmp_path):
  file = folders.write(tmp_path) / "model.safetensors"
  content = file.read_bytes()
  for length in (0, 7, 100, len(content) - 1):
    file.write_bytes(content[:length])
    message = refused(opened, tmp_path)
    assert message.startswith(f"{file}: not a whole safetensors file: ")
  file.write_bytes(content + b"\0")
  assert "not a whole safetensors file" in refused(opened, tmp_path)


def test_a_file_that_shrinks_or_goes_after_it_was_opened(tmp_path):
  file = folders.write(tmp_path) / "model.safetensors"
  checkpoint = opened(tmp_path)
  last = max(checkpoint, key=lambda name: checkpoint[name].tensor)
  leaf = checkpoint[last]
  content = file.read_bytes()
  file.write_bytes(content[:-4])
  assert refused(leaf.whole) == (
      f"{file}: {leaf.tensor}: the file ends within it, expected 4 bytes more"
  )
  file.unlink()
  assert refused(leaf.whole) == (
      f"{file}: {leaf.tensor}: cannot read: No such file or directory"
  )


@pytest.mark.parametrize(
    ("dtype", "name"), [(np.float64, "F64"), (np.int8, "I8"), (bool, "BOOL")]
)
def test_wrong_dtype(dtype, name, tmp_path):
  found = folders.tensors()
  found[QUERY] = found[QUERY].astype(dtype)
  folders.write(tmp_path, found)
  assert refused(opened, tmp_path) == (
      f"{tmp_path / 'model.safetensors'}: {QUERY}: found dtype {name}, expected"
      " one of float32, bfloat16, float16"
  )


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_clone_without_its_large_files(name, tmp_path):
  folders.write_config(tmp_path)
  file = tmp_path / name
  file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
  assert refused(opened, tmp_path) == (
      f"{file}: found a pointer of Git LFS, expected the file itself: run `git"
      " lfs pull`"
  )


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_file_that_cannot_be_read(name, tmp_path):
  folders.write_config(tmp_path)
  (tmp_path / name).mkdir()
  assert refused(opened, tmp_path) == (
      f"{tmp_path / name}: cannot read: Is a directory"
  )


def test_torch_files_without_torch(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, "torch", None)
  folders.write_config(tmp_path)
  file = tmp_path / "pytorch_model.bin"
  file.write_bytes(b"whatever")
  assert refused(opened, tmp_path) == (
      f"{file}: needs torch, which is not installed: pip install"
      " 'xprompt-jax[torch]'; safetensors need none"
  )
