"""Measures a bundled T5: asked in words, unasked, and with a tuned prompt.

    python -m pretrain.check                   # words and unasked: a minute
    python -m pretrain.check --tune_steps 300 --seeds 5  # and prompt tuning

The prompt tuning here is a minimal loop of its own, so that the checkpoint is
judged apart from the package's trainer: 20 vectors drawn from the embedding
table, Adafactor at 0.3 without factoring or parameter scaling, batch 16, the
best prompt on validation.
"""

import argparse
import functools
import random
import time

import jax
from jax import Array
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int
import numpy as np
import optax

from pretrain import train
from xprompt_jax.t5.decoding import EOS_ID, greedy_decode, token_log_likelihood
from xprompt_jax.t5.network import T5
from xprompt_jax.tasks import mini_language as lang
from xprompt_jax.weights import checkpoints
from xprompt_jax.weights.bundled import load_bundled

TARGET_LENGTH = 4
PROMPT_LENGTH = 20
BATCH_SIZE = 16


def encode_rows(
    task: str, split: str, instruction: str, ids: dict[str, int]
) -> tuple[Int[np.ndarray, "B T"], Int[np.ndarray, "B L"]]:
  """Inputs [B, T] and targets [B, L] of a split; mini_wsc: label-true rows."""
  inputs, targets = [], []
  for row in lang.rows(task, split):
    if task == "mini_wsc" and not row["label"]:
      continue
    text, target = lang.model_text(task, row)
    words = instruction.split() + text.split()
    inputs.append([ids[word] for word in words] + [EOS_ID])
    targets.append([ids[target], EOS_ID])
  longest = max(map(len, inputs))
  return train.pad(inputs, longest), train.pad(targets, TARGET_LENGTH)


def encode_behind(
    t5: T5,
    params: dict,
    prompt: Float[Array, "P H"],
    inputs: Int[Array, "B T"],
) -> tuple[Float[Array, "B S H"], Bool[Array, "B S"]]:
  """What the encoder makes of a prompt and inputs, and what may be seen."""
  embedded = t5.apply({"params": params}, inputs, method="embed")
  front = jnp.broadcast_to(prompt, (len(inputs), *prompt.shape))
  # [B, P, H], [B, T, H] -> [B, P + T, H]
  embedded = jnp.concatenate([front, embedded], axis=1)
  visible = jnp.pad(
      inputs > 0, ((0, 0), (len(prompt), 0)), constant_values=True
  )
  encoded = t5.apply({"params": params}, embedded, visible, method="encode")
  return encoded, visible


@functools.partial(jax.jit, static_argnums=0)
def decode_batch(
    t5: T5,
    params: dict,
    prompt: Float[Array, "P H"],
    inputs: Int[Array, "B T"],
) -> Int[Array, "B L"]:
  """Greedy decoding behind a prompt, which may have no rows."""
  encoded, visible = encode_behind(t5, params, prompt, inputs)
  return greedy_decode(t5, params, encoded, visible, TARGET_LENGTH)


def accuracy(
    t5: T5,
    params: dict,
    prompt: Float[Array, "P H"],
    data: tuple[Int[np.ndarray, "B T"], Int[np.ndarray, "B L"]],
) -> float:
  """Share of rows whose decoded text is exactly the target."""
  decoded = decode_batch(t5, params, prompt, jnp.asarray(data[0]))
  return float(np.mean(np.all(np.asarray(decoded) == data[1], axis=1)))


def instruction_accuracy(
    t5: T5, params: dict, task: str, split: str, ids: dict[str, int]
) -> dict[str, float]:
  """Accuracy behind each of a task's instructions, and behind none ("")."""
  no_prompt = jnp.zeros((0, t5.config.emb_dim))
  return {
      phrase: accuracy(
          t5, params, no_prompt, encode_rows(task, split, phrase, ids)
      )
      for phrase in (*lang.INSTRUCTIONS[task], "")
  }


def tune(
    t5: T5,
    params: dict,
    task: str,
    ids: dict[str, int],
    *,
    num_steps: int,
    seed: int,
) -> tuple[Float[Array, "P H"], list[tuple[int, float]]]:
  """Tunes a prompt; returns the best and (step, validation accuracy)."""
  rng = random.Random(seed)
  table = jnp.asarray(params["token_embedder"]["embedding"])
  prompt = table[jnp.asarray(rng.sample(range(3, len(table)), PROMPT_LENGTH))]
  optimizer = optax.adafactor(
      0.3,
      factored=False,
      multiply_by_parameter_scale=False,
      decay_rate=0.8,
      weight_decay_rate=1e-5,
      clipping_threshold=1.0,
  )

  def loss_of(prompt, inputs, targets):
    encoded, visible = encode_behind(t5, params, prompt, inputs)
    shifted = train.shift_right(targets)
    logits = t5.apply(
        {"params": params}, encoded, visible, shifted, method="decode"
    )
    weights = targets > 0
    picked = token_log_likelihood(logits, targets) * weights
    return -jnp.sum(picked) / jnp.sum(weights)

  @jax.jit
  def update(prompt, state, inputs, targets):
    loss, grad = jax.value_and_grad(loss_of)(prompt, inputs, targets)
    updates, state = optimizer.update(grad, state, prompt)
    return optax.apply_updates(prompt, updates), state, loss

  inputs, targets = encode_rows(task, "train", "", ids)
  validation = encode_rows(task, "validation", "", ids)
  state, curve, order, best = optimizer.init(prompt), [], [], prompt
  for step in range(1, num_steps + 1):
    if len(order) < BATCH_SIZE:
      order = rng.sample(range(len(inputs)), len(inputs))
    batch = np.array([order.pop() for _ in range(BATCH_SIZE)])
    prompt, state, _ = update(prompt, state, inputs[batch], targets[batch])
    if step % 50 == 0 or step == num_steps:
      share = accuracy(t5, params, prompt, validation)
      # Among equals the earliest, as in the package's own tuning.
      if share > max([earlier for _, earlier in curve], default=-1.0):
        best = prompt
      curve.append((step, share))
  return best, curve


def main() -> None:
  """Prints the measurements."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument(
      "--model", choices=checkpoints.BUNDLED_MODELS, default="bundled"
  )
  parser.add_argument("--tune_steps", type=int, default=0)
  parser.add_argument("--seeds", type=int, default=1)
  parser.add_argument("--tasks", nargs="*", default=list(lang.TASKS))
  args = parser.parse_args()
  config, params = load_bundled(args.model)
  t5, ids = T5(config), train.word_ids(config.vocab_size)
  for task in args.tasks:
    found = instruction_accuracy(t5, params, task, "test", ids)
    for phrase, share in found.items():
      print(f"{task} test {phrase or 'unasked'}: {share:.4f}", flush=True)
    for seed in range(args.seeds if args.tune_steps else 0):
      started = time.time()
      prompt, curve = tune(
          t5, params, task, ids, num_steps=args.tune_steps, seed=seed
      )
      test = accuracy(t5, params, prompt, encode_rows(task, "test", "", ids))
      seconds = time.time() - started
      points = " ".join(f"{step}:{share:.3f}" for step, share in curve)
      print(
          f"{task} seed {seed} validation {points} test {test:.4f}"
          f" ({seconds:.0f} s)",
          flush=True,
      )


if __name__ == "__main__":
  main()
