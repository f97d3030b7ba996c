"""Hugging Face weights without torch: names, orientation, slices, tied tables."""

import dataclasses
import json

import numpy as np
import pytest

from tests import huggingface_folders as folders
from tests.huggingface_folders import CONFIG, refused
from xprompt_jax.weights import huggingface, loading, safetensors_file

TIED = dataclasses.replace(CONFIG, logits_via_embedding=True)
QUERY = "encoder.block.0.layer.0.SelfAttention.q.weight"
UNUSED = (
    "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
)


def opened(folder, config=CONFIG):
  return huggingface.open_folder(folder, config)


def arrays(checkpoint):
  return {name: leaf.whole() for name, leaf in checkpoint.items()}


def test_names_and_orientation(tmp_path):
  found = folders.tensors()
  checkpoint = opened(folders.write(tmp_path, found))
  shapes = loading.parameter_shapes(CONFIG)
  assert {n: leaf.shape for n, leaf in checkpoint.items()} == shapes
  read = arrays(checkpoint)
  expected = {
      "token_embedder/embedding": found["shared.weight"],
      "encoder/layers_0/attention/query/kernel": found[QUERY].T,
      "encoder/relpos_bias/rel_embedding": found[
          "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
      ].T,
      "encoder/layers_0/pre_mlp_layer_norm/scale": found[
          "encoder.block.0.layer.1.layer_norm.weight"
      ],
      "decoder/layers_0/encoder_decoder_attention/out/kernel": found[
          "decoder.block.0.layer.1.EncDecAttention.o.weight"
      ].T,
      "decoder/layers_0/mlp/wi_1/kernel": found[
          "decoder.block.0.layer.2.DenseReluDense.wi_1.weight"
      ].T,
      "decoder/decoder_norm/scale": found["decoder.final_layer_norm.weight"],
      "decoder/logits_dense/kernel": found["lm_head.weight"].T,
  }
  for name, array in expected.items():
    np.testing.assert_array_equal(read[name], array)
  leaf = checkpoint["encoder/layers_0/attention/query/kernel"]
  assert leaf.file == str(tmp_path / "model.safetensors")
  assert leaf.tensor == QUERY


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_slices_in_the_stored_dtype(dtype, tmp_path):
  found = folders.tensors(dtype)
  checkpoint = opened(folders.write(tmp_path, found))
  kernel = checkpoint["decoder/logits_dense/kernel"]  # [4, 10]
  part = kernel.read((slice(1, 3), slice(2, 9)))
  assert kernel.dtype == part.dtype == np.dtype(dtype)
  np.testing.assert_array_equal(part, found["lm_head.weight"].T[1:3, 2:9])
  table = checkpoint["token_embedder/embedding"]  # [10, 4]
  for index in [
      (slice(None), slice(None)),
      (slice(7, None), slice(None)),
      (slice(None), slice(0, 2)),
      (slice(3, 3), slice(None)),
      (slice(3, 5), slice(3, 4)),
  ]:
    np.testing.assert_array_equal(
        table.read(index), found["shared.weight"][index]
    )
  norm = checkpoint["encoder/encoder_norm/scale"]
  np.testing.assert_array_equal(
      norm.read((slice(1, 3),)), found["encoder.final_layer_norm.weight"][1:3]
  )


def test_a_slice_of_a_file_larger_than_memory(tmp_path):
  # 64 GiB, of which the file system keeps the last bytes.
  rows = 2**22
  entry = {"dtype": "F32", "shape": [rows, 4096], "data_offsets": [0, 2**36]}
  header = json.dumps({"table": entry}).encode()
  header += b" " * (-len(header) % 8)
  file = tmp_path / "model.safetensors"
  with open(file, "wb") as f:
    f.write(len(header).to_bytes(8, "little") + header)
    f.seek(2**36 - 8, 1)
    f.write(np.array([2.0, 3.0], np.float32))
  leaf = safetensors_file.open_file(file)["table"]
  part = leaf.read((slice(rows - 1, rows), slice(4092, 4096)))
  np.testing.assert_array_equal(part, [[0.0, 0.0, 2.0, 3.0]])
  column = leaf.read((slice(rows - 1000, rows), slice(4095, 4096)))
  assert column.shape == (1000, 1)
  assert column[-1] == 3


def test_a_shard_of_each_format_and_safetensors_first(tmp_path):
  folders.write_shards(tmp_path)
  shards = arrays(opened(tmp_path))
  np.testing.assert_array_equal(
      shards["decoder/logits_dense/kernel"],
      folders.tensors()["lm_head.weight"].T,
  )
  assert len({leaf.file for leaf in opened(tmp_path).values()}) == 2
  # One file is taken before shards, and torch's not even looked at.
  (tmp_path / "pytorch_model.bin").write_text("not this")
  whole = folders.write(tmp_path / "whole")
  assert arrays(opened(whole)).keys() == shards.keys()
  (tmp_path / "model.safetensors").write_bytes(
      (whole / "model.safetensors").read_bytes()
  )
  found = opened(tmp_path)
  assert {leaf.file for leaf in found.values()} == {
      str(tmp_path / "model.safetensors")
  }


def test_copies_of_the_embedding_table_are_one(tmp_path):
  found = folders.tensors()
  for name in ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight"):
    found[name] = found["shared.weight"].copy()
  expected = arrays(opened(folders.write(tmp_path / "copies", found)))
  del found["shared.weight"]
  read = arrays(opened(folders.write(tmp_path / "copy", found)))
  assert read.keys() == loading.parameter_shapes(CONFIG).keys()
  for name, array in read.items():
    np.testing.assert_array_equal(array, expected[name])


@pytest.mark.parametrize(
    ("copy", "config"),
    [
        ("encoder.embed_tokens.weight", CONFIG),
        ("decoder.embed_tokens.weight", TIED),
        ("lm_head.weight", TIED),
    ],
)
def test_copies_of_the_embedding_table_that_differ(copy, config, tmp_path):
  found = folders.tensors()
  found[copy] = found["shared.weight"].copy()
  # The last bit of the last weight.
  found[copy].view(np.uint32)[-1, -1] ^= 1
  folders.write(tmp_path, found)
  assert refused(opened, tmp_path, config) == (
      f"{tmp_path / 'model.safetensors'}: {copy}: differs from shared.weight,"
      " expected the same weights: the network has one table for both"
  )


def test_copies_of_other_dtype_or_shape_differ(tmp_path):
  found = folders.tensors()
  found["lm_head.weight"] = found["shared.weight"].astype(np.float16)
  message = refused(opened, folders.write(tmp_path / "a", found), TIED)
  assert "lm_head.weight: differs from shared.weight" in message
  found["lm_head.weight"] = found["shared.weight"][:-1]
  message = refused(opened, folders.write(tmp_path / "b", found), TIED)
  assert "lm_head.weight: differs from shared.weight" in message


def test_a_tied_output_layer_that_is_not_scaled_is_the_table(tmp_path):
  # What transformers 5 writes of a T5 1.1 whose two tables are the same.
  found = folders.tensors()
  del found["lm_head.weight"]
  folders.write(
      tmp_path, found, tie_word_embeddings=True, scale_decoder_outputs=False
  )
  config = huggingface.read_config(tmp_path)
  assert config == CONFIG
  leaf = opened(tmp_path)["decoder/logits_dense/kernel"]
  assert leaf.shape == (4, 10)
  np.testing.assert_array_equal(leaf.whole(), found["shared.weight"].T)


def test_an_output_layer_that_has_to_be_there_is_not_made_up(tmp_path):
  found = folders.tensors()
  del found["lm_head.weight"]
  folders.write(tmp_path, found, tie_word_embeddings=False)
  assert "decoder/logits_dense/kernel" not in opened(tmp_path)


def test_unused_and_unknown_tensors(tmp_path):
  found = {**folders.tensors(), UNUSED: np.zeros((8, 2), np.float32)}
  found["adapter.weight"] = np.ones((2, 3), np.float32)
  found["encoder.block.1.layer.0.layer_norm.weight"] = np.ones(4, np.float32)
  checkpoint = opened(folders.write(tmp_path, found))
  assert checkpoint.keys() - loading.parameter_shapes(CONFIG).keys() == {
      "adapter.weight",
      "encoder.block.1.layer.0.layer_norm.weight",
  }
  # Of a shape of its own, and not turned over.
  assert checkpoint["adapter.weight"].shape == (2, 3)


@pytest.mark.parametrize("beside", [True, False])
def test_a_name_of_t5x_is_not_taken_for_a_translated_one(beside, tmp_path):
  found = folders.tensors()
  name = "encoder/layers_0/attention/query/kernel"
  found[name] = np.zeros((4, 6), np.float32)
  if not beside:
    del found[QUERY]
  folders.write(tmp_path, found)
  assert refused(opened, tmp_path) == (
      f"{tmp_path / 'model.safetensors'}: {name}: found a name of T5X, expected"
      f" transformers' {QUERY} beside a config.json of transformers"
  )


def test_a_bias_in_every_layer(tmp_path):
  found = folders.tensors()
  config = dataclasses.replace(CONFIG, relpos_per_layer=True)
  checkpoint = opened(folders.write(tmp_path, found), config)
  assert {n: leaf.shape for n, leaf in checkpoint.items()} == (
      loading.parameter_shapes(config)
  )
