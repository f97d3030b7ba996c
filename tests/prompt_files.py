"""A prompt, and files that hold it, for the tests of every format."""

import json

import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

from xprompt_jax import prompt_formats
from xprompt_jax.prompt_formats import peft
from xprompt_jax.types import UserError

# P 3, H 4, K 2.
PROMPT = np.arange(12, dtype=np.float32).reshape(3, 4) / 8
ONES = np.ones((1, 3, 2), np.float32)
BASE = peft.BaseModel(
    name="google/t5", revision=None, num_layers=2, num_heads=3
)
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


def read(path, embed_dim=4):
  return prompt_formats.read_prompt(path, embed_dim)


def refusal(path, embed_dim=4):
  """The one line that reading a path ends in."""
  with pytest.raises(UserError) as refused:
    read(path, embed_dim)
  line = str(refused.value)
  assert "\n" not in line
  return line


def save(path, **arrays):
  safetensors_numpy.save_file(arrays, path)
  return path


def adapter(folder, tensor=PROMPT, name="prompt_embeddings", **changes):
  folder.mkdir(exist_ok=True)
  (folder / "adapter_config.json").write_text(json.dumps({**CONFIG, **changes}))
  save(folder / "adapter_model.safetensors", **{name: tensor})
  return folder
