"""Every format a prompt is read from, byte by byte, and what is refused."""

import json
import struct

import ml_dtypes
import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

from tests import shared_data
from xprompt_jax import prompt_formats
from xprompt_jax.prompt_formats import (
    compact,
    native,
    npy,
    openprompt,
    peft,
    torch_file,
)
from xprompt_jax.types import PromptMasks, UserError

# P 3, H 4.
PROMPT = np.arange(12, dtype=np.float32).reshape(3, 4) / 8
BASE = peft.BaseModel(
    name="google/t5", revision=None, num_layers=2, num_heads=3
)


def read(path, embed_dim=4):
  return prompt_formats.read_prompt(path, embed_dim)


def refusal(path, embed_dim=4):
  with pytest.raises(UserError) as refused:
    read(path, embed_dim)
  line = str(refused.value)
  assert "\n" not in line
  return line


def save(path, **arrays):
  safetensors_numpy.save_file(arrays, path)
  return path


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
        (lambda b: b.replace(b"(3, 4)", b"(-3,4)"), ""),
        (lambda b: b.replace(b"(3, 4)", b"('a', "), ""),
        (lambda b: b.replace(b", 4), ", b", 4**40"), ""),
        (
            lambda b: b.replace(
                b"(3, 4), }            ", b"(99999999999999, 4), }"
            ),
            "",
        ),
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


ONES = np.ones((1, 3, 2), np.float32)


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
  believed = 0
  for place in range(len(content)):
    changed = bytearray(content)
    changed[place] ^= 0x20
    path.write_bytes(changed)
    try:
      found = read(path)
    except UserError as e:
      assert str(e).startswith(f"{path}: ") and "\n" not in str(e)
    else:
      # The name of the sum itself, in the header: the tensors are whole.
      assert place < header
      np.testing.assert_array_equal(found["prompt"], [PROMPT])
      believed += 1
  assert believed < 20
  for length in range(len(content)):
    path.write_bytes(content[:length])
    assert refusal(path).startswith(f"{path}: ")


# Compact


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


# PEFT

CONFIG = {
    "base_model_name_or_path": "google/t5",
    "inference_mode": True,
    "num_attention_heads": 3,
    "num_layers": 2,
    "num_transformer_submodules": 1,
    "num_virtual_tokens": 3,
    "peft_type": "PROMPT_TUNING",
    "prompt_tuning_init": "RANDOM",
    "revision": None,
    "task_type": "SEQ_2_SEQ_LM",
    "token_dim": 4,
}


def adapter(folder, tensor=PROMPT, name="prompt_embeddings", **changes):
  folder.mkdir(exist_ok=True)
  (folder / "adapter_config.json").write_text(json.dumps({**CONFIG, **changes}))
  save(folder / "adapter_model.safetensors", **{name: tensor})
  return folder


def test_peft_as_it_is_written(tmp_path):
  assert peft.write(tmp_path, PROMPT, BASE) == [
      "adapter_model.safetensors",
      "adapter_config.json",
  ]
  text = (tmp_path / "adapter_config.json").read_text()
  assert json.loads(text) == CONFIG
  content = (tmp_path / "adapter_model.safetensors").read_bytes()
  size = int.from_bytes(content[:8], "little")
  header = json.loads(content[8 : 8 + size])
  assert header["__metadata__"]["format"] == "pt"
  assert header["prompt_embeddings"] == {
      "dtype": "F32",
      "shape": [3, 4],
      "data_offsets": [0, 48],
  }
  assert content[8 + size :] == PROMPT.tobytes()


def test_peft_folder_or_its_weights(tmp_path):
  folder = adapter(tmp_path / "a")
  for path in (folder, folder / "adapter_model.safetensors"):
    np.testing.assert_array_equal(read(path)["prompt"], [PROMPT])


def test_of_two_submodules_the_encoders_rows_are_taken(tmp_path):
  both = np.concatenate([PROMPT, -PROMPT])
  for modules in (2, None):
    folder = adapter(tmp_path / "a", both, num_transformer_submodules=modules)
    np.testing.assert_array_equal(read(folder)["prompt"], [PROMPT])
  folder = adapter(tmp_path / "a", num_transformer_submodules=None)
  np.testing.assert_array_equal(read(folder)["prompt"], [PROMPT])


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"peft_type": kind},
            f"adapter_config.json: peft_type: found '{kind}', expected"
            " 'PROMPT_TUNING', the one adapter that is a prompt and nothing"
            " else",
        )
        for kind in (
            "LORA",
            "P_TUNING",
            "PREFIX_TUNING",
            "MULTITASK_PROMPT_TUNING",
        )
    ]
    + [
        (
            {"task_type": "CAUSAL_LM"},
            "adapter_config.json: task_type: found 'CAUSAL_LM', expected"
            " 'SEQ_2_SEQ_LM'",
        ),
        (
            {"num_virtual_tokens": "3"},
            "adapter_config.json: num_virtual_tokens: found '3', expected an"
            " integer >= 1",
        ),
        (
            {"num_transformer_submodules": 3},
            "adapter_config.json: num_transformer_submodules: found 3, expected"
            " 1 (encoder) or 2 (encoder and decoder)",
        ),
        (
            {"num_transformer_submodules": True},
            "adapter_config.json: num_transformer_submodules: found True,"
            " expected 1 (encoder) or 2 (encoder and decoder)",
        ),
        (
            {"num_transformer_submodules": 2},
            "adapter_model.safetensors: prompt_embeddings: found (3, 4),"
            " expected 6 rows, as adapter_config.json says",
        ),
        (
            {"num_virtual_tokens": 2, "num_transformer_submodules": None},
            "adapter_model.safetensors: prompt_embeddings: found (3, 4),"
            " expected 2 or 4 rows, as adapter_config.json says",
        ),
        (
            {"tensor": PROMPT[0]},
            "adapter_model.safetensors: prompt_embeddings: found (4,), expected"
            " 3 rows, as adapter_config.json says",
        ),
        (
            {"token_dim": 5},
            "adapter_config.json: token_dim: found 5, expected 4, the width of"
            " prompt_embeddings in adapter_model.safetensors",
        ),
        (
            {"tensor": PROMPT[:, :2], "token_dim": 2},
            "adapter_model.safetensors: prompt: found (3, 2), expected [P, 4]"
            " or [R, P, 4]: the model's emb_dim is 4",
        ),
        (
            {"tensor": PROMPT * np.nan},
            "adapter_model.safetensors: prompt: found 'NaN or infinity',"
            " expected finite numbers",
        ),
        (
            {"name": "embeddings"},
            "adapter_model.safetensors: found 'embeddings', expected a tensor"
            " named 'prompt', or 'prompt_embeddings' (PEFT)",
        ),
    ],
)
def test_other_adapters_are_refused(tmp_path, changes, line):
  folder = adapter(tmp_path / "a", **changes)
  assert refusal(folder) == f"{folder}/{line}"


def test_an_adapter_that_is_more_than_a_prompt_is_refused(tmp_path):
  folder = adapter(tmp_path)
  path = save(
      folder / "adapter_model.safetensors",
      prompt_embeddings=PROMPT,
      head=PROMPT,
  )
  assert refusal(folder) == (
      f"{path}: found 'head', 'prompt_embeddings', expected"
      " 'prompt_embeddings' alone: another tensor would change the model"
  )


def test_parts_of_an_adapter(tmp_path):
  folder = adapter(tmp_path)
  config = folder / "adapter_config.json"
  weights = folder / "adapter_model.safetensors"
  text = config.read_text()
  for content, line in (
      ("", "not JSON: Expecting value: line 1 column 1 (char 0)"),
      ("[]", "found a list, expected an object"),
      (
          "[" * 99_999,
          "not JSON: maximum recursion depth exceeded while decoding a JSON"
          " array from a unicode string",
      ),
  ):
    config.write_text(content)
    assert refusal(folder) == f"{config}: {line}"
  config.unlink()
  assert refusal(weights) == (
      f"{config}: missing, expected PEFT's config beside"
      " adapter_model.safetensors: it says how many rows of prompt_embeddings"
      " are the encoder's"
  )
  config.write_text(text)
  weights.unlink()
  assert refusal(folder) == (
      f"{folder}: holds adapter_config.json alone, expected"
      " adapter_model.safetensors or adapter_model.bin beside it"
  )


# Folders


def test_folders_of_runs_and_exports(tmp_path):
  assert refusal(tmp_path) == (
      f"{tmp_path}: found no prompt in this folder, expected one of"
      " prompt.safetensors, prompt.npy, soft_embeds.pt, compact.safetensors,"
      " or a PEFT adapter with adapter_config.json"
  )
  npy.write(tmp_path / "prompt.npy", PROMPT)
  np.testing.assert_array_equal(read(tmp_path)["prompt"], [PROMPT])
  native.write(tmp_path / "prompt.safetensors", {"prompt": PROMPT})
  assert refusal(tmp_path) == (
      f"{tmp_path}: found 'prompt.npy', 'prompt.safetensors', expected one of"
      " prompt.safetensors, prompt.npy, soft_embeds.pt, compact.safetensors,"
      " or a PEFT adapter with adapter_config.json"
  )


def test_the_sum_in_export_json_is_checked(tmp_path):
  path, note = tmp_path / "prompt.npy", tmp_path / "export.json"
  npy.write(path, PROMPT)
  sha256 = "cb7c8a1b9fd03fba26d8dc7d1e9f8a0d59aa4df0bd8ea28d6c43c1f9bbd4d9a2"
  note.write_text(json.dumps({"file": "prompt.npy", "sha256": sha256}))
  line = refusal(tmp_path)
  assert line.startswith(f"{path}: contents have sha256 ")
  assert line.endswith(
      ", expected cb7c8a1b9fd0 by export.json: the file is damaged"
  )
  assert refusal(path) == line
  # It speaks of one file, by a name that is never followed.
  note.write_text(json.dumps({"file": "../prompt.npy", "sha256": sha256}))
  np.testing.assert_array_equal(read(path)["prompt"], [PROMPT])
  note.write_text("{")
  assert refusal(path).startswith(f"{note}: not JSON: ")


# torch's files

_REASON = "needs torch: pip install -e '.[torch]'"


@pytest.fixture
def torch():
  return pytest.importorskip("torch", reason=_REASON)


@pytest.fixture
def no_torch(monkeypatch):
  # None makes `import torch` raise.
  monkeypatch.setitem(__import__("sys").modules, "torch", None)


def test_without_torch_one_line_says_so(tmp_path, no_torch):
  path = tmp_path / "soft_embeds.pt"
  path.write_bytes(b"PK\x03\x04 and so on")
  line = (
      f"{path}: needs torch, which is not installed, expected it from `pip"
      " install torch`; safetensors and .npy need none"
  )
  assert refusal(path) == line
  with pytest.raises(UserError) as refused:
    openprompt.write(path, PROMPT)
  assert str(refused.value) == line


def test_openprompt_as_it_is_written(tmp_path, torch):
  path = tmp_path / "soft_embeds.pt"
  openprompt.write(path, PROMPT)
  found = torch.load(path, weights_only=True)
  assert list(found) == ["soft_embeds"]
  assert found["soft_embeds"].dtype == torch.float32
  np.testing.assert_array_equal(found["soft_embeds"].numpy(), PROMPT)
  np.testing.assert_array_equal(read(path)["prompt"], [PROMPT])
  np.testing.assert_array_equal(read(tmp_path)["prompt"], [PROMPT])


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda x, other: x,
        lambda x, other: {"soft_embeds": x, "raw_embedding.weight": other},
        lambda x, other: {
            "prompt_model.template.soft_embeds": x,
            "plm.shared.weight": other,
        },
        lambda x, other: {
            "state_dict": {"template.soft_embeds": x},
            "cur_epoch": 3,
            "best_score": 0.5,
        },
    ],
)
def test_openprompt_in_every_dictionary_people_save(
    tmp_path, torch, wrap, zipped
):
  path = tmp_path / "last.ckpt"
  tensor = torch.nn.Parameter(torch.tensor(PROMPT))
  torch.save(
      wrap(tensor, torch.ones(5, 4)),
      path,
      _use_new_zipfile_serialization=zipped,
  )
  np.testing.assert_array_equal(read(path)["prompt"], [PROMPT])


def test_dtypes_of_torch(tmp_path, torch):
  path = tmp_path / "p.pt"
  for dtype in (torch.bfloat16, torch.float16, torch.float64):
    torch.save(torch.tensor(PROMPT).to(dtype), path)
    np.testing.assert_array_equal(read(path)["prompt"], [PROMPT])


class _Own:
  """Not a tensor; unpickling it would run code of its choice."""


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (
            lambda x: {"weight": x, "bias": x},
            "found 'bias', 'weight', expected one tensor whose name ends in"
            " 'soft_embeds' (OpenPrompt), or 'prompt_embeddings' (PEFT)",
        ),
        (
            lambda x: {"a.soft_embeds": x, "soft_embeds": x},
            "found 'a.soft_embeds', 'soft_embeds', expected one tensor whose"
            " name ends in 'soft_embeds' (OpenPrompt), or 'prompt_embeddings'"
            " (PEFT)",
        ),
        (
            lambda x: {},
            "found nothing, expected one tensor whose name ends in"
            " 'soft_embeds' (OpenPrompt), or 'prompt_embeddings' (PEFT)",
        ),
        (
            lambda x: {"soft_embeds": [1.0]},
            "soft_embeds: found list, expected a tensor",
        ),
        (
            lambda x: {"soft_embeds": x.to_sparse()},
            "soft_embeds: found torch.float32 torch.sparse_coo on cpu, expected"
            " a dense tensor of numbers",
        ),
        (
            lambda x: {"soft_embeds": x[:, :3]},
            "prompt: found (3, 3), expected [P, 4] or [R, P, 4]: the model's"
            " emb_dim is 4",
        ),
        (
            lambda x: {"soft_embeds": _Own()},
            "not a whole torch file: holds other things than tensors",
        ),
        (lambda x: 3, "soft_embeds: found int, expected a tensor"),
    ],
)
def test_other_torch_files_are_refused(tmp_path, torch, content, line):
  path = tmp_path / "p.pt"
  torch.save(content(torch.tensor(PROMPT)), path)
  assert refusal(path) == f"{path}: {line}"


def test_one_changed_byte_of_a_torch_file_is_refused(tmp_path, torch):
  path = tmp_path / "p.pt"
  openprompt.write(path, PROMPT)
  content = path.read_bytes()
  place = content.index(PROMPT[2].tobytes())
  changed = bytearray(content)
  changed[place] ^= 1
  path.write_bytes(changed)
  line = refusal(path)
  assert line.startswith(f"{path}: not a whole torch file: ")
  assert line.endswith("/data/0 does not have its checksum")
  for length in (4, 60, len(content) // 2, len(content) - 1):
    path.write_bytes(content[:length])
    assert refusal(path) == (
        f"{path}: not a whole torch file: File is not a zip file"
    )


def test_an_archive_of_numpy_is_refused(tmp_path, torch):
  path = tmp_path / "p.npz"
  np.savez(path, prompt=PROMPT)
  assert refusal(path) == (
      f"{path}: not a whole torch file: a zip archive that torch did not write"
  )


def test_peft_weights_of_torch(tmp_path, torch):
  folder = adapter(tmp_path)
  (folder / "adapter_model.safetensors").unlink()
  path = folder / "adapter_model.bin"
  torch.save({"prompt_embeddings": torch.tensor(PROMPT)}, path)
  for name in (folder, path):
    np.testing.assert_array_equal(read(name)["prompt"], [PROMPT])
  torch.save(
      {"prompt_embeddings": torch.tensor(PROMPT), "a": torch.ones(1)}, path
  )
  assert refusal(folder) == (
      f"{path}: found 'a', 'prompt_embeddings', expected 'prompt_embeddings'"
      " alone: another tensor would change the model"
  )


def test_torch_is_not_asked_for_numbers_it_has_not(tmp_path, torch):
  with pytest.raises(UserError) as refused:
    torch_file.to_array(tmp_path, "t", torch.empty(2, device="meta"))
  assert str(refused.value) == (
      f"{tmp_path}: t: found torch.float32 torch.strided on meta, expected a"
      " dense tensor of numbers"
  )
