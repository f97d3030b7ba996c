"""One table of R rows against the same rows trained one after another.

    .venv/bin/python -m benchmarks.table [R]

Both sides do the same steps on the bundled model, compilation left out, in
turns; the ratio of the medians is printed. Scoring is timed the same way
against a `vmap(grad)` over the masks, the definition it must equal.
"""

from collections.abc import Callable
import statistics
import sys
import time

import jax
import jax.numpy as jnp

from tests import examples
from xprompt_jax import masks as masks_lib
from xprompt_jax import optimizer as optimizer_lib
from xprompt_jax import scoring
from xprompt_jax.methods.prompt_tuning import PromptTuning
from xprompt_jax.model import target_losses
from xprompt_jax.optimizer import OptimizerConfig
from xprompt_jax.train_step import TrainState, train_step
from xprompt_jax.types import PromptMasks

_STEPS = 5
_REPEATS = 5
_BATCH_SIZE = 16


def seconds(work: Callable[[], object]) -> float:
  """Wall time of one call, results waited for."""
  started = time.perf_counter()
  jax.block_until_ready(work())
  return time.perf_counter() - started


def ratio(name: str, slow: Callable, fast: Callable) -> None:
  """Runs both in turns and prints the medians and their ratio."""
  slow(), fast()  # Compiles.
  times = [(seconds(slow), seconds(fast)) for _ in range(_REPEATS)]
  first, second = (statistics.median(t) for t in zip(*times, strict=True))
  print(f"{name}: {first:.3f} s / {second:.3f} s = {first / second:.2f}")


def training(num_rows: int) -> None:
  """Single rows one after another, over the table."""
  model, params = examples.bundled_model()
  split = examples.bundled_split("mini_boolq", 500)
  prompt = examples.random_prompt(num_rows, 20, 128)
  masks = masks_lib.full_masks(num_rows, 20, 16)

  def run(rows: slice, chunk: int | None = None):
    seeds = tuple(range(num_rows))[rows]
    table = examples.rows_of(split, seeds)
    trained = {"prompt": prompt[rows] + 0.0}
    state = TrainState(
        trained=trained,
        optimizer=optimizer_lib.init_rows(OptimizerConfig(), trained),
    )
    for step in range(_STEPS):
      state, _ = train_step(
          state,
          jax.tree.map(lambda x: x[rows], masks),
          params,
          table.batch(step, _BATCH_SIZE),
          jnp.array(seeds, jnp.uint32),
          jnp.asarray(step, jnp.int32),
          method=PromptTuning(),
          model=model,
          optimizer=OptimizerConfig(),
          rows_per_chunk=chunk,
      )
    return state

  def alone():
    return [run(slice(r, r + 1)) for r in range(num_rows)]

  for chunk in (None, 3):
    ratio(
        f"{num_rows} rows one after another / one table, rows_per_chunk"
        f" {chunk}",
        alone,
        lambda chunk=chunk: run(slice(None), chunk),
    )


def scores() -> None:
  """`vmap(grad)` over the masks, over the one backward pass."""
  model, params = examples.bundled_model()
  rows = examples.rows_of(examples.bundled_split("mini_boolq", 128))
  prompt = examples.random_prompt(1, 20, 128)
  masks = masks_lib.full_masks(1, 20, 16)
  (batch,) = rows.every_example(128)

  def loss(token_mask, piece_mask, example):
    one = PromptMasks(token_mask=token_mask, piece_mask=piece_mask)
    masked = masks_lib.apply_masks(prompt[0], one)[None]
    example = {key: value[None] for key, value in example.items()}
    visible = model.prompt_visible(token_mask[None])
    logits = model.logits(params, masked, visible, example)
    return target_losses(logits, example)[0]

  definition = jax.jit(
      jax.vmap(jax.grad(loss, argnums=(0, 1)), in_axes=(None, None, 0))
  )
  ratio(
      "scores by vmap(grad) / by one backward pass",
      lambda: definition(
          masks.token_mask[0], masks.piece_mask[0], batch.arrays
      ),
      lambda: scoring.mask_derivatives(
          prompt, masks, params, batch.row_ids, batch.arrays, model=model
      ),
  )


if __name__ == "__main__":
  print(f"{jax.devices()}, jax {jax.__version__}")
  training(int(sys.argv[1]) if len(sys.argv) > 1 else 9)
  scores()
