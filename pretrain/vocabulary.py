"""Makes the bundled SentencePiece vocabulary: a piece for every word.

    python -m pretrain.vocabulary

A second of work. Ids as in T5: pad 0, EOS 1, unknown 2, no BOS; the sentinels
of span corruption are not in the file but follow at the top of the embedding
table, `<extra_id_0>` last. All printable ASCII characters are pieces, so that
any text can be read, if not understood.
"""

import io
import os
import pathlib

import sentencepiece
from sentencepiece import sentencepiece_model_pb2

from pretrain import mixture

PATH = pathlib.Path("xprompt_jax/bundled/sentencepiece.model")
NUM_PIECES = 256


def main() -> None:
  """Makes the vocabulary and checks that each word is one piece.

  Training finds the letters and the normaliser's tables; the words are then
  put in by hand, since which ones it would find depends on their letters.
  """
  model = io.BytesIO()
  letters = list(map(chr, range(33, 127)))
  sentencepiece.SentencePieceTrainer.train(
      sentence_iterator=iter([" ".join(letters)] * 10),
      model_writer=model,
      vocab_size=4 + len(letters),
      model_type="unigram",
      character_coverage=1.0,
      pad_id=0,
      eos_id=1,
      unk_id=2,
      bos_id=-1,
      num_threads=1,
      minloglevel=1,
  )
  proto = sentencepiece_model_pb2.ModelProto.FromString(model.getvalue())
  singles = sorted(piece.piece for piece in proto.pieces[3:])
  del proto.pieces[3:]
  for score, pieces in (
      (-1.0, ["▁" + word for word in mixture.WORDS]),
      (-20.0, singles),
  ):
    for piece in pieces:
      proto.pieces.add(piece=piece, score=score)
  proto.trainer_spec.vocab_size = len(proto.pieces)
  if len(proto.pieces) != NUM_PIECES:
    raise ValueError(f"{len(proto.pieces)} pieces, expected {NUM_PIECES}")
  processor = sentencepiece.SentencePieceProcessor(
      model_proto=proto.SerializeToString()
  )
  for word in mixture.WORDS:
    if processor.encode(word, out_type=str) != ["▁" + word]:
      raise ValueError(f"{word!r}: not one piece: {processor.encode(word)}")
  PATH.parent.mkdir(exist_ok=True)
  part = PATH.with_suffix(".part")
  part.write_bytes(proto.SerializeToString())
  os.replace(part, PATH)
  print(f"{PATH}: {processor.vocab_size()} pieces, {len(mixture.WORDS)} words")


if __name__ == "__main__":
  main()
