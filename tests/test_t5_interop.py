"""Checkpoints of transformers, an implementation of other hands, read here.

Models that transformers makes and saves itself are opened by the real reader
and computed by the network: logits and greedy generation must agree, behind a
soft prompt as well, on padded batches. What is written here transformers must
read, bit for bit.
"""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import torch_models
from tests.huggingface_folders import refused
from xprompt_jax.model import PromptedT5
from xprompt_jax.weights import huggingface, loading
from xprompt_jax.weights.safetensors_file import leaf_bytes

torch = torch_models.torch
pytestmark = pytest.mark.interop

# B = 3, T = 6, L = 5, P = 4, H = 12.
INPUTS = np.array(
    [[7, 3, 9, 14, 8, 1], [5, 12, 2, 1, 0, 0], [1, 0, 0, 0, 0, 0]], np.int32
)
DECODER_INPUTS = np.array(
    [[0, 4, 8, 2, 11], [0, 6, 6, 10, 3], [0, 12, 5, 7, 9]], np.int32
)
PROMPT = np.random.default_rng(9).standard_normal((4, 12)).astype(np.float32)
MAX_LENGTH = 8
# Of the largest logit; they are 0.5 to 5.
TOLERANCE = 1e-5


def read(folder):
  """The network and its parameters, every one of them from the folder."""
  config = huggingface.read_config(folder)
  params = loading.load_frozen(str(folder), config).params
  return PromptedT5(t5_config=config), params


def masked(prompt):
  if prompt is None:
    return jnp.zeros((3, 0, 12))
  return jnp.broadcast_to(prompt, (3, *prompt.shape))


@functools.partial(jax.jit, static_argnums=0)
def compute_logits(model, params, prompts):
  visible = jnp.ones(prompts.shape[:2], bool)
  batch = {
      "encoder_input_tokens": jnp.asarray(INPUTS),
      "decoder_input_tokens": jnp.asarray(DECODER_INPUTS),
  }
  return model.logits(params, prompts, visible, batch)


@functools.partial(jax.jit, static_argnums=0)
def compute_tokens(model, params, prompts):
  visible = jnp.ones(prompts.shape[:2], bool)
  return model.generate(
      params, prompts, visible, jnp.asarray(INPUTS), MAX_LENGTH
  )


def logits_error(folder, prompt, scale=1.0):
  """The largest difference from transformers, both reading the folder."""
  model, params = read(folder)
  found = compute_logits(model, params, masked(prompt)) * scale
  expected = torch_models.logits(
      torch_models.load(folder), INPUTS, DECODER_INPUTS, prompt
  )
  # Nothing is learnt from outputs that are alike.
  assert np.std(expected) > 0.05
  assert np.abs(found - expected).max() < 1e-4
  return np.abs(found - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize("family", torch_models.FAMILIES)
@pytest.mark.parametrize("way", torch_models.WAYS_TO_SAVE)
def test_logits(family, way, tmp_path):
  torch_models.save(torch_models.make(family), tmp_path, way)
  for prompt in (None, PROMPT):
    error = logits_error(tmp_path, prompt)
    print(f"\n{family}, {way}: largest difference {error:.1e}")
    assert error < TOLERANCE


@pytest.mark.parametrize("family", torch_models.FAMILIES)
def test_greedy_generation(family, tmp_path):
  ended = []
  for seed in range(8):
    folder = tmp_path / str(seed)
    torch_models.save(torch_models.make(family, seed, eos=True), folder)
    model, params = read(folder)
    theirs = torch_models.load(folder)
    for prompt in (None, PROMPT):
      found = compute_tokens(model, params, masked(prompt))
      expected = torch_models.generate(theirs, INPUTS, MAX_LENGTH, prompt)
      np.testing.assert_array_equal(found, expected)
      ended.extend((expected == 1).any(axis=-1))
  assert any(ended) and not all(ended)


def released(family, folder):
  """A model with `config.json` as the hub has it, by older versions."""
  torch_models.save(torch_models.make(family), folder)
  tied = torch_models.FAMILIES[family][2]
  torch_models.edit_config(
      folder,
      tie_word_embeddings=None if tied else False,
      scale_decoder_outputs=None,
      transformers_version=None,
      dense_act_fn=None,
      is_gated_act=None,
      dtype=None,
      # Of umT5 it is missing on the hub, which transformers cannot do without.
      model_type=torch_models.FAMILIES[family][0].lower(),
  )


@pytest.mark.parametrize("family", torch_models.FAMILIES)
def test_configs_as_released(family, tmp_path):
  released(family, tmp_path)
  assert logits_error(tmp_path, PROMPT) < TOLERANCE


def test_a_umt5_with_an_output_layer_is_scaled_by_transformers_5(tmp_path):
  # Released umT5 was trained without the scale; transformers 4 has none.
  torch_models.save(torch_models.make("umt5", own_head=True), tmp_path)
  error = logits_error(tmp_path, PROMPT, scale=12**-0.5)
  assert error < TOLERANCE
  torch_models.edit_config(tmp_path, tie_word_embeddings=False)
  assert logits_error(tmp_path, PROMPT, scale=12**-0.5) < TOLERANCE


def test_a_t5_1_1_whose_output_layer_is_the_table(tmp_path):
  # Made anew by transformers 5: tied, and not scaled.
  model = torch_models.make("t5_1.1", own_head=False)
  torch_models.save(model, tmp_path)
  assert not (huggingface.read_config(tmp_path)).logits_via_embedding
  assert logits_error(tmp_path, PROMPT) < TOLERANCE


def test_a_scaled_output_layer_with_weights_of_its_own(tmp_path):
  # transformers 4 ignores them and transformers 5 does not.
  torch_models.save(torch_models.make("t5_1.0", own_head=True), tmp_path)
  config = huggingface.read_config(tmp_path)
  assert refused(huggingface.open_folder, tmp_path, config) == (
      f"{tmp_path / 'model.safetensors'}: lm_head.weight: differs from"
      " shared.weight, expected the same weights: the network has one table for"
      " both"
  )


@pytest.mark.parametrize("family", torch_models.FAMILIES)
@pytest.mark.parametrize("way", torch_models.WAYS_TO_SAVE)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_round_trip(family, way, dtype, tmp_path):
  source, target = tmp_path / "source", tmp_path / "target"
  model = torch_models.make(family, dtype=dtype)
  torch_models.save(model, source, way)
  config = huggingface.read_config(source)
  checkpoint = huggingface.open_folder(source, config)
  half = sum(map(leaf_bytes, checkpoint.values())) // 2
  huggingface.write_folder(target, config, checkpoint, max_shard_bytes=half)
  theirs = torch_models.load(target)
  assert theirs.dtype == getattr(torch, dtype)
  assert torch_models.state_bytes(theirs) == torch_models.state_bytes(model)
  assert theirs.generation_config.decoder_start_token_id == 0


@pytest.mark.parametrize("family", ["t5_1.0", "t5_1.1", "byt5"])
def test_written_folders_compute_the_same(family, tmp_path):
  source, target = tmp_path / "source", tmp_path / "target"
  model = torch_models.make(family)
  torch_models.save(model, source)
  config = huggingface.read_config(source)
  checkpoint = huggingface.open_folder(source, config)
  huggingface.write_folder(target, config, checkpoint)
  theirs = torch_models.load(target)
  for prompt in (None, PROMPT):
    np.testing.assert_array_equal(
        torch_models.logits(theirs, INPUTS, DECODER_INPUTS, prompt),
        torch_models.logits(model, INPUTS, DECODER_INPUTS, prompt),
    )


def test_shards_are_named_and_listed_as_transformers_does(tmp_path):
  source, target = tmp_path / "source", tmp_path / "target"
  torch_models.save(torch_models.make("t5_1.1"), source, "sharded")
  config = huggingface.read_config(source)
  checkpoint = huggingface.open_folder(source, config)
  huggingface.write_folder(target, config, checkpoint, max_shard_bytes=10_000)
  indices = [
      json.loads((folder / "model.safetensors.index.json").read_text())
      for folder in (source, target)
  ]
  assert indices[0]["weight_map"].keys() == indices[1]["weight_map"].keys()
  totals = [index["metadata"]["total_size"] for index in indices]
  assert totals[0] == totals[1]
  for folder, index in zip((source, target), indices, strict=True):
    count = len(list(folder.glob("*.safetensors")))
    assert count > 2
    assert set(index["weight_map"].values()) == {
        f"model-{i:05d}-of-{count:05d}.safetensors" for i in range(1, count + 1)
    }
