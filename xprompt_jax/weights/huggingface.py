"""Reads and writes T5 checkpoints as Hugging Face's transformers keeps them.

A folder holds `config.json` (`huggingface_config.py`) and the weights in one
file or several (`huggingface_files.py`). Here their names and orientation are
translated: transformers keeps matrices as [out, in] and position biases as
[buckets, heads], this package [in, out] and [heads, buckets], as T5X does.
"""

from collections.abc import Mapping
import json
import os
import pathlib

import numpy as np

from xprompt_jax.t5.config import T5Config
from xprompt_jax.types import UserError
from xprompt_jax.weights import huggingface_config as configs
from xprompt_jax.weights import huggingface_files as files
from xprompt_jax.weights import new_folders, safetensors_file
from xprompt_jax.weights.leaves import Checkpoint, Leaf
from xprompt_jax.weights.stored_arrays import transposed

_EMBEDDING = "token_embedder/embedding"
_OUTPUT = "decoder/logits_dense/kernel"
_HEAD = "lm_head.weight"
# The names under which the embedding table may be found, all alike.
_EMBEDDING_NAMES = (
    "shared.weight",
    "encoder.embed_tokens.weight",
    "decoder.embed_tokens.weight",
)
# Released T5 1.0 has it; nothing ever used it.
_UNUSED = (
    "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
)

# Parts of a layer in their order there: here, there, the norm before them here.
_ENCODER_PARTS = (
    ("attention", "SelfAttention", "pre_attention_layer_norm"),
    ("mlp", "DenseReluDense", "pre_mlp_layer_norm"),
)
_DECODER_PARTS = (
    ("self_attention", "SelfAttention", "pre_self_attention_layer_norm"),
    (
        "encoder_decoder_attention",
        "EncDecAttention",
        "pre_cross_attention_layer_norm",
    ),
    ("mlp", "DenseReluDense", "pre_mlp_layer_norm"),
)
_PROJECTIONS = {"query": "q", "key": "k", "value": "v", "out": "o"}

_COMPARED_BYTES = 32 * 2**20


def tensor_names(config: T5Config) -> dict[str, str]:
  """What each parameter is called by transformers.

  Args:
    config: the network's.

  Returns:
    From the names there, such as
    `decoder.block.0.layer.1.EncDecAttention.q.weight`, to those here, such as
    `decoder/layers_0/encoder_decoder_attention/query/kernel`.
  """
  names = {"shared.weight": _EMBEDDING}
  stacks = (
      ("encoder", config.num_encoder_layers, _ENCODER_PARTS),
      ("decoder", config.num_decoder_layers, _DECODER_PARTS),
  )
  for stack, num_layers, parts in stacks:
    for i in range(num_layers):
      layer = f"{stack}/layers_{i}"
      for j, (here, there, norm) in enumerate(parts):
        prefix = f"{stack}.block.{i}.layer.{j}"
        names[f"{prefix}.layer_norm.weight"] = f"{layer}/{norm}/scale"
        for ours, theirs in _matrices(config, here).items():
          names[f"{prefix}.{there}.{theirs}.weight"] = (
              f"{layer}/{here}/{ours}/kernel"
          )
      if i == 0 or config.relpos_per_layer:
        owner = layer if config.relpos_per_layer else stack
        names[
            f"{stack}.block.{i}.layer.0.SelfAttention"
            ".relative_attention_bias.weight"
        ] = f"{owner}/relpos_bias/rel_embedding"
    names[f"{stack}.final_layer_norm.weight"] = f"{stack}/{stack}_norm/scale"
  if not config.logits_via_embedding:
    names[_HEAD] = _OUTPUT
  return names


def _matrices(config: T5Config, part: str) -> dict[str, str]:
  if part != "mlp":
    return _PROJECTIONS
  gated = len(config.mlp_activations) > 1
  return {n: n for n in (("wi_0", "wi_1", "wo") if gated else ("wi", "wo"))}


def _converted(name: str, leaf: Leaf) -> Leaf:
  """Turns a leaf over, in either direction."""
  return leaf if name == _EMBEDDING else transposed(leaf)


def read_config(folder: pathlib.Path) -> T5Config:
  """The network that a folder's `config.json` describes.

  Args:
    folder: of T5 1.0, 1.1, its LM-adapted form, Flan-T5, mT5, ByT5 or umT5,
      released or written by transformers.

  Returns:
    Its sizes and switches; dropout stays off.

  Raises:
    UserError: the file is missing or damaged, or states another network.
  """
  path = folder / configs.CONFIG
  if path.exists():
    files.check_place(path)
    files.check_blob(path)
  fields = configs.read_fields(folder)
  tied = configs.ties_output(path, fields)
  if tied is None:
    # Names come first: comparing checksums takes a pass over the files.
    tied = _HEAD not in files.read_tensors(folder, check=False)
    if not tied:
      tables = (*_EMBEDDING_NAMES, _HEAD)
      tied = _differing(files.read_tensors(folder), tables) is None
  return configs.config_of_fields(path, fields, tied=tied)


def open_folder(folder: pathlib.Path, config: T5Config) -> Checkpoint:
  """Opens the weights of a folder: reads names, shapes and dtypes.

  What is in the hub's cache, or has checksums of its own as torch's files do,
  is compared with them first, in one pass; plain safetensors files have none.

  Args:
    folder: of Hugging Face.
    config: the network's; it says how many layers there are, whether there is
      an output layer, and so on.

  Returns:
    Leaves by name. Tensors that the network does not have keep the name they
    have in the file.

  Raises:
    UserError: a file is missing or damaged, two copies of the embedding table
      differ, or a tensor has the name that T5X has for one of the network's.
  """
  tensors = files.read_tensors(folder)
  tensors.pop(_UNUSED, None)
  copies: tuple[str, ...] = _EMBEDDING_NAMES
  if config.logits_via_embedding:
    copies = (*copies, _HEAD)
  differing = _differing(tensors, copies)
  if differing:
    first, other = differing
    raise UserError(
        f"{other.file}: {other.tensor}: differs from {first.tensor}, expected"
        " the same weights: the network has one table for both"
    )
  present = [name for name in copies if name in tensors]
  tables = [tensors.pop(name) for name in present]
  if tables:
    tensors["shared.weight"] = tables[0]
    ties = configs.is_tied_in_file(configs.read_fields(folder))
    if ties and not config.logits_via_embedding:
      # transformers 5 leaves out an output layer that is the table.
      tensors.setdefault(_HEAD, tables[0])
  names = tensor_names(config)
  _check_unknown(
      {n: leaf for n, leaf in tensors.items() if n not in names}, names
  )
  return {
      names.get(n, n): _converted(names[n], leaf) if n in names else leaf
      for n, leaf in tensors.items()
  }


def _check_unknown(unknown: Checkpoint, names: dict[str, str]) -> None:
  """Refuses tensors that would be taken for translated ones."""
  theirs = {ours: name for name, ours in names.items()}
  for name, leaf in unknown.items():
    if name in theirs:
      raise UserError(
          f"{leaf.file}: {name}: found a name of T5X, expected transformers'"
          f" {theirs[name]} beside a config.json of transformers"
      )


def _differing(
    tensors: Checkpoint, names: tuple[str, ...]
) -> tuple[Leaf, Leaf] | None:
  """The first two tables that differ by a bit, of those that are there."""
  present = [tensors[name] for name in names if name in tensors]
  for other in present[1:]:
    if not _equal(present[0], other):
      return present[0], other
  return None


def _equal(a: Leaf, b: Leaf) -> bool:
  if a.shape != b.shape or a.dtype != b.dtype:
    return False
  row_bytes = safetensors_file.leaf_bytes(a) // max(1, a.shape[0])
  step = max(1, _COMPARED_BYTES // max(1, row_bytes))
  rest = (slice(None),) * (len(a.shape) - 1)
  for i in range(0, a.shape[0], step):
    index = (slice(i, i + step), *rest)
    # As bytes: a NaN equals itself, and zeros of both signs differ.
    first, second = (x.read(index).reshape(-1).view(np.uint8) for x in (a, b))
    if not np.array_equal(first, second):
      return False
  return True


def write_folder(
    folder: pathlib.Path,
    config: T5Config,
    checkpoint: Checkpoint,
    *,
    max_shard_bytes: int = 5 * 10**9,
    more_files: Mapping[str, bytes] | None = None,
) -> None:
  """Writes a checkpoint as transformers' `from_pretrained` reads it.

  `config.json`, `generation_config.json` and safetensors, in shards where they
  are larger than one. Every tensor keeps its dtype; at most a part of one is
  in memory. The folder appears when all of it is written; in one that exists
  the files do, `config.json` last.

  A umT5 with an output layer gets its logits from transformers 5 times
  d_model**-0.5, whatever the folder says: see `huggingface_config.ties_output`.

  Args:
    folder: is made; may exist if it is empty.
    config: the network's.
    checkpoint: its parameters, all of them.
    max_shard_bytes: of the weights in one file; a tensor that is larger gets a
      file of its own.
    more_files: contents by name: the tokenizer's.

  Raises:
    UserError: the folder is not empty or cannot be written, a parameter is
      missing or unexpected, a leaf cannot be read, or transformers has no such
      network.
  """
  tensors = _for_transformers(folder, config, checkpoint)
  dtypes = {np.dtype(leaf.dtype).name for leaf in tensors.values()}
  dtype = dtypes.pop() if len(dtypes) == 1 else None
  texts = {
      configs.CONFIG: configs.config_json(config, dtype),
      configs.GENERATION_CONFIG: configs.generation_config_json(),
  }
  shards = _planned(tensors, max_shard_bytes)
  if len(shards) > 1:
    texts[files.SAFETENSORS + files.INDEX] = _index_json(shards)
  contents = {name: text.encode() for name, text in texts.items()}
  contents |= more_files or {}
  with new_folders.new_folder(folder, last=configs.CONFIG) as temporary:
    for name, content in contents.items():
      (temporary / name).write_bytes(content)
    for name, part in shards.items():
      safetensors_file.write_file(temporary / name, part, {"format": "pt"})


def _for_transformers(
    folder: pathlib.Path, config: T5Config, checkpoint: Checkpoint
) -> dict[str, Leaf]:
  """The leaves under transformers' names and as it turns them."""
  names = tensor_names(config)
  problems = {
      "missing": set(names.values()) - checkpoint.keys(),
      "unexpected": checkpoint.keys() - set(names.values()),
  }
  found = [f"{k}: {files.listed(v)}" for k, v in problems.items() if v]
  if found:
    raise UserError(
        f"{folder}: not written: {'; '.join(found)}; expected the"
        f" {len(names)} parameters of T5Config"
    )
  tensors = {t: _converted(o, checkpoint[o]) for t, o in names.items()}
  # Readers have each of their files open but once.
  ordered = sorted(tensors, key=lambda n: (tensors[n].file, n))
  return {name: tensors[name] for name in ordered}


def _planned(
    tensors: dict[str, Leaf], max_shard_bytes: int
) -> dict[str, dict[str, Leaf]]:
  """What goes into which file."""
  shards: list[dict[str, Leaf]] = [{}]
  filled = 0
  for name, leaf in tensors.items():
    size = safetensors_file.leaf_bytes(leaf)
    if shards[-1] and filled + size > max_shard_bytes:
      shards.append({})
      filled = 0
    shards[-1][name] = leaf
    filled += size
  if len(shards) == 1:
    return {files.SAFETENSORS: shards[0]}
  stem, suffix = os.path.splitext(files.SAFETENSORS)
  count = len(shards)
  return {
      f"{stem}-{i:05d}-of-{count:05d}{suffix}": shard
      for i, shard in enumerate(shards, 1)
  }


def _index_json(shards: dict[str, dict[str, Leaf]]) -> str:
  sizes = [
      safetensors_file.leaf_bytes(leaf)
      for shard in shards.values()
      for leaf in shard.values()
  ]
  weight_map = {n: file for file, shard in shards.items() for n in shard}
  index = {
      "metadata": {"total_size": sum(sizes)},
      "weight_map": dict(sorted(weight_map.items())),
  }
  return json.dumps(index, indent=2) + "\n"
