"""SentencePiece files made of the packaged one, which has 256 pieces."""

import pathlib

from sentencepiece import sentencepiece_model_pb2

from xprompt_jax import vocabularies


def bundled() -> bytes:
  """The packaged model's file."""
  path = vocabularies.load_vocabulary("bundled", 0).path
  return pathlib.Path(path).read_bytes()


def with_sentinels(count: int) -> bytes:
  """The same with sentinels at its end, as the vocabulary of mT5 has them."""
  model = sentencepiece_model_pb2.ModelProto.FromString(bundled())
  for i in reversed(range(count)):
    kind = sentencepiece_model_pb2.ModelProto.SentencePiece.USER_DEFINED
    model.pieces.add(piece=f"▁<extra_id_{i}>", score=0.0, type=kind)
  return model.SerializeToString()
