"""Which units a ratio removes: pure functions from scores to masks.

The other two thirds of a pruning round stand elsewhere: `scoring.py` computes
the scores, `masks.py` applies the result.
"""

import dataclasses
from decimal import ROUND_HALF_UP, Decimal

import numpy as np

from xprompt_jax.types import PromptMasks, require

GRANULARITIES = ("token", "piece")
PIECE_SCOPES = ("global", "per_token")
STRATEGIES = ("linear", "grid")
REWIND_POINTS = ("tuned", "initial")
# The paper's search space (Ma et al. 2022, section 4.2).
RATIOS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchConfig:
  """Which tickets are tried.

  Attributes:
    strategy: `linear` fixes the best token ratio before it tries piece ratios
      (the paper); `grid` tries all pairs, and each granularity alone.
    granularities: which masks are pruned, tokens first.
    token_ratios: compression ratios tried for tokens.
    piece_ratios: compression ratios tried for pieces.
    piece_scope: `global` ranks pieces of all kept tokens together,
      `per_token` within each token.
    rewind_to: `tuned` (the paper) or `initial`.
  """

  strategy: str = "linear"
  granularities: tuple[str, ...] = GRANULARITIES
  token_ratios: tuple[float, ...] = RATIOS
  piece_ratios: tuple[float, ...] = RATIOS
  piece_scope: str = "global"
  rewind_to: str = "tuned"

  def __post_init__(self):
    for name, allowed in (
        ("strategy", STRATEGIES),
        ("piece_scope", PIECE_SCOPES),
        ("rewind_to", REWIND_POINTS),
    ):
      found = getattr(self, name)
      expected = f"one of {', '.join(allowed)}"
      require(found in allowed, f"SearchConfig.{name}", found, expected)
    for name in ("granularities", "token_ratios", "piece_ratios"):
      found = getattr(self, name)
      require(
          isinstance(found, (list, tuple)) and len(found) > 0,
          f"SearchConfig.{name}",
          found,
          "a list that is not empty",
      )
      require(
          all(found.count(value) == 1 for value in found),
          f"SearchConfig.{name}",
          found,
          "each value once",
      )
      # gin hands lists over.
      object.__setattr__(self, name, tuple(found))
    require(
        self.granularities in (("token",), ("piece",), GRANULARITIES),
        "SearchConfig.granularities",
        self.granularities,
        "('token',), ('piece',) or ('token', 'piece')",
    )
    for name in ("token_ratios", "piece_ratios"):
      for ratio in getattr(self, name):
        check_ratio(ratio, f"SearchConfig.{name}")

  def ratios(self, granularity: str) -> tuple[float, ...]:
    """The ratios tried at `token` or `piece` granularity."""
    return getattr(self, f"{granularity}_ratios")


def check_ratio(ratio: float, field: str) -> None:
  """Refuses a compression ratio outside [0, 1).

  Raises:
    UserError: names the field and what was found.
  """
  number = isinstance(ratio, (int, float)) and not isinstance(ratio, bool)
  require(
      number and 0.0 <= ratio < 1.0,
      field,
      ratio,
      "a compression ratio in [0, 1)",
  )


def num_pruned(ratio: float, num_kept: int) -> int:
  """How many of the kept units a ratio removes.

  ratio x kept, rounded half up in decimal arithmetic on the ratio as it is
  written (binary floats make 20 * (1 - 0.9) come out below 2); at least one
  unit stays.

  Args:
    ratio: compression ratio in [0, 1).
    num_kept: units kept so far, at least 1.

  Returns:
    An integer in [0, num_kept).

  Raises:
    UserError: a ratio outside [0, 1).
  """
  check_ratio(ratio, "compression_ratio")
  exact = Decimal(str(ratio)) * num_kept
  rounded = int(exact.quantize(Decimal(1), rounding=ROUND_HALF_UP))
  return min(rounded, num_kept - 1)


def prune_units(
    scores: np.ndarray, mask: np.ndarray, ratio: float
) -> np.ndarray:
  """Removes the lowest-scored share of the kept units.

  Args:
    scores: [N], >= 0; those of pruned units are not looked at.
    mask: [N], 1 keep, 0 pruned.
    ratio: share of the kept units to remove.

  Returns:
    [N] float32: `mask` with `num_pruned` more zeros. Among equal scores the
    higher index goes first.

  Raises:
    ValueError: a score that is not finite.
  """
  if not np.isfinite(scores).all():
    raise ValueError("importance scores are not finite")
  (kept,) = np.nonzero(mask)
  order = np.lexsort((-kept, scores[kept]))
  pruned = mask.astype(np.float32)
  pruned[kept[order[: num_pruned(ratio, kept.size)]]] = 0.0
  return pruned


def prune_tokens(
    token_scores: np.ndarray, masks: PromptMasks, ratio: float
) -> PromptMasks:
  """Prunes tokens of one ticket, and with a token all its pieces.

  Args:
    token_scores: [P].
    masks: [P] and [P, K].
    ratio: share of the kept tokens to remove.

  Returns:
    Masks of the same shapes.
  """
  token_mask = prune_units(token_scores, np.asarray(masks.token_mask), ratio)
  piece_mask = np.asarray(masks.piece_mask) * token_mask[:, None]
  return dataclasses.replace(
      masks, token_mask=token_mask, piece_mask=piece_mask
  )


def prune_pieces(
    piece_scores: np.ndarray,
    masks: PromptMasks,
    ratio: float,
    piece_scope: str = "global",
) -> PromptMasks:
  """Prunes pieces of one ticket.

  Args:
    piece_scores: [P, K].
    masks: [P] and [P, K].
    ratio: share of the kept pieces to remove.
    piece_scope: `global` ranks the pieces of all kept tokens together,
      `per_token` removes the share within each token.

  Returns:
    Masks of the same shapes; the token mask is unchanged.

  Raises:
    UserError: an unknown scope.
  """
  piece_mask = np.asarray(masks.piece_mask)
  require(
      piece_scope in PIECE_SCOPES,
      "piece_scope",
      piece_scope,
      f"one of {', '.join(PIECE_SCOPES)}",
  )
  if piece_scope == "global":
    flat = prune_units(piece_scores.ravel(), piece_mask.ravel(), ratio)
    pruned = flat.reshape(piece_mask.shape)  # [P * K] -> [P, K]
  else:
    pruned = piece_mask.copy()
    for p in np.nonzero(piece_mask.any(axis=-1))[0]:
      pruned[p] = prune_units(piece_scores[p], piece_mask[p], ratio)
  return dataclasses.replace(masks, piece_mask=pruned)
