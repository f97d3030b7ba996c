"""Prompts of mixed lengths and pieces whose answers can be read.

They are instructions in words that the bundled model knows, embedded.
"""

import jax
import numpy as np

from tests import examples
from xprompt_jax.types import PromptMasks

# By name: words, K, and how many of the first tokens are pruned. P is 4, 3, 6
# and 6.
PROMPTS = {
    "truth": ("true or false :", 4, 0),
    "color": ("what color :", 1, 0),
    "thing": ("well dear friend what thing :", 8, 3),
    "clash": ("follow , clash or open :", 16, 1),
}
TEXTS = (
    "passage: anna has a red ball . question: does anna have a red ball",
    "passage: tom has a blue hat . question: does tom have a red hat",
    "passage: anna has a red ball . tom has a blue hat . question: does anna"
    " have a blue hat",
)
ANSWERS = {
    "truth": ["True", "False", "False"],
    "color": ["red", "blue", "red"],
    "thing": ["ball", "hat", "ball"],
    "clash": ["entailment", "contradiction", "contradiction"],
}


def library():
  """The prompts [P, H] with their masks [P] and [P, K]."""
  _, params = examples.bundled_model()
  embedding = np.asarray(params["token_embedder"]["embedding"], np.float32)
  found = []
  for words, pieces, pruned in PROMPTS.values():
    prompt = embedding[examples.bundled_vocabulary().encode(words)]
    token_mask = np.ones(len(prompt), np.float32)
    token_mask[:pruned] = 0
    piece_mask = np.repeat(token_mask[:, None], pieces, axis=1)
    # Of the last token, ":", a piece goes where there are many.
    piece_mask[-1, 8:9] = 0
    masks = PromptMasks(token_mask=token_mask, piece_mask=piece_mask)
    found.append((prompt, masks))
  return found


def alone(prompt, masks):
  """A table of one prompt as everything else takes it: no pad, own K."""
  return prompt[None], jax.tree.map(lambda mask: mask[None], masks)
