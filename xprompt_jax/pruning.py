"""Which units a ratio removes: pure functions from scores to masks.

The other two thirds of a pruning round stand elsewhere: `scoring.py` computes
the scores, `masks.py` applies the result.
"""

import dataclasses
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

import numpy as np

from xprompt_jax.types import PromptMasks, require, require_int

GRANULARITIES = ("token", "piece")
PIECE_SCOPES = ("global", "per_token")
STRATEGIES = ("linear", "grid", "levels")
REWIND_POINTS = ("tuned", "initial")
GRADIENT = "gradient"
IMPORTANCES = (GRADIENT, "magnitude", "signed", "random")
CONTROLS = (
    "reversed",
    "random",
    "magnitude",
    "length",
    "retrained",
    "no_rewind",
)
# The paper's search space (Ma et al. 2022, section 4.2).
RATIOS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)

# The lists of a config, and whether they may be empty.
_LISTS = {
    "granularities": False,
    "token_ratios": False,
    "piece_ratios": False,
    "importances": False,
    "controls": True,
    "masking_counts": True,
}
_LATER = (
    "importances",
    "controls",
    "masking_counts",
    "masking_draws",
    "auto_ratio",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchConfig:
  """Which tickets are tried.

  Attributes:
    strategy: `linear` fixes the best token ratio before it tries piece ratios
      (the paper); `grid` tries all pairs, and each granularity alone;
      `levels` is `linear` with pieces alone beside tokens alone.
    granularities: which masks are pruned, tokens first.
    token_ratios: compression ratios tried for tokens.
    piece_ratios: compression ratios tried for pieces.
    piece_scope: `global` ranks pieces of all kept tokens together,
      `per_token` within each token.
    rewind_to: `tuned` (the paper) or `initial`.
    importances: what units are ranked by, `gradient` first; the others have
      searches of their own in the same tables, of the same budget.
    controls: of the final ticket; see `controls.py`.
    masking_counts: how many tokens of the tuned prompts are masked without
      training; see `masking.py`. Empty leaves that out.
    masking_draws: random choices of tokens, for each count.
    auto_ratio: whether tickets are trained whose ratios were chosen without
      training; see `auto_ratio.py`.
  """

  strategy: str = "linear"
  granularities: tuple[str, ...] = GRANULARITIES
  token_ratios: tuple[float, ...] = RATIOS
  piece_ratios: tuple[float, ...] = RATIOS
  piece_scope: str = "global"
  rewind_to: str = "tuned"
  importances: tuple[str, ...] = (GRADIENT,)
  controls: tuple[str, ...] = ()
  masking_counts: tuple[int, ...] = ()
  masking_draws: int = 10
  auto_ratio: bool = False

  def __post_init__(self):
    for name, allowed in (
        ("strategy", STRATEGIES),
        ("piece_scope", PIECE_SCOPES),
        ("rewind_to", REWIND_POINTS),
    ):
      found = getattr(self, name)
      expected = f"one of {', '.join(allowed)}"
      require(found in allowed, f"SearchConfig.{name}", found, expected)
    for name, may_be_empty in _LISTS.items():
      found = getattr(self, name)
      require(
          isinstance(found, (list, tuple)) and (may_be_empty or len(found) > 0),
          f"SearchConfig.{name}",
          found,
          "a list" if may_be_empty else "a list that is not empty",
      )
      require(
          all(found.count(value) == 1 for value in found),
          f"SearchConfig.{name}",
          found,
          "each value once",
      )
      # gin hands lists over.
      object.__setattr__(self, name, tuple(found))
    self._check_more()
    require(
        self.granularities in (("token",), ("piece",), GRANULARITIES),
        "SearchConfig.granularities",
        self.granularities,
        "('token',), ('piece',) or ('token', 'piece')",
    )
    for name in ("token_ratios", "piece_ratios"):
      for ratio in getattr(self, name):
        check_ratio(ratio, f"SearchConfig.{name}")

  def _check_more(self) -> None:
    require(
        self.strategy != "levels" or self.granularities == GRANULARITIES,
        "SearchConfig.granularities",
        self.granularities,
        f"{GRANULARITIES} for strategy='levels'",
    )
    for name, allowed in (("importances", IMPORTANCES), ("controls", CONTROLS)):
      for found in getattr(self, name):
        expected = f"some of {', '.join(allowed)}"
        require(found in allowed, f"SearchConfig.{name}", found, expected)
    require(
        self.importances[0] == GRADIENT,
        "SearchConfig.importances",
        self.importances,
        f"{GRADIENT} first",
    )
    for count in self.masking_counts:
      require_int("SearchConfig.masking_counts", count, 1)
    require_int("SearchConfig.masking_draws", self.masking_draws, 0)
    require(
        isinstance(self.auto_ratio, bool),
        "SearchConfig.auto_ratio",
        self.auto_ratio,
        "True or False",
    )

  def check_prompt_length(self, length: int) -> None:
    """Refuses to mask as many tokens as a prompt has, or more."""
    for count in self.masking_counts:
      require(
          count < length,
          "SearchConfig.masking_counts",
          count,
          f"fewer than the {length} tokens of PromptConfig.length",
      )

  def as_json(self) -> dict[str, Any]:
    """Its fields; those that came later only where they are not the default.

    So a run that was made without them goes on.
    """
    fields = dataclasses.asdict(self)
    for field in dataclasses.fields(self):
      if field.name in _LATER and fields[field.name] == field.default:
        del fields[field.name]
    return fields

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
    scores: [N]; those of pruned units are not looked at.
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
