"""The bundled T5 fits the repository, and has its skills when asked for them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sentencepiece

from pretrain import check, mixture, train
from xprompt_jax.t5.network import T5
from xprompt_jax.tasks import mini_language as lang
from xprompt_jax.weights import bundled, checkpoints

# The share of rows that the most frequent target has.
MAJORITY = {
    "mini_boolq": 0.5,
    "mini_rte": 0.5,
    "mini_cb": 0.34,
    "mini_wsc": 0.5,
}


@pytest.fixture(scope="module")
def model():
  config, params = bundled.load_bundled()
  return T5(config), params, train.word_ids(config.vocab_size)


def test_size():
  files = [path for path in checkpoints.BUNDLED.rglob("*") if path.is_file()]
  assert {str(path.relative_to(checkpoints.BUNDLED)) for path in files} == {
      "README.md",
      "config.json",
      "model.safetensors",
      "sentencepiece.model",
      "small/config.json",
      "small/model.safetensors",
  }
  assert sum(path.stat().st_size for path in files) < 4_000_000


@pytest.mark.parametrize(
    ("name", "expected"), [("bundled", 1_026_048), ("bundled_small", 275_584)]
)
def test_parameters(name, expected):
  _, params = bundled.load_bundled(name)
  assert sum(leaf.size for leaf in jax.tree.leaves(params)) == expected


def test_vocabulary_has_a_piece_for_every_word():
  path = str(checkpoints.BUNDLED / "sentencepiece.model")
  processor = sentencepiece.SentencePieceProcessor(model_file=path)
  assert [processor.id_to_piece(i) for i in range(3)] == [
      "<pad>",
      "</s>",
      "<unk>",
  ]
  assert processor.bos_id() == -1
  text = "does anna have a red ball *she* not_entailment"
  assert processor.encode(text, out_type=str) == [
      *("▁does", "▁anna", "▁have", "▁a", "▁red", "▁ball", "▁*she*"),
      "▁not_entailment",
  ]
  unknown = "Zebras & 42 owls?"
  assert processor.unk_id() not in processor.encode(unknown)
  assert processor.decode(processor.encode(unknown)) == unknown
  config, _ = bundled.load_bundled()
  assert processor.vocab_size() + mixture.NUM_SENTINELS == config.vocab_size


@pytest.mark.parametrize("task", lang.TASKS)
def test_skills_are_there_when_asked_for_and_only_then(model, task):
  t5, params, ids = model
  found = check.instruction_accuracy(t5, params, task, "test", ids)
  assert found.pop("") <= MAJORITY[task]
  assert len(found) == 2
  assert min(found.values()) >= 0.95, found


def test_the_small_model_answers_when_asked_and_only_then():
  config, params = bundled.load_bundled("bundled_small")
  found = check.instruction_accuracy(
      T5(config), params, "mini_cb", "test", train.word_ids(config.vocab_size)
  )
  # Three answers; what it lacks is looking up facts.
  assert found.pop("") == 0.0
  assert all(0.6 < share < 0.8 for share in found.values()), found


def test_check_decodes_with_a_prompt_as_with_the_same_words(model):
  t5, params, ids = model
  inputs, targets = check.encode_rows("mini_boolq", "validation", "", ids)
  phrase = lang.INSTRUCTIONS["mini_boolq"][0].split()
  table = np.asarray(params["token_embedder"]["embedding"])
  prompt = jnp.asarray(table[[ids[word] for word in phrase]])
  by_prompt = check.accuracy(t5, params, prompt, (inputs, targets))
  by_words = check.instruction_accuracy(
      t5, params, "mini_boolq", "validation", ids
  )
  assert by_prompt == by_words[" ".join(phrase)]


def test_corrupted_spans_are_replaced_by_sentinels():
  text = ["anna", "has", "a", "red", "ball", "."]
  assert mixture.corrupt(text, [(0, 1), (3, 5)]) == (
      ["<extra_id_0>", "has", "a", "<extra_id_1>", "."],
      ["<extra_id_0>", "anna", "<extra_id_1>", "red", "ball", "<extra_id_2>"],
  )
  assert mixture.corrupt(text, [(5, 6)]) == (
      ["anna", "has", "a", "red", "ball", "<extra_id_0>"],
      ["<extra_id_0>", "."],
  )


def test_pretraining_draws_none_of_the_tasks_inputs():
  left_out = mixture.task_inputs()
  ids = train.word_ids(288)
  words = {index: word for word, index in ids.items()}
  for inputs, targets in train.draw_chunk(200, ids, left_out):
    assert inputs.shape[0] == targets.shape[0] == train.BATCH_SIZE
    for row in inputs:
      text = [words[index] for index in row if index > 1]
      tails = {" ".join(text[start:]) for start in range(len(text))}
      assert not tails & left_out


def test_the_state_of_another_model_is_refused(tmp_path):
  path = tmp_path / "state.safetensors"
  train.save_state(path, 3, (np.zeros((4, 2), np.float32),))
  step, (leaf,) = train.load_state(path, (np.ones((4, 2), np.float32),))
  assert (step, leaf.tolist()) == (3, [[0.0, 0.0]] * 4)
  with pytest.raises(ValueError, match="the state of another model"):
    train.load_state(path, (np.ones((2, 2), np.float32),))
