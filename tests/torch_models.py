"""Small T5s made, saved and computed by transformers, for comparisons.

Importing this module skips the test module that does so where torch or
transformers are missing.
"""

import json
import pathlib

import numpy as np
import pytest

from tests import shared_data

_REASON = "needs torch and transformers: pip install -e '.[torch]'"
pytest.importorskip("torch", reason=_REASON)
pytest.importorskip("transformers", reason=_REASON)

torch = shared_data.quiet_import("torch")
transformers = shared_data.quiet_import("transformers")
# Threads take longer to meet than these models to compute.
torch.set_num_threads(1)
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

# heads * d_kv is not d_model, nothing is symmetric.
_SIZES = {
    "vocab_size": 40,
    "d_model": 12,
    "d_kv": 5,
    "d_ff": 14,
    "num_heads": 3,
    "num_layers": 2,
    "num_decoder_layers": 3,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 10,
    "dropout_rate": 0.0,
    "decoder_start_token_id": 0,
}
_GATED = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
_MORE_ENCODER = {"num_layers": 6, "num_decoder_layers": 2, "vocab_size": 384}

# Large enough that outputs differ, small enough that attention does not settle
# on one position and blow rounding up.
_SCALE = 0.5

# Family: transformers' name of it, what its config differs in, whether logits
# come from the embedding table.
FAMILIES = {
    "t5_1.0": ("T5", {"feed_forward_proj": "relu"}, True),
    "t5_1.1": ("T5", _GATED, False),
    "mt5": ("MT5", {**_GATED, "vocab_size": 3000}, False),
    "byt5": ("T5", {**_GATED, **_MORE_ENCODER}, False),
    "umt5": ("UMT5", {"feed_forward_proj": "gated-gelu"}, True),
}
WAYS_TO_SAVE = ("safetensors", "sharded", "bin", "legacy_bin", "sharded_bin")
"""Of `save`: transformers' own safetensors, and what torch.save writes."""


def make(
    family: str,
    seed: int = 0,
    *,
    dtype: str = "float32",
    eos: bool = False,
    own_head: bool | None = None,
):
  """A model with random weights.

  Args:
    family: one of `FAMILIES`.
    seed: of the weights.
    dtype: of the weights.
    eos: make EOS likely, so that some sequences end.
    own_head: whether the output layer has weights of its own; None means what
      the family has.
  """
  name, differences, tied = FAMILIES[family]
  config = getattr(transformers, f"{name}Config")(**{**_SIZES, **differences})
  model = getattr(transformers, f"{name}ForConditionalGeneration")(config)
  if not tied if own_head is None else own_head:
    # transformers 5 starts with tied weights whatever the config says.
    head = torch.empty_like(model.lm_head.weight)
    model.lm_head.weight = torch.nn.Parameter(head)
  rng = np.random.default_rng(seed)
  with torch.no_grad():
    for parameter in model.parameters():
      values = rng.standard_normal(tuple(parameter.shape), np.float32)
      parameter.copy_(torch.tensor(values * _SCALE))
    if eos:
      model.lm_head.weight[1] *= 3
  return model.eval().to(getattr(torch, dtype))


def save(model, folder: pathlib.Path, way: str = "safetensors") -> None:
  """Saves a model in one of `WAYS_TO_SAVE`."""
  if way in ("safetensors", "sharded"):
    size = "10KB" if way == "sharded" else "5GB"
    model.save_pretrained(folder, max_shard_size=size)
    return
  model.config.save_pretrained(folder)
  model.generation_config.save_pretrained(folder)
  file = folder / "pytorch_model.bin"
  if way == "sharded_bin":
    _save_shards(model.state_dict(), file)
    return
  new = way == "bin"
  torch.save(model.state_dict(), file, _use_new_zipfile_serialization=new)


def _save_shards(state: dict, file: pathlib.Path, count: int = 3) -> None:
  """As transformers 4 wrote them: name by name, copies in several shards."""
  names = sorted(state)
  weight_map = {}
  for i in range(count):
    shard = f"{file.stem}-{i + 1:05d}-of-{count:05d}{file.suffix}"
    part = {name: state[name] for name in names[i::count]}
    torch.save(part, file.with_name(shard))
    weight_map |= dict.fromkeys(part, shard)
  index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
  file.with_name(f"{file.name}.index.json").write_text(json.dumps(index))


def load(folder: pathlib.Path):
  """The model as transformers reads a folder."""
  config = transformers.AutoConfig.from_pretrained(folder)
  name = type(config).__name__.removesuffix("Config")
  model_class = getattr(transformers, f"{name}ForConditionalGeneration")
  return model_class.from_pretrained(folder).eval()


def edit_config(folder: pathlib.Path, **fields) -> None:
  """Sets fields of `config.json`; None removes one."""
  path = folder / "config.json"
  config = {**json.loads(path.read_text()), **fields}
  kept = {k: v for k, v in config.items() if v is not None}
  path.write_text(json.dumps(kept))


def _encoder_inputs(model, tokens: np.ndarray, prompt: np.ndarray | None):
  """Embedded inputs behind a prompt [P, H], and their attention mask."""
  ids = torch.tensor(tokens).long()
  mask = (ids > 0).long()
  embedded = model.get_input_embeddings()(ids)
  if prompt is not None:
    front = torch.tensor(prompt).expand(len(ids), *prompt.shape)
    embedded = torch.cat([front.to(embedded.dtype), embedded], dim=1)
    mask = torch.cat([torch.ones(front.shape[:2]).long(), mask], dim=1)
  return {"inputs_embeds": embedded, "attention_mask": mask}


def logits(model, tokens, decoder_inputs, prompt=None) -> np.ndarray:
  """transformers' logits [B, L, V] of tokens [B, T] behind a prompt [P, H]."""
  with torch.no_grad():
    return (
        model(
            **_encoder_inputs(model, tokens, prompt),
            decoder_input_ids=torch.tensor(decoder_inputs).long(),
        )
        .logits.float()
        .numpy()
    )


def generate(model, tokens, max_length: int, prompt=None) -> np.ndarray:
  """transformers' greedy tokens [B, L], without the start token."""
  found = model.generate(
      **_encoder_inputs(model, tokens, prompt),
      max_new_tokens=max_length,
      do_sample=False,
      decoder_start_token_id=0,
      use_cache=False,  # Theirs wants as many layers as the encoder has.
  )
  found = found[:, 1:].numpy()
  # Theirs ends with the longest row.
  return np.pad(found, ((0, 0), (0, max_length - found.shape[1])))


def state_bytes(model) -> dict[str, bytes]:
  """The bytes of every tensor of a model, by name."""
  integers = {2: torch.int16, 4: torch.int32}
  return {
      name: tensor.view(integers[tensor.element_size()]).numpy().tobytes()
      for name, tensor in model.state_dict().items()
  }
