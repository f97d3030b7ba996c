"""Importance scores beside the masks that came of them, row by row."""

from collections.abc import Mapping
import dataclasses
from typing import Any

import numpy as np

from xprompt_jax import artifacts
from xprompt_jax.errors import UserError
from xprompt_jax.html_report.checks import Row, check_rows, refuse
from xprompt_jax.html_report.reading import Part, Run

_SCORES = {"token_scores": 2, "piece_scores": 3}
_MASKS = {"token_mask": 2, "piece_mask": 3}


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Scored:
  """Scores of one stage and XPrompt's masks, for the same rows.

  Attributes:
    seeds: R seeds.
    token_scores: [R, P].
    piece_scores: [R, P, K].
    token_mask: [R, P], of XPrompt's tickets.
    piece_mask: [R, P, K].
  """

  seeds: list[Any]
  token_scores: np.ndarray
  piece_scores: np.ndarray
  token_mask: np.ndarray
  piece_mask: np.ndarray


def _rows_of(run: Run, folder: str, count: int) -> list[Row]:
  """What a stage says of the rows of its arrays."""
  path = run.path / folder / artifacts.RESULT
  rows = run.optional_rows(f"{folder}/{artifacts.RESULT}")
  if len(rows) != count:
    raise UserError(
        f"{path}: found {len(rows)} rows, expected {count}, as many as its"
        " arrays have"
    )
  return rows


def _scored(part: Part, granularity: str) -> _Scored | None:
  """A stage's scores with XPrompt's masks; None where a file is not there."""
  run, folder = part.run, artifacts.score_folder(granularity)
  scores = run.optional_arrays(f"{folder}/{artifacts.SCORES}", _SCORES)
  masks = run.optional_arrays(f"{artifacts.REWIND}/{artifacts.PROMPT}", _MASKS)
  if not scores or not masks:
    return None
  rows = _rows_of(run, folder, len(scores["token_scores"]))
  winners = _rows_of(run, artifacts.REWIND, len(masks["token_mask"]))
  places: dict[Any, int] = {}
  behind: dict[Any, int] = {}
  for index, row in enumerate(rows):
    # A grid scores the pieces behind each token mask, first behind none; rows
    # of other importances than the gradient say so.
    own = row.get("task", part.task) == part.task
    if own and row.get("importance", "gradient") == "gradient":
      places.setdefault(row["seed"], index)
      behind.setdefault((row["seed"], row.get("token_ratio")), index)

  def place(winner: Row) -> int:
    """The scores behind the winner's token mask, where there are several."""
    key = winner["seed"], winner.get("token_ratio")
    first = places[winner["seed"]]
    return behind.get(key, first) if granularity == "piece" else first

  pairs = [
      (place(row), index)
      for index, row in enumerate(winners)
      if row.get("task", part.task) == part.task and row["seed"] in places
  ]
  if not pairs:
    return None
  scored, kept = map(list, zip(*pairs, strict=True))
  if scores["piece_scores"].shape[1:] != masks["piece_mask"].shape[1:]:
    raise UserError(
        f"{run.path / folder / artifacts.SCORES}: piece_scores: found shape"
        f" {scores['piece_scores'].shape}, expected that of the masks in"
        f" {artifacts.REWIND}/, {masks['piece_mask'].shape}"
    )
  return _Scored(
      seeds=[winners[index]["seed"] for index in kept],
      token_scores=scores["token_scores"][scored],
      piece_scores=scores["piece_scores"][scored],
      token_mask=masks["token_mask"][kept],
      piece_mask=masks["piece_mask"][kept],
  )


def units(part: Part) -> dict[str, tuple[np.ndarray, np.ndarray]]:
  """Scores of the units that XPrompt keeps and of those it prunes.

  Args:
    part: one task of a run.

  Returns:
    By `tokens` and `pieces`, where each was scored. Pieces of tokens that were
    pruned before are left out.
  """
  found = {}
  if (tokens := _scored(part, "token")) is not None:
    kept = tokens.token_mask > 0
    found["tokens"] = (tokens.token_scores[kept], tokens.token_scores[~kept])
  if (pieces := _scored(part, "piece")) is not None:
    # Behind a token's mask every derivative is exactly zero.
    there = np.broadcast_to(
        pieces.piece_scores.any(axis=2, keepdims=True),
        pieces.piece_scores.shape,
    )
    kept = pieces.piece_mask > 0
    found["pieces"] = (
        pieces.piece_scores[there & kept],
        pieces.piece_scores[there & ~kept],
    )
  return {name: pair for name, pair in found.items() if sum(map(len, pair))}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Saliency:
  """One prompt's scores before and after pruning.

  Attributes:
    seed: of the prompt.
    before: [P, K], at the tuned prompt.
    after: [P, K], behind the token mask where pieces were scored.
    mask: [P, K], of XPrompt's ticket.
  """

  seed: Any
  before: np.ndarray
  after: np.ndarray
  mask: np.ndarray


def saliency(part: Part) -> Saliency | None:
  """Scores of the first seed's pieces; None where nothing was scored."""
  before = _scored(part, "token") or _scored(part, "piece")
  if before is None:
    return None
  after = _scored(part, "piece") or before
  return Saliency(
      seed=before.seeds[0],
      before=before.piece_scores[0],
      after=after.piece_scores[0],
      mask=after.piece_mask[0],
  )


def _is_word(found: Any) -> bool:
  return (
      isinstance(found, list)
      and len(found) == 2
      and isinstance(found[0], str)
      and isinstance(found[1], (int, float))
  )


def _is_token(found: Any) -> bool:
  return (
      isinstance(found, Mapping)
      and {"position", "kept", "words"} <= found.keys()
      and isinstance(found["words"], list)
      and all(map(_is_word, found["words"]))
  )


def word_rows(run: Run) -> list[Row]:
  """Rows of `nearest_words.json`; none where it is not there."""
  name = "nearest_words.json"
  rows = run.optional_rows(name, ("tokens",))
  check_rows(run.path / name, "rows", rows)
  for number, row in enumerate(rows):
    tokens = row["tokens"]
    if not isinstance(tokens, list) or not all(map(_is_token, tokens)):
      expected = "position, kept and words of each"
      refuse(run.path / name, f"rows[{number}].tokens", tokens, expected)
  return rows
