"""Where prompts start, row by row, and the module that holds them."""

import dataclasses

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

from tests import examples
from xprompt_jax import prompts
from xprompt_jax.prompt_formats import peft
from xprompt_jax.prompts import PromptConfig, PromptTable
from xprompt_jax.types import PromptMasks, UserError

WORDS = {"yes": [3, 6], "no": [5], "may": [4, 5, 9], "be": [8]}


@dataclasses.dataclass
class Words:
  """Words of `WORDS` to their ids; as many ids as are asked for."""

  vocab_size: int = 11
  extra_ids: int = 2
  path: str = "words"
  eos_id: int = 1
  unk_id: int = 2
  fingerprint: str = ""

  def encode(self, text):
    return [i for word in text.split() for i in WORDS[word]]

  def decode(self, ids):
    raise NotImplementedError

  def piece(self, token_id):
    raise NotImplementedError


def embedding(num_rows, embed_dim=4):
  """Row i is i, i + 0.25, i + 0.5, ...: a row tells its id."""
  ids = np.arange(num_rows, dtype=np.float32)
  return ids[:, None] + np.arange(embed_dim, dtype=np.float32) / 4


def start(init, length, seeds=(0,), **fields):
  """The initial table [R, P, 4] over 13 rows, 9 of them pieces and specials."""
  config = PromptConfig(init=init, length=length, num_pieces=2, **fields)
  return prompts.initial_prompts(config, seeds, embedding(13), Words())


def ids_of(prompt):
  """The ids whose rows a prompt [P, H] is made of."""
  np.testing.assert_array_equal(
      prompt, embedding(7000)[prompt[:, 0].astype(int)]
  )
  return prompt[:, 0].astype(int).tolist()


def test_sampled_vocab_takes_pieces_that_are_no_specials_once_each():
  # Ids 0 to 2 are special, 9 and 10 are sentinels, 11 and 12 are no ids.
  found = start("sampled_vocab", 6, seeds=(0, 1, 2))
  assert found.shape == (3, 6, 4)
  assert found.dtype == np.float32
  orders = [ids_of(row) for row in found]
  assert [sorted(order) for order in orders] == [[3, 4, 5, 6, 7, 8]] * 3
  assert len(set(map(tuple, orders))) == 3


def test_sampled_vocab_takes_from_the_first_5000_pieces():
  found = prompts.initial_prompts(
      PromptConfig(length=4997, num_pieces=1),
      (7,),
      embedding(6100, 1),
      Words(vocab_size=6100, extra_ids=100),
  )
  assert sorted(found[0, :, 0].tolist()) == list(range(3, 5000))


def test_sampled_vocab_refuses_more_tokens_than_pieces():
  message = "PromptConfig.length: found 7, expected at most the 6 pieces"
  with pytest.raises(UserError, match=message):
    start("sampled_vocab", 7)


@pytest.mark.parametrize(
    "init", ["sampled_vocab", "random_uniform", "class_labels"]
)
def test_a_row_depends_on_its_own_seed_alone(init):
  text = {"init_text": ("no",)} if init == "class_labels" else {}
  table = start(init, 5, seeds=(4, 9, 4), **text)
  alone = start(init, 5, seeds=(9,), **text)
  np.testing.assert_array_equal(table[1], alone[0])
  np.testing.assert_array_equal(table[0], table[2])
  assert (table[0] != table[1]).any()


def test_random_uniform_stays_within_one_half():
  found = start("random_uniform", 200)[0]
  assert found.dtype == np.float32
  assert 0.49 < found.max() <= 0.5
  assert -0.5 <= found.min() < -0.49
  assert abs(found.mean()) < 0.05


def test_class_labels_come_first_and_the_rest_is_sampled():
  found = start("class_labels", 5, init_text=("yes", "no"))[0]
  # The mean of rows 3 and 6, then row 5.
  assert found[:2].tolist() == [[4.5, 4.75, 5, 5.25], [5, 5.25, 5.5, 5.75]]
  rest = ids_of(found[2:])
  assert len(set(rest)) == 3
  assert set(rest) <= {3, 4, 5, 6, 7, 8}


def test_class_labels_beyond_the_prompt_are_left_out():
  found = start("class_labels", 2, init_text=("no", "be", "yes"))[0]
  assert ids_of(found) == [5, 8]


def test_text_repeats_until_the_prompt_is_full():
  assert ids_of(start("text", 7, init_text="may be")[0]) == [
      *(4, 5, 9, 8),
      *(4, 5, 9),
  ]
  assert ids_of(start("text", 2, init_text=("may", "be"))[0]) == [4, 5]


def test_first_rows_are_the_first_rows_specials_included():
  found = start("first_rows", 4, seeds=(1, 2))
  assert [ids_of(row) for row in found] == [[0, 1, 2, 3]] * 2
  message = "PromptConfig.length: found 14, expected at most the 13 rows"
  with pytest.raises(UserError, match=message):
    start("first_rows", 14)


@pytest.mark.parametrize("init", ["text", "class_labels"])
def test_a_text_without_a_piece_is_refused(init):
  message = "PromptConfig.init_text: found '  ', expected a "
  with pytest.raises(UserError, match=message):
    start(init, 3, init_text=("  ",) if init == "class_labels" else "  ")


PROMPT = np.arange(12, dtype=np.float32).reshape(3, 4) / 8


def test_from_file_gives_every_seed_the_one_prompt(tmp_path):
  np.save(tmp_path / "p.npy", PROMPT.astype(np.float64))
  path = str(tmp_path / "p.npy")
  found = start("from_file", 3, seeds=(5, 6), init_file=path)
  assert found.dtype == np.float32
  np.testing.assert_array_equal(found, [PROMPT, PROMPT])


def test_from_file_gives_each_seed_its_own_prompt(tmp_path):
  path = tmp_path / "p.safetensors"
  two = np.stack([PROMPT, -PROMPT])
  safetensors_numpy.save_file({"prompt": two}, path)
  found = start("from_file", 3, seeds=(5, 6), init_file=str(path))
  np.testing.assert_array_equal(found, two)
  with pytest.raises(UserError) as refusal:
    start("from_file", 3, seeds=(5, 6, 7), init_file=str(path))
  assert str(refusal.value) == (
      f"{path}: found '2 prompts', expected 1 or 3, one for each seed, or"
      f" {path}#ROW for all seeds"
  )


def test_from_file_starts_at_mask_times_prompt_in_any_format(tmp_path):
  folder = tmp_path / "adapter"
  folder.mkdir()
  base = peft.BaseModel(name=None, revision=None, num_layers=1, num_heads=1)
  peft.write(folder, PROMPT, base)
  found = start("from_file", 3, init_file=str(folder))
  np.testing.assert_array_equal(found, [PROMPT])
  path = tmp_path / "p.safetensors"
  arrays = {
      "prompt": PROMPT,
      "token_mask": np.array([1, 0, 1], np.int8),
      "piece_mask": np.array([[1, 1], [1, 1], [0, 1]], np.int8),
  }
  safetensors_numpy.save_file(arrays, path)
  found = start("from_file", 3, init_file=str(path))
  factor = [[1, 1, 1, 1], [0, 0, 0, 0], [0, 0, 1, 1]]
  np.testing.assert_array_equal(found, [PROMPT * np.float32(factor)])


@pytest.mark.parametrize(
    ("prompt", "line"),
    [
        (
            PROMPT[:2],
            "prompt: found (2, 4), expected [P, H] = (3, 4), as"
            " PromptConfig.length has it",
        ),
        (
            PROMPT[:, :3],
            "prompt: found (3, 3), expected [P, 4] or [R, P, 4]: the model's"
            " emb_dim is 4",
        ),
        (
            PROMPT[None, None],
            "prompt: found (1, 1, 3, 4), expected [P, 4] or [R, P, 4]: the"
            " model's emb_dim is 4",
        ),
    ],
)
def test_from_file_wants_the_length_of_the_config(tmp_path, prompt, line):
  path = tmp_path / "p.npy"
  np.save(path, prompt)
  with pytest.raises(UserError) as refusal:
    start("from_file", 3, init_file=str(path))
  assert str(refusal.value) == f"{path}: {line}"


# R 3, P 2, K 2, H 6.
TABLE = PromptTable(num_rows=3, prompt_length=2, num_pieces=2, embed_dim=6)


def test_prompt_table_names_its_variables_and_their_axes():
  boxed = TABLE.init(jax.random.key(0), jnp.array([0]))
  assert boxed["params"]["prompt"].names == ("rows", "prompt", "embed")
  assert jax.tree.map(jnp.shape, nn.unbox(boxed)) == {
      "params": {"prompt": (3, 2, 6)},
      "masks": {"token_mask": (3, 2), "piece_mask": (3, 2, 2)},
  }
  masks = nn.unbox(boxed)["masks"]
  assert all((mask == 1.0).all() for mask in masks.values())


def test_prompt_table_starts_within_one_half():
  wide = dataclasses.replace(TABLE, embed_dim=400)
  variables = nn.unbox(wide.init(jax.random.key(1), jnp.array([0])))
  prompt = variables["params"]["prompt"]
  assert 0.49 < prompt.max() <= 0.5
  assert -0.5 <= prompt.min() < -0.49


def test_prompt_table_gives_each_example_its_masked_row():
  prompt = jnp.arange(1.0, 37.0).reshape(3, 2, 6)
  masks = PromptMasks(
      token_mask=jnp.array([[1.0, 1.0], [1.0, 0.0], [1.0, 1.0]]),
      piece_mask=jnp.array(
          [
              [[1.0, 1.0], [1.0, 1.0]],
              [[0.0, 1.0], [0.0, 0.0]],
              [[1.0, 0.0], [1.0, 1.0]],
          ]
      ),
  )
  variables = {
      "params": {"prompt": prompt},
      "masks": {
          "token_mask": masks.token_mask,
          "piece_mask": masks.piece_mask,
      },
  }
  row_ids = jnp.array([2, 1, 2, 0])
  last = [[25, 26, 27, 0, 0, 0], [31, 32, 33, 34, 35, 36]]
  expected = [
      last,
      [[0, 0, 0, 16, 17, 18], [0, 0, 0, 0, 0, 0]],
      last,
      [[1, 2, 3, 4, 5, 6], [7, 8, 9, 10, 11, 12]],
  ]
  np.testing.assert_array_equal(TABLE.apply(variables, row_ids), expected)
  np.testing.assert_array_equal(
      prompts.masked_prompts(prompt, masks, row_ids), expected
  )


def test_zero_length_table_holds_no_token():
  prompt, masks = prompts.zero_length_table(examples.TINY_K, 12)
  assert prompt.shape == (1, 0, 12)
  assert masks.token_mask.shape == (1, 0)
  assert masks.piece_mask.shape == (1, 0, 4)
  masked = prompts.masked_prompts(prompt, masks, jnp.array([0, 0, 0]))
  assert masked.shape == (3, 0, 12)
