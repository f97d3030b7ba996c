"""The tokenizer beside a model, as transformers' AutoTokenizer reads it.

A Hugging Face folder has its own; for a SentencePiece file or bytes a
`tokenizer_config.json` is written. T5X keeps no vocabulary with its weights.
"""

from collections.abc import Mapping
import contextlib
import dataclasses
import json
import pathlib
import sys

import sentencepiece

from xprompt_jax import artifacts, vocabularies
from xprompt_jax.types import UserError
from xprompt_jax.vocabularies import Vocabulary
from xprompt_jax.weights import checkpoints
from xprompt_jax.weights import huggingface_files as files
from xprompt_jax.weights import huggingface_tokenizer as names


@dataclasses.dataclass(frozen=True)
class Tokenizer:
  """A tokenizer's files.

  Attributes:
    vocabulary: where it is from: a file's path, or `bytes`.
    contents: of the files by name, of some MB at most.
  """

  vocabulary: str
  contents: Mapping[str, bytes]


def place(source: str, vocabulary: str | None) -> str | None:
  """Where a checkpoint's vocabulary is, which is neither fetched nor read.

  Args:
    source: as CHECKPOINT; what a folder holds itself comes first.
    vocabulary: as VOCABULARY, for a checkpoint without one.

  Returns:
    A file's path, or as VOCABULARY; None where none is known.
  """
  folder = _folder(source)
  for name in (names.SENTENCEPIECE, names.TOKENIZERS):
    if (folder / name).is_file():
      return str(folder / name)
  # A damaged tokenizer does not matter where none is written.
  with contextlib.suppress(UserError):
    if names.is_bytes(folder):
      return vocabularies.BYTES
  return vocabulary


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
    extra_ids: for a vocabulary without a `tokenizer_config.json`; None is 0
      where it holds sentinels itself, 125 for bytes, and otherwise 100.
    vocab_size: the network's, V.

  Returns:
    None where no vocabulary is known; one in a bucket that cannot be fetched
    is not, and that is said on standard error.

  Raises:
    UserError: a file is damaged, cannot be read, is outside its folder or no
      vocabulary; it has more ids than the network; or it would have with the
      number of sentinels that `extra_ids` does not state.
  """
  if found := _in_folder(_folder(source), extra_ids, vocab_size):
    return found
  if vocabulary is None:
    return None
  try:
    plain = vocabularies.load_vocabulary(vocabulary, 0)
  except UserError as error:
    # The recipes of models/ name buckets; sizes may be all they are used for.
    if not vocabulary.startswith("gs://"):
      raise
    print(error, file=sys.stderr)
    return None
  return _of_vocabulary(_with_sentinels(plain, extra_ids, vocab_size))


def _folder(source: str) -> pathlib.Path:
  return checkpoints.huggingface_folder(source) or pathlib.Path(source)


def _in_folder(
    folder: pathlib.Path, extra_ids: int | None, vocab_size: int
) -> Tokenizer | None:
  paths = {n: folder / n for n in names.FILES if (folder / n).is_file()}
  contents = {name: _checked(path) for name, path in paths.items()}
  if names.SENTENCEPIECE in paths:
    model = str(paths[names.SENTENCEPIECE])
    if paths.keys().isdisjoint((names.TOKENIZERS, names.CONFIG)):
      plain = vocabularies.load_vocabulary(model, 0)
      own = _of_vocabulary(_with_sentinels(plain, extra_ids, vocab_size))
      contents = {**own.contents, **contents}
    return Tokenizer(model, contents)
  if names.TOKENIZERS in paths:
    return Tokenizer(str(paths[names.TOKENIZERS]), contents)
  if names.is_bytes(folder):
    return Tokenizer(vocabularies.BYTES, contents)
  return None


def _checked(path: pathlib.Path) -> bytes:
  """The contents of a folder's file; one that nothing could read is refused."""
  files.check_contents(path)
  content = _content(path)
  if path.suffix == ".json":
    artifacts.read_json(path)
    return content
  try:
    sentencepiece.SentencePieceProcessor().LoadFromSerializedProto(content)
  except RuntimeError as e:
    raise UserError(
        f"{path}: found {len(content)} bytes, expected a SentencePiece model"
    ) from e
  return content


def _content(path: pathlib.Path) -> bytes:
  try:
    return path.read_bytes()
  except OSError as e:
    raise UserError(f"{path}: cannot read: {e.strerror or e}") from e


def _with_sentinels(
    plain: Vocabulary, extra_ids: int | None, vocab_size: int
) -> Vocabulary:
  """A vocabulary with its sentinels.

  Args:
    plain: the vocabulary without them.
    extra_ids: their number, if it is stated.
    vocab_size: the network's, V.
  """
  vocabularies.check_fits(plain, vocab_size)
  if extra_ids is None:
    extra_ids = names.default_extra_ids(plain)
    if plain.vocab_size + extra_ids > vocab_size:
      raise UserError(
          f"EXTRA_IDS: found none, expected the number of sentinels: {plain.path}"
          f" has {plain.vocab_size} ids, with the usual {extra_ids} sentinels"
          f" more than the model's vocab_size {vocab_size}; set it with"
          " --gin_file=models/from_checkpoint.gin --gin.EXTRA_IDS=NUMBER"
      )
  try:
    loaded = vocabularies.load_vocabulary(plain.path, extra_ids)
  except UserError as e:
    # SentencePiece takes no piece twice.
    if own := names.own_sentinels(plain):
      raise UserError(
          f"EXTRA_IDS: found {extra_ids}, expected 0: {plain.path} holds {own}"
          " sentinels itself"
      ) from e
    raise
  vocabularies.check_fits(loaded, vocab_size)
  return loaded


def _of_vocabulary(vocabulary: Vocabulary) -> Tokenizer:
  is_bytes = vocabulary.path == vocabularies.BYTES
  fields = {
      "tokenizer_class": (
          names.BYTES_CLASS if is_bytes else names.SENTENCEPIECE_CLASS
      ),
      "pad_token": vocabulary.piece(vocabularies.PAD_ID),
      "eos_token": vocabulary.piece(vocabulary.eos_id),
      "unk_token": vocabulary.piece(vocabulary.unk_id),
      "extra_ids": vocabulary.extra_ids,
  }
  contents = {}
  if not is_bytes:
    # Without it transformers 4 has an id too many after each sentinel.
    fields["legacy"] = False
    contents[names.SENTENCEPIECE] = _content(pathlib.Path(vocabulary.path))
  contents[names.CONFIG] = (json.dumps(fields, indent=2) + "\n").encode()
  return Tokenizer(vocabulary.path, contents)
