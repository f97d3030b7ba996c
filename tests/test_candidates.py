"""Candidates scored as a loop over the loss scores them, and chosen among."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import examples
from xprompt_jax import candidates, evaluation, mixtures, model, vocabularies
from xprompt_jax import masks as masks_lib
from xprompt_jax.prompts import masked_prompts
from xprompt_jax.types import UserError

BYTES = vocabularies.load_vocabulary("bytes", 0)
SETTINGS = {
    "model": examples.TINY_MODEL,
    "frozen_params": examples.tiny_params(),
    "vocabulary": BYTES,
}
# Bytes stand at 3 and up, so "!" is 36, the last of the tiny model's ids.
SPLIT_CANDIDATES = [
    ("!\t", " \t\t", "\t"),
    (" ", "!"),
    ("\t ! ", "!"),
    ("!\t", " \t\t", "\t"),
    (" ",),
]


def with_candidates(split, found):
  pairs = zip(split.examples, found, strict=True)
  return dataclasses.replace(
      split,
      examples=[{**e, "fields": {"candidates": list(c)}} for e, c in pairs],
  )


def table():
  """Two rows over five examples with one to three candidates each."""
  split = with_candidates(examples.tiny_split(5), SPLIT_CANDIDATES)
  prompt = 3.0 * examples.random_prompt(2, examples.TINY_P, 12)
  masks = examples.random_masks(2, examples.TINY_P, examples.TINY_K)
  return split, prompt, masks


@jax.jit
def losses(params, prompt, masks, rows, inputs, targets):
  """The existing loss of targets [C, L], each of its own row and input."""
  batch = {
      "encoder_input_tokens": inputs,
      "decoder_input_tokens": jnp.pad(targets[:, :-1], ((0, 0), (1, 0))),
      "decoder_target_tokens": targets,
      "decoder_loss_weights": (targets > 0).astype(jnp.float32),
  }
  logits = examples.TINY_MODEL.logits(
      params,
      masked_prompts(prompt, masks, rows),
      jnp.ones((len(rows), examples.TINY_P), bool),
      batch,
  )
  return model.target_losses(logits, batch)


def loss(prompt, masks, row, inputs, target):
  """That of one candidate of one example, alone in its batch."""
  padded = np.pad(np.array([target], np.int32), ((0, 0), (0, 5 - len(target))))
  found = losses(
      examples.tiny_params(),
      prompt,
      masks,
      np.array([row]),
      np.array([inputs]),
      padded,
  )
  return -float(found[0])


@pytest.mark.parametrize("way", ["rank", "first_token"])
def test_scores_equal_a_loop_over_the_loss(way):
  split, prompt, masks = table()
  found = candidates.score_table(
      prompt,
      masks,
      examples.rows_of(split, (0, 1)),
      way,
      **SETTINGS,
      batch_size=4,
  )
  for row in (0, 1):
    expected = np.full((5, 3), -np.inf)
    for i, texts in enumerate(SPLIT_CANDIDATES):
      inputs = split.pad_inputs(np.array([i]), 8)[0]
      for c, text in enumerate(texts):
        target = [*BYTES.encode(text), 1]
        target = target[:1] if way == "first_token" else target
        expected[i, c] = loss(prompt, masks, row, inputs, target)
    np.testing.assert_allclose(found[row], expected, rtol=2e-5)
  # Rows and ways score differently, so a mix-up would show.
  assert np.abs(found[0][0] - found[1][0]).min() > 1e-3


def test_the_best_candidate_is_the_prediction():
  split = with_candidates(
      examples.tiny_split(3), [("a", "b"), ("a", "b", "c"), ("b", "a")]
  )
  scores = np.array(
      [[-2.0, -1.5, -np.inf], [-3.0, -3.0, -3.5], [-1.0, -1.0, -np.inf]]
  )
  # Ties go to the first.
  assert candidates.best(split, scores) == ["b", "a", "b"]


def test_mean_of_probabilities():
  """Rows that are sure count for more than rows that are not."""
  scores = [
      np.log([[0.9, 0.1], [0.02, 0.02]]),
      np.log([[0.2, 0.6], [0.1, 0.3]]),
  ]
  np.testing.assert_allclose(
      candidates.mean_probabilities(scores), [[0.575, 0.425], [0.375, 0.625]]
  )
  padded = [np.array([[np.log(0.2), np.log(0.6), -np.inf]])]
  np.testing.assert_allclose(
      candidates.mean_probabilities(padded), [[0.25, 0.75, 0.0]]
  )


def test_a_table_is_predicted_and_measured_by_any_way():
  split, prompt, masks = table()
  rows = examples.rows_of(split, (0, 1))
  for way in ("rank", "first_token"):
    scores = candidates.score_table(
        prompt, masks, rows, way, **SETTINGS, batch_size=10
    )
    texts = evaluation.predict_table(
        prompt, masks, rows, **SETTINGS, batch_size=3, predict_by=way
    )
    assert texts == [candidates.best(split, found) for found in scores]
    # The last example allows one answer.
    assert [row[4] for row in texts] == [" ", " "]
    right = dataclasses.replace(
        split,
        examples=[
            {**example, "target": texts[1][i] if i in (1, 3) else "no"}
            for i, example in enumerate(split.examples)
        ],
    )
    found = evaluation.evaluate_table(
        prompt,
        masks,
        examples.rows_of(right, (0, 1)),
        **SETTINGS,
        batch_size=10,
        predict_by=way,
    )
    assert found[1] == {"accuracy": 40.0, "score": 40.0}


def test_what_is_not_possible_is_said():
  open_answers = examples.tiny_split(2)
  assert candidates.why_not("rank", open_answers, BYTES) == (
      "task tiny, split train: found no candidates, expected a closed set of"
      " answers"
  )
  choices = with_candidates(
      open_answers, [("yes", "no"), ("choice1", "choice2")]
  )
  assert candidates.why_not("rank", choices, BYTES) is None
  assert candidates.why_not("first_token", choices, BYTES) == (
      "task tiny, split train: 'choice1' and 'choice2' start with the same"
      " token, expected candidates that differ in their first"
  )
  with pytest.raises(UserError, match="^PREDICT_BY = 'rank': task tiny, split"):
    candidates.check_possible("rank", open_answers, BYTES)


def test_a_mixture_names_the_members_that_do_not_allow_a_way():
  two = [("yes", "no")] * 2
  closed = [
      dataclasses.replace(
          with_candidates(examples.tiny_split(2), two), task=task
      )
      for task in ("a", "b")
  ]
  opened = [
      dataclasses.replace(examples.tiny_split(2), task=task)
      for task in ("c", "d")
  ]
  mixed = mixtures.mix("all", [closed[0], opened[0], closed[1]], [1, 1, 1])
  line = "task {}, split train: found no candidates, expected a closed set of"
  line += " answers"
  assert candidates.why_not("rank", mixed, BYTES) == line.format("c")
  mixed = mixtures.mix("all", [*opened, *closed], [1, 1, 1, 1])
  assert candidates.why_not("rank", mixed, BYTES) == (
      f"{line.format('c')}; {line.format('d')}"
  )
  assert (
      candidates.why_not("rank", mixtures.mix("two", closed, [1, 1]), BYTES)
      is None
  )


def test_scoring_is_traced_once_for_each_bucket():
  """However many candidates the examples of a batch have."""
  candidates.rank.clear_cache()
  candidates.first_token.clear_cache()
  split = with_candidates(
      examples.make_split([[5, 1]] * 5 + [[5] * 12 + [1]] * 5, [[6, 1]] * 10),
      [("!", " ")] * 3 + [("!", " ", "\t")] * 5 + [("!",)] * 2,
  )
  masks = masks_lib.full_masks(1, examples.TINY_P, examples.TINY_K)
  for seed in (0, 1):
    for way in ("rank", "first_token"):
      candidates.score_table(
          examples.random_prompt(1, examples.TINY_P, 12, seed),
          masks,
          examples.rows_of(split),
          way,
          **SETTINGS,
          batch_size=2,
      )
  assert candidates.rank._cache_size() == 2
  assert candidates.first_token._cache_size() == 2
