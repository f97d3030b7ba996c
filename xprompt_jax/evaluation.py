"""Predictions of the rows of a table, and their metrics.

Examples of all rows go through the same batches; each names the row it uses:
every row in turn (`predict_table`), or the one it asks for (`predict_named`).
`generate` writes the answer, token by token; the other ways of predicting take
the candidate that scores highest (`candidates.py`). Postprocessing and metrics
are the task's own, found by the names that the token cache holds.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
import functools

import jax
from jax import Array
from jax.sharding import Mesh
from jaxtyping import Float, Int
import numpy as np

from xprompt_jax import candidates, partitioning, tables
from xprompt_jax import masks as masks_lib
from xprompt_jax.model import PromptedT5
from xprompt_jax.prompts import masked_prompts
from xprompt_jax.tables import TableBatch, TableRows
from xprompt_jax.token_cache import CachedSplit
from xprompt_jax.types import AnyArray, PromptMasks
from xprompt_jax.vocabularies import Vocabulary

GENERATE = "generate"
WAYS = (GENERATE, candidates.RANK, candidates.FIRST_TOKEN)


@functools.partial(
    jax.jit, static_argnames=("model", "max_length", "num_beams")
)
def generate(
    prompt: Float[Array, "R P H"],
    masks: PromptMasks,
    frozen_params: Mapping,
    row_ids: Int[Array, "B"],
    tokens: Int[Array, "B T"],
    *,
    model: PromptedT5,
    max_length: int,
    num_beams: int = 1,
) -> Int[Array, "B L"]:
  """Predictions of examples that name the rows they use.

  Args:
    prompt: [R, P, H], unmasked.
    masks: [R, P] and [R, P, K].
    frozen_params: the T5's parameters.
    row_ids: [B], the row of each example.
    tokens: [B, T], padded with 0.
    model: the prompted T5.
    max_length: L, tokens to decode at most, EOS included.
    num_beams: 1 takes the most likely token at each position.

  Returns:
    [B, L] token ids.
  """
  masked = masked_prompts(prompt, masks, row_ids)
  visible = model.prompt_visible(masks_lib.take_rows(masks, row_ids))
  return model.generate(
      frozen_params, masked, visible, tokens, max_length, num_beams
  )


def predict_table(
    prompt: Float[AnyArray, "R P H"],
    masks: PromptMasks,
    rows: TableRows,
    *,
    model: PromptedT5,
    frozen_params: Mapping,
    vocabulary: Vocabulary,
    batch_size: int,
    mesh: Mesh | None = None,
    predict_by: str = GENERATE,
    num_beams: int = 1,
) -> list[list[str]]:
  """The predicted text of every example of every row.

  Args:
    prompt: [R, P, H], unmasked.
    masks: [R, P] and [R, P, K].
    rows: the split of each row.
    model: the prompted T5.
    frozen_params: its parameters.
    vocabulary: turns ids into text.
    batch_size: B, examples a batch, all rows together.
    mesh: devices to spread a batch over; None uses one.
    predict_by: one of `WAYS`.
    num_beams: for `generate`.

  Returns:
    Predictions of each row, in its split's order.

  Raises:
    UserError: a split does not allow this way.
  """
  if predict_by != GENERATE:
    scores = candidates.score_table(
        prompt,
        masks,
        rows,
        predict_by,
        model=model,
        frozen_params=frozen_params,
        vocabulary=vocabulary,
        batch_size=batch_size,
        mesh=mesh,
    )
    return [candidates.best(*p) for p in zip(rows.splits, scores, strict=True)]
  predictions = [[""] * len(split) for split in rows.splits]
  for row, index, text in _predicted(
      rows.every_example(batch_size),
      prompt,
      masks,
      model=model,
      frozen_params=frozen_params,
      vocabulary=vocabulary,
      max_length=rows.targets_length,
      num_beams=num_beams,
      mesh=mesh,
  ):
    predictions[row][index] = text
  return predictions


def predict_named(
    prompt: Float[AnyArray, "R P H"],
    masks: PromptMasks,
    split: CachedSplit,
    row_ids: Int[np.ndarray, "N"],
    *,
    buckets: Sequence[int],
    targets_length: int,
    model: PromptedT5,
    frozen_params: Mapping,
    vocabulary: Vocabulary,
    batch_size: int,
    mesh: Mesh | None = None,
    num_beams: int = 1,
) -> list[str]:
  """The predicted text of examples that each name the row they use.

  Args:
    prompt: [R, P, H], unmasked.
    masks: [R, P] and [R, P, K].
    split: N examples.
    row_ids: [N], the row of each example.
    buckets: input lengths that batches are padded to.
    targets_length: L, tokens to decode at most.
    model: the prompted T5.
    frozen_params: its parameters.
    vocabulary: turns ids into text.
    batch_size: B, examples a batch, whatever rows they name.
    mesh: devices to spread a batch over; None uses one.
    num_beams: 1 takes the most likely token at each position.

  Returns:
    N predictions, in the order of the split.
  """
  predictions = [""] * len(split)
  for _, index, text in _predicted(
      tables.named_examples(
          split,
          row_ids,
          batch_size=batch_size,
          buckets=buckets,
          targets_length=targets_length,
      ),
      prompt,
      masks,
      model=model,
      frozen_params=frozen_params,
      vocabulary=vocabulary,
      max_length=targets_length,
      num_beams=num_beams,
      mesh=mesh,
  ):
    predictions[index] = text
  return predictions


def _predicted(
    batches: Iterable[TableBatch],
    prompt: Float[AnyArray, "R P H"],
    masks: PromptMasks,
    *,
    model: PromptedT5,
    frozen_params: Mapping,
    vocabulary: Vocabulary,
    max_length: int,
    num_beams: int,
    mesh: Mesh | None,
) -> Iterator[tuple[int, int, str]]:
  """Row, place in its split and predicted text of every example."""
  # Few answers differ, so each is decoded once.
  decode = functools.lru_cache(maxsize=None)(vocabulary.decode)
  for batch in batches:
    placed = partitioning.shard_batch(
        {"rows": batch.row_ids, "tokens": batch.arrays["encoder_input_tokens"]},
        mesh,
    )
    ids = generate(
        prompt,
        masks,
        frozen_params,
        placed["rows"],
        placed["tokens"],
        model=model,
        max_length=max_length,
        num_beams=num_beams,
    )
    for row, index, valid, found in zip(
        batch.row_ids.tolist(),
        batch.indices.tolist(),
        batch.valid.tolist(),
        np.asarray(ids).tolist(),
        strict=True,
    ):
      if valid:
        yield row, index, decode(tuple(found))


def evaluate_table(
    prompt: Float[AnyArray, "R P H"],
    masks: PromptMasks,
    rows: TableRows,
    *,
    model: PromptedT5,
    frozen_params: Mapping,
    vocabulary: Vocabulary,
    batch_size: int,
    mesh: Mesh | None = None,
    predict_by: str = GENERATE,
    num_beams: int = 1,
) -> list[dict[str, float]]:
  """The task's metrics for each row, and their mean under `score`.

  Args: as for `predict_table`.

  Returns:
    R dictionaries such as {"accuracy": 71.5, "score": 71.5}, in percent where
    the task's metrics are.
  """
  predictions = predict_table(
      prompt,
      masks,
      rows,
      model=model,
      frozen_params=frozen_params,
      vocabulary=vocabulary,
      batch_size=batch_size,
      mesh=mesh,
      predict_by=predict_by,
      num_beams=num_beams,
  )
  return [
      measure(split, texts)
      for split, texts in zip(rows.splits, predictions, strict=True)
  ]


def measure(split: CachedSplit, texts: Sequence[str]) -> dict[str, float]:
  """The metrics of one row's predictions, and their mean under `score`."""
  metrics = split.compute_metrics(
      [split.postprocess(text, i) for i, text in enumerate(texts)]
  )
  return {**metrics, "score": split.score(metrics)}
