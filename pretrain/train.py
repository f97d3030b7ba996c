"""Pre-trains a bundled T5 on the mini-language.

    python -m pretrain.vocabulary
    python -m pretrain.train --workdir runs/pretrain
    python -m pretrain.train --workdir runs/pretrain_small --model bundled_small

47 minutes, the small one 15, on one core of a shared 2-core machine. The state
is saved every two minutes: a run that was killed goes on where it was. Threads
get in each other's way on networks this small: XLA_FLAGS=--xla_cpu_multi_thread_eigen=false
and a core of its own (`taskset`) made a step two to three times faster.
`pretrain/export.py` turns the last state into the bundled checkpoint, whose
README says how the run of the larger one differed.
"""

import argparse
import functools
import pathlib
import random
import time

from flax import linen as nn
from flax import traverse_util
import jax
from jax import Array
import jax.numpy as jnp
from jaxtyping import Float, Int
import numpy as np
import optax
from safetensors import numpy as safetensors
from safetensors import safe_open
import sentencepiece

from pretrain import mixture
from xprompt_jax import artifacts
from xprompt_jax.t5.decoding import EOS_ID, token_log_likelihood
from xprompt_jax.t5.network import T5
from xprompt_jax.weights import bundled

BUNDLED = pathlib.Path(__file__).parent.parent / "xprompt_jax" / "bundled"
SEED = 0
NUM_STEPS = 25_536
BATCH_SIZE = 32
CHUNK = 64  # batches that are drawn, sorted by length and shuffled together
# Constant, between a warm-up and a linear decay to 0.
LEARNING_RATES = {"bundled": 3e-4, "bundled_small": 1e-3}
WARMUP_STEPS = 500
DECAY_STEPS = 4_500
INPUT_BUCKETS = (24, 32, 40, 56)
TARGET_LENGTH = 6
# From each step on: facts in a passage at most, share of noisy instructions.
CURRICULUM = ((0, 1, 0.1), (2_000, 2, 0.1), (7_000, 3, 0.4))
# Two of the four heads start out looking at the four words before and after:
# which words belong to one fact is then seen from the start. Without this the
# model names some colour of the passage for long before it finds the right one.
LOCAL_BIAS, LOCAL_REACH = 3.0, 4
SAVE_SECONDS = 120
LOG_STEPS = 250


def word_ids(vocab_size: int) -> dict[str, int]:
  """Maps each word and sentinel to its id."""
  processor = sentencepiece.SentencePieceProcessor(
      model_file=str(BUNDLED / "sentencepiece.model")
  )
  ids = {word: processor.piece_to_id("▁" + word) for word in mixture.WORDS}
  for i in range(mixture.NUM_SENTINELS):
    ids[f"<extra_id_{i}>"] = vocab_size - 1 - i
  return ids


def pad(rows: list[list[int]], length: int) -> Int[np.ndarray, "B N"]:
  """Pads rows of ids with zeros: [B, length]."""
  padded = np.zeros((len(rows), length), np.int32)
  for i, row in enumerate(rows):
    padded[i, : len(row)] = row
  return padded


def draw_chunk(
    index: int, ids: dict[str, int], left_out: set[str]
) -> list[tuple[np.ndarray, np.ndarray]]:
  """Draws the batches of steps index * CHUNK and on, a function of both.

  Returns:
    `CHUNK` pairs of inputs [B, T] and targets [B, L].
  """
  rng = random.Random(f"xprompt_jax pretrain {SEED} {index}")
  step = index * CHUNK
  _, max_facts, noise = [part for part in CURRICULUM if part[0] <= step][-1]
  source = mixture.Mixture(rng, left_out, noise)
  drawn = []
  for _ in range(CHUNK * BATCH_SIZE):
    inputs, targets = source.draw(max_facts)
    drawn.append(
        (
            [ids[word] for word in inputs] + [EOS_ID],
            [ids[word] for word in targets] + [EOS_ID],
        )
    )
  drawn.sort(key=lambda pair: len(pair[0]))
  batches = []
  for start in range(0, len(drawn), BATCH_SIZE):
    part = drawn[start : start + BATCH_SIZE]
    longest = len(part[-1][0])
    bucket = min(size for size in INPUT_BUCKETS if size >= longest)
    batches.append(
        (
            pad([inputs for inputs, _ in part], bucket),
            pad([targets for _, targets in part], TARGET_LENGTH),
        )
    )
  rng.shuffle(batches)
  return batches


def shift_right(targets: Int[Array, "B L"]) -> Int[Array, "B L"]:
  """The decoder's inputs: the targets behind a PAD."""
  return jnp.pad(targets, ((0, 0), (1, 0)))[:, :-1]


def loss_and_hits(
    t5: T5, params: dict, inputs: Int[Array, "B T"], targets: Int[Array, "B L"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
  """Mean loss per target token; share of targets that argmax gets right."""
  logits = t5.apply({"params": params}, inputs, shift_right(targets))
  weights = targets > 0
  loss = -jnp.sum(token_log_likelihood(logits, targets) * weights)
  right = (jnp.argmax(logits, -1) == targets) | ~weights
  return loss / jnp.sum(weights), jnp.mean(jnp.all(right, -1))


def initial_params(t5: T5) -> dict:
  """Random parameters, with two heads of the encoder looking nearby."""
  example = jnp.zeros((1, 2), jnp.int32)
  params = jax.jit(t5.init)(jax.random.key(SEED), example, example)["params"]
  params = nn.unbox(params)
  table = params["encoder"]["relpos_bias"]["rel_embedding"]
  after = t5.config.relpos_num_buckets // 2
  table = table.at[0, 1 : 1 + LOCAL_REACH].add(LOCAL_BIAS)
  table = table.at[1, after + 1 : after + 1 + LOCAL_REACH].add(LOCAL_BIAS)
  params["encoder"]["relpos_bias"]["rel_embedding"] = table
  return params


def make_optimizer(name: str) -> optax.GradientTransformation:
  """Adam with warm-up and linear decay, gradients clipped, for a model."""
  rate = LEARNING_RATES[name]
  decay_start = NUM_STEPS - DECAY_STEPS
  schedule = optax.join_schedules(
      [
          optax.linear_schedule(0.0, rate, WARMUP_STEPS),
          optax.linear_schedule(
              rate, 0.0, DECAY_STEPS, decay_start - WARMUP_STEPS
          ),
      ],
      [WARMUP_STEPS],
  )
  return optax.chain(
      optax.clip_by_global_norm(1.0), optax.adam(schedule, b2=0.99)
  )


def save_state(path: pathlib.Path, step: int, state: tuple) -> None:
  """Writes parameters and optimizer state, atomically."""
  leaves = jax.tree.leaves(state)
  arrays = {f"{i:04d}": np.asarray(leaf) for i, leaf in enumerate(leaves)}
  with artifacts.replacing(path) as temporary:
    safetensors.save_file(arrays, temporary, metadata={"step": str(step)})


def load_state(path: pathlib.Path, like: tuple) -> tuple[int, tuple]:
  """Reads what `save_state` wrote; without a file, step 0 and `like`.

  Raises:
    ValueError: it is of another model.
  """
  if not path.exists():
    return 0, like
  arrays = safetensors.load_file(path)
  with safe_open(path, framework="numpy") as file:
    step = int(file.metadata()["step"])
  leaves = [jnp.asarray(arrays[name]) for name in sorted(arrays)]
  expected = [leaf.shape for leaf in jax.tree.leaves(like)]
  if [leaf.shape for leaf in leaves] != expected:
    raise ValueError(f"{path}: the state of another model")
  return step, jax.tree.unflatten(jax.tree.structure(like), leaves)


def flat_names(params: dict) -> dict[str, np.ndarray]:
  """Nested parameters under T5X's names joined by "/"."""
  flat = traverse_util.flatten_dict(params, sep="/")
  return {name: np.asarray(leaf) for name, leaf in flat.items()}


def arguments(doc: str | None) -> argparse.Namespace:
  """Which model, and where its state is."""
  parser = argparse.ArgumentParser(description=doc)
  parser.add_argument("--workdir", type=pathlib.Path, required=True)
  parser.add_argument("--model", choices=LEARNING_RATES, default="bundled")
  return parser.parse_args()


def main() -> None:
  """Trains, or goes on training, to the last step."""
  args = arguments(__doc__)
  args.workdir.mkdir(parents=True, exist_ok=True)
  state_path = args.workdir / "state.safetensors"
  config = bundled.bundled_config(args.model)
  t5, optimizer = T5(config), make_optimizer(args.model)
  params = initial_params(t5)
  step, (params, opt_state) = load_state(
      state_path, (params, optimizer.init(params))
  )
  ids, left_out = word_ids(config.vocab_size), mixture.task_inputs()
  value_and_grad = jax.value_and_grad(
      functools.partial(loss_and_hits, t5), has_aux=True
  )

  @functools.partial(jax.jit, donate_argnums=(0, 1))
  def update(params, opt_state, inputs, targets):
    (loss, hits), grads = value_and_grad(params, inputs, targets)
    updates, opt_state = optimizer.update(grads, opt_state, params)
    return optax.apply_updates(params, updates), opt_state, loss, hits

  started = saved = time.time()
  seen = []
  while step < NUM_STEPS:
    # A run that goes on starts its chunk again and skips what it has seen.
    chunk = draw_chunk(step // CHUNK, ids, left_out)
    for inputs, targets in chunk[step % CHUNK :]:
      params, opt_state, loss, hits = update(params, opt_state, inputs, targets)
      seen.append((float(loss), float(hits)))
      step += 1
      if step % LOG_STEPS == 0:
        loss, hits = np.mean(seen, axis=0)
        seconds = time.time() - started
        print(
            f"{step} {seconds:.0f}s loss {loss:.4f} exact {hits:.4f}",
            flush=True,
        )
        seen = []
      if time.time() - saved > SAVE_SECONDS:
        save_state(state_path, step, (params, opt_state))
        saved = time.time()
  save_state(state_path, step, (params, opt_state))


if __name__ == "__main__":
  main()
