"""Names and defaults of the tokenizers in Hugging Face folders.

What `hub.py` fetches, `checkpoints.py` reads and `tokenizer_files.py` writes.
"""

import pathlib
import re
from typing import Any

from xprompt_jax import artifacts, vocabularies
from xprompt_jax.types import require_int
from xprompt_jax.vocabularies import Vocabulary

SENTENCEPIECE = "spiece.model"
TOKENIZERS = "tokenizer.json"
CONFIG = "tokenizer_config.json"
FILES = (
    SENTENCEPIECE,
    TOKENIZERS,
    CONFIG,
    "special_tokens_map.json",
    "added_tokens.json",
)
SENTENCEPIECE_CLASS = "T5Tokenizer"
BYTES_CLASS = "ByT5Tokenizer"

# What transformers adds for either class, as every T5 and ByT5 has it.
_EXTRA_IDS = 100
_BYTE_EXTRA_IDS = 125
_SENTINEL = re.compile(r"▁?<extra_id_\d+>")


def own_sentinels(vocabulary: Vocabulary) -> int:
  """How many sentinels a vocabulary holds itself, as mT5's does.

  Args:
    vocabulary: without extra ids.
  """
  pieces = map(vocabulary.piece, range(vocabulary.vocab_size))
  return sum(bool(_SENTINEL.fullmatch(piece)) for piece in pieces)


def default_extra_ids(vocabulary: Vocabulary) -> int:
  """How many sentinels follow a vocabulary's own ids where nothing says it.

  Args:
    vocabulary: without extra ids.
  """
  if vocabulary.path == vocabularies.BYTES:
    return _BYTE_EXTRA_IDS
  return 0 if own_sentinels(vocabulary) else _EXTRA_IDS


def is_bytes(folder: pathlib.Path) -> bool:
  """Whether a folder's tokenizer is ByT5's, which has no other file.

  Raises:
    UserError: its `tokenizer_config.json` cannot be read.
  """
  return _fields(folder).get("tokenizer_class") == BYTES_CLASS


def extra_ids_of(folder: pathlib.Path | None) -> int:
  """How many sentinels a folder's tokenizer adds.

  Args:
    folder: None for a checkpoint without a tokenizer.

  Returns:
    `extra_ids` of `tokenizer_config.json`; where it says nothing, what the
    vocabulary has by default.

  Raises:
    UserError: a damaged file, or no number.
  """
  if folder is None:
    return _EXTRA_IDS
  fields = _fields(folder)
  if "extra_ids" in fields:
    found = fields["extra_ids"]
    require_int(f"{folder / CONFIG}: extra_ids", found, 0)
    return found
  if is_bytes(folder):
    return _BYTE_EXTRA_IDS
  model = folder / SENTENCEPIECE
  if not model.is_file():
    return _EXTRA_IDS
  return default_extra_ids(vocabularies.load_vocabulary(str(model), 0))


def _fields(folder: pathlib.Path) -> dict[str, Any]:
  path = folder / CONFIG
  return artifacts.read_json(path) if path.is_file() else {}
