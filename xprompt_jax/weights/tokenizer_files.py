"""The tokenizer beside a model, as transformers' AutoTokenizer reads it.

A Hugging Face folder has its own; for a SentencePiece file or bytes a
`tokenizer_config.json` is written. T5X keeps no vocabulary with its weights.
"""

from collections.abc import Mapping
import dataclasses
import json
import pathlib
import sys

from xprompt_jax import artifacts, vocabularies
from xprompt_jax.types import UserError
from xprompt_jax.vocabularies import Vocabulary
from xprompt_jax.weights import checkpoints
from xprompt_jax.weights import huggingface_files as files

_SENTENCEPIECE = "spiece.model"
_TOKENIZERS = "tokenizer.json"
_CONFIG = "tokenizer_config.json"
_FILES = (
    _SENTENCEPIECE,
    _TOKENIZERS,
    _CONFIG,
    "special_tokens_map.json",
    "added_tokens.json",
)
# Sentinels of every released T5 with a SentencePiece vocabulary, and of ByT5.
_EXTRA_IDS = 100
_BYTE_EXTRA_IDS = 125


@dataclasses.dataclass(frozen=True)
class Tokenizer:
  """A tokenizer's files.

  Attributes:
    vocabulary: where it is from: a file's path, or `bytes`.
    contents: of the files by name, of some MB at most.
  """

  vocabulary: str
  contents: Mapping[str, bytes]


def find(
    source: str,
    vocabulary: str | None,
    extra_ids: int | None,
    vocab_size: int,
) -> Tokenizer | None:
  """The tokenizer of a checkpoint.

  Args:
    source: as CHECKPOINT; what a folder holds itself comes first.
    vocabulary: as VOCABULARY, for a checkpoint without one.
    extra_ids: of `vocabulary`; None is what the T5 with it were released with.
    vocab_size: the network's, V.

  Returns:
    None where no vocabulary is known; one in a bucket that cannot be fetched
    is not, and that is said on standard error.

  Raises:
    UserError: a file cannot be read, is outside its folder or no vocabulary, or
      `vocabulary` has more ids than the network.
  """
  folder = checkpoints.huggingface_folder(source) or pathlib.Path(source)
  if found := _in_folder(folder):
    return found
  if vocabulary is None:
    return None
  if extra_ids is None:
    is_bytes = vocabulary == vocabularies.BYTES
    extra_ids = _BYTE_EXTRA_IDS if is_bytes else _EXTRA_IDS
  try:
    loaded = vocabularies.load_vocabulary(vocabulary, extra_ids)
  except UserError as error:
    # The recipes of models/ name buckets; sizes may be all they are used for.
    if not vocabulary.startswith("gs://"):
      raise
    print(error, file=sys.stderr)
    return None
  vocabularies.check_fits(loaded, vocab_size)
  return _of_vocabulary(loaded)


def _in_folder(folder: pathlib.Path) -> Tokenizer | None:
  paths = {n: folder / n for n in _FILES if (folder / n).is_file()}
  for path in paths.values():
    files.check_place(path)
    files.check_blob(path)
  contents = {name: _content(path) for name, path in paths.items()}
  if _SENTENCEPIECE in paths and paths.keys().isdisjoint(
      (_TOKENIZERS, _CONFIG)
  ):
    model = str(paths[_SENTENCEPIECE])
    own = _of_vocabulary(vocabularies.load_vocabulary(model, _EXTRA_IDS))
    return Tokenizer(model, {**own.contents, **contents})
  for name in (_SENTENCEPIECE, _TOKENIZERS):
    if name in paths:
      return Tokenizer(str(paths[name]), contents)
  if _CONFIG in paths:
    fields = artifacts.read_json(paths[_CONFIG])
    if fields.get("tokenizer_class") == "ByT5Tokenizer":
      return Tokenizer(vocabularies.BYTES, contents)
  return None


def _content(path: pathlib.Path) -> bytes:
  try:
    return path.read_bytes()
  except OSError as e:
    raise UserError(f"{path}: cannot read: {e.strerror or e}") from e


def _of_vocabulary(vocabulary: Vocabulary) -> Tokenizer:
  is_bytes = vocabulary.path == vocabularies.BYTES
  fields = {
      "tokenizer_class": "ByT5Tokenizer" if is_bytes else "T5Tokenizer",
      "pad_token": vocabulary.piece(vocabularies.PAD_ID),
      "eos_token": vocabulary.piece(vocabulary.eos_id),
      "unk_token": vocabulary.piece(vocabulary.unk_id),
      "extra_ids": vocabulary.extra_ids,
  }
  contents = {}
  if not is_bytes:
    # Without it transformers 4 has an id too many after each sentinel.
    fields["legacy"] = False
    contents[_SENTENCEPIECE] = _content(pathlib.Path(vocabulary.path))
  contents[_CONFIG] = (json.dumps(fields, indent=2) + "\n").encode()
  return Tokenizer(vocabulary.path, contents)
