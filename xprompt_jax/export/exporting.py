"""`t5x export`: a prompt as another program reads it, with its model card.

`prompt_formats` knows the files; this module chooses rows, leaves pruned tokens
out where that is asked for, and writes a folder that is whole or not there:
what is in it was read back and compared bit for bit with what was meant.
"""

from collections.abc import Iterator, Mapping
import contextlib
import hashlib
import importlib.metadata
import json
import os
import pathlib
import shutil
from typing import Any

import numpy as np

from xprompt_jax import (
    artifacts,
    prompt_formats,
    stored_prompts,
    torch_tensors,
)
from xprompt_jax import masks as masks_lib
from xprompt_jax.experiment import (
    Experiment,
    ExperimentConfig,
    load_experiment,
)
from xprompt_jax.export import (
    load_snippets,
    model_card,
    removal,
    run_records,
)
from xprompt_jax.export.model_card import Export
from xprompt_jax.prompt_formats import (
    compact,
    native,
    npy,
    openprompt,
    peft,
    reading,
)
from xprompt_jax.types import PromptMasks, UserError, require
from xprompt_jax.weights import checkpoints

FORMATS = ("peft", "npy", "safetensors", "openprompt", "compact")
# A prompt and nothing beside it: no place for masks.
_WITHOUT_MASKS = ("peft", "npy", "openprompt")
_FILES = {
    "peft": peft.FILE,
    "npy": npy.FILE,
    "safetensors": native.FILE,
    "openprompt": openprompt.FILE,
    "compact": compact.FILE,
}
_SCHEMA = 1
_PACKAGES = ("xprompt-jax", "jax", "numpy")


def _check_request(
    output_format: str, output: pathlib.Path, remove_pruned_tokens: bool
) -> None:
  """What can be refused before anything is loaded."""
  expected = f"one of {', '.join(FORMATS)}"
  require(output_format in FORMATS, "--format", output_format, expected)
  if remove_pruned_tokens and output_format == "compact":
    raise UserError(
        "--remove_pruned_tokens: found --format=compact, which holds kept"
        " pieces alone and the places they had, expected one of"
        f" {', '.join(f for f in FORMATS if f != 'compact')}"
    )
  if output_format == "openprompt":
    torch_tensors.import_torch("--format=openprompt")
  if output.exists() and (not output.is_dir() or any(output.iterdir())):
    what = "a folder that is not empty" if output.is_dir() else "a file"
    raise UserError(f"--output={output}: found {what}, expected a new folder")


def _check_ignored(
    config: ExperimentConfig, output_format: str, masks: PromptMasks
) -> None:
  """Refuses formats in which a hidden token would become a visible one."""
  hidden = int((np.asarray(masks.token_mask) == 0).sum())
  ignored = config.prompt.pruned_tokens == "ignore"
  if ignored and hidden and output_format in _WITHOUT_MASKS:
    raise UserError(
        f"--format={output_format}: found PromptConfig.pruned_tokens ="
        f" 'ignore' and {hidden} pruned tokens, which {output_format} cannot"
        " hide from attention; expected safetensors or compact, which keep"
        " masks, or --remove_pruned_tokens"
    )


def _masked(prompt: np.ndarray, masks: PromptMasks) -> np.ndarray:
  """A prompt in which every pruned entry is zero, and none is minus zero."""
  keep = np.asarray(masks_lib.expand(masks, prompt.shape[2])) > 0
  return np.where(keep, prompt, np.float32(0.0))


def base_model(config: ExperimentConfig) -> tuple[peft.BaseModel, bool]:
  """The frozen T5 as transformers can load it.

  Args:
    config: CHECKPOINT and the sizes come from here.

  Returns:
    What an adapter says of it, without a name where transformers cannot load
    it (the bundled model, random weights, T5X's formats); whether the name is
    a hub id.
  """
  name, on_hub = config.checkpoint, False
  revision = ""
  if name.startswith(("random:", "gs://")) or name == "bundled":
    name = ""
  elif pathlib.Path(name).exists():
    known = checkpoints.huggingface_folder(name) is not None
    # A relative path would look like a hub id.
    name = load_snippets.absolute(name) if known else ""
  else:
    on_hub = True
    name, _, revision = name.partition("@")
  base = peft.BaseModel(
      name=name or None,
      revision=revision or None,
      num_layers=config.model.num_encoder_layers,
      num_heads=config.model.num_heads,
  )
  return base, on_hub


def _source_scores(
    path: str,
    record: run_records.Record | None,
    rows: tuple[int, ...],
    embed_dim: int,
) -> tuple[Mapping[str, np.ndarray], ...]:
  """The scores of each row: those of the run, else those in the file."""
  if record is not None:
    return tuple(run_records.read_scores(path, record.rows[r]) for r in rows)
  arrays = prompt_formats.read_prompt(path, embed_dim)
  scores = {k: v for k, v in arrays.items() if k.endswith("_scores")}
  return tuple({k: v[row] for k, v in scores.items()} for row in rows)


def _arrays(export: Export) -> dict[str, np.ndarray]:
  """What the written file must give when it is read, by its reader's names."""
  found = {"prompt": export.prompt}
  if export.output_format in _WITHOUT_MASKS:
    return found
  found["token_mask"] = np.asarray(export.masks.token_mask, np.float32)
  found["piece_mask"] = np.asarray(export.masks.piece_mask, np.float32)
  if export.output_format == "safetensors":
    positions = list(export.positions)
    for name, array in export.scores[0].items():
      found[name] = array[None][:, positions]
  return found


def _write(folder: pathlib.Path, export: Export) -> None:
  """Writes the prompt's own files."""
  arrays = _arrays(export)
  path = folder / _FILES[export.output_format]
  if export.output_format == "compact":
    compact.write(path, export.prompt, export.masks)
  elif export.output_format == "safetensors":
    native.write(path, {k: v[0] for k, v in arrays.items()})
  elif export.output_format == "peft":
    peft.write(folder, export.prompt[0], export.base)
  elif export.output_format == "npy":
    npy.write(path, export.prompt[0])
  else:
    openprompt.write(path, export.prompt[0])


def _check_written(folder: pathlib.Path, export: Export) -> None:
  """Reads the folder as anyone will, and compares bit for bit."""
  found = prompt_formats.read_prompt(folder, export.prompt.shape[2])
  meant = _arrays(export)
  for name in sorted(found.keys() | meant.keys()):
    if artifacts.digest_arrays(
        {name: found.get(name, np.zeros(0))}
    ) != artifacts.digest_arrays({name: meant.get(name, np.zeros(0))}):
      raise UserError(
          f"{folder}: {name}: read back other contents than were written,"
          " expected the same: the disk is not to be trusted"
      )


@contextlib.contextmanager
def _new_folder(output: pathlib.Path) -> Iterator[pathlib.Path]:
  """Gives a temporary folder that becomes `output` if the block ends well."""
  output = output.absolute()
  temporary = output.with_name(f".{output.name}.{os.getpid()}.part")
  try:
    temporary.mkdir(parents=True)
    yield temporary
    os.replace(temporary, output)
  except OSError as e:
    raise UserError(f"{output}: cannot write: {e.strerror or e}") from e
  finally:
    shutil.rmtree(temporary, ignore_errors=True)


def _summary(experiment: Experiment, export: Export) -> dict[str, Any]:
  """What the command prints and export.json keeps."""
  tickets = export.tickets
  if len(tickets) == 1:
    lines: dict[str, Any] = tickets[0]
  else:
    keys = ("row", "seed", "kept_tokens", "kept_pieces")
    lines = {f"{k}s": [t.get(k) for t in tickets] for k in keys[:2]}
    lines |= {k: [t[k] for t in tickets] for k in keys[2:]}
  summary = {
      "format": export.output_format,
      "prompt": export.source,
      **{k: lines[k] for k in lines if k not in ("validation", "test")},
      "prompt_length": export.prompt.shape[1],
      "pruned_tokens": experiment.config.prompt.pruned_tokens,
      "frozen_params": experiment.fingerprint,
  }
  if export.removed is not None:
    summary["removed_tokens"] = export.removed
  if export.change is not None:
    change = export.change
    summary["validation"] = {"before": change.before, "after": change.after}
    summary["logits"] = {
        "max_abs": change.max_abs,
        "mean_abs": change.mean_abs,
    }
  return summary


def _versions() -> dict[str, str]:
  found = {}
  for name in _PACKAGES:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
      found[name] = importlib.metadata.version(name)
  return found


def write_export(
    experiment: Experiment, export: Export, output: pathlib.Path
) -> dict[str, Any]:
  """Writes prompt, card and export.json; nothing is there before all is.

  Args:
    experiment: the frozen model, for the card.
    export: what is written.
    output: the folder, new or empty.

  Returns:
    What `t5x export` prints.

  Raises:
    UserError: the folder cannot be written, or gives back another prompt.
  """
  summary = _summary(experiment, export)
  name = _FILES[export.output_format]
  with _new_folder(output) as folder:
    _write(folder, export)
    content = (folder / name).read_bytes()
    note = {
        "schema": _SCHEMA,
        "file": name,
        "sha256": hashlib.sha256(content).hexdigest(),
        **summary,
    }
    artifacts.write_json(folder / reading.EXPORT, note)
    text = model_card.card(experiment, export, _versions())
    artifacts.write_text(folder / model_card.FILE, text)
    _check_written(folder, export)
  sizes = {"bytes": len(content)}
  if export.output_format == "compact":
    sizes["dense_bytes"] = export.prompt.nbytes
  return {**summary, "output": str(output), **sizes}


def make_export(
    experiment: Experiment,
    prompt: np.ndarray,
    masks: PromptMasks,
    *,
    path: str,
    rows: tuple[int, ...],
    output_format: str,
    remove_pruned_tokens: bool,
) -> Export:
  """Takes rows of a prompt file, and tokens out of them where asked to.

  Args:
    experiment: what is loaded; with validation if tokens are to be removed.
    prompt: every prompt of the file, [R, P, H].
    masks: theirs.
    path: the file; a run's own has a record.
    rows: which to take.
    output_format: one of `FORMATS`.
    remove_pruned_tokens: leave out tokens whose mask is 0, and measure what
      that changes.

  Returns:
    What `write_export` writes.

  Raises:
    UserError: every token is pruned, a result file is damaged, or the run's
      settings or validation split are others.
  """
  record = run_records.read_record(path, len(prompt))
  run_records.check_pruned_tokens(record, experiment.config, path)
  embed_dim = prompt.shape[2]
  taken = masks_lib.take_rows(masks, np.array(rows))
  dense = _masked(prompt[list(rows)], taken)
  positions = tuple(range(prompt.shape[1]))
  removed = change = None
  if remove_pruned_tokens:
    shorter = removal.without_pruned_tokens(dense, taken, path)
    removed = dense.shape[1] - shorter[0].shape[1]
    if removed:
      run_records.check_validation(record, experiment, path)
      task = run_records.task_of(record, rows[0], experiment)
      change = removal.measure(experiment, (dense, taken), shorter, task)
      kept = np.flatnonzero(np.asarray(taken.token_mask)[0])
      positions = tuple(kept.tolist())
      dense, taken = shorter
  base, on_hub = base_model(experiment.config)
  return Export(
      output_format=output_format,
      source="/".join(pathlib.Path(path).parts[-2:]),
      rows=rows,
      prompt=dense,
      masks=taken,
      positions=positions,
      scores=_source_scores(path, record, rows, embed_dim),
      record=record,
      removed=removed,
      change=change,
      base=base,
      on_hub=on_hub,
  )


def export(
    config: ExperimentConfig,
    workdir: pathlib.Path,
    *,
    prompt_file: str | None,
    row: int | None,
    output_format: str,
    output: pathlib.Path,
    remove_pruned_tokens: bool,
) -> None:
  """Writes a prompt as a folder, and prints a JSON line about it.

  Args:
    config: the root config.
    workdir: of the run whose prompt is exported.
    prompt_file: a prompt to export instead.
    row: which of its prompts; None means the first, and all for `compact`.
    output_format: one of `FORMATS`.
    output: the folder, new or empty.
    remove_pruned_tokens: leave out tokens whose mask is 0, and measure what
      that changes on validation.

  Raises:
    UserError: whatever is wrong with the request, the prompt, the model, the
      data or the disk.
  """
  _check_request(output_format, output, remove_pruned_tokens)
  prompt, masks, path = stored_prompts.load_prompts(
      config, workdir, prompt_file
  )
  rows: tuple[int, ...] = (row or 0,)
  if row is None and output_format == "compact":
    rows = tuple(range(len(prompt)))
  stored_prompts.check_row(rows[0], path, len(prompt))
  record = run_records.read_record(path, len(prompt))
  run_records.check_pruned_tokens(record, config, path)
  taken = masks_lib.take_rows(masks, np.array(rows))
  if not remove_pruned_tokens:
    _check_ignored(config, output_format, taken)
  anything = not np.asarray(taken.token_mask).all()
  roles = ("validation",) if remove_pruned_tokens and anything else ()
  experiment = load_experiment(config, workdir, roles=roles)
  if prompt_file is None:
    stored_prompts.check_weights(workdir, experiment)
  stored_prompts.warn_of_other_weights(path, experiment)
  made = make_export(
      experiment,
      prompt,
      masks,
      path=path,
      rows=rows,
      output_format=output_format,
      remove_pruned_tokens=remove_pruned_tokens,
  )
  line = write_export(experiment, made, output)
  print(json.dumps({**line, "prompt": path}))
