"""Prompts that move between T5X's checkpoints and this program's files.

Nothing here needs T5X: its checkpoints are written by `t5x_files`.
"""

import dataclasses
import types

import numpy as np
import pytest

from tests import examples, t5x_files
from xprompt_jax import artifacts, prompt_formats, prompts
from xprompt_jax.prompts import PromptConfig
from xprompt_jax.t5x_engine import moving, names, restoring, starting
from xprompt_jax.t5x_engine.starting import StartingPrompt
from xprompt_jax.types import UserError
from xprompt_jax.vocabularies import load_vocabulary

# R 2, P 5, K 4, H 8.
P, K, H = 5, 4, 8
CONFIG = PromptConfig(length=P, num_pieces=K, init="random_uniform")


def arrays_of(rows):
  masks = examples.random_masks(rows, P, K, seed=2)
  return {
      "prompt": np.asarray(examples.random_prompt(rows, P, H)),
      "token_mask": np.asarray(masks.token_mask),
      "piece_mask": np.asarray(masks.piece_mask),
  }


def checkpoint(folder, extra):
  """A T5X checkpoint of a tiny network, with more parameters in it."""
  return str(t5x_files.write(folder, t5x_files.random_arrays() | extra))


@pytest.fixture
def ticket_checkpoint(tmp_path):
  arrays = {name: array[0] for name, array in arrays_of(1).items()}
  extra = {
      "encoder/prompt/prompt/prompt": arrays["prompt"],
      "encoder/prompt/token_mask": arrays["token_mask"],
      "encoder/prompt/piece_mask": arrays["piece_mask"],
  }
  return checkpoint(tmp_path / "checkpoint_8", extra), arrays


def test_from_a_checkpoint_to_a_file_and_back(tmp_path, ticket_checkpoint):
  path, arrays = ticket_checkpoint
  file = tmp_path / "prompt.safetensors"
  moving.checkpoint_to_file(path, file)
  found = prompt_formats.read_prompt(file, H)
  assert {n: a[0].tobytes() for n, a in found.items()} == {
      n: a.tobytes() for n, a in arrays.items()
  }
  tree = moving.file_to_parameters(str(file), K)
  assert list(tree) == ["encoder"] and list(tree["encoder"]) == ["prompt"]
  scope = tree["encoder"]["prompt"]
  np.testing.assert_array_equal(scope["prompt"]["prompt"], arrays["prompt"])
  np.testing.assert_array_equal(scope["token_mask"], arrays["token_mask"])
  np.testing.assert_array_equal(scope["piece_mask"], arrays["piece_mask"])


def test_a_checkpoint_of_prompt_tuning_has_no_masks(tmp_path):
  prompt = arrays_of(1)["prompt"]
  path = checkpoint(tmp_path / "checkpoint_1", {names.PROMPT: prompt[0]})
  (found,) = moving.read_checkpoint(path).items()
  assert found[0] == "prompt"
  np.testing.assert_array_equal(found[1], prompt)


def test_a_checkpoint_without_a_prompt_is_refused(tmp_path):
  path = checkpoint(tmp_path / "checkpoint_1", {})
  with pytest.raises(UserError) as error:
    moving.read_checkpoint(path)
  assert str(error.value) == (
      f"{path}: found no encoder/prompt/prompt/prompt, expected a checkpoint of"
      " a T5X run with a prompt"
  )


def test_a_row_of_several_prompts(tmp_path):
  file = tmp_path / "prompt.safetensors"
  arrays = arrays_of(2)
  artifacts.save_arrays(file, arrays)
  found = moving.file_to_parameters(f"{file}#1", K)["encoder"]["prompt"]
  np.testing.assert_array_equal(found["token_mask"], arrays["token_mask"][1])
  with pytest.raises(UserError, match="found 2 prompts, expected .*#ROW"):
    moving.file_to_parameters(str(file), K)
  with pytest.raises(UserError, match="#2"):
    moving.file_to_parameters(f"{file}#2", K)


def test_a_start_without_files():
  prompt, masks = StartingPrompt(config=CONFIG, seed=7).table(H)
  expected = prompts.initial_prompts(
      CONFIG, [7], np.zeros((0, H)), load_vocabulary("bytes", 0)
  )[0]
  np.testing.assert_array_equal(prompt, expected)
  assert masks.token_mask.tolist() == [1.0] * P
  assert masks.piece_mask.tolist() == [[1.0] * K] * P


def test_a_start_from_the_checkpoints_embedding(tmp_path):
  """As `t5x train` samples it; seqio's vocabulary tells its file."""
  sizes = dataclasses.replace(t5x_files.CONFIG, vocab_size=259)
  arrays = t5x_files.random_arrays(sizes)
  path = str(t5x_files.write(tmp_path / "checkpoint_1", arrays))
  embedding = arrays[t5x_files.EMBEDDING]
  seqios = type("ByteVocabulary", (), {"extra_ids": 0})()
  start = StartingPrompt(
      config=dataclasses.replace(CONFIG, init="sampled_vocab"),
      seed=7,
      checkpoint=path,
      vocabulary=seqios,
  )
  assert (start.vocabulary, start.extra_ids) == ("bytes", 0)
  expected = prompts.initial_prompts(
      start.config, [7], embedding, load_vocabulary("bytes", 0)
  )
  np.testing.assert_array_equal(start.table(H)[0], expected[0])
  with pytest.raises(UserError, match=f"{path}: emb_dim: found 8, expected 12"):
    start.table(12)


def test_a_vocabulary_that_cannot_be_read_here_is_refused():
  other = type("PassThroughVocabulary", (), {"extra_ids": 0})()
  with pytest.raises(UserError) as error:
    StartingPrompt(config=CONFIG, vocabulary=other)
  assert str(error.value) == (
      "VOCABULARY: found 'PassThroughVocabulary', expected"
      " SentencePieceVocabulary or ByteVocabulary"
  )
  file = types.SimpleNamespace(sentencepiece_model_file="/a", extra_ids=3)
  start = StartingPrompt(config=CONFIG, vocabulary=file)
  assert (start.vocabulary, start.extra_ids) == ("/a", 3)


@pytest.mark.parametrize("missing", ["checkpoint", "vocabulary"])
def test_a_start_that_lacks_what_it_samples_from(missing):
  config = dataclasses.replace(CONFIG, init="sampled_vocab")
  given = {"checkpoint": "/nowhere", "vocabulary": "bytes"}
  given[missing] = None
  with pytest.raises(UserError, match=f"StartingPrompt.{missing}: found None"):
    StartingPrompt(config=config, **given).table(H)


def test_a_ticket_starts_from_its_masks_times_the_prompt(tmp_path):
  arrays = arrays_of(2)
  prompt_file = tmp_path / "tune" / "prompt.safetensors"
  masks_file = tmp_path / "prune_piece" / "masks.safetensors"
  artifacts.save_arrays(prompt_file, {"prompt": arrays["prompt"]})
  masks = {name: arrays[name] for name in ("token_mask", "piece_mask")}
  artifacts.save_arrays(masks_file, masks)
  config = dataclasses.replace(
      CONFIG, init="from_file", init_file=f"{prompt_file}#0"
  )
  start = StartingPrompt(config=config, masks_file=f"{masks_file}#1")
  prompt, found = start.table(H)
  np.testing.assert_array_equal(found.piece_mask, arrays["piece_mask"][1])
  factor = np.repeat(arrays["piece_mask"][1], H // K, axis=-1)
  np.testing.assert_array_equal(prompt, arrays["prompt"][0] * factor)
  assert (factor == 0).any()


def test_masks_that_do_not_fit_are_refused(tmp_path):
  file = tmp_path / "masks.safetensors"
  masks = examples.random_masks(2, P, K)
  artifacts.save_arrays(
      file, {"token_mask": masks.token_mask, "piece_mask": masks.piece_mask}
  )

  def refused(place, config=CONFIG):
    with pytest.raises(UserError) as error:
      StartingPrompt(config=config, masks_file=place).table(H)
    return str(error.value)

  assert refused(str(file)) == (
      f"{file}: found '2 masks', expected 1, or {file}#ROW"
  )
  assert f"MASKS_FILE={file}#2" in refused(f"{file}#2")
  longer = dataclasses.replace(CONFIG, length=P + 1)
  assert refused(f"{file}#0", longer) == (
      f"{file}: masks: found (5, 4), expected [P, K] = (6, 4), PROMPT_LENGTH and"
      " NUM_PIECES"
  )
  artifacts.save_arrays(file, {"token_mask": masks.token_mask})
  assert refused(f"{file}#0") == (
      f"{file}: found no piece_mask, expected the masks of a pruning stage"
  )


def test_what_stands_in_for_inference(tmp_path):
  file = tmp_path / "prompt.safetensors"
  arrays = arrays_of(1)
  artifacts.save_arrays(file, arrays)
  config = dataclasses.replace(CONFIG, init="sampled_vocab")
  assert starting.for_inference(config).table(H)[0].shape == (P, H)
  prompt, masks = starting.for_inference(config, str(file)).table(H)
  np.testing.assert_array_equal(masks.piece_mask, arrays["piece_mask"][0])
  factor = np.repeat(arrays["piece_mask"][0], H // K, axis=-1)
  np.testing.assert_array_equal(prompt, arrays["prompt"][0] * factor)


def test_other_masks_for_inference(tmp_path):
  file, masks_file = tmp_path / "prompt.safetensors", tmp_path / "m.safetensors"
  artifacts.save_arrays(file, {"prompt": arrays_of(1)["prompt"]})
  artifacts.save_arrays(masks_file, arrays_of(1))
  config = dataclasses.replace(CONFIG, init="sampled_vocab")
  start = starting.for_inference(config, str(file), str(masks_file))
  expected = arrays_of(1)["piece_mask"][0]
  assert (expected == 0).any()
  np.testing.assert_array_equal(start.table(H)[1].piece_mask, expected)
  with pytest.raises(UserError) as error:
    starting.for_inference(config, None, "masks")
  assert str(error.value) == (
      "MASKS_FILE: found 'masks', expected none without PROMPT_FILE, as a"
      " checkpoint's prompt has its own masks"
  )


def test_frozen_weights_that_are_missing_are_refused():
  def state(**encoder):
    return {"target": {"encoder": encoder}, "state": {"step": 2}}

  model = state(wi_0=1, wi_1=2, norm=3, prompt={"token_mask": 4})
  whole = state(wi_0=1, wi_1=2, norm=3)
  assert restoring.check_frozen(whole, model) == whole
  other = state(wi=1, norm=3)
  assert restoring.check_frozen(other, model, is_resuming=True) == other
  with pytest.raises(UserError) as error:
    restoring.check_frozen(other, model)
  assert str(error.value) == (
      "checkpoint of the frozen weights: found no encoder/wi_0, encoder/wi_1 (2"
      " missing), expected all parameters of the network that MODEL names"
  )


def test_whether_the_checkpoints_prompt_counts():
  def state(**encoder):
    return {
        "target": {"encoder": {"layer": 1, **encoder}},
        "state": {"step": 2},
    }

  with_prompt, without = state(prompt={"prompt": 3}), state()
  assert restoring.prompt_from(with_prompt, {}) == with_prompt
  assert restoring.prompt_from(with_prompt, {}, "file") == without
  assert restoring.prompt_from(without, {}, "file") == without
  assert restoring.prompt_from(without, {}, is_resuming=True) == without
  with pytest.raises(UserError, match="CHECKPOINT_PATH: .* or PROMPT_FILE"):
    restoring.prompt_from(without, {})
