"""Small models and splits that several tests use."""

import functools

from flax import traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from xprompt_jax import vocabularies
from xprompt_jax.model import PromptedT5
from xprompt_jax.t5.config import T5Config
from xprompt_jax.tables import TableRows
from xprompt_jax.tasks import mini_language
from xprompt_jax.token_cache import CachedSplit
from xprompt_jax.types import PromptMasks
from xprompt_jax.weights import bundled, loading
from xprompt_jax.weights.leaves import Leaf

# Every axis another size: R 2, P 5, K 4, H 12, V 37.
TINY = T5Config(
    vocab_size=37,
    emb_dim=12,
    num_heads=3,
    head_dim=5,
    num_encoder_layers=2,
    num_decoder_layers=1,
    mlp_dim=17,
)
TINY_P, TINY_K = 5, 4
BUCKETS = (8, 16, 32)
BUNDLED_EXTRA_IDS = 32


@functools.cache
def tiny_params():
  return loading.load_frozen("random:3", TINY).params


def exact_match(targets, predictions):
  """A metric as tasks give it: targets and predictions to percentages."""
  right = [t == p for t, p in zip(targets, predictions, strict=True)]
  return {"accuracy": 100 * sum(right) / len(right)}


def make_split(inputs, targets, task="tiny") -> CachedSplit:
  """A split of given ids, EOS included; metrics compare text with text."""

  def offsets(rows):
    return np.cumsum([0, *map(len, rows)]).astype(np.int64)

  return CachedSplit(
      task=task,
      split="train",
      inputs=np.concatenate(inputs).astype(np.int32),
      input_offsets=offsets(inputs),
      targets=np.concatenate(targets).astype(np.int32),
      target_offsets=offsets(targets),
      examples=[
          {"id": i, "target": "", "fields": {}} for i in range(len(inputs))
      ],
      info={
          "postprocessor": None,
          "metrics": [
              {
                  "function": "xprompt_jax.tasks.metrics:accuracy",
                  "kwargs": {},
              }
          ],
          "arrays_sha256": "",
          "examples_sha256": "",
          "num_unlabelled": 0,
      },
  )


def tiny_split(num_examples: int, seed: int = 0) -> CachedSplit:
  """Random ids: inputs of 3 to 7 tokens and targets of 1 to 3, plus EOS."""
  rng = np.random.default_rng(seed)

  def text(least, most):
    length = rng.integers(least, most + 1)
    return [*rng.integers(3, TINY.vocab_size, length).tolist(), 1]

  return make_split(
      [text(3, 7) for _ in range(num_examples)],
      [text(1, 3) for _ in range(num_examples)],
  )


def rows_of(split: CachedSplit, seeds=(0,)) -> TableRows:
  return TableRows(
      seeds=tuple(seeds),
      splits=(split,) * len(seeds),
      buckets=BUCKETS,
      targets_length=4,
  )


def random_prompt(rows: int, length: int, embed_dim: int, seed: int = 0):
  # Not of JAX, which compiles a program for each shape.
  rng = np.random.default_rng(seed)
  drawn = rng.standard_normal((rows, length, embed_dim), np.float32)
  return jnp.asarray(drawn)


def random_params(config: T5Config, seed: int = 0):
  """A T5's parameters, none at a special value such as 1, as NumPy draws them."""
  rng = np.random.default_rng(seed)

  def leaf(name, shape):
    noise = rng.standard_normal(shape, np.float32)
    if name.endswith("scale"):
      return jnp.asarray(1.5 + 0.3 * noise)
    fan_in = shape[0] if name.endswith("kernel") else 1
    return jnp.asarray(1.5 * noise * fan_in**-0.5)

  shapes = loading.parameter_shapes(config)
  flat = {name: leaf(name, shapes[name]) for name in sorted(shapes)}
  return traverse_util.unflatten_dict(flat, sep="/")


def random_masks(rows: int, length: int, pieces: int, seed: int = 0):
  """Masks with some tokens and some pieces of the kept ones pruned."""
  rng = np.random.default_rng(seed)
  token = (rng.random((rows, length)) < 0.7).astype(np.float32)
  token[:, 0] = 1.0
  piece = (rng.random((rows, length, pieces)) < 0.7).astype(np.float32)
  piece[:, 0, 0] = 1.0
  return PromptMasks(token_mask=token, piece_mask=piece * token[..., None])


def leaf_of(array, file="memory", tensor="a") -> Leaf:
  """A leaf of a checkpoint whose contents are in memory already."""
  return Leaf(
      shape=array.shape,
      dtype=array.dtype,
      file=file,
      tensor=tensor,
      read=lambda index: array[index],
  )


TINY_MODEL = PromptedT5(t5_config=TINY)


@functools.partial(jax.jit, static_argnums=0)
def _logits(model, *args):
  return model.logits(*args)


def tiny_logits(prompts, visible, batch, model=TINY_MODEL):
  """Logits [B, L, V] behind prompts [B, P, H], compiled as a whole."""
  return _logits(model, tiny_params(), prompts, visible, batch)


@functools.cache
def bundled_model():
  """The bundled T5 and its parameters."""
  config = bundled.bundled_config()
  params = loading.load_frozen("bundled", config).params
  return PromptedT5(t5_config=config), params


@functools.cache
def bundled_vocabulary():
  return vocabularies.load_vocabulary("bundled", BUNDLED_EXTRA_IDS)


@functools.cache
def bundled_split(task: str, num_examples: int) -> CachedSplit:
  """The first training rows of a mini task, tokenised without TensorFlow."""
  vocabulary = bundled_vocabulary()
  inputs, targets = [], []
  for row in mini_language.rows(task, "train")[:num_examples]:
    source, target = mini_language.model_text(task, row)
    inputs.append([*vocabulary.encode(source), vocabulary.eos_id])
    targets.append([*vocabulary.encode(target), vocabulary.eos_id])
  return make_split(inputs, targets, task)
