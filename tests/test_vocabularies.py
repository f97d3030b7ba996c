"""Vocabularies: T5's ids, and agreement with seqio."""

import hashlib
import io
import urllib.request

import pytest
import sentencepiece

from tests import shared_data
from xprompt_jax import vocabularies
from xprompt_jax.types import UserError
from xprompt_jax.vocabularies import ByteVocabulary, SentencePieceVocabulary

TEXTS = [
    "",
    "Hello world",
    " two  spaces ",
    "café - naïve “quotes” 東京 😀",
    "a <extra_id_0> b <extra_id_1>ly jel<extra_id_2>",
    "line\nbreak\ttab",
]
IDS = [
    [],
    [8774, 296, 1, 296],
    [0, 0, 5, 0, 1],
    [32099, 8774, 32098],
    [2, 40000, 7],
    [1, 5],
]


def test_byte_ids_are_the_utf8_bytes_plus_three():
  vocabulary = ByteVocabulary()
  assert vocabulary.encode("aé") == [100, 198, 172]
  assert vocabulary.decode([100, 198, 172]) == "aé"
  assert vocabulary.vocab_size == 259
  assert ByteVocabulary(extra_ids=125).vocab_size == 384


def test_byte_decoding_stops_at_eos_and_drops_what_is_no_text():
  vocabulary = ByteVocabulary(extra_ids=125)
  # Padding, half of a character, a sentinel.
  assert vocabulary.decode([0, 100, 198, 300, 101, 1, 102]) == "ab"


def test_byte_pieces():
  vocabulary = ByteVocabulary(extra_ids=2)
  pieces = [vocabulary.piece(i) for i in (0, 1, 2, 3, 68, 259, 260)]
  assert pieces == [
      "<pad>",
      "</s>",
      "<unk>",
      "<0x00>",
      "<0x41>",
      "<extra_id_1>",
      "<extra_id_0>",
  ]


def test_t5_ids():
  vocabulary = vocabularies.load_vocabulary(shared_data.t5_vocabulary())
  assert vocabulary.encode("Hello world") == [8774, 296]
  assert vocabulary.decode([32099, 8774, 0, 1, 296]) == "<extra_id_0> Hello"
  assert vocabulary.vocab_size == 32100
  assert (vocabulary.eos_id, vocabulary.unk_id) == (1, 2)
  assert vocabulary.piece(8774) == "▁Hello"
  assert vocabulary.piece(32099) == "▁<extra_id_0>"
  assert vocabulary.piece(32000) == "▁<extra_id_99>"
  assert vocabulary.fingerprint == (
      "d60acb128cf7b7f2536e8f38a5b18a05535c9e14c7a355904270e15b0945ea86"
  )


def test_no_extra_ids():
  vocabulary = vocabularies.load_vocabulary(shared_data.t5_vocabulary(), 0)
  assert vocabulary.vocab_size == 32000


def test_the_bundled_vocabulary_has_a_piece_for_each_word():
  vocabulary = vocabularies.load_vocabulary("bundled", 32)
  ids = vocabulary.encode("anna has a red ball .")
  pieces = [vocabulary.piece(i) for i in ids]
  assert pieces == ["▁anna", "▁has", "▁a", "▁red", "▁ball", "▁."]
  assert vocabulary.decode([*ids, 1, 5]) == "anna has a red ball ."
  last = vocabulary.vocab_size - 1
  assert vocabulary.decode([last, last - 1]) == "<extra_id_0> <extra_id_1>"


@pytest.mark.interop
@pytest.mark.parametrize("extra_ids", [0, 100])
@pytest.mark.parametrize("name", ["t5", "bytes"])
def test_agrees_with_seqio(name, extra_ids):
  seqio = shared_data.quiet_import("seqio")
  if name == "t5":
    path = shared_data.t5_vocabulary()
    ours = SentencePieceVocabulary(path, extra_ids=extra_ids)
    theirs = seqio.SentencePieceVocabulary(path, extra_ids)
  else:
    ours = ByteVocabulary(extra_ids=extra_ids)
    theirs = seqio.ByteVocabulary(extra_ids)
  assert ours.vocab_size == theirs.vocab_size
  assert (ours.eos_id, ours.unk_id) == (theirs.eos_id, theirs.unk_id)
  for text in TEXTS:
    ids = ours.encode(text)
    assert ids == list(theirs.encode(text))
    assert ids == theirs.encode_tf(text).numpy().tolist()
    assert ours.decode(ids) == theirs.decode(ids)
  for ids in IDS:
    assert ours.decode(ids) == theirs.decode(ids)


@pytest.mark.parametrize("content", [b"", b"not a model at all"])
def test_a_file_that_is_no_vocabulary_is_refused(tmp_path, content):
  path = tmp_path / "vocab.model"
  path.write_bytes(content)
  with pytest.raises(UserError, match=r"vocab\.model: .*SentencePiece model"):
    vocabularies.load_vocabulary(str(path))


def test_half_a_file_is_refused(tmp_path):
  whole = vocabularies.load_vocabulary("bundled", 0)
  path = tmp_path / "vocab.model"
  with open(whole.path, "rb") as f:
    content = f.read()
  path.write_bytes(content[: len(content) // 2 + 1])
  with pytest.raises(UserError, match=r"vocab\.model"):
    vocabularies.load_vocabulary(str(path))


def test_a_missing_file_is_refused(tmp_path):
  with pytest.raises(
      UserError, match=r"vocabulary .*none\.model: .*No such file"
  ):
    vocabularies.load_vocabulary(str(tmp_path / "none.model"))


def test_a_vocabulary_without_t5s_padding_is_refused(tmp_path):
  model = io.BytesIO()
  sentencepiece.SentencePieceTrainer.train(
      sentence_iterator=iter(["a b c d e"] * 5),
      model_writer=model,
      vocab_size=9,
      hard_vocab_limit=False,
      minloglevel=2,
  )
  path = tmp_path / "bos.model"
  path.write_bytes(model.getvalue())
  with pytest.raises(UserError, match="padding id -1 and EOS id 2, expected"):
    vocabularies.load_vocabulary(str(path))


@pytest.mark.parametrize("name", ["bytes", "bundled"])
def test_negative_extra_ids_are_refused(name):
  with pytest.raises(UserError, match="extra_ids is -1, expected 0 or more"):
    vocabularies.load_vocabulary(name, -1)


def test_a_vocabulary_must_fit_the_model():
  vocabulary = ByteVocabulary(extra_ids=125)
  vocabularies.check_fits(vocabulary, 384)
  with pytest.raises(
      UserError, match="has 384 ids with 125 extra ids, .* vocab_size 383"
  ):
    vocabularies.check_fits(vocabulary, 383)


def test_pieces_outside_the_vocabulary_are_an_error():
  for token_id in (-1, 259):
    with pytest.raises(IndexError):
      ByteVocabulary().piece(token_id)


class TestFetching:
  """`gs://` files come over HTTPS, once."""

  URL = "gs://t5-data/vocabs/some/sentencepiece.model"

  @pytest.fixture
  def served(self, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    contents, asked = [], []

    def urlopen(url, timeout):
      asked.append((url, timeout))
      return io.BytesIO(contents.pop(0))

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    return contents, asked

  def test_is_fetched_once(self, served, tmp_path):
    contents, asked = served
    with open(vocabularies.load_vocabulary("bundled", 32).path, "rb") as f:
      contents.append(f.read())
    digest = hashlib.sha256(contents[0]).hexdigest()
    for _ in range(2):
      vocabulary = vocabularies.load_vocabulary(self.URL, 32)
    assert vocabulary.fingerprint == digest
    assert asked == [
        (
            "https://storage.googleapis.com/t5-data/vocabs/some/"
            "sentencepiece.model",
            60,
        )
    ]
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == [
        "sentencepiece.model"
    ]

  def test_a_garbled_download_is_not_kept(self, served, tmp_path):
    served[0].append(b"<html>sign in</html>")
    with pytest.raises(UserError, match="gs://t5-data.*not a SentencePiece"):
      vocabularies.load_vocabulary(self.URL)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []

  def test_without_a_network(self, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def urlopen(url, timeout):
      raise OSError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    with pytest.raises(UserError, match="no route to host.*set VOCABULARY"):
      vocabularies.load_vocabulary(self.URL)
