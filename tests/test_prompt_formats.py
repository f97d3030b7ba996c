"""Prompts as .npy and safetensors, folders of them, and what is refused."""

import json
import struct

import ml_dtypes
import numpy as np
import pytest

from tests import shared_data
from tests.prompt_files import (
    ONES,
    PROMPT,
    read,
    refusal,
    save,
)
from xprompt_jax import prompt_formats
from xprompt_jax.prompt_formats import (
    native,
    npy,
)

# .npy


@pytest.mark.parametrize("name", ["p.npy", "encoder.prompt.prompt.prompt"])
@pytest.mark.parametrize(
    "dtype", [np.float16, np.float32, np.float64, np.int8, ">f4"]
)
def test_npy_is_known_by_its_content(tmp_path, name, dtype):
  whole = (PROMPT * 8).astype(dtype)
  with open(tmp_path / name, "wb") as f:
    np.save(f, whole)
  found = read(str(tmp_path / name))
  assert list(found) == ["prompt"]
  assert found["prompt"].dtype == np.float32
  np.testing.assert_array_equal(found["prompt"], [PROMPT * 8])


def test_npy_in_fortran_order(tmp_path):
  np.save(tmp_path / "p.npy", np.asfortranarray(PROMPT))
  np.testing.assert_array_equal(read(tmp_path / "p.npy")["prompt"], [PROMPT])


def test_npy_as_it_is_written(tmp_path):
  npy.write(tmp_path / "p.npy", PROMPT.astype(np.float64))
  header = (
      b"{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }".ljust(117)
      + b"\n"
  )
  assert (tmp_path / "p.npy").read_bytes() == (
      b"\x93NUMPY\x01\x00" + struct.pack("<H", 118) + header + PROMPT.tobytes()
  )


@pytest.mark.parametrize(
    ("name", "length", "embed_dim"),
    [
        ("mrpc.npy", 100, 768),
        ("rte.npy", 100, 768),
        ("sst2.npy", 100, 768),
        ("prompt_5x256.npy", 5, 256),
    ],
)
def test_released_prompts_of_any_length(name, length, embed_dim):
  path = shared_data.path(f"prompts/{name}")
  found = read(path, embed_dim)["prompt"]
  assert (found.shape, found.dtype) == ((1, length, embed_dim), np.float32)
  stored = np.load(path)
  np.testing.assert_array_equal(found[0], stored.astype(np.float32))
  prompt, masks = prompt_formats.read_table(
      path, embed_dim=embed_dim, num_pieces=16
  )
  np.testing.assert_array_equal(prompt, found)
  assert masks.token_mask.shape == (1, length) and masks.token_mask.all()
  assert masks.piece_mask.shape == (1, length, 16) and masks.piece_mask.all()


@pytest.mark.parametrize(
    ("prompt", "line"),
    [
        (
            PROMPT[:, :3],
            "prompt: found (3, 3), expected [P, 4] or [R, P, 4]: the model's"
            " emb_dim is 4",
        ),
        (
            PROMPT[0],
            "prompt: found (4,), expected [P, 4] or [R, P, 4]: the model's"
            " emb_dim is 4",
        ),
        (
            PROMPT[None][:0],
            "prompt: found (0, 3, 4), expected [P, 4] or [R, P, 4]: the model's"
            " emb_dim is 4",
        ),
        (
            PROMPT[:0],
            "prompt: found (0, 4), expected [P, 4] or [R, P, 4]: the model's"
            " emb_dim is 4",
        ),
        (
            PROMPT[None, None],
            "prompt: found (1, 1, 3, 4), expected [P, 4] or [R, P, 4]: the"
            " model's emb_dim is 4",
        ),
        (
            np.where(PROMPT > 1, np.nan, PROMPT),
            "prompt: found 'NaN or infinity', expected finite numbers",
        ),
        (
            np.where(PROMPT > 1, -np.inf, PROMPT),
            "prompt: found 'NaN or infinity', expected finite numbers",
        ),
        (
            np.where(PROMPT > 1, 1e300, PROMPT.astype(np.float64)),
            "prompt: found 'NaN or infinity', expected finite numbers",
        ),
        (PROMPT + 1j, "prompt: found 'complex64', expected numbers"),
        # What NumPy writes for bfloat16.
        (
            PROMPT.astype(ml_dtypes.bfloat16),
            "prompt: found '|V2', expected numbers",
        ),
        (
            PROMPT.astype(object),
            "not a whole .npy file: Object arrays cannot be loaded when"
            " allow_pickle=False",
        ),
    ],
)
def test_unfit_prompts_are_refused_in_one_line(tmp_path, prompt, line):
  path = tmp_path / "p.npy"
  np.save(path, prompt)
  assert refusal(path) == f"{path}: {line}"


def _npy(path):
  np.save(path / "a.npy", PROMPT)
  return (path / "a.npy").read_bytes()


def _npy_header(size):
  """A file of [size, 4] that ends behind its header."""
  text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({size}, 4), }}\n"
  return b"\x93NUMPY\x01\0" + struct.pack("<H", len(text)) + text.encode()


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (
            lambda b: b[:-1],
            "Failed to read all data for array. Expected (3, 4) = 12 elements",
        ),
        (
            lambda b: b + b"\0",
            "found more bytes than the (3, 4) of its header take",
        ),
        (lambda b: b.replace(b"<f4", b"<q4"), "descr is not a valid dtype"),
        (lambda b: b.replace(b"}", b"("), "Cannot parse header"),
        (lambda b: b[:60], "EOF: reading array header, expected 118 bytes"),
        (lambda b: b[:7], "EOF: reading magic string, expected 8 bytes"),
        (lambda b: b.replace(b"(3, 4)", b"(9**9"), "Cannot parse header"),
        (
            lambda b: b.replace(b"(3, 4)", b"(-3,4)"),
            "Failed to read all data for array. Expected (-3, 4) = -12",
        ),
        (lambda b: b.replace(b"(3, 4)", b"('a', "), "Cannot parse header"),
        (lambda b: b.replace(b", 4), ", b", 4**40"), "Cannot parse header"),
        (
            lambda b: b.replace(
                b"(3, 4), }            ", b"(99999999999999, 4), }"
            ),
            "MemoryError: Unable to allocate 1.42 PiB for an array",
        ),
        (lambda _: _npy_header("-" * 3000 + "1"), "RecursionError: maximum"),
        (lambda _: _npy_header("-" * 6000 + "1"), "MemoryError"),
    ],
)
def test_a_damaged_npy_is_refused(tmp_path, change, line):
  content = change(_npy(tmp_path))
  path = tmp_path / "p.npy"
  path.write_bytes(content)
  assert refusal(path).startswith(f"{path}: not a whole .npy file: {line}")


@pytest.mark.parametrize("name", ["p.npy", "p.safetensors", "p.bin", "p"])
@pytest.mark.parametrize(
    ("content", "start"),
    [
        (b"", "b''"),
        (b"a prompt\n" * 9, "b'a prompt'"),
        (b"\x93NUMPX\x01\x00", r"b'\x93NUMPX\x01\x00'"),
        # A pickle that torch did not write is not even tried.
        (b"\x80\x02cos\nsystem\n", r"b'\x80\x02cos\nsy'"),
    ],
)
def test_garbage_is_refused(tmp_path, name, content, start):
  path = tmp_path / name
  path.write_bytes(content)
  assert refusal(path) == (
      f"{path}: found a file that starts with {start}, expected a whole .npy,"
      " safetensors or torch file"
  )


def test_a_missing_file(tmp_path):
  path = tmp_path / "p.npy"
  assert refusal(path) == f"{path}: cannot read: No such file or directory"


# Our own safetensors


def test_a_prompt_file_brings_its_masks_and_scores(tmp_path):
  arrays = {
      "prompt": PROMPT,
      "token_mask": np.array([[1, 0, 1]], np.int8),
      "piece_mask": np.array([[[1, 0], [0, 0], [1, 1]]], bool),
      "token_scores": np.array([0.1, 0.0, 2.0]),
      "piece_scores": np.zeros((3, 2), np.float32),
      "start": np.full((9, 9), np.nan),
  }
  path = save(tmp_path / "p", **arrays)
  found = read(path)
  assert {k: (v.shape, str(v.dtype)) for k, v in found.items()} == {
      "prompt": ((1, 3, 4), "float32"),
      "token_mask": ((1, 3), "float32"),
      "piece_mask": ((1, 3, 2), "float32"),
      "token_scores": ((1, 3), "float64"),
      "piece_scores": ((1, 3, 2), "float32"),
  }
  np.testing.assert_array_equal(found["prompt"], [PROMPT])
  np.testing.assert_array_equal(found["token_mask"], [[1, 0, 1]])
  np.testing.assert_array_equal(found["piece_mask"], arrays["piece_mask"])
  np.testing.assert_array_equal(found["token_scores"], [[0.1, 0, 2]])


def test_the_masks_of_a_file_decide_the_pieces(tmp_path):
  rows = np.stack([PROMPT, -PROMPT])
  pieces = np.ones((2, 3, 2), np.float32)
  path = save(
      tmp_path / "p",
      prompt=rows,
      token_mask=np.array([[1, 1, 0], [1, 1, 1]], np.float32),
      piece_mask=pieces,
  )
  prompt, masks = prompt_formats.read_table(path, embed_dim=4, num_pieces=4)
  np.testing.assert_array_equal(prompt, rows)
  # A pruned token has no pieces, whatever the file says.
  np.testing.assert_array_equal(
      masks.piece_mask,
      [[[1, 1], [1, 1], [0, 0]], [[1, 1], [1, 1], [1, 1]]],
  )


def test_a_token_mask_alone_prunes_the_pieces_of_its_tokens(tmp_path):
  mask = np.array([1, 0, 1], np.float32)
  path = save(tmp_path / "p", prompt=PROMPT, token_mask=mask)
  _, masks = prompt_formats.read_table(path, embed_dim=4, num_pieces=2)
  np.testing.assert_array_equal(masks.piece_mask, [[[1, 1], [0, 0], [1, 1]]])


@pytest.mark.parametrize(
    ("arrays", "line"),
    [
        (
            {"token_mask": ONES[:, :2, 0]},
            "token_mask: found (1, 2), expected (1, 3)",
        ),
        (
            {"token_mask": ONES[0, :, 0] / 2},
            "token_mask: found 'other values', expected only 1 (keep) and 0"
            " (pruned)",
        ),
        (
            {"token_mask": np.array(1.0)},
            "token_mask: found (), expected (1, 3)",
        ),
        (
            {"piece_mask": np.ones((3, 3), np.float32)},
            "piece_mask: found (3, 3), expected [R, P, K] = (1, 3, K) with a K"
            " that divides 4",
        ),
        (
            {"piece_mask": ONES[..., :0]},
            "piece_mask: found (1, 3, 0), expected [R, P, K] = (1, 3, K) with a"
            " K that divides 4",
        ),
        (
            {"piece_mask": ONES[:, :2]},
            "piece_mask: found (1, 2, 2), expected (1, 3, 2)",
        ),
        (
            {"piece_mask": ONES, "piece_scores": np.ones((1, 3, 4))},
            "piece_scores: found (1, 3, 4), expected (1, 3, 2)",
        ),
        (
            {"token_scores": -ONES[..., 0]},
            "token_scores: found -1.0, expected importance scores >= 0",
        ),
    ],
)
def test_masks_that_do_not_fit_are_refused(tmp_path, arrays, line):
  path = save(tmp_path / "p", prompt=PROMPT, **arrays)
  assert refusal(path) == f"{path}: {line}"


def test_other_safetensors_are_refused_by_their_names(tmp_path):
  ones = np.ones(2, np.float32)
  path = save(tmp_path / "p", a=ones)
  assert refusal(path) == (
      f"{path}: found 'a', expected a tensor named 'prompt', or"
      " 'prompt_embeddings' (PEFT)"
  )
  path = save(tmp_path / "q", e=ones, d=ones, c=ones, b=ones, a=ones)
  assert refusal(path).startswith(f"{path}: found 'a', 'b', 'c' and 2 more, ")


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16, np.float64])
def test_safetensors_of_other_dtypes(tmp_path, dtype):
  path = save(tmp_path / "p", prompt=PROMPT.astype(dtype))
  np.testing.assert_array_equal(read(path)["prompt"], [PROMPT])


def test_a_dtype_that_numpy_has_not(tmp_path):
  header = json.dumps(
      {"prompt": {"dtype": "F8_E5M2", "shape": [3, 4], "data_offsets": [0, 12]}}
  ).encode()
  path = tmp_path / "p"
  path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(12))
  assert refusal(path) == (
      f"{path}: prompt: found dtype F8_E5M2, expected one that NumPy has"
  )


# Folders


def test_folders_of_runs_and_exports(tmp_path):
  assert refusal(tmp_path) == (
      f"{tmp_path}: found no prompt in this folder, expected one of"
      " prompt.npy, prompt.safetensors, soft_embeds.pt, compact.safetensors,"
      " or a PEFT adapter with adapter_config.json"
  )
  npy.write(tmp_path / "prompt.npy", PROMPT)
  np.testing.assert_array_equal(read(tmp_path)["prompt"], [PROMPT])
  native.write(tmp_path / "prompt.safetensors", {"prompt": PROMPT})
  assert refusal(tmp_path) == (
      f"{tmp_path}: found 'prompt.npy', 'prompt.safetensors', expected one of"
      " prompt.npy, prompt.safetensors, soft_embeds.pt, compact.safetensors,"
      " or a PEFT adapter with adapter_config.json"
  )
