"""What units are ranked by where it is not the gradient: pure functions.

`scoring.py` differentiates; magnitudes and random numbers need no model. The
random ones rank units for a search of the same budget as XPrompt's: what such
a search gains, choosing among many tickets gains by itself.
"""

from collections.abc import Mapping, Sequence
import hashlib

from jaxtyping import Float, Float64
import numpy as np

from xprompt_jax import pruning
from xprompt_jax.types import AnyArray, PromptMasks

TOKEN_SCORES = "token_scores"
PIECE_SCORES = "piece_scores"
# The signed estimates; only where they are asked for.
TOKEN_SIGNED = "token_signed"
PIECE_SIGNED = "piece_signed"

# Streams of one seed, apart from those of the data order (0, 1) and of few-shot
# draws (2): of a search, of the control beside a ticket, of maskings.
SEARCH_STREAMS = (10, 11)
CONTROL_STREAMS = (12, 13)
MASKING_STREAM = 14


def uniform(
    seed: int, task: str, count: int, stream: int, draw: int = 0
) -> Float64[np.ndarray, "N"]:
  """Numbers in [0, 1) that no version of NumPy will change.

  They come from the raw words of a Philox stream, as the data order does.

  Args:
    seed: the row's, 0 or more.
    task: the row's; the draws of two tasks are independent.
    count: N.
    stream: tells what they are drawn for apart.
    draw: which of several draws.
  """
  name = int.from_bytes(hashlib.sha256(task.encode()).digest()[:8])
  entropy = np.random.SeedSequence([seed, draw, stream, name])
  words = np.random.Philox(entropy).random_raw(count)
  return (words >> np.uint64(11)) * 2.0**-53


def random_scores(
    seeds: Sequence[int],
    tasks: Sequence[str],
    prompt_length: int,
    num_pieces: int,
    streams: tuple[int, int] = SEARCH_STREAMS,
) -> dict[str, np.ndarray]:
  """Scores that rank units at random, by seed and task alone.

  Args:
    seeds: R seeds.
    tasks: R names.
    prompt_length: P.
    num_pieces: K.
    streams: of the tokens' numbers, and of the pieces'.

  Returns:
    `token_scores` [R, P] and `piece_scores` [R, P, K] in [0, 1).
  """
  tokens, pieces = streams
  shape = (prompt_length, num_pieces)
  return {
      TOKEN_SCORES: np.stack(
          [
              uniform(seed, task, prompt_length, tokens)
              for seed, task in zip(seeds, tasks, strict=True)
          ]
      ),
      # [P * K] -> [P, K]
      PIECE_SCORES: np.stack(
          [
              uniform(s, t, shape[0] * shape[1], pieces).reshape(shape)
              for s, t in zip(seeds, tasks, strict=True)
          ]
      ),
  }


def magnitude_scores(
    prompt: Float[AnyArray, "R P H"], masks: PromptMasks
) -> dict[str, np.ndarray]:
  """Mean |value| of each unit's kept entries.

  Args:
    prompt: [R, P, H].
    masks: [R, P] and [R, P, K].

  Returns:
    `token_scores` [R, P] and `piece_scores` [R, P, K]; pruned units have 0.
  """
  kept = np.asarray(masks.piece_mask, np.float64)
  kept = kept * np.asarray(masks.token_mask)[..., None]
  values = np.abs(np.asarray(prompt, np.float64))
  # [R, P, H] -> [R, P, K, H / K] -> [R, P, K]
  pieces = values.reshape(*kept.shape, -1).mean(axis=-1) * kept
  tokens = pieces.sum(axis=-1) / np.maximum(kept.sum(axis=-1), 1.0)
  return {TOKEN_SCORES: tokens, PIECE_SCORES: pieces}


def chosen_scores(
    importances: Sequence[str],
    seeds: Sequence[int],
    tasks: Sequence[str],
    prompt: Float[AnyArray, "R P H"],
    masks: PromptMasks,
    scores: Mapping[str, np.ndarray],
) -> dict[str, np.ndarray]:
  """What each row of a table is ranked by.

  Args:
    importances: R of `pruning.IMPORTANCES`.
    seeds: R seeds.
    tasks: R names.
    prompt: [R, P, H], tuned.
    masks: [R, P] and [R, P, K], where the gradients were taken.
    scores: `token_scores` [R, P] and `piece_scores` [R, P, K], and where a row
      asks for them `token_signed` and `piece_signed`.

  Returns:
    `token_scores` and `piece_scores`; the lowest go first.
  """
  ways = {
      pruning.GRADIENT: dict(scores),
      "magnitude": magnitude_scores(prompt, masks),
      "random": random_scores(seeds, tasks, *np.shape(masks.piece_mask)[1:]),
  }
  if TOKEN_SIGNED in scores:
    ways["signed"] = {
        TOKEN_SCORES: scores[TOKEN_SIGNED],
        PIECE_SCORES: scores[PIECE_SIGNED],
    }
  return {
      name: np.stack([ways[way][name][r] for r, way in enumerate(importances)])
      for name in (TOKEN_SCORES, PIECE_SCORES)
  }


def masks_of_counts(
    token_scores: Float[np.ndarray, "P"],
    piece_scores: Float[np.ndarray, "P K"],
    num_tokens: int,
    num_pieces: int,
) -> PromptMasks:
  """The highest-scored units, in numbers given exactly.

  Every token that is kept keeps its best piece, so that it counts as kept; the
  other pieces are ranked over all kept tokens together. Among equal scores the
  lower index is kept.

  Args:
    token_scores: [P].
    piece_scores: [P, K].
    num_tokens: tokens to keep.
    num_pieces: pieces to keep in all, at least one a token.

  Returns:
    Masks [P] and [P, K] of one row.
  """
  tokens = np.argsort(-token_scores, kind="stable")[:num_tokens]
  first = piece_scores[tokens].argmax(axis=1)
  ranks = np.full(piece_scores.shape, np.inf)
  ranks[tokens] = -piece_scores[tokens]
  ranks[tokens, first] = -np.inf
  kept = np.argsort(ranks.ravel(), kind="stable")[:num_pieces]
  piece_mask = np.zeros(ranks.size, np.float32)
  piece_mask[kept] = 1.0
  token_mask = np.zeros(len(token_scores), np.float32)
  token_mask[tokens] = 1.0
  return PromptMasks(
      token_mask=token_mask,
      piece_mask=piece_mask.reshape(ranks.shape),  # [P * K] -> [P, K]
  )
