"""PEFT's folders as they are written and read, and what is refused."""

import json

import numpy as np
import pytest

from tests.prompt_files import (
    BASE,
    CONFIG,
    PROMPT,
    adapter,
    read,
    refusal,
    save,
)
from xprompt_jax.prompt_formats import (
    peft,
)


def test_peft_as_it_is_written(tmp_path):
  peft.write(tmp_path, PROMPT, BASE)
  assert {path.name for path in tmp_path.iterdir()} == {
      "adapter_model.safetensors",
      "adapter_config.json",
  }
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
