"""`t5x export`: a prompt as another program reads it, with its model card.

`prompt_formats` knows the files; this module chooses rows, leaves pruned tokens
out where that is asked for, and writes a folder that is whole or not there:
what is in it was read back and compared bit for bit with what was meant.
"""

from collections.abc import Mapping
import json
import pathlib
from typing import Any

import numpy as np

from xprompt_jax import (
    artifacts,
    prompt_formats,
    stored_prompts,
    torch_tensors,
)
from xprompt_jax.experiment import (
    Experiment,
    ExperimentConfig,
    load_experiment,
)
from xprompt_jax.export import model_card, run_records
from xprompt_jax.export.contents import Export, make_export, take_prompts
from xprompt_jax.prompt_formats import export_note, formats
from xprompt_jax.task_config import HELDOUT
from xprompt_jax.types import PromptMasks, UserError, require
from xprompt_jax.weights import new_folders

FORMATS = tuple(formats.FORMATS)
_SCHEMA = 1


def _check_request(
    output_format: str, output: pathlib.Path, remove_pruned_tokens: bool
) -> None:
  """What can be refused before anything is loaded."""
  expected = f"one of {', '.join(FORMATS)}"
  require(output_format in FORMATS, "--format", output_format, expected)
  if remove_pruned_tokens and formats.FORMATS[output_format].many_prompts:
    single = (k for k, f in formats.FORMATS.items() if not f.many_prompts)
    raise UserError(
        f"--remove_pruned_tokens: found --format={output_format}, which holds"
        " kept pieces alone and the places they had, expected one of"
        f" {', '.join(single)}"
    )
  if formats.FORMATS[output_format].needs_torch:
    torch_tensors.import_torch(f"--format={output_format}")
  new_folders.check_free(output)


def _check_ignored(
    config: ExperimentConfig, output_format: str, masks: PromptMasks
) -> None:
  """Refuses formats in which a hidden token would become a visible one."""
  hidden = int((np.asarray(masks.token_mask) == 0).sum())
  ignored = config.prompt.pruned_tokens == "ignore"
  if ignored and hidden and not formats.FORMATS[output_format].keeps_masks:
    keepers = (k for k, f in formats.FORMATS.items() if f.keeps_masks)
    raise UserError(
        f"--format={output_format}: found PromptConfig.pruned_tokens ="
        f" 'ignore' and {hidden} pruned tokens, which {output_format} cannot"
        f" hide from attention; expected {' or '.join(keepers)}, which keep"
        " masks, or --remove_pruned_tokens"
    )


def _check_lengths(output_format: str, masks: PromptMasks, path: str) -> None:
  """Refuses prompts of several lengths: no format here holds them together."""
  if masks.present is None:
    return
  lengths = np.asarray(masks.present).sum(axis=1).astype(int)
  raise UserError(
      f"--format={output_format}: found prompts of {lengths.min()} to"
      f" {lengths.max()} tokens in {path}, which {output_format} cannot hold"
      " together; expected one of them, named by --row"
  )


def _arrays(export: Export) -> dict[str, np.ndarray]:
  """What the written folder must give when it is read, with rows."""
  found = {
      "prompt": export.prompt,
      "token_mask": np.asarray(export.masks.token_mask, np.float32),
      "piece_mask": np.asarray(export.masks.piece_mask, np.float32),
  }
  positions = list(export.positions)
  for name, array in export.scores[0].items():
    if name in export.format.keeps:
      found[name] = array[None][:, positions]
  return found


def _check_written(
    folder: pathlib.Path, meant: Mapping[str, np.ndarray]
) -> None:
  """Reads the folder as anyone will, and compares bit for bit."""
  found = prompt_formats.read_prompt(folder, meant["prompt"].shape[2])
  for name in sorted(found.keys() | meant.keys()):
    if artifacts.digest_arrays(
        {name: found.get(name, np.zeros(0))}
    ) != artifacts.digest_arrays({name: meant.get(name, np.zeros(0))}):
      raise UserError(
          f"{folder}: {name}: read back other contents than were written,"
          " expected the same: the disk is not to be trusted"
      )


def _summary(experiment: Experiment, export: Export) -> dict[str, Any]:
  """What the command prints and export.json keeps."""
  summary = {
      "format": export.output_format,
      "prompt": export.source,
      "tickets": [
          {k: v for k, v in ticket.items() if k not in ("validation", "test")}
          for ticket in export.tickets
      ],
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
  name = export.format.file
  arrays = _arrays(export)
  with new_folders.new_folder(output, last=name) as folder:
    kept = {k: v for k, v in arrays.items() if k in export.format.keeps}
    export.format.write(folder / name, kept, export.base)
    size = (folder / name).stat().st_size
    note = {
        "schema": _SCHEMA,
        "file": name,
        "sha256": export_note.sha256(folder / name),
        **summary,
    }
    if not export.format.keeps_masks:
      note |= export_note.described(export.masks)
    artifacts.write_json(folder / export_note.FILE, note)
    versions = artifacts.package_versions()
    text = model_card.card(experiment, export, versions)
    artifacts.write_text(folder / model_card.FILE, text)
    _check_written(folder, arrays)
  sizes = {"bytes": size}
  if export.format.many_prompts:
    sizes["dense_bytes"] = export.prompt.nbytes
  return {**summary, "output": str(output), **sizes}


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
    row: which of its prompts; None means the first, and all of them where a
      format takes many.
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
  many = row is None and formats.FORMATS[output_format].many_prompts
  rows = tuple(range(len(prompt))) if many else (row or 0,)
  stored_prompts.check_row(rows[0], path, len(prompt))
  record = run_records.read_record(path, prompt)
  run_records.check_pruned_tokens(record, config, path)
  _, taken = take_prompts(prompt, masks, rows)
  _check_lengths(output_format, taken, path)
  if not remove_pruned_tokens:
    _check_ignored(config, output_format, taken)
  anything = not np.asarray(taken.token_mask).all()
  # Of a run of the held-out protocol, the half that selected.
  own = ("validation", HELDOUT)
  roles = own if remove_pruned_tokens and anything else ()
  experiment = load_experiment(config, workdir, roles=roles)
  if prompt_file is None:
    stored_prompts.check_weights(workdir, experiment)
  stored_prompts.warn_of_other_weights(path, experiment)
  made = make_export(
      experiment,
      prompt,
      masks,
      path=path,
      record=record,
      rows=rows,
      output_format=output_format,
      remove_pruned_tokens=remove_pruned_tokens,
  )
  line = write_export(experiment, made, output)
  print(json.dumps({**line, "prompt": path}))
