"""Scores of an example's own candidates: `rank` and `first_token`.

`evaluation.py` lets the model write an answer and reads it; here it chooses
among those that the task allows. `rank` is the log-likelihood of the whole
candidate, EOS included, as T5's rank classification has it; `first_token` that
of its first token alone, as OpenPrompt's verbalizer has it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
import dataclasses
import functools
import weakref

import jax
from jax import Array
from jax.sharding import Mesh
from jaxtyping import Float, Int
import numpy as np

from xprompt_jax import masks as masks_lib
from xprompt_jax import partitioning, tables
from xprompt_jax.mixtures import MixedSplit
from xprompt_jax.model import PromptedT5
from xprompt_jax.prompts import masked_prompts
from xprompt_jax.tables import TableBatch, TableRows
from xprompt_jax.token_cache import CachedSplit
from xprompt_jax.types import AnyArray, PromptMasks, UserError
from xprompt_jax.vocabularies import PAD_ID, Vocabulary

RANK = "rank"
FIRST_TOKEN = "first_token"


@functools.partial(jax.jit, static_argnames=("model",))
def rank(
    prompt: Float[Array, "R P H"],
    masks: PromptMasks,
    frozen_params: Mapping,
    row_ids: Int[Array, "B"],
    tokens: Int[Array, "B T"],
    candidates: Int[Array, "B C L"],
    lengths: Int[Array, "B C"],
    num_candidates: Int[Array, ""],
    *,
    model: PromptedT5,
) -> Float[Array, "B C"]:
  """Log-likelihood of each candidate of examples that name their rows.

  Args:
    prompt: [R, P, H], unmasked.
    masks: [R, P] and [R, P, K].
    frozen_params: the T5's parameters.
    row_ids: [B], the row of each example.
    tokens: [B, T], padded with 0.
    candidates: [B, C, L] token ids, EOS included.
    lengths: [B, C], tokens of each; 0 where there is none.
    num_candidates: [], the most that an example of this batch has.
    model: the prompted T5.

  Returns:
    [B, C] nats, summed over tokens; -inf where there is no candidate.
  """
  masked = masked_prompts(prompt, masks, row_ids)
  visible = model.prompt_visible(masks_lib.take_rows(masks, row_ids))
  return model.candidate_log_likelihoods(
      frozen_params,
      masked,
      visible,
      tokens,
      candidates,
      lengths,
      num_candidates,
  )


@functools.partial(jax.jit, static_argnames=("model",))
def first_token(
    prompt: Float[Array, "R P H"],
    masks: PromptMasks,
    frozen_params: Mapping,
    row_ids: Int[Array, "B"],
    tokens: Int[Array, "B T"],
    first: Int[Array, "B C"],
    lengths: Int[Array, "B C"],
    *,
    model: PromptedT5,
) -> Float[Array, "B C"]:
  """Log-probability of each candidate's first token, where answers start.

  Args: as for `rank`; `first` [B, C] are the first tokens.

  Returns:
    [B, C] nats; -inf where there is no candidate.
  """
  masked = masked_prompts(prompt, masks, row_ids)
  visible = model.prompt_visible(masks_lib.take_rows(masks, row_ids))
  found = model.first_log_probabilities(frozen_params, masked, visible, tokens)
  found = jax.numpy.take_along_axis(found, first, axis=1)
  return jax.numpy.where(lengths > 0, found, -jax.numpy.inf)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class CandidateTokens:
  """The candidates of a whole split; C is the most that an example has.

  Attributes:
    tokens: int32 [N, C, L], EOS included.
    lengths: int32 [N, C], 0 where an example has fewer candidates.
  """

  tokens: np.ndarray
  lengths: np.ndarray

  @property
  def counts(self) -> Int[np.ndarray, "N"]:
    """Candidates of each example."""
    return (self.lengths > 0).sum(axis=1)


# By split, then by vocabulary and length: each evaluation needs them again.
_TOKENIZED: weakref.WeakKeyDictionary[
    CachedSplit, dict[tuple[str, int], CandidateTokens]
] = weakref.WeakKeyDictionary()


def tokenize(
    split: CachedSplit, vocabulary: Vocabulary, targets_length: int
) -> CandidateTokens:
  """Every candidate of a split as tokens; none is cut.

  Args:
    split: N examples, each with candidates.
    vocabulary: text to ids.
    targets_length: L at least, so that splits share a shape where they can.
  """
  made = _TOKENIZED.setdefault(split, {})
  key = (vocabulary.fingerprint, targets_length)
  if key not in made:
    made[key] = _tokenize(split, vocabulary, targets_length)
  return made[key]


def _tokenize(
    split: CachedSplit, vocabulary: Vocabulary, targets_length: int
) -> CandidateTokens:
  encode = functools.lru_cache(maxsize=None)(
      lambda text: (*vocabulary.encode(text), vocabulary.eos_id)
  )
  found = [
      [encode(text) for text in split.candidates(i)] for i in range(len(split))
  ]
  most = max(map(len, found))
  longest = max((len(ids) for row in found for ids in row), default=0)
  shape = (len(split), most, max(longest, targets_length))
  tokens = np.full(shape, PAD_ID, np.int32)
  lengths = np.zeros(shape[:2], np.int32)
  for i, row in enumerate(found):
    for c, ids in enumerate(row):
      tokens[i, c, : len(ids)] = ids
      lengths[i, c] = len(ids)
  return CandidateTokens(tokens=tokens, lengths=lengths)


def why_not(way: str, split: CachedSplit, vocabulary: Vocabulary) -> str | None:
  """Why candidates of a split cannot be told apart by a way, or None.

  Args:
    way: `rank` or `first_token`.
    split: its examples; each member of a mixture has to allow the way.
    vocabulary: text to ids.
  """
  parts = split.members if isinstance(split, MixedSplit) else (split,)
  reasons = [_why_not(way, part, vocabulary) for part in parts]
  return "; ".join(filter(None, reasons)) or None


def _why_not(
    way: str, split: CachedSplit, vocabulary: Vocabulary
) -> str | None:
  """As `why_not`, for a split of one task."""
  named = f"task {split.task}, split {split.split}"
  for i in range(len(split)):
    if not split.candidates(i):
      return f"{named}: found no candidates, expected a closed set of answers"
  if way == RANK:
    return None
  first = functools.lru_cache(maxsize=None)(
      lambda text: (*vocabulary.encode(text), vocabulary.eos_id)[0]
  )
  for i in range(len(split)):
    seen: dict[int, str] = {}
    for text in split.candidates(i):
      other = seen.setdefault(first(text), text)
      if other != text:
        return (
            f"{named}: {other!r} and {text!r} start with the same token,"
            " expected candidates that differ in their first"
        )
  return None


def check_possible(
    way: str, split: CachedSplit, vocabulary: Vocabulary
) -> None:
  """Refuses a way that a split does not allow.

  Raises:
    UserError: says why.
  """
  if reason := why_not(way, split, vocabulary):
    raise UserError(f"PREDICT_BY = {way!r}: {reason}")


def score_table(
    prompt: Float[AnyArray, "R P H"],
    masks: PromptMasks,
    rows: TableRows,
    way: str,
    *,
    model: PromptedT5,
    frozen_params: Mapping,
    vocabulary: Vocabulary,
    batch_size: int,
    mesh: Mesh | None = None,
) -> list[np.ndarray]:
  """The score of every candidate of every example of every row.

  Args:
    prompt: [R, P, H], unmasked.
    masks: [R, P] and [R, P, K].
    rows: the split of each row.
    way: `rank` or `first_token`.
    model: the prompted T5.
    frozen_params: its parameters.
    vocabulary: text to ids.
    batch_size: B, examples a batch, all rows together.
    mesh: devices to spread a batch over; None uses one.

  Returns:
    For each row [N, C] nats, in the order of its split; -inf where an example
    has fewer than C candidates.

  Raises:
    UserError: a split does not allow this way.
  """
  for split in dict.fromkeys(rows.splits):
    check_possible(way, split, vocabulary)
  tokens = [
      tokenize(split, vocabulary, rows.targets_length) for split in rows.splits
  ]
  scores = [np.full(t.lengths.shape, -np.inf) for t in tokens]
  for row, index, found in _scored(
      rows.every_example(batch_size),
      tokens,
      prompt,
      masks,
      way,
      model=model,
      frozen_params=frozen_params,
      mesh=mesh,
  ):
    scores[row][index] = found
  return scores


def score_named(
    prompt: Float[AnyArray, "R P H"],
    masks: PromptMasks,
    split: CachedSplit,
    row_ids: Int[np.ndarray, "N"],
    way: str,
    *,
    buckets: Sequence[int],
    targets_length: int,
    model: PromptedT5,
    frozen_params: Mapping,
    vocabulary: Vocabulary,
    batch_size: int,
    mesh: Mesh | None = None,
) -> Float[np.ndarray, "N C"]:
  """The score of every candidate of examples that each name their row.

  Args: as for `score_table`, and `row_ids` [N], `buckets` and `targets_length`
    as for `evaluation.predict_named`.

  Returns:
    [N, C] nats, in the order of the split.

  Raises:
    UserError: the split does not allow this way.
  """
  check_possible(way, split, vocabulary)
  held = tokenize(split, vocabulary, targets_length)
  scores = np.full(held.lengths.shape, -np.inf)
  for _, index, found in _scored(
      tables.named_examples(
          split,
          row_ids,
          batch_size=batch_size,
          buckets=buckets,
          targets_length=targets_length,
      ),
      [held] * prompt.shape[0],
      prompt,
      masks,
      way,
      model=model,
      frozen_params=frozen_params,
      mesh=mesh,
  ):
    scores[index] = found
  return scores


def _scored(
    batches: Iterable[TableBatch],
    tokens: Sequence[CandidateTokens],
    prompt: Float[AnyArray, "R P H"],
    masks: PromptMasks,
    way: str,
    *,
    model: PromptedT5,
    frozen_params: Mapping,
    mesh: Mesh | None,
) -> Iterator[tuple[int, int, np.ndarray]]:
  """Row, place in its split and scores [C] of every example."""
  for batch in batches:
    # All examples of a batch are of one split.
    held = tokens[batch.row_ids[0]]
    candidates = held.tokens[batch.indices]
    placed = partitioning.shard_batch(
        {
            "rows": batch.row_ids,
            "tokens": batch.arrays["encoder_input_tokens"],
            "candidates": candidates if way == RANK else candidates[:, :, 0],
            "lengths": held.lengths[batch.indices],
        },
        mesh,
    )
    arguments = (prompt, masks, frozen_params, *placed.values())
    if way == RANK:
      most = np.asarray(held.counts[batch.indices].max(), np.int32)
      found = rank(*arguments, most, model=model)
    else:
      found = first_token(*arguments, model=model)
    for row, index, valid, scores in zip(
        batch.row_ids.tolist(),
        batch.indices.tolist(),
        batch.valid.tolist(),
        np.asarray(found),
        strict=True,
    ):
      if valid:
        yield row, index, scores


def best(split: CachedSplit, scores: Float[np.ndarray, "N C"]) -> list[str]:
  """The candidate of each example that scores highest; ties to the first."""
  return [
      split.candidates(i)[place]
      for i, place in enumerate(scores.argmax(axis=1).tolist())
  ]


def mean_probabilities(
    scores: Sequence[Float[np.ndarray, "N C"]],
) -> Float[np.ndarray, "N C"]:
  """The candidates' probabilities, mean over rows that read one split.

  Args:
    scores: for each row [N, C] nats; a softmax over an example's candidates
      makes them probabilities.
  """
  total = np.zeros(scores[0].shape)
  for found in scores:
    shares = np.exp(found - found.max(axis=1, keepdims=True))
    total += shares / shares.sum(axis=1, keepdims=True)
  return total / len(scores)
