"""Prompts that go to PEFT and transformers, and come from them.

A prompt tuned here and exported gives the same logits and the same text in
PEFT; a prompt tuned by PEFT gives the same logits here.
"""

import contextlib
import io
import json
import re
import shutil
import warnings

import jax.numpy as jnp
import numpy as np
import pytest

from tests import examples, shared_data, torch_models
from tests.command_line import run
from xprompt_jax import artifacts, prompt_formats
from xprompt_jax.tasks import mini_language
from xprompt_jax.weights import bundled, checkpoints, huggingface

_REASON = "needs peft: pip install -e '.[torch]'"
pytest.importorskip("peft", reason=_REASON)
peft = shared_data.quiet_import("peft")
torch = torch_models.torch
transformers = torch_models.transformers

pytestmark = [
    pytest.mark.interop,
    # PEFT asks transformers for what it now calls otherwise.
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

# L of the decoder's inputs.
MAX_LENGTH = 4
TEXTS = [
    mini_language.model_text("mini_boolq", row)[0]
    for row in mini_language.rows("mini_boolq", "test")[:12]
]
# Of different lengths, so that batches are padded.
TEXTS[3:5] = ["question: does tom have a red cup", "hello"]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
  """The bundled T5 as a Hugging Face folder, with its tokenizer."""
  folder = tmp_path_factory.mktemp("base") / "t5"
  config = bundled.bundled_config()
  huggingface.write_folder(
      folder, config, checkpoints.open_checkpoint("bundled", config)
  )
  shutil.copy(
      checkpoints.BUNDLED / "sentencepiece.model", folder / "spiece.model"
  )
  tokenizer = {"tokenizer_class": "T5Tokenizer", "extra_ids": 32}
  (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
  return folder


@pytest.fixture(scope="module")
def tuned(base, tmp_path_factory):
  """A short run on that folder: its arguments, and WORKDIR."""
  workdir = tmp_path_factory.mktemp("tuned") / "run"
  arguments = (
      "--gin_file=xprompt_demo.gin",
      f"--gin.CHECKPOINT='{base}'",
      "--gin.FROZEN_DTYPE='float32'",
      "--gin.TaskConfig.max_examples=48",
      "--gin.PROMPT_LENGTH=6",
      "--gin.SEEDS=(3,)",
      "--gin.BATCH_SIZE=8",
      "--gin.NUM_STEPS=12",
      "--gin.EVAL_EVERY_STEPS=6",
      "--gin.TOKEN_RATIOS=(0.3,)",
      "--gin.PIECE_RATIOS=(0.4,)",
      f"--workdir={workdir}",
  )
  with contextlib.redirect_stdout(io.StringIO()):
    assert run("train", *arguments) == 0
  return arguments, workdir


def load_base(base):
  return torch_models.load(base).float()


def padded(rows) -> np.ndarray:
  """Ids of different lengths as [B, T], padded with 0."""
  length = max(map(len, rows))
  return np.array([[*row, *[0] * (length - len(row))] for row in rows])


def tokens() -> np.ndarray:
  vocabulary = examples.bundled_vocabulary()
  return padded([[*vocabulary.encode(t), vocabulary.eos_id] for t in TEXTS])


DECODER_INPUTS = np.array([[0, 8, 1, 5]] * len(TEXTS))


def logits_here(folder) -> np.ndarray:
  """Logits of `TEXTS` behind the prompt that is read from a folder."""
  model, params = examples.bundled_model()
  prompt = prompt_formats.read_prompt(folder, model.t5_config.emb_dim)
  ids = jnp.asarray(tokens())
  masked = jnp.repeat(jnp.asarray(prompt["prompt"]), len(ids), axis=0)
  batch = {
      "encoder_input_tokens": ids,
      "decoder_input_tokens": jnp.asarray(DECODER_INPUTS),
  }
  visible = jnp.ones(masked.shape[:2], bool)
  return np.asarray(model.logits(params, masked, visible, batch))


def logits_there(model) -> np.ndarray:
  ids = torch.tensor(tokens()).long()
  with torch.no_grad():
    return model(
        input_ids=ids,
        attention_mask=(ids > 0).long(),
        decoder_input_ids=torch.tensor(DECODER_INPUTS).long(),
    ).logits.numpy()


def check_logits(found: np.ndarray, expected: np.ndarray) -> None:
  """Equal in float32: prompts of this size make logits of 20 and more."""
  error, largest = np.abs(found - expected).max(), np.abs(expected).max()
  print(f"largest difference of a logit {error:.1e}, largest logit {largest}")
  assert error < 1e-5 * largest


def texts_there(model) -> list[str]:
  ids = torch.tensor(tokens()).long()
  found = model.generate(
      input_ids=ids,
      attention_mask=(ids > 0).long(),
      max_new_tokens=MAX_LENGTH,
      do_sample=False,
  )
  decode = examples.bundled_vocabulary().decode
  # Theirs begin with the start token.
  return [decode(row[1:].tolist()) for row in found]


def infer_here(arguments, tmp_path, *more) -> list[str]:
  source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
  lines = [json.dumps({"inputs": text}) + "\n" for text in TEXTS]
  source.write_text("".join(lines))
  files = (f"--input={source}", f"--output={target}")
  assert run("infer", *arguments, *files, *more) == 0
  return [json.loads(x)["prediction"] for x in target.read_text().splitlines()]


@pytest.mark.parametrize("more", [(), ("--remove_pruned_tokens",)])
def test_a_prompt_tuned_here_is_the_same_in_peft(
    base, tuned, tmp_path, capsys, more
):
  arguments, _ = tuned
  output = tmp_path / "adapter"
  export = ("export", *arguments, "--format=peft", f"--output={output}")
  assert run(*export, *more) == 0
  line = json.loads(capsys.readouterr().out)
  assert line["tickets"][0]["kept_tokens"] <= 4
  assert line["prompt_length"] == (4 if more else 6)
  model = peft.PeftModel.from_pretrained(load_base(base), output).eval()
  expected = logits_there(model)
  found = logits_here(output)
  check_logits(found, expected)
  texts = texts_there(model)
  given = () if not more else (f"--gin.PROMPT_FILE='{output}'",)
  assert infer_here(arguments, tmp_path, *given) == texts
  # The prompt decides what is said.
  plain = load_base(base)
  plain.generation_config.max_length = None
  assert texts_there(plain) != texts


def test_the_card_loads_the_adapter(base, tuned, tmp_path, capsys, monkeypatch):
  arguments, _ = tuned
  output = tmp_path / "adapter"
  export = ("export", *arguments, "--format=peft", f"--output={output}")
  assert run(*export) == 0
  capsys.readouterr()
  card = (output / "README.md").read_text()
  (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
  assert f'base = "{base}"' in code
  assert '["TEXT"]' in code
  # As a user would: in the card's folder, with own texts.
  monkeypatch.chdir(output)
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    exec(code.replace('["TEXT"]', repr(TEXTS)), {})
  printed = capsys.readouterr().out
  assert printed.strip() == str(infer_here(arguments, tmp_path))


def tune_in_peft(base, folder, modules: int) -> peft.PeftModel:
  """A few steps of prompt tuning by PEFT, saved by its own writer."""
  torch.manual_seed(0)
  config = peft.PromptTuningConfig(
      task_type="SEQ_2_SEQ_LM",
      num_virtual_tokens=5,
      num_transformer_submodules=modules,
      prompt_tuning_init="RANDOM",
  )
  model = peft.get_peft_model(load_base(base), config)
  assert model.get_nb_trainable_parameters()[0] == 5 * modules * 128
  optimizer = torch.optim.AdamW(
      [p for p in model.parameters() if p.requires_grad], lr=0.3
  )
  ids = torch.tensor(tokens()).long()
  answers = torch.tensor([[8, 1], [9, 1]]).repeat(len(TEXTS) // 2, 1)
  losses = []
  for _ in range(5):
    loss = model(
        input_ids=ids, attention_mask=(ids > 0).long(), labels=answers
    ).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    losses.append(loss.item())
  assert losses[-1] < losses[0]
  model.save_pretrained(folder, safe_serialization=True)
  return model.eval()


@pytest.mark.parametrize("modules", [1, 2])
def test_a_prompt_tuned_by_peft_is_the_same_here(
    base, tuned, tmp_path, capsys, modules
):
  folder = tmp_path / "adapter"
  model = tune_in_peft(base, folder, modules)
  saved = artifacts.load_arrays(folder / "adapter_model.safetensors")
  assert saved["prompt_embeddings"].shape == (5 * modules, 128)
  for path in (folder, folder / "adapter_model.safetensors"):
    check_logits(logits_here(path), logits_there(model))
  arguments, _ = tuned
  given = f"--gin.PROMPT_FILE='{folder}'"
  assert infer_here(arguments, tmp_path, given) == texts_there(model)
  # And out again: PEFT reads what is written of it, one module and all.
  output = tmp_path / "again"
  export = ("export", *arguments, "--format=peft", f"--output={output}", given)
  assert run(*export) == 0
  capsys.readouterr()
  again = peft.PeftModel.from_pretrained(load_base(base), output).eval()
  np.testing.assert_array_equal(logits_there(again), logits_there(model))


def test_the_older_weights_of_peft_are_read(base, tmp_path):
  folder = tmp_path / "adapter"
  model = tune_in_peft(base, folder, 2)
  state = {"prompt_embeddings": model.get_prompt_embedding_to_save("default")}
  (folder / "adapter_model.safetensors").unlink()
  torch.save(state, folder / "adapter_model.bin")
  check_logits(logits_here(folder), logits_there(model))


class SoftTemplate(torch.nn.Module):
  """What of OpenPrompt's template decides its state dict and its inputs."""

  def __init__(self, model, num_tokens: int):
    super().__init__()
    self.raw_embedding = model.get_input_embeddings()
    start = torch.zeros(num_tokens, self.raw_embedding.weight.shape[1])
    self.soft_embeds = torch.nn.Parameter(start)


def test_openprompts_template_takes_the_file(base, tuned, tmp_path, capsys):
  arguments, _ = tuned
  output = tmp_path / "out"
  export = ("export", *arguments, "--format=openprompt", f"--output={output}")
  assert run(*export) == 0
  capsys.readouterr()
  model = load_base(base)
  template = SoftTemplate(model, num_tokens=6)
  state = torch.load(output / "soft_embeds.pt", weights_only=True)
  result = template.load_state_dict(state, strict=False)
  assert result.missing_keys == ["raw_embedding.weight"]
  assert result.unexpected_keys == []
  prompt = template.soft_embeds.detach().numpy()
  expected = torch_models.logits(model, tokens(), DECODER_INPUTS, prompt)
  assert np.abs(logits_here(output) - expected).max() < 1e-4
  # What the template itself would save is read as well.
  path = tmp_path / "template.ckpt"
  torch.save(template.state_dict(), path)
  np.testing.assert_array_equal(
      prompt_formats.read_prompt(path, 128)["prompt"], prompt[None]
  )
