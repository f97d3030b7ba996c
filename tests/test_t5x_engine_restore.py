"""What T5X restores into a network with a prompt, and what it refuses."""

import dataclasses

from flax import core, traverse_util
import jax
import numpy as np
import pytest

from tests import examples, shared_data, t5x_required
from tests.t5x_examples import allowed
from tests.test_t5x_engine import (
    BATCH,
    P,
    config_of,
    initial_state,
    initializer_of,
    t5xs_model,
)
from tests.test_t5x_network import FOLDER, OLD_FILE, other_buckets
from xprompt_jax.t5x_engine import moving, names, restoring, starting
from xprompt_jax.types import UserError
from xprompt_jax.weights import loading, t5x_native, t5x_writer

utils = t5x_required.t5x_module("t5x.utils")

pytestmark = [pytest.mark.t5x, pytest.mark.filterwarnings("ignore")]
# The fixture of every test here as well.
__all__ = ["allowed"]
NAMES = (names.PROMPT, names.TOKEN_MASK, names.PIECE_MASK)


def restored(path, model):
  """What T5X restores as prompt_tune.gin has it, and what it starts with."""
  _, initializer, scratch = initial_state(model)
  config = utils.RestoreCheckpointConfig(
      path=str(path),
      mode="specific",
      assignment_map=(
          ("state.*", None),
          ("target/encoder/prompt/.*", None),
      ),
      fallback_to_scratch=True,
      state_transformation_fns=(restoring.check_frozen,),
  )
  state = initializer.from_checkpoint([config], init_rng=jax.random.key(0))
  assert int(state.step) == 0
  return tuple(
      traverse_util.flatten_dict(core.unfreeze(s.params), sep="/")
      for s in (state, scratch)
  )


def frozen_arrays(params):
  return {
      name: np.asarray(array)
      for name, array in traverse_util.flatten_dict(params, sep="/").items()
  }


def write_frozen(folder, config, arrays):
  leaves = {n: examples.leaf_of(a, tensor=n) for n, a in arrays.items()}
  return t5x_writer.write_checkpoint(folder, config, leaves, step=1_100_000)


def test_frozen_weights_are_restored_and_the_rest_starts_afresh(tmp_path):
  arrays = frozen_arrays(examples.tiny_params())
  folder = write_frozen(tmp_path, examples.TINY, arrays)
  found, started = restored(folder, t5xs_model("t5"))
  for name, array in found.items():
    expected = arrays.pop(name, started[name])
    assert np.asarray(array).tobytes() == np.asarray(expected).tobytes(), name
  assert arrays == {}


def stored_names(folder, config):
  return set(t5x_native.open_checkpoint(str(folder), config))


def test_layers_of_a_checkpoint_that_is_not_scanned(tmp_path):
  """`t5x import` of umT5: scalable_t5 takes it with SCAN_LAYERS = False."""
  config = config_of("unscanned")
  arrays = frozen_arrays(loading.load_frozen("random:3", config).params)
  folder = write_frozen(tmp_path, config, arrays)
  found, _ = restored(folder, t5xs_model("unscanned"))
  names_there = {n for n in found if not n.startswith(names.SCOPE)}
  assert names_there == stored_names(folder, config)
  with pytest.raises(UserError, match=r"found no decoder/decoder/.* expected"):
    restored(folder, t5xs_model("scanned"))


def test_a_checkpoint_without_logits_dense_is_refused(tmp_path):
  """T5 1.0 has none, and T5X would draw those of T5 1.1 at random."""
  config = dataclasses.replace(examples.TINY, logits_via_embedding=True)
  arrays = frozen_arrays(loading.load_frozen("random:3", config).params)
  folder = write_frozen(tmp_path, config, arrays)
  with pytest.raises(UserError) as error:
    restored(folder, t5xs_model("t5"))
  assert str(error.value) == (
      "checkpoint of the frozen weights: found no decoder/logits_dense/kernel"
      " (1 missing), expected all parameters of the network that MODEL names"
  )


def test_no_file_is_read_but_to_start_afresh(tmp_path):
  """A run that goes on needs shapes, and so does a step."""
  file = tmp_path / "prompt.npy"
  model = t5xs_model("t5", init="from_file", init_file=str(file))
  _, initializer = initializer_of(model)
  shape = initializer.global_train_state_shape
  assert shape.params["encoder"]["prompt"]["prompt"]["prompt"].shape == (P, 12)
  with pytest.raises(UserError, match="prompt.npy"):
    initializer.from_scratch(jax.random.key(0))
  prompt = np.asarray(examples.random_prompt(1, P, 12))[0]
  np.save(file, prompt)
  state = initializer.from_scratch(jax.random.key(0))
  file.unlink()
  params = core.unfreeze(state.params)
  np.testing.assert_array_equal(
      moving.from_parameters(params)["prompt"][0], prompt
  )
  starting._table.cache_clear()
  assert model._compute_logits(params, BATCH).shape == (3, 4, 37)


@pytest.mark.parametrize("path", [FOLDER, OLD_FILE])
def test_real_checkpoints_are_restored(path):
  """Those of google-research/prompt-tuning, with optimizer states."""
  path = str(shared_data.path(path))
  config = t5x_native.guess_config(path)
  stored = t5x_native.open_checkpoint(path, config)
  with other_buckets(config):
    found, started = restored(path, t5xs_model("t5", config=config))
  assert found.keys() - stored.keys() == set(NAMES)
  for name, array in found.items():
    leaf = started[name] if name in NAMES else stored[name].whole()
    assert np.asarray(array).tobytes() == np.asarray(leaf).tobytes(), name
