"""export.json beside a prompt: the sum of its file, and its masks."""

import contextlib
import hashlib
import json

import numpy as np
import pytest

from tests.prompt_files import PROMPT, read, refusal
from xprompt_jax import artifacts
from xprompt_jax.prompt_formats import npy


def test_the_sum_in_export_json_is_checked(tmp_path):
  path, note = tmp_path / "prompt.npy", tmp_path / "export.json"
  npy.write(path, PROMPT)
  sha256 = "cb7c8a1b9fd03fba26d8dc7d1e9f8a0d59aa4df0bd8ea28d6c43c1f9bbd4d9a2"
  note.write_text(json.dumps({"file": "prompt.npy", "sha256": sha256}))
  line = refusal(tmp_path)
  assert line.startswith(f"{path}: sha256 of its prompt: found ")
  assert line.endswith(
      f", expected cb7c8a1b9fd0 by {note}: it was damaged, or written again"
      " since the export"
  )
  assert refusal(path) == line
  # It speaks of one file, by a name that is never followed.
  note.write_text(json.dumps({"file": "../prompt.npy", "sha256": sha256}))
  np.testing.assert_array_equal(read(path)["prompt"], [PROMPT])
  note.write_text("{")
  assert refusal(path).startswith(f"{note}: not JSON: ")


def note(path, token_mask, piece_mask):
  """Writes export.json beside a prompt file."""
  fields = {
      "file": path.name,
      "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
      "token_mask": token_mask,
      "piece_mask": piece_mask,
  }
  with contextlib.suppress(TypeError, ValueError):  # No masks at all.
    tokens = np.array([list(map(float, token_mask))], np.float32)
    pieces = [list(map(float, piece)) for piece in piece_mask]
    arrays = {"token_mask": tokens, "piece_mask": np.float32([pieces])}
    fields["masks_sha256"] = artifacts.digest_arrays(arrays)
  path.with_name("export.json").write_text(json.dumps(fields))


def test_masks_in_export_json_are_those_of_its_prompt(tmp_path):
  path = tmp_path / "prompt.npy"
  masked = PROMPT * [[1, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]]
  npy.write(path, masked)
  note(path, "101", ["10", "00", "11"])
  for one in (path, tmp_path):
    found = read(one)
    np.testing.assert_array_equal(found["prompt"], [masked])
    assert found["token_mask"].tolist() == [[1, 0, 1]]
    assert found["piece_mask"].tolist() == [[[1, 0], [0, 0], [1, 1]]]
  # Of another name it is another file.
  path.rename(tmp_path / "other.npy")
  assert list(read(tmp_path / "other.npy")) == ["prompt"]


@pytest.mark.parametrize(
    ("tokens", "pieces", "line"),
    [
        (
            "101",
            ["10", "11", "11"],
            "masks: found 'pruned entries that are not zero', expected the"
            " masks of prompt.npy",
        ),
        ("10", ["10", "11"], "token_mask: found (1, 2), expected (1, 3)"),
        (
            "111",
            ["100", "110", "111"],
            "piece_mask: found (1, 3, 3), expected [R, P, K] = (1, 3, K) with a"
            " K that divides 4",
        ),
        *(
            (
                "111",
                pieces,
                "piece_mask: found 'something else', expected strings of 0"
                " (pruned) and 1 (keep), all of one length",
            )
            for pieces in (["1", "11", "11"], ["12", "11", "11"], [1], None)
        ),
    ],
)
def test_other_masks_in_export_json_are_refused(tmp_path, tokens, pieces, line):
  path = tmp_path / "prompt.npy"
  npy.write(path, PROMPT + 1)
  note(path, tokens, pieces)
  assert refusal(path) == f"{tmp_path}/export.json: {line}"
