"""Text to ids and back without TensorFlow, with seqio's ids.

Training, evaluation and inference run on machines that have no TensorFlow, and
`seqio.SentencePieceVocabulary` needs it. The two vocabularies here give the ids
and the texts that seqio gives for the same file; `token_cache` tokenises tasks
once with seqio, everything later decodes and encodes with these.
"""

from collections.abc import Iterable
import functools
import hashlib
from importlib import resources
import os
from pathlib import Path
from typing import Protocol, runtime_checkable
import urllib.request

from google.protobuf.message import DecodeError
from sentencepiece import SentencePieceProcessor, sentencepiece_model_pb2

from xprompt_jax import artifacts
from xprompt_jax.types import UserError

# The generated module defines its classes at run time, out of mypy's sight.
_ModelProto = sentencepiece_model_pb2.ModelProto  # type: ignore[attr-defined]

PAD_ID = 0
# The names `load_vocabulary` knows beside paths.
BUNDLED = "bundled"
BYTES = "bytes"

_GS = "gs://"
_GS_URL = "https://storage.googleapis.com/"
_DOWNLOAD_SECONDS = 60
_BYTE_SPECIALS = ("<pad>", "</s>", "<unk>")
_SPECIAL_BYTE_IDS = len(_BYTE_SPECIALS)


@runtime_checkable
class Vocabulary(Protocol):
  """Maps text to ids and back, with seqio's ids and T5's special ones."""

  path: str  # A file, or "bytes".
  extra_ids: int  # The sentinels at the end of the ids.
  vocab_size: int  # Ids, the sentinels included.
  eos_id: int
  unk_id: int
  fingerprint: str  # sha256 of the file: two files with it give the same ids.

  def encode(self, text: str) -> list[int]:
    """Returns the ids of `text`, without EOS."""

  def decode(self, ids: Iterable[int]) -> str:
    """Returns the text up to the first EOS; padding decodes to nothing."""

  def piece(self, token_id: int) -> str:
    """Returns the piece of one id, as the vocabulary writes it."""


class SentencePieceVocabulary:
  """A SentencePiece file and T5's sentinels after its own pieces.

  The last id is `<extra_id_0>`, the one before it `<extra_id_1>`, and so on, as
  in seqio: span corruption counts sentinels down from the end.
  """

  def __init__(self, path: str | os.PathLike[str], *, extra_ids: int = 100):
    """Reads a SentencePiece model.

    Args:
      path: the model file, as SentencePiece's trainer writes it.
      extra_ids: how many sentinels to add; 100 in every T5, 0 is allowed.

    Raises:
      UserError: the file is missing or is no model with T5's padding and EOS.
    """
    if extra_ids < 0:
      raise UserError(f"extra_ids is {extra_ids}, expected 0 or more")
    self.path = os.fspath(path)
    self.extra_ids = extra_ids
    try:
      content = Path(path).read_bytes()
    except OSError as error:
      raise UserError(
          f"vocabulary {self.path}: cannot be read ({error.strerror}),"
          " expected a SentencePiece model file"
      ) from error
    self.fingerprint = hashlib.sha256(content).hexdigest()
    self._processor = _processor(content, extra_ids, self.path)
    self.vocab_size: int = self._processor.GetPieceSize()
    self.eos_id: int = self._processor.eos_id()
    self.unk_id: int = self._processor.unk_id()

  def encode(self, text: str) -> list[int]:
    """Returns the ids of `text`, without EOS."""
    return self._processor.EncodeAsIds(text)

  def decode(self, ids: Iterable[int]) -> str:
    """Returns the text up to the first EOS; ids past the end are unknown."""
    ids = _until_eos(ids, self.eos_id)
    known = [i if i < self.vocab_size else self.unk_id for i in ids]
    return self._processor.DecodeIds(known)

  def piece(self, token_id: int) -> str:
    """Returns the piece of one id; a word's first piece begins with '▁'."""
    _check_id(token_id, self.vocab_size)
    return self._processor.IdToPiece(token_id)


class ByteVocabulary:
  """ByT5's vocabulary: the id of a UTF-8 byte is the byte plus 3."""

  path = BYTES
  eos_id = 1
  unk_id = 2
  fingerprint = hashlib.sha256(b"bytes + 3").hexdigest()

  def __init__(self, *, extra_ids: int = 0):
    """Makes the vocabulary; sentinels take ids and decode to nothing."""
    if extra_ids < 0:
      raise UserError(f"extra_ids is {extra_ids}, expected 0 or more")
    self.extra_ids = extra_ids
    self.vocab_size = 256 + _SPECIAL_BYTE_IDS + extra_ids

  def encode(self, text: str) -> list[int]:
    """Returns the ids of the UTF-8 bytes of `text`, without EOS."""
    return [byte + _SPECIAL_BYTE_IDS for byte in text.encode("utf-8")]

  def decode(self, ids: Iterable[int]) -> str:
    """Returns the text up to the first EOS; broken characters are dropped."""
    shifted = (i - _SPECIAL_BYTE_IDS for i in _until_eos(ids, self.eos_id))
    return bytes(b for b in shifted if 0 <= b < 256).decode("utf-8", "ignore")

  def piece(self, token_id: int) -> str:
    """Returns `<0x41>` for the byte 0x41, or the name of a special id."""
    _check_id(token_id, self.vocab_size)
    if token_id < _SPECIAL_BYTE_IDS:
      return _BYTE_SPECIALS[token_id]
    if token_id < 256 + _SPECIAL_BYTE_IDS:
      return f"<0x{token_id - _SPECIAL_BYTE_IDS:02X}>"
    return f"<extra_id_{self.vocab_size - 1 - token_id}>"


def load_vocabulary(path_or_name: str, extra_ids: int = 100) -> Vocabulary:
  """Returns the vocabulary of a file or a name.

  Args:
    path_or_name: a SentencePiece file; `gs://BUCKET/FILE`, fetched once over
      HTTPS into the user's cache folder; `bundled`, the vocabulary of the
      packaged model; `bytes`, ByT5's.
    extra_ids: how many sentinels follow the vocabulary's own ids.

  Raises:
    UserError: there is no such file, it is no vocabulary, or it cannot be
      fetched.
  """
  if path_or_name == BYTES:
    return ByteVocabulary(extra_ids=extra_ids)
  path = Path(path_or_name).expanduser()
  if path_or_name == BUNDLED:
    packaged = resources.files("xprompt_jax") / "bundled/sentencepiece.model"
    path = Path(str(packaged))
  elif path_or_name.startswith(_GS):
    path = _fetched(path_or_name)
  return _cached(path, extra_ids)


def check_fits(vocabulary: Vocabulary, vocab_size: int) -> None:
  """Refuses a vocabulary with ids that the model has no embedding for.

  Args:
    vocabulary: the vocabulary the task is tokenised with.
    vocab_size: rows of the model's embedding table, V. It may be larger: T5
      has 32,128 rows for 32,100 ids.

  Raises:
    UserError: the vocabulary has more ids than the model has rows.
  """
  if vocabulary.vocab_size > vocab_size:
    raise UserError(
        f"vocabulary {vocabulary.path}: has {vocabulary.vocab_size} ids with"
        f" {vocabulary.extra_ids} extra ids, expected at most the model's"
        f" vocab_size {vocab_size}"
    )


@functools.lru_cache(maxsize=8)
def _cached(path: Path, extra_ids: int) -> SentencePieceVocabulary:
  return SentencePieceVocabulary(path, extra_ids=extra_ids)


def _processor(
    content: bytes, extra_ids: int, path: str
) -> SentencePieceProcessor:
  """Returns SentencePiece's processor with the sentinels as own pieces."""
  try:
    model = _ModelProto.FromString(content)
    for index in reversed(range(extra_ids)):
      model.pieces.add(
          piece=f"▁<extra_id_{index}>",
          score=0.0,
          type=_ModelProto.SentencePiece.USER_DEFINED,
      )
    processor = SentencePieceProcessor()
    processor.LoadFromSerializedProto(model.SerializeToString())
  except (DecodeError, RuntimeError) as error:
    raise UserError(
        f"vocabulary {path}: is not a SentencePiece model"
        f" ({len(content)} bytes found)"
    ) from error
  # -1 is SentencePiece's word for "has none".
  if processor.pad_id() != PAD_ID or processor.eos_id() < 0:
    raise UserError(
        f"vocabulary {path}: has padding id {processor.pad_id()} and EOS id"
        f" {processor.eos_id()}, expected padding {PAD_ID} and an EOS"
    )
  return processor


def _until_eos(ids: Iterable[int], eos_id: int) -> list[int]:
  """Returns the ids before the first EOS, as Python integers."""
  found = [int(i) for i in ids]
  return found[: found.index(eos_id)] if eos_id in found else found


def _check_id(token_id: int, vocab_size: int) -> None:
  # SentencePiece answers some ids from outside instead of refusing them.
  if not 0 <= token_id < vocab_size:
    raise IndexError(f"id {token_id} is not in a vocabulary of {vocab_size}")


def _fetched(url: str) -> Path:
  """Returns the local copy of a public `gs://` file, fetching it once."""
  cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
  path = cache / "xprompt_jax" / url.removeprefix(_GS)
  if path.exists():
    return path
  https = _GS_URL + url.removeprefix(_GS)
  try:
    with urllib.request.urlopen(https, timeout=_DOWNLOAD_SECONDS) as response:
      content = response.read()
  except OSError as error:
    raise UserError(
        f"vocabulary {url}: cannot be fetched from {https} ({error}); fetch it"
        " where there is a network and set VOCABULARY to the file"
    ) from error
  _processor(content, 0, url)  # Only a whole file may stay in the cache.
  with artifacts.replacing(path) as temporary:
    temporary.write_bytes(content)
  return path
