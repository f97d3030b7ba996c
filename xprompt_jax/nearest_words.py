"""The vocabulary's words that lie nearest to a prompt's tokens.

What a soft token means is not written in it; which words its direction is
close to is the hint that people look for (Lester et al. 2021, section 7).
"""

from collections.abc import Sequence
import pathlib

import jax.numpy as jnp
from jaxtyping import Float
import numpy as np

from xprompt_jax import artifacts
from xprompt_jax.types import AnyArray
from xprompt_jax.vocabularies import Vocabulary

FILE = "nearest_words.json"
# pad, EOS and unknown are no words.
_NUM_SPECIALS = 3
# Rows of the embedding compared at once: it may be gigabytes, and bfloat16.
_CHUNK = 16_384


def _cosines(
    rows: Float[np.ndarray, "N H"], embedding: Float[AnyArray, "V H"]
) -> Float[np.ndarray, "N V"]:
  found = []
  lengths = np.linalg.norm(rows, axis=1, keepdims=True)
  unit = jnp.asarray(rows / np.where(lengths > 0, lengths, 1.0))
  for start in range(0, embedding.shape[0], _CHUNK):
    part = jnp.asarray(embedding[start : start + _CHUNK], jnp.float32)
    norms = jnp.linalg.norm(part, axis=1)
    # Accelerators would round the factors to fewer bits by default.
    products = jnp.einsum("nh,vh->nv", unit, part, precision="highest")
    norms = jnp.where(norms > 0, norms, 1.0)
    found.append(np.asarray(products / norms[None]))
  return np.concatenate(found, axis=1)


def nearest_words(
    rows: Float[np.ndarray, "N H"],
    embedding: Float[AnyArray, "V H"],
    vocabulary: Vocabulary,
    count: int = 5,
) -> list[list[tuple[str, float]]]:
  """The pieces whose embeddings have the largest cosine with each row.

  Args:
    rows: [N, H], masked prompt tokens.
    embedding: [V, H], the model's table.
    vocabulary: says which of its rows are pieces; specials and sentinels are
      left out.
    count: how many for each row.

  Returns:
    For each row pieces and cosines, the largest first; of equal ones the
    lower id first. A row of zeros has none.
  """
  last = vocabulary.vocab_size - vocabulary.extra_ids
  if not len(rows):
    return []
  cosines = _cosines(rows, embedding[:last])[:, _NUM_SPECIALS:]
  found: list[list[tuple[str, float]]] = []
  for row, values in zip(rows, cosines, strict=True):
    if not row.any():
      found.append([])
      continue
    order: Sequence[int] = np.argsort(-values, kind="stable")[:count].tolist()
    found.append(
        [(vocabulary.piece(i + _NUM_SPECIALS), float(values[i])) for i in order]
    )
  return found


def write(
    workdir: pathlib.Path,
    embedding: Float[AnyArray, "V H"],
    vocabulary: Vocabulary,
) -> None:
  """Writes the words of each final ticket's kept tokens, once.

  `WORKDIR/nearest_words.json` is for `t5x report`, which has no model. Runs
  without final tickets get none.

  Args:
    workdir: of a finished run.
    embedding: [V, H], the model's table.
    vocabulary: the model's.
  """
  folder = workdir / artifacts.REWIND
  if (workdir / FILE).exists() or not (folder / artifacts.RESULT).exists():
    return
  arrays = artifacts.load_arrays(folder / artifacts.PROMPT)
  pieces = arrays["piece_mask"]
  _, length, width = arrays["prompt"].shape
  # [R, P, K] -> [R, P, H]
  masked = arrays["prompt"] * np.repeat(
      pieces, width // pieces.shape[2], axis=2
  )
  words = nearest_words(masked.reshape(-1, width), embedding, vocabulary)
  rows = []
  for row, line in enumerate(
      artifacts.read_json(folder / artifacts.RESULT)["rows"]
  ):
    tokens = [
        {
            "position": position,
            "kept": bool(pieces[row, position].any()),
            "words": [
                [piece, round(cosine, 4)]
                for piece, cosine in words[row * length + position]
            ],
        }
        for position in range(length)
    ]
    named = {name: line[name] for name in ("task", "seed") if name in line}
    rows.append({**named, "tokens": tokens})
  artifacts.write_json(workdir / FILE, {"rows": rows})
