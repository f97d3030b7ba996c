"""Files of torch: what OpenPrompt and older PEFT save, and what is refused."""

import re

import numpy as np
import pytest

from tests.prompt_files import PROMPT, adapter, read, refusal
from xprompt_jax.prompt_formats import (
    openprompt,
    torch_file,
)
from xprompt_jax.types import UserError


@pytest.fixture
def no_torch(monkeypatch):
  # None makes `import torch` raise.
  monkeypatch.setitem(__import__("sys").modules, "torch", None)


def test_without_torch_one_line_says_so(tmp_path, no_torch):
  path = tmp_path / "soft_embeds.pt"
  path.write_bytes(b"PK\x03\x04 and so on")
  line = (
      f"{path}: needs torch, which is not installed: pip install"
      " 'xprompt-jax[torch]'; safetensors need none"
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
            "soft_embeds: found a list, expected a dense tensor",
        ),
        (
            lambda x: {"soft_embeds": x.to_sparse()},
            "soft_embeds: found a sparse_coo tensor on cpu, expected a dense"
            " tensor",
        ),
        (
            lambda x: {"soft_embeds": x._neg_view()},
            "soft_embeds: found a tensor that torch negates or conjugates when"
            " it is used, expected the numbers themselves, as resolve_neg() and"
            " resolve_conj() give them",
        ),
        (
            lambda x: {"soft_embeds": x[:, :3]},
            "prompt: found (3, 3), expected [P, 4] or [R, P, 4]: the model's"
            " emb_dim is 4",
        ),
        (
            lambda x: {"soft_embeds": _Own()},
            "wants to unpickle tests.test_prompt_torch._Own, expected nothing but"
            " tensors",
        ),
        (lambda x: 3, "soft_embeds: found a int, expected a dense tensor"),
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
  # The archive calls its folder after the file that it was written to first.
  assert re.fullmatch(
      re.escape(f"{path}: found another crc32 of ")
      + r"[^ /]+/data/0 than the file states, expected the same: the file is"
      " damaged",
      refusal(path),
  )
  for length in (4, 60, len(content) // 2, len(content) - 1):
    path.write_bytes(content[:length])
    assert refusal(path) == (
        f"{path}: not a whole file of torch.save: File is not a zip file"
    )


def test_an_archive_of_numpy_is_refused(tmp_path, torch):
  path = tmp_path / "p.npz"
  np.savez(path, prompt=PROMPT)
  assert refusal(path) == (
      f"{path}: found a zip archive without data.pkl, expected a file of"
      " torch.save"
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
      f"{tmp_path}: t: found a strided tensor on meta, expected a dense tensor"
  )
