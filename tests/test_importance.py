"""What units are ranked by: literal prompts and seeds beside literal scores."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from tests import examples
from tests.test_scoring import TINY, assert_close, mask_derivatives
from xprompt_jax import importance, pruning, scoring
from xprompt_jax import masks as masks_lib
from xprompt_jax.model import target_losses
from xprompt_jax.pruning import SearchConfig
from xprompt_jax.tickets import Ticket
from xprompt_jax.types import PromptMasks, UserError

# P 3, K 2, H 4; the third token and a piece of the second are pruned.
PROMPT = np.array(
    [[[1, -3, 2, 0], [0.5, 0.5, -8, 0], [4, 4, 0, 2]]], np.float32
)
MASKS = PromptMasks(
    token_mask=np.array([[1, 1, 0]], np.float32),
    piece_mask=np.array([[[1, 1], [1, 0], [0, 0]]], np.float32),
)
# What seed 3 of task a ranks tokens and pieces by.
TOKENS = [0.1906537942987615, 0.8611309668157062, 0.7742506849552743]
PIECES = [
    [0.9648114644654212, 0.6444251092158712],
    [0.7969047930076205, 0.7560386325231354],
    [0.8033567805391738, 0.29272739005884385],
]


def test_magnitude_is_the_mean_absolute_value_of_what_is_kept():
  scores = importance.magnitude_scores(PROMPT, MASKS)
  assert scores["token_scores"].tolist() == [[1.5, 0.5, 0.0]]
  assert scores["piece_scores"].tolist() == [[[2.0, 1.0], [0.5, 0.0], [0, 0]]]


def test_random_scores_are_a_function_of_seed_task_and_granularity():
  scores = importance.random_scores([4, 3], ["a", "a"], 3, 2)
  assert scores["token_scores"][1].tolist() == TOKENS
  assert scores["piece_scores"][1].tolist() == PIECES
  assert scores["token_scores"][0].tolist() == [
      0.69163545965857,
      0.5319905855988514,
      0.004970728075367359,
  ]
  # Another task, another draw and another stream are other numbers.
  assert importance.uniform(3, "a", 3, 10).tolist() == TOKENS
  assert importance.uniform(3, "b", 1, 10).tolist() == [0.1537755315210474]
  assert importance.uniform(3, "a", 1, 10, draw=1).tolist() == [
      0.235905378079165
  ]
  assert importance.uniform(3, "a", 2, 11).tolist() == PIECES[0]


def test_each_row_is_ranked_by_what_its_ticket_says():
  given = {
      "token_scores": np.array([[0.1, 0.2, 0.3]] * 4),
      "piece_scores": np.full((4, 3, 2), 0.7),
      "token_signed": np.array([[-0.1, 0.2, 0.0]] * 4),
      "piece_signed": np.full((4, 3, 2), -0.7),
  }
  found = importance.chosen_scores(
      ["random", "gradient", "signed", "magnitude"],
      [3] * 4,
      ["a"] * 4,
      np.concatenate([PROMPT] * 4),
      masks_lib.concatenate([MASKS] * 4),
      given,
  )
  assert found.keys() == {"token_scores", "piece_scores"}
  assert found["token_scores"].tolist() == [
      TOKENS,
      [0.1, 0.2, 0.3],
      [-0.1, 0.2, 0.0],
      [1.5, 0.5, 0.0],
  ]
  assert found["piece_scores"].tolist() == [
      PIECES,
      [[0.7, 0.7]] * 3,
      [[-0.7, -0.7]] * 3,
      [[2.0, 1.0], [0.5, 0.0], [0.0, 0.0]],
  ]


def test_signed_scores_remove_what_lowers_the_loss_when_it_goes():
  np.testing.assert_array_equal(
      pruning.prune_units(
          np.array([0.1, -0.5, 0.0, -0.2]), np.ones(4, np.float32), 0.5
      ),
      [1, 0, 1, 0],
  )


def test_signed_scores_are_minus_the_mean_derivative():
  rows = examples.rows_of(examples.tiny_split(7), (0, 1))
  prompt = np.asarray(examples.random_prompt(2, examples.TINY_P, 12))
  masks = examples.random_masks(2, examples.TINY_P, examples.TINY_K)

  def scores(batch_size, signed):
    return scoring.score_arrays(
        prompt,
        masks,
        rows,
        **TINY,
        batch_size=batch_size,
        signed=signed,
    )

  found = scores(4, True)
  plain = scores(4, False)
  assert plain.keys() == {"token_scores", "piece_scores"}
  for name in plain:
    assert_close(found[name], plain[name])
  batch = next(rows.every_example(14))
  token, piece = mask_derivatives(prompt, masks, batch)
  for row in (0, 1):
    own = batch.row_ids == row
    largest = found["token_scores"][row].max()
    for name, derivative in (("token_signed", token), ("piece_signed", piece)):
      np.testing.assert_allclose(
          found[name][row],
          -np.asarray(derivative, np.float64)[own].mean(axis=0),
          atol=1e-5 * largest,
      )
  # To first order it is what the loss gains as a unit fades.
  losses = fading_losses(prompt, masks, rows)
  kept = masks.token_mask[0] > 0
  np.testing.assert_allclose(
      losses[kept] / 0.01, found["token_signed"][0][kept], atol=0.05
  )


def fading_losses(prompt, masks, rows):
  """What the loss an example gains where 1 % of a token of row 0 is off."""

  def losses(token_masks):
    count = len(token_masks)
    tables = PromptMasks(
        token_mask=np.stack(token_masks),
        piece_mask=np.repeat(masks.piece_mask[:1], count, axis=0),
    )
    spread = dataclasses.replace(
        rows, seeds=(0,) * count, splits=rows.splits[:1] * count
    )
    mean = scoring.loss_table(
        np.repeat(prompt[:1], count, axis=0),
        tables,
        spread,
        **TINY,
        batch_size=6,
    )
    split = rows.splits[0]
    return mean * split.target_lengths.sum() / len(split)

  faded = [
      masks.token_mask[0] * (1 - 0.01 * np.eye(examples.TINY_P)[p])
      for p in range(examples.TINY_P)
  ]
  found = losses([masks.token_mask[0], *(f.astype(np.float32) for f in faded)])
  return found[1:] - found[0]


def test_the_loss_of_a_row_is_the_mean_over_its_target_tokens():
  rows = examples.rows_of(examples.tiny_split(7), (0, 1))
  prompt = np.asarray(examples.random_prompt(2, examples.TINY_P, 12))
  masks = examples.random_masks(2, examples.TINY_P, examples.TINY_K)
  found = scoring.loss_table(prompt, masks, rows, **TINY, batch_size=4)
  arrays = next(examples.rows_of(rows.splits[0]).every_example(7)).arrays
  batch = {name: jnp.asarray(array) for name, array in arrays.items()}
  masked = jnp.asarray(masks_lib.apply_masks(prompt, masks))
  visible = jnp.ones((7, examples.TINY_P), bool)
  for row in (0, 1):
    prompts = jnp.repeat(masked[row : row + 1], 7, axis=0)
    logits = examples.tiny_logits(prompts, visible, batch)
    losses = target_losses(logits, batch)
    expected = losses.sum() / batch["decoder_loss_weights"].sum()
    np.testing.assert_allclose(found[row], expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("num_tokens", "num_pieces", "expected"),
    [
        # Tokens score 0.3, 0.9, 0.5; each kept one keeps its best piece.
        (2, 2, [[0, 0], [1, 0], [0, 1]]),
        (2, 3, [[0, 0], [1, 0], [1, 1]]),
        (2, 4, [[0, 0], [1, 1], [1, 1]]),
        (3, 4, [[0, 1], [1, 0], [1, 1]]),
        (1, 1, [[0, 0], [1, 0], [0, 0]]),
    ],
)
def test_masks_of_counts(num_tokens, num_pieces, expected):
  masks = importance.masks_of_counts(
      np.array([0.3, 0.9, 0.5]),
      np.array([[0.1, 0.2], [0.05, 0.01], [0.3, 0.4]]),
      num_tokens,
      num_pieces,
  )
  assert masks.piece_mask.tolist() == expected
  assert masks.token_mask.tolist() == [float(any(row)) for row in expected]


def test_result_files_name_what_is_not_the_default():
  ticket = Ticket(seed=3, token_ratio=0.2)
  plain = {"seed": 3, "token_ratio": 0.2, "piece_ratio": None}
  assert ticket.as_json() == plain
  other = dataclasses.replace(ticket, importance="signed", control="random")
  assert other.as_json() == {
      **plain,
      "importance": "signed",
      "control": "random",
  }
  assert other.unpruned == Ticket(seed=3)
  assert other.searched_for == dataclasses.replace(other, token_ratio=None)


def test_a_config_from_before_reads_the_same():
  assert SearchConfig().as_json().keys() == {
      "strategy",
      "granularities",
      "token_ratios",
      "piece_ratios",
      "piece_scope",
      "rewind_to",
  }
  config = SearchConfig(importances=("gradient", "random"), masking_counts=(2,))
  assert config.as_json()["importances"] == ("gradient", "random")
  assert config.as_json()["masking_counts"] == (2,)
  assert "controls" not in config.as_json()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"importances": ("random",)}, "importances: .*gradient first"),
        ({"importances": ("gradient", "l2")}, "found 'l2', expected some of"),
        ({"importances": ()}, "importances: .*a list that is not empty"),
        (
            {"controls": ("reverse",)},
            "controls: found 'reverse', expected some",
        ),
        ({"controls": ("random",) * 2}, "controls: .*each value once"),
        ({"masking_counts": (0,)}, "masking_counts: found 0, expected an"),
        ({"masking_draws": -1}, "masking_draws: found -1"),
        (
            {"strategy": "levels", "granularities": ("token",)},
            "granularities: .* for strategy='levels'",
        ),
    ],
)
def test_config_names_the_field(fields, message):
  with pytest.raises(UserError, match=f"SearchConfig.*{message}"):
    SearchConfig(**fields)


def test_a_prompt_keeps_one_token_when_some_are_masked():
  config = SearchConfig(masking_counts=(1, 4))
  config.check_prompt_length(5)
  with pytest.raises(
      UserError, match="masking_counts: found 4, .*the 4 tokens"
  ):
    config.check_prompt_length(4)
