"""This network and T5X's own: the same weights, the same logits.

`make test-t5x` asks for T5X (google-research/t5x), which is in no package index;
elsewhere these tests are skipped where it is missing.
"""

import contextlib
import dataclasses
import functools

from flax import traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import (
    examples,
    shared_data,
    t5x_examples,
    t5x_files,
    t5x_required,
)
from tests.t5x_examples import allowed, scalable_network
from tests.t5x_examples import t5_network as t5x_network
from xprompt_jax.t5.config import T5Config
from xprompt_jax.t5.network import T5
from xprompt_jax.weights import loading, t5x_native, t5x_writer

adafactor = t5x_required.t5x_module("t5x.adafactor")
checkpoints = t5x_required.t5x_module("t5x.checkpoints")
models = t5x_required.t5x_module("t5x.models")
state_utils = t5x_required.t5x_module("t5x.state_utils")
utils = t5x_required.t5x_module("t5x.utils")

pytestmark = [pytest.mark.t5x, pytest.mark.filterwarnings("ignore")]
# The fixture of every test here as well.
__all__ = ["allowed"]

FOLDER = "checkpoints/t5x_tiny/checkpoint_3"
OLD_FILE = "checkpoints/t5x_tiny_legacy/test_t5_tiny.checkpoint_0"

# B = 3, T = 6, L = 5; T5X hides targets that are 0, so none is.
INPUTS = np.array(
    [[7, 3, 9, 4, 8, 1], [5, 2, 2, 1, 0, 0], [1, 0, 0, 0, 0, 0]], np.int32
)
TARGETS = np.array(
    [[4, 8, 2, 11, 1], [6, 6, 10, 3, 1], [9, 5, 7, 9, 1]], np.int32
)
DECODER_INPUTS = np.pad(TARGETS[:, :-1], ((0, 0), (1, 0)))

# T5X's networks have 32 buckets, up to a distance of 128.
SCALABLE = T5Config(
    vocab_size=12,
    emb_dim=8,
    num_heads=2,
    head_dim=5,
    num_encoder_layers=3,
    num_decoder_layers=2,
    mlp_dim=7,
    relpos_per_layer=True,
)
PLAIN = dataclasses.replace(SCALABLE, relpos_per_layer=False)


@contextlib.contextmanager
def other_buckets(config):
  """T5X's network with another position bias than the one it is written with.

  The checkpoint of 4 buckets comes from google-research/prompt-tuning.
  """
  biases = t5x_network.layers.RelativePositionBiases
  sizes = {
      "num_buckets": config.relpos_num_buckets,
      "max_distance": config.relpos_max_distance,
  }
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(
        t5x_network.layers,
        "RelativePositionBiases",
        lambda **kwargs: biases(**{**kwargs, **sizes}),
    )
    yield


def t5xs_module(config, **kwargs):
  """T5X's network of these sizes."""
  network = scalable_network if config.relpos_per_layer else t5x_network
  return t5x_examples.network_of(config, network, **kwargs)


def t5xs_logits(module, params):
  return module.apply(
      {"params": params}, INPUTS, DECODER_INPUTS, TARGETS, enable_dropout=False
  )


def own_logits(path, config):
  params = loading.load_frozen(str(path), config).params
  inputs = jnp.asarray(INPUTS), jnp.asarray(DECODER_INPUTS)
  return T5(config).apply({"params": params}, *inputs)


def t5xs_state(config, optimizer=None, **kwargs):
  """What T5X makes of a model: its initializer and its partitioner."""
  model = models.EncoderDecoderModel(
      t5xs_module(config, **kwargs),
      input_vocabulary=None,
      output_vocabulary=None,
      optimizer_def=optimizer,
  )
  shapes = {
      "encoder_input_tokens": INPUTS.shape,
      "decoder_input_tokens": TARGETS.shape,
      "decoder_target_tokens": TARGETS.shape,
  }
  partitioner, initializer = t5x_examples.initializer_of(model, shapes)
  return initializer, partitioner


def t5x_writes(folder, config, dtype=np.float32, **kwargs):
  """A checkpoint of random weights by T5X's own hand, and its parameters."""
  initializer, partitioner = t5xs_state(config, **kwargs)
  state = initializer.from_scratch(jax.random.key(0))
  checkpointer = checkpoints.Checkpointer(
      state, partitioner, str(folder), save_dtype=dtype
  )
  checkpointer.save(state)
  return jax.tree.map(np.asarray, state.params)


def assert_equal_trees(found, expected):
  found = traverse_util.flatten_dict(found, sep="/")
  expected = traverse_util.flatten_dict(expected, sep="/")
  assert found.keys() == expected.keys()
  for name, array in found.items():
    other = np.asarray(expected[name])
    assert array.dtype == other.dtype, name
    assert np.asarray(array).tobytes() == other.tobytes(), name


@pytest.mark.parametrize("path", [FOLDER, OLD_FILE])
def test_the_values_are_those_that_t5x_reads(path):
  path = str(shared_data.path(path))
  expected = checkpoints.load_t5x_checkpoint(path)["target"]
  config = t5x_native.guess_config(path)
  found = t5x_native.open_checkpoint(path, config)
  assert_equal_trees(
      traverse_util.unflatten_dict(
          {name: leaf.whole() for name, leaf in found.items()}, sep="/"
      ),
      expected,
  )


@pytest.mark.parametrize(("path", "distance"), [(FOLDER, 8), (OLD_FILE, 128)])
def test_logits_of_real_checkpoints(path, distance):
  path = shared_data.path(path)
  config = dataclasses.replace(
      t5x_native.guess_config(str(path)), relpos_max_distance=distance
  )
  params = checkpoints.load_t5x_checkpoint(str(path))["target"]
  with other_buckets(config):
    expected = t5xs_logits(t5xs_module(config), params)
  found = own_logits(path, config)
  assert found.shape == (3, 5, 32128)
  np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("config", "kwargs"),
    [
        (PLAIN, {}),
        (
            dataclasses.replace(
                PLAIN, mlp_activations=("relu",), logits_via_embedding=True
            ),
            {},
        ),
        (SCALABLE, {"scan_layers": True}),
        (SCALABLE, {"scan_layers": False}),
    ],
)
def test_logits_of_what_t5x_has_written(tmp_path, config, kwargs):
  params = t5x_writes(tmp_path, config, **kwargs)
  assert t5x_native.guess_config(str(tmp_path)) == config
  expected = t5xs_logits(t5xs_module(config, **kwargs), params)
  found = own_logits(tmp_path, config)
  np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_bfloat16_that_t5x_has_written(tmp_path):
  params = t5x_writes(tmp_path, PLAIN, jnp.bfloat16)
  found = t5x_native.open_checkpoint(str(tmp_path), PLAIN)
  expected = traverse_util.flatten_dict(params, sep="/")
  for name, leaf in found.items():
    assert leaf.dtype == jnp.bfloat16
    rounded = expected[name].astype(jnp.bfloat16)
    assert leaf.whole().tobytes() == rounded.tobytes()


@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16])
@pytest.mark.parametrize("inline_bytes", [2**16, 40])
def test_t5x_reads_what_is_written_here(
    tmp_path, monkeypatch, dtype, inline_bytes
):
  monkeypatch.setattr(t5x_writer, "_INLINE_BYTES", inline_bytes)
  arrays = t5x_files.random_arrays(PLAIN, dtype)
  folder = t5x_writer.write_checkpoint(
      tmp_path, PLAIN, as_checkpoint(arrays), step=17
  )
  found = checkpoints.load_t5x_checkpoint(str(folder))
  assert_equal_trees(
      found["target"], traverse_util.unflatten_dict(arrays, sep="/")
  )
  assert found["state"] == {"step": 17}


def as_checkpoint(arrays):
  return {
      name: examples.leaf_of(array, tensor=name)
      for name, array in arrays.items()
  }


@pytest.mark.parametrize(
    ("optimizer", "afresh", "step"),
    [
        # As T5X evaluates, infers and exports.
        (None, False, 17),
        # As `write_checkpoint` says that T5X trains.
        (adafactor.Adafactor(decay_rate=0.8), True, 0),
    ],
)
@pytest.mark.parametrize("inline_bytes", [2**16, 40])
def test_t5x_restores_what_is_written_here(
    tmp_path, monkeypatch, optimizer, afresh, step, inline_bytes
):
  monkeypatch.setattr(t5x_writer, "_INLINE_BYTES", inline_bytes)
  arrays = t5x_files.random_arrays(PLAIN)
  folder = t5x_writer.write_checkpoint(
      tmp_path, PLAIN, as_checkpoint(arrays), step=17
  )
  initializer, _ = t5xs_state(PLAIN, optimizer)
  without_state = functools.partial(
      state_utils.apply_assignment_map, assignment_map=[(r"state.*", None)]
  )
  restored = initializer.from_checkpoint(
      [
          utils.RestoreCheckpointConfig(
              path=str(folder),
              mode="specific",
              fallback_to_scratch=afresh,
              state_transformation_fns=[without_state] if afresh else [],
          )
      ],
      init_rng=jax.random.key(0),
  )
  assert int(restored.step) == step
  assert_equal_trees(
      restored.params, traverse_util.unflatten_dict(arrays, sep="/")
  )
