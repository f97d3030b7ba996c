"""The compact file bit by bit, and damage to what this program writes."""

import json

import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

from tests.prompt_files import BASE, ONES, PROMPT, read, refusal, save
from xprompt_jax.prompt_formats import (
    compact,
    native,
    peft,
)
from xprompt_jax.types import PromptMasks, UserError


def test_a_compact_file_holds_kept_pieces_and_bits(tmp_path):
  # R 2, P 3, K 2, H 4.
  prompt = np.stack([PROMPT, -PROMPT])
  token_mask = np.array([[1, 0, 1], [0, 1, 0]], np.float32)
  piece_mask = np.array(
      [[[1, 0], [0, 0], [1, 1]], [[0, 0], [0, 1], [0, 0]]], np.float32
  )
  path = tmp_path / "compact.safetensors"
  compact.write(
      path, prompt, PromptMasks(token_mask=token_mask, piece_mask=piece_mask)
  )
  arrays = safetensors_numpy.load_file(path)
  assert {k: v.tolist() for k, v in arrays.items()} == {
      "sizes": [2, 3, 2, 4],
      "token_bits": [0b10101000],
      "piece_bits": [0b10110100],
      "pieces": [[0, 0.125], [1, 1.125], [1.25, 1.375], [-0.75, -0.875]],
  }
  found = read(path)
  expected = {
      "prompt": [
          [[0, 0.125, 0, 0], [0, 0, 0, 0], [1, 1.125, 1.25, 1.375]],
          [[0, 0, 0, 0], [0, 0, -0.75, -0.875], [0, 0, 0, 0]],
      ],
      "token_mask": token_mask.tolist(),
      "piece_mask": piece_mask.tolist(),
  }
  assert {k: v.tolist() for k, v in found.items()} == expected
  # Zeros are plain zeros, none of them negative.
  assert not np.signbit(found["prompt"][found["prompt"] == 0]).any()


def test_a_kept_token_may_have_no_piece(tmp_path):
  path = tmp_path / "c"
  masks = PromptMasks(token_mask=ONES[..., 0], piece_mask=0 * ONES)
  compact.write(path, PROMPT[None], masks)
  found = read(path)
  assert found["token_mask"].tolist() == [[1, 1, 1]]
  assert not found["piece_mask"].any() and not found["prompt"].any()


COMPACT = {
    "sizes": np.array([1, 3, 2, 4]),
    "token_bits": np.array([0b11100000], np.uint8),
    "piece_bits": np.array([0b11111100], np.uint8),
    "pieces": PROMPT.reshape(6, 2),
}


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (
            {"sizes": np.array([1, 3, 2])},
            "sizes: found [1, 3, 2], expected [R, P, K, 4] with a K that"
            " divides 4",
        ),
        (
            {"sizes": np.array([1, 3, 2, 5])},
            "sizes: found [1, 3, 2, 5], expected [R, P, K, 4] with a K that"
            " divides 4",
        ),
        (
            {"sizes": np.array([1, 3, 3, 4])},
            "sizes: found [1, 3, 3, 4], expected [R, P, K, 4] with a K that"
            " divides 4",
        ),
        (
            {"sizes": np.array([0, 3, 2, 4])},
            "sizes: found [0, 3, 2, 4], expected [R, P, K, 4] with a K that"
            " divides 4",
        ),
        (
            {"sizes": np.array([1, 3, 2, 4.0])},
            "sizes: found [1.0, 3.0, 2.0, 4.0], expected [R, P, K, 4] with a K"
            " that divides 4",
        ),
        (
            {"sizes": np.array([1 << 62, 3, 2, 4])},
            "token_bits: found 'uint8 (1,)', expected uint8"
            " (1729382256910270464,)",
        ),
        (
            {"token_bits": np.array([0b11000000], np.uint8)},
            "pieces: found 'float32 (6, 2)', expected float32 (4, 2)",
        ),
        (
            {"piece_bits": np.array([255, 0], np.uint8)},
            "piece_bits: found 'uint8 (2,)', expected uint8 (1,)",
        ),
        (
            {"pieces": PROMPT.reshape(3, 4)},
            "pieces: found 'float32 (3, 4)', expected float32 (6, 2)",
        ),
        (
            {"pieces": PROMPT.reshape(6, 2).astype(np.float64)},
            "pieces: found 'float64 (6, 2)', expected float32 (6, 2)",
        ),
        (
            {"more": np.zeros(1)},
            "found 'more', 'piece_bits', 'pieces' and 2 more, expected"
            " 'piece_bits', 'pieces', 'sizes' and 1 more",
        ),
    ],
)
def test_a_compact_file_that_contradicts_itself(tmp_path, change, line):
  path = save(tmp_path / "c", **COMPACT)
  np.testing.assert_array_equal(read(path)["prompt"], [PROMPT])
  path = save(tmp_path / "c", **{**COMPACT, **change})
  assert refusal(path) == f"{path}: {line}"


@pytest.mark.parametrize("write", ["native", "peft", "compact"])
def test_one_changed_byte_of_our_own_files_is_never_believed(tmp_path, write):
  masks = PromptMasks(token_mask=ONES[..., 0], piece_mask=ONES)
  if write == "native":
    path = tmp_path / "p.safetensors"
    native.write(path, {"prompt": PROMPT})
  elif write == "peft":
    peft.write(tmp_path, PROMPT, BASE)
    path = tmp_path / "adapter_model.safetensors"
  else:
    path = tmp_path / "compact.safetensors"
    compact.write(path, PROMPT[None], masks)
  content = path.read_bytes()
  np.testing.assert_array_equal(read(path)["prompt"], [PROMPT])
  header = 8 + int.from_bytes(content[:8], "little")
  tensors = json.loads(content[8:header])
  tensors.pop("__metadata__")

  def tensor(place):
    offsets = {k: v["data_offsets"] for k, v in tensors.items()}
    return next(k for k, (a, b) in offsets.items() if a <= place < b)

  believed = 0
  for place in range(len(content)):
    changed = bytearray(content)
    changed[place] ^= 0x20
    path.write_bytes(changed)
    try:
      found = read(path)
    except UserError as e:
      assert str(e).startswith(f"{path}: ") and "\n" not in str(e)
      if place >= header:
        assert str(e).startswith(f"{path}: {tensor(place - header)}: contents")
    else:
      # The name of the sum itself, in the header: the tensors are whole.
      assert place < header
      np.testing.assert_array_equal(found["prompt"], [PROMPT])
      believed += 1
  assert believed < 20
  for length in range(len(content)):
    path.write_bytes(content[:length])
    assert refusal(path).startswith(f"{path}: ")
