"""Every frozen leaf comes from the checkpoint; nothing falls back."""

import dataclasses

from flax import traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

from tests import examples
from xprompt_jax import artifacts
from xprompt_jax.types import UserError
from xprompt_jax.weights import bundled, checkpoints, fingerprints, loading

CONFIG = dataclasses.replace(
    examples.TINY, num_encoder_layers=1, logits_via_embedding=True
)
KERNEL = "encoder/layers_0/attention/query/kernel"
NORM = "decoder/decoder_norm/scale"
TABLE = "token_embedder/embedding"


def arrays_of(config=CONFIG):
  """Leaf n holds n, n + 1/1024, n + 2/1024, ...: all leaves differ."""
  shapes = loading.parameter_shapes(config)
  return {
      name: (n + np.arange(np.prod(shape)) / 1024)
      .astype(np.float32)
      .reshape(shape)
      for n, (name, shape) in enumerate(sorted(shapes.items()), 1)
  }


def saved(path, arrays):
  safetensors_numpy.save_file(arrays, path)
  return str(path)


def refused(checkpoint, config=CONFIG):
  with pytest.raises(UserError) as refusal:
    loading.load_frozen(checkpoint, config)
  message = str(refusal.value)
  assert "\n" not in message
  return message


def flat(tree):
  return traverse_util.flatten_dict(tree, sep="/")


def test_parameter_shapes_have_t5x_names():
  shapes = loading.parameter_shapes(CONFIG)
  assert len(shapes) == 28
  assert shapes[KERNEL] == (12, 15)
  assert shapes["encoder/layers_0/mlp/wi_1/kernel"] == (12, 17)
  assert shapes["encoder/relpos_bias/rel_embedding"] == (3, 32)
  assert shapes[NORM] == (12,)
  assert shapes[TABLE] == (37, 12)
  untied = dataclasses.replace(CONFIG, logits_via_embedding=False)
  more = loading.parameter_shapes(untied)
  assert more == {**shapes, "decoder/logits_dense/kernel": (12, 37)}


@pytest.mark.parametrize("name", ["t5.safetensors", "model.safetensors"])
def test_every_leaf_came_from_the_checkpoint(tmp_path, name):
  arrays = arrays_of()
  path = saved(tmp_path / name, arrays)
  # A folder means its model.safetensors.
  if name == checkpoints.WEIGHTS_FILE:
    path = str(tmp_path)
  found = flat(loading.load_frozen(path, CONFIG).params)
  assert found.keys() == arrays.keys()
  for leaf, expected in arrays.items():
    assert found[leaf].dtype == np.float32
    np.testing.assert_array_equal(found[leaf], expected)


def test_halves_become_float32(tmp_path):
  arrays = {n: a.astype(np.float16) for n, a in arrays_of().items()}
  path = saved(tmp_path / "t5.safetensors", arrays)
  found = flat(loading.load_frozen(path, CONFIG).params)
  assert {leaf.dtype for leaf in found.values()} == {np.dtype(np.float32)}
  np.testing.assert_array_equal(found[KERNEL], arrays[KERNEL])


def test_weights_are_rounded_to_bfloat16_when_they_are_read(tmp_path):
  path = saved(tmp_path / "t5.safetensors", arrays_of())
  frozen = loading.load_frozen(path, CONFIG, dtype="bfloat16")
  found = flat(frozen.params)
  for name, expected in arrays_of().items():
    assert found[name].dtype == jnp.bfloat16
    np.testing.assert_array_equal(
        found[name], expected.astype(jnp.bfloat16), strict=True
    )
  assert frozen.fingerprint != loading.load_frozen(path, CONFIG).fingerprint


def test_on_a_cpu_weights_are_float32():
  assert loading.default_dtype() == "float32"


def test_the_bundled_leaves_are_those_of_the_file():
  stored = artifacts.load_arrays(checkpoints.BUNDLED / checkpoints.WEIGHTS_FILE)
  config, params = bundled.load_bundled()
  found = flat(params)
  assert found.keys() == stored.keys() == set(loading.parameter_shapes(config))
  for name, array in stored.items():
    assert found[name].dtype == np.float32
    np.testing.assert_array_equal(found[name], array.astype(np.float32))


def test_all_that_does_not_fit_is_listed_in_one_line(tmp_path):
  arrays = arrays_of()
  del arrays[NORM]
  arrays["lm_head/kernel"] = np.zeros((12, 37), np.float32)
  arrays[TABLE] = arrays[TABLE].T.copy()
  path = saved(tmp_path / "t5.safetensors", arrays)
  assert refused(path) == (
      f"{path}: does not fit T5Config: missing: {NORM}; unexpected:"
      f" lm_head/kernel; misshapen: {TABLE} (12, 37) for (37, 12); expected its"
      " 28 parameters"
  )


def test_many_names_are_counted(tmp_path):
  path = saved(tmp_path / "t5.safetensors", {TABLE: arrays_of()[TABLE]})
  assert refused(path) == (
      f"{path}: does not fit T5Config: missing: {NORM},"
      " decoder/layers_0/encoder_decoder_attention/key/kernel,"
      " decoder/layers_0/encoder_decoder_attention/out/kernel and 24 more;"
      " expected its 28 parameters"
  )


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_named(tmp_path, value):
  arrays = arrays_of()
  arrays[NORM][-1] = value
  path = saved(tmp_path / "t5.safetensors", arrays)
  assert refused(path) == (
      f"{path}: {NORM}: found NaN or infinity, expected finite numbers in"
      " float32"
  )


def test_a_value_too_large_for_the_dtype_is_named(tmp_path):
  arrays = arrays_of()
  arrays[NORM][-1] = np.finfo(np.float32).max
  path = saved(tmp_path / "t5.safetensors", arrays)
  loading.load_frozen(path, CONFIG)
  with pytest.raises(UserError) as refusal:
    loading.load_frozen(path, CONFIG, dtype="bfloat16")
  assert str(refusal.value) == (
      f"{path}: {NORM}: found NaN or infinity, expected finite numbers in"
      " bfloat16"
  )


@pytest.mark.parametrize("dtype", [np.int32, np.float64, np.bool_])
def test_a_dtype_that_no_t5_has_is_named(tmp_path, dtype):
  arrays = arrays_of()
  arrays[NORM] = arrays[NORM].astype(dtype)
  path = saved(tmp_path / "t5.safetensors", arrays)
  code = {np.int32: "I32", np.float64: "F64", np.bool_: "BOOL"}[dtype]
  assert refused(path) == (
      f"{path}: {NORM}: found dtype {code}, expected one of float32, bfloat16,"
      " float16"
  )


@pytest.mark.parametrize("name", ["folder", "t5.safetensors", "a/b/c"])
def test_a_missing_path_is_named(tmp_path, name):
  assert refused(str(tmp_path / name)) == (
      f"CHECKPOINT: {tmp_path / name} is missing, expected a checkpoint of"
      " Hugging Face or T5X, a hub id such as google/t5-large-lm-adapt,"
      " 'bundled' or 'random:SEED'"
  )


def test_a_file_cut_short_is_named(tmp_path):
  path = tmp_path / "t5.safetensors"
  saved(path, arrays_of())
  path.write_bytes(path.read_bytes()[:-5])
  message = refused(str(path))
  assert message.startswith(f"{path}: not a whole safetensors file: ")


def test_a_damaged_file_is_named(tmp_path):
  path = tmp_path / "t5.safetensors"
  artifacts.save_arrays(path, arrays_of())
  content = bytearray(path.read_bytes())
  content[-1] ^= 1
  path.write_bytes(content)
  message = refused(str(path))
  assert message.startswith(f"{path}: ")
  assert ": contents have sha256 " in message
  assert message.endswith(": the file is damaged")


def test_random_weights_follow_their_seed():
  first, again, other = (
      flat(loading.load_frozen(f"random:{seed}", CONFIG).params)
      for seed in (0, 0, 1)
  )
  shapes = {name: leaf.shape for name, leaf in first.items()}
  assert shapes == loading.parameter_shapes(CONFIG)
  for name, leaf in first.items():
    assert leaf.dtype == np.float32
    np.testing.assert_array_equal(leaf, again[name])
    # Norms start at one, whatever the seed; all else is drawn.
    drawn = not name.endswith("scale")
    assert (np.asarray(leaf) != np.asarray(other[name])).all() == drawn


@pytest.mark.parametrize(
    "checkpoint",
    [
        "random",
        "random:",
        "random:-1",
        "random:a",
        "random:1.0",
        "random: 1",
        "random:1:2",
        "random:²",
        "random:4294967296",
    ],
)
def test_other_random_forms_are_refused(checkpoint):
  assert refused(checkpoint) == (
      f"CHECKPOINT: found {checkpoint!r}, expected a seed below 2**32, as in"
      " 'random:0'"
  )


def test_the_fingerprint_tells_one_value_and_no_order(tmp_path):
  params = traverse_util.unflatten_dict(arrays_of(), sep="/")
  turned = traverse_util.unflatten_dict(
      dict(reversed(arrays_of().items())), sep="/"
  )
  before = fingerprints.of_params(params)
  path = saved(tmp_path / "t5.safetensors", arrays_of())
  assert loading.load_frozen(path, CONFIG).fingerprint == before
  assert list(turned) != list(params)
  assert fingerprints.of_params(turned) == before
  on_device = jax.tree.map(jnp.asarray, params)
  assert fingerprints.of_params(on_device) == before
  scale = turned["decoder"]["decoder_norm"]["scale"]
  scale[3] = np.nextafter(scale[3], np.float32(100))
  assert fingerprints.of_params(turned) != before
