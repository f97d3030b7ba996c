"""Specifies how T5X's native checkpoints are read.

The files are T5X's own, of ../shared/data, or written by `t5x_files.py`.
`test_t5x_damaged.py` has what is refused, `test_t5x_network.py` compares with
T5X itself.
"""

import dataclasses
import shutil

import jax.numpy as jnp
import msgpack
import numpy as np
import pytest

from tests import shared_data, t5x_files
from tests.t5x_files import CONFIG, EMBEDDING
from xprompt_jax.t5.config import T5Config
from xprompt_jax.weights import loading, t5x_native, t5x_storage

ENCODER_QUERY = "encoder/layers_0/attention/query/kernel"  # [8, 10]


def same(checkpoint, arrays):
  """Whether all leaves are the arrays, bit for bit and in dtype."""
  assert checkpoint.keys() == arrays.keys()
  for name, leaf in checkpoint.items():
    found = leaf.whole()
    assert leaf.shape == arrays[name].shape == found.shape, name
    assert leaf.dtype == arrays[name].dtype == found.dtype, name
    assert found.tobytes() == arrays[name].tobytes(), name
  return True


def numbers(leaf, *index):
  return np.round(leaf.read(index).astype(np.float64), 6).tolist()


# Real checkpoints.


def test_t5xs_own_folder():
  folder = str(shared_data.path("checkpoints/t5x_tiny/checkpoint_3"))
  config = t5x_native.guess_config(folder)
  assert config == T5Config(
      vocab_size=32128,
      emb_dim=4,
      num_heads=2,
      head_dim=2,
      num_encoder_layers=2,
      num_decoder_layers=2,
      mlp_dim=8,
      relpos_num_buckets=4,
  )
  found = t5x_native.open_checkpoint(folder, config)
  loading.check_tree(found, config, folder)
  assert len(found) == 52
  assert {leaf.dtype for leaf in found.values()} == {np.dtype(np.float32)}
  # Eight chunks of [4, 4096] and less; one of them is cut here.
  logits = found["decoder/logits_dense/kernel"]
  assert logits.shape == (4, 32128)
  assert logits.file == f"{folder}/target.decoder.logits_dense.kernel"
  assert numbers(logits, slice(1, 3), slice(4095, 4097)) == [
      [-0.216325, 0.048124],
      [-0.263461, -0.192124],
  ]
  # Inline.
  bias = found["decoder/relpos_bias/rel_embedding"]
  assert bias.file == f"{folder}/checkpoint"
  assert bias.shape == (2, 4)


def test_t5xs_older_single_file():
  file = str(
      shared_data.path("checkpoints/t5x_tiny_legacy/test_t5_tiny.checkpoint_0")
  )
  config = t5x_native.guess_config(file)
  assert config == T5Config(
      vocab_size=32128,
      emb_dim=8,
      num_heads=4,
      head_dim=3,
      num_encoder_layers=2,
      num_decoder_layers=2,
      mlp_dim=16,
      relpos_num_buckets=32,
  )
  found = t5x_native.open_checkpoint(file, config)
  loading.check_tree(found, config, file)
  assert len(found) == 52
  assert {leaf.file for leaf in found.values()} == {file}
  logits = found["decoder/logits_dense/kernel"]
  assert numbers(logits, slice(0, 2), slice(0, 3)) == [
      [-0.591168, -0.250011, -0.464449],
      [-0.267632, 0.117767, 0.514004],
  ]


def test_a_folder_with_one_checkpoint_in_it():
  folder = str(shared_data.path("checkpoints/t5x_tiny"))
  config = t5x_native.guess_config(folder)
  leaf = t5x_native.open_checkpoint(folder, config)[EMBEDDING]
  assert leaf.file == f"{folder}/checkpoint_3/target.token_embedder.embedding"


# Forms of the format.


@pytest.mark.parametrize("driver", ["file", "gfile", "gcs"])
@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16, np.float16])
def test_arrays_inline_and_in_zarr(tmp_path, driver, dtype):
  arrays = t5x_files.random_arrays(dtype=dtype)
  folder = t5x_files.write(tmp_path / "a b", arrays, driver=driver)
  assert same(t5x_native.open_checkpoint(str(folder), CONFIG), arrays)
  file = str(folder / "checkpoint")
  assert same(t5x_native.open_checkpoint(file, CONFIG), arrays)


def test_a_folder_named_from_where_one_is(tmp_path, monkeypatch):
  arrays = t5x_files.random_arrays()
  t5x_files.write(tmp_path, arrays)
  monkeypatch.chdir(tmp_path)
  assert same(t5x_native.open_checkpoint("checkpoint", CONFIG), arrays)
  assert same(t5x_native.open_checkpoint(".", CONFIG), arrays)


def old_path(spec):
  """Before TensorStore 0.1.14 the path stood beside the kvstore."""
  return {**spec, "path": spec["kvstore"].pop("path")}


def slash(spec):
  spec["kvstore"]["path"] += "/"
  return spec


def whole_transform(spec):
  upper = [[n] for n in spec["metadata"]["shape"]]
  lower = [0] * len(upper)
  transform = {"input_exclusive_max": upper, "input_inclusive_min": lower}
  return {**spec, "transform": transform, "dtype": "float32"}


def dtype_outside(spec):
  del spec["metadata"]["dtype"]
  return {**spec, "dtype": "float32"}


@pytest.mark.parametrize(
    "change", [old_path, slash, whole_transform, dtype_outside]
)
def test_specs_of_other_versions_of_tensorstore(tmp_path, change):
  arrays = t5x_files.random_arrays()
  t5x_files.write(tmp_path, arrays, change=change)
  assert same(t5x_native.open_checkpoint(str(tmp_path), CONFIG), arrays)


def test_only_the_chunks_of_a_slice_are_read(tmp_path):
  arrays = t5x_files.random_arrays()
  t5x_files.write(tmp_path, arrays, in_zarr=lambda name: name == EMBEDDING)
  # [12, 8] in chunks of 3 rows.
  for rows in ("0.0", "3.0"):
    (tmp_path / "target.token_embedder.embedding" / rows).unlink()
  leaf = t5x_native.open_checkpoint(str(tmp_path), CONFIG)[EMBEDDING]
  found = leaf.read((slice(4, 9), slice(2, None)))
  np.testing.assert_array_equal(found, arrays[EMBEDDING][4:9, 2:])


def test_bfloat16_stored_as_uint16_before_version_3(tmp_path):
  arrays = t5x_files.random_arrays(dtype=jnp.bfloat16)
  stored = {
      name: array.view(np.uint16) if "kernel" in name else array
      for name, array in arrays.items()
  }
  t5x_files.write(tmp_path, stored, version=2)
  assert same(t5x_native.open_checkpoint(str(tmp_path), CONFIG), arrays)


def test_an_inline_array_that_flax_has_cut(tmp_path):
  arrays = t5x_files.random_arrays()
  flat = arrays[EMBEDDING].reshape(-1)  # 96 numbers
  cut = {
      "__msgpack_chunked_array__": True,
      "shape": {"0": 12, "1": 8},
      "chunks": {
          "0": t5x_files.packed(flat[:60]),
          "1": t5x_files.packed(flat[60:]),
      },
  }
  t5x_files.write_msgpack(tmp_path / "checkpoint", {**arrays, EMBEDDING: cut})
  assert same(t5x_native.open_checkpoint(str(tmp_path), CONFIG), arrays)


def test_parameters_without_an_optimizer_around_them(tmp_path):
  arrays = t5x_files.random_arrays()
  target = {name: t5x_files.packed(array) for name, array in arrays.items()}
  tree = {"target": t5x_files.unflattened(target), "state": {"step": 3}}
  (tmp_path / "checkpoint").write_bytes(msgpack.packb(tree))
  assert same(t5x_native.open_checkpoint(str(tmp_path), CONFIG), arrays)


def test_links_of_single_files_as_in_a_cache(tmp_path):
  arrays = t5x_files.random_arrays()
  t5x_files.write(tmp_path / "written", arrays)
  cache = tmp_path / "models--owner--name"
  snapshot = cache / "snapshots" / "5f3c" / "checkpoint_3"
  (cache / "blobs").mkdir(parents=True)
  for number, file in enumerate(sorted((tmp_path / "written").rglob("*"))):
    if not file.is_dir():
      file.rename(cache / "blobs" / str(number))
      link = snapshot / file.relative_to(tmp_path / "written")
      link.parent.mkdir(parents=True, exist_ok=True)
      up = "../" * len(link.parent.relative_to(cache).parts)
      link.symlink_to(f"{up}blobs/{number}")
  assert same(t5x_native.open_checkpoint(str(snapshot), CONFIG), arrays)
  # The cache itself, or a checkpoint in it, behind a link of the user's.
  (tmp_path / "link").symlink_to(snapshot)
  link = str(tmp_path / "link")
  assert same(t5x_native.open_checkpoint(link, CONFIG), arrays)


# Trees of scalable_t5.

PER_LAYER = dataclasses.replace(CONFIG, relpos_per_layer=True)


def scalable(arrays, *, stacked):
  """The network's parameters as T5X's scalable_t5 keeps them."""
  split = {}
  for name, array in arrays.items():
    if "attention/out/kernel" in name:
      array = array.reshape(2, 5, 8)  # [heads * head_dim, H]
    elif "attention/" in name:
      array = array.reshape(8, 2, 5)  # [H, heads * head_dim]
    split[name] = array
  if not stacked:
    return split
  found = {n: a for n, a in split.items() if "/layers_" not in n}
  for stack, count in (("encoder", 3), ("decoder", 1)):
    first = f"{stack}/layers_0/"
    for name in (n for n in split if n.startswith(first)):
      rest = name.removeprefix(first)
      layers = [split[f"{stack}/layers_{i}/{rest}"] for i in range(count)]
      found[f"{stack}/{stack}/{rest}"] = np.stack(layers, axis=1)
  return found


@pytest.mark.parametrize("stacked", [True, False])
def test_scalable_trees(tmp_path, stacked):
  arrays = t5x_files.random_arrays(PER_LAYER)
  stored = scalable(arrays, stacked=stacked)
  shape = stored.get("encoder/encoder/attention/query/kernel", np.ones(0)).shape
  assert shape == ((8, 3, 2, 5) if stacked else (0,))
  t5x_files.write(tmp_path, stored)
  found = t5x_native.open_checkpoint(str(tmp_path), PER_LAYER)
  assert same(found, arrays)
  assert t5x_native.guess_config(str(tmp_path)) == PER_LAYER
  # heads * head_dim = 10: the parts cut heads in two.
  out = "encoder/layers_2/attention/out/kernel"
  for name, index in (
      (ENCODER_QUERY, (slice(1, 4), slice(3, 7))),
      (ENCODER_QUERY, (slice(None), slice(5, 10))),
      (out, (slice(4, 6), slice(2, 3))),
  ):
    part = found[name].read(index)
    np.testing.assert_array_equal(part, arrays[name][index])


@pytest.fixture(name="stacked")
def _stacked(tmp_path, monkeypatch):
  """Reads [rows, columns] of encoder layers; columns of what was unpacked."""
  arrays = t5x_files.random_arrays(PER_LAYER)
  t5x_files.write(tmp_path, scalable(arrays, stacked=True))
  found = t5x_native.open_checkpoint(str(tmp_path), PER_LAYER)
  reads = []
  read = t5x_storage.StoredArray.read

  def counted(self, index):
    reads.append((self.tensor.removeprefix("encoder/encoder/"), index[2]))
    return read(self, index)

  def layer(number, columns, kernel="mlp/wi_0"):
    name = f"encoder/layers_{number}/{kernel}/kernel"
    part = found[name].read((slice(None), columns))
    np.testing.assert_array_equal(part, arrays[name][:, columns])

  monkeypatch.setattr(t5x_storage.StoredArray, "read", counted)
  return layer, reads


WI_0, WI_1 = "mlp/wi_0/kernel", "mlp/wi_1/kernel"
LEFT, RIGHT = slice(0, 4), slice(4, 7)


def test_the_layers_of_a_stacked_array_are_read_at_once(stacked):
  layer, reads = stacked
  for number in range(3):
    for columns in (LEFT, RIGHT):
      layer(number, columns)
  assert reads == [(WI_0, LEFT), (WI_0, RIGHT)]
  # All three have had it: nothing is kept.
  layer(0, LEFT)
  assert len(reads) == 3


def test_the_layers_of_a_stacked_array_one_part_after_another(stacked):
  layer, reads = stacked
  for columns in (LEFT, RIGHT):
    for number in (0, 2, 1):
      layer(number, columns)
  assert reads == [(WI_0, LEFT), (WI_0, RIGHT)]


def test_what_a_layer_passes_over_is_not_kept(stacked):
  layer, reads = stacked
  layer(0, LEFT)
  layer(0, RIGHT)
  layer(1, LEFT)
  # Only the left part was asked for of layer 1.
  layer(2, LEFT)
  layer(2, RIGHT)
  assert reads == [(WI_0, LEFT), (WI_0, RIGHT), (WI_0, RIGHT)]


def test_nothing_is_kept_of_the_last_layer_or_of_another_array(stacked):
  layer, reads = stacked
  layer(0, LEFT)
  layer(0, LEFT, "mlp/wi_1")
  layer(0, LEFT)
  assert reads == [(WI_0, LEFT), (WI_1, LEFT), (WI_0, LEFT)]
  layer(1, LEFT)
  for _ in range(2):
    layer(2, RIGHT)
  assert reads[3:] == [(WI_0, RIGHT), (WI_0, RIGHT)]


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"mlp_activations": ("relu",), "logits_via_embedding": True},
        {"relpos_per_layer": True},
    ],
)
def test_sizes_are_told_from_names_and_shapes(tmp_path, change):
  config = dataclasses.replace(CONFIG, **change)
  t5x_files.write(tmp_path, t5x_files.random_arrays(config))
  assert t5x_native.guess_config(str(tmp_path)) == config


def test_loading_a_network(tmp_path):
  arrays = t5x_files.random_arrays()
  t5x_files.write(tmp_path / "run" / "checkpoint_12", arrays)
  frozen = loading.load_frozen(str(tmp_path / "run"), CONFIG)
  found = frozen.params["token_embedder"]["embedding"]
  np.testing.assert_array_equal(found, arrays[EMBEDDING])
  # The same weights, in the older form.
  file = tmp_path / "old"
  t5x_files.write_msgpack(file, arrays)
  shutil.rmtree(tmp_path / "run")
  assert (
      loading.load_frozen(str(file), CONFIG).fingerprint == frozen.fingerprint
  )
