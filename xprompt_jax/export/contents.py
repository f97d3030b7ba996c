"""What an export is about: some rows of a prompt, as they are to be written.

`exporting.py` writes it and `model_card.py` describes it.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import os
import pathlib
from typing import Any

import numpy as np

from xprompt_jax import masks as masks_lib
from xprompt_jax import prompt_formats
from xprompt_jax.experiment import Experiment, ExperimentConfig
from xprompt_jax.export import load_snippets, removal, run_records
from xprompt_jax.export.removal import Change
from xprompt_jax.export.run_records import Record
from xprompt_jax.prompt_formats.formats import FORMATS, Format
from xprompt_jax.prompt_formats.peft import BaseModel
from xprompt_jax.types import PromptMasks
from xprompt_jax.weights import checkpoints


@dataclasses.dataclass(frozen=True, kw_only=True)
class Export:
  """What an export is about: what is written, and what it was before.

  Attributes:
    output_format: as `--format` names it.
    source: the prompt's file, as its last two names.
    rows: which R of its prompts.
    prompt: [R, P, H], masked, as it is written.
    masks: [R, P] and [R, P, K] of it.
    positions: P places that its tokens had in the source's prompt.
    scores: for each row the importance scores its run took, over the source's
      tokens; empty where there are none.
    record: what the run recorded of each prompt of the source, or None.
    removed: pruned tokens that were left out; None if nobody asked.
    change: what that changed; None if nothing was left out.
    base: the frozen T5 as transformers can load it.
    on_hub: whether that is a hub id and not a folder.
  """

  output_format: str
  source: str
  rows: tuple[int, ...]
  prompt: np.ndarray
  masks: PromptMasks
  positions: tuple[int, ...]
  scores: tuple[Mapping[str, np.ndarray], ...]
  record: Record | None
  removed: int | None
  change: Change | None
  base: BaseModel
  on_hub: bool

  @property
  def format(self) -> Format:
    """What is known of its format."""
    return FORMATS[self.output_format]

  @property
  def source_length(self) -> int:
    """P of the source."""
    return len(self.positions) + (self.removed or 0)

  @property
  def tickets(self) -> list[dict[str, Any]]:
    """A line for each row: its ticket where it is known, and its sizes."""
    width = self.prompt.shape[2]
    sizes = zip(
        masks_lib.kept_tokens(self.masks).tolist(),
        masks_lib.kept_pieces(self.masks).tolist(),
        masks_lib.tunable_parameters(self.masks, width).tolist(),
        strict=True,
    )
    return [
        {
            "row": row,
            **(self.record.rows[row] if self.record else {}),
            "kept_tokens": tokens,
            "kept_pieces": pieces,
            "tunable_parameters": parameters,
        }
        for row, (tokens, pieces, parameters) in zip(
            self.rows, sizes, strict=True
        )
    ]


def _masked(prompt: np.ndarray, masks: PromptMasks) -> np.ndarray:
  """A prompt in which every pruned entry is zero, and none is minus zero."""
  keep = np.asarray(masks_lib.expand(masks, prompt.shape[2])) > 0
  return np.where(keep, prompt, np.float32(0.0))


def base_model(config: ExperimentConfig) -> tuple[BaseModel, bool]:
  """The frozen T5 as transformers can load it.

  Args:
    config: CHECKPOINT and the sizes come from here.

  Returns:
    What an adapter says of it, without a name where transformers cannot load
    it (a bundled model, random weights, T5X's formats); whether the name is
    a hub id.
  """
  name, on_hub = config.checkpoint, False
  revision = ""
  bundled = name in checkpoints.BUNDLED_MODELS
  if bundled or name.startswith(("random:", "gs://")):
    name = ""
  elif pathlib.Path(name).exists():
    known = checkpoints.huggingface_folder(name) is not None
    # A relative path would look like a hub id.
    name = load_snippets.absolute(name) if known else ""
  else:
    on_hub = True
    name, _, revision = name.partition("@")
  base = BaseModel(
      name=name or None,
      revision=revision or None,
      num_layers=config.model.num_encoder_layers,
      num_heads=config.model.num_heads,
  )
  return base, on_hub


def _source_scores(
    path: str,
    record: Record | None,
    rows: tuple[int, ...],
    embed_dim: int,
    absent: int,
) -> tuple[Mapping[str, np.ndarray], ...]:
  """The scores of each row: those of the run, else those in the file.

  Positions in front that are absent from all of them are left out.
  """
  found: Sequence[Mapping[str, np.ndarray]]
  if record is not None:
    found = run_records.read_scores(path, [record.rows[r] for r in rows])
  else:
    arrays = prompt_formats.read_prompt(path, embed_dim)
    scores = {k: v for k, v in arrays.items() if k.endswith("_scores")}
    found = [{k: v[row] for k, v in scores.items()} for row in rows]
  return tuple({k: v[absent:] for k, v in one.items()} for one in found)


def take_prompts(
    prompt: np.ndarray, masks: PromptMasks, rows: tuple[int, ...]
) -> tuple[np.ndarray, PromptMasks]:
  """Rows of a file, without the positions in front that none of them has."""
  taken = masks_lib.take_rows(masks, np.array(rows))
  return masks_lib.without_absent(prompt[list(rows)], taken)


def make_export(
    experiment: Experiment,
    prompt: np.ndarray,
    masks: PromptMasks,
    *,
    path: str,
    record: Record | None,
    rows: tuple[int, ...],
    output_format: str,
    remove_pruned_tokens: bool,
) -> Export:
  """Takes rows of a prompt file, and tokens out of them where asked to.

  Args:
    experiment: what is loaded; with validation if tokens are to be removed.
    prompt: every prompt of the file, [R, P, H].
    masks: theirs.
    path: the file.
    record: of its run, if it lies in one.
    rows: which to take.
    output_format: one of `FORMATS`.
    remove_pruned_tokens: leave out masked tokens, and measure the change.

  Returns:
    What `write_export` writes.

  Raises:
    UserError: every token is pruned, a result file is damaged, or the run's
      validation split is another.
  """
  dense, taken = take_prompts(prompt, masks, rows)
  dense = _masked(dense, taken)
  positions = tuple(range(dense.shape[1]))
  absent = prompt.shape[1] - dense.shape[1]
  scores = _source_scores(path, record, rows, prompt.shape[2], absent)
  removed = change = None
  if remove_pruned_tokens:
    shorter = removal.without_pruned_tokens(dense, taken, path)
    removed = dense.shape[1] - shorter[0].shape[1]
    if removed:
      run_records.check_validation(record, experiment, path)
      task = run_records.task_of(record, rows[0], experiment)
      change = removal.measure(experiment, (dense, taken), shorter, task)
    positions = tuple(np.flatnonzero(taken.token_mask[0]).tolist())
    dense, taken = shorter
  base, on_hub = base_model(experiment.config)
  return Export(
      output_format=output_format,
      source="/".join(pathlib.Path(os.path.abspath(path)).parts[-2:]),
      rows=rows,
      prompt=dense,
      masks=taken,
      positions=positions,
      scores=scores,
      record=record,
      removed=removed,
      change=change,
      base=base,
      on_hub=on_hub,
  )
