"""The README.md beside an exported prompt: a Hugging Face model card.

Says where the prompt comes from, what it scored as its run recorded it, what
was kept of it, and how to load it (`load_snippets.py`). The same export gives
the same text.
"""

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import json
from typing import Any

import numpy as np

from xprompt_jax import masks as masks_lib
from xprompt_jax.experiment import Experiment
from xprompt_jax.export import load_snippets
from xprompt_jax.export.nearest_words import nearest_words
from xprompt_jax.export.removal import Change
from xprompt_jax.export.run_records import Record
from xprompt_jax.prompt_formats.peft import BaseModel
from xprompt_jax.types import PromptMasks

FILE = "README.md"
_SHORT = 12  # Digits shown of a sha256.
_SPECIAL = frozenset("\\`*_[]<>|~&#$")
_ROLES = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Export:
  """What an export is about: what is written, and what it was before.

  Attributes:
    output_format: as `--format` names it.
    source: the prompt's file, as its last two names.
    rows: which R of its prompts.
    prompt: [R, P, H], masked, as it is written.
    masks: [R, P] and [R, P, K] of it.
    positions: P places that its tokens had in the source.
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


def escape(text: object) -> str:
  """Any text as one line of Markdown that shows it and does nothing else."""
  shown = []
  for character in str(text):
    if character in _SPECIAL:
      shown.append("\\" + character)
    elif character.isprintable():
      shown.append(character)
    else:
      shown.append(f"U+{ord(character):04X}")
  return "".join(shown)


def _table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
  """A Markdown table; cells are escaped, None is a dash."""

  def line(cells: Sequence[object]) -> str:
    shown = ("-" if cell is None else escape(cell) for cell in cells)
    return f"| {' | '.join(shown)} |"

  rule = f"| {' | '.join('---' for _ in header)} |"
  return "\n".join([line(header), rule, *map(line, rows)])


def _number(value: object) -> str:
  return f"{value:.2f}" if isinstance(value, float) else str(value)


def _front_matter(export: Export) -> str:
  """YAML, of which JSON strings are a part."""
  lines = []
  if export.output_format == "peft":
    lines.append("library_name: peft")
  # The hub knows ids, not folders of somebody's disk.
  if export.on_hub:
    lines.append(f"base_model: {json.dumps(export.base.name)}")
  task = export.record.config["task"]["name"] if export.record else None
  tags = ["t5", "soft-prompt", "prompt-tuning"]
  pruned = not np.asarray(export.masks.piece_mask).all() or export.removed
  tags += ["xprompt"] if pruned else []
  tags += [json.dumps(task)] if task else []
  lines += ["tags:", *(f"- {tag}" for tag in tags)]
  return "\n".join(["---", *lines, "---"])


def _introduction(export: Export, pruned_tokens: str) -> str:
  record = export.record
  name = escape(record.config["task"]["name"]) if record else "a frozen T5"
  _, length, width = export.prompt.shape
  pieces = export.masks.piece_mask.shape[2]
  count = len(export.rows)
  many = "A soft prompt" if count == 1 else f"{count} soft prompts"
  text = (
      f"# Soft prompt for {name}\n\n{many} of {length} tokens x {width} numbers"
      " to put in front of the embedded inputs of a frozen T5 encoder."
  )
  if not np.asarray(export.masks.piece_mask).all() or export.removed:
    text += (
        f" Each token is cut into {pieces} pieces; tokens and pieces that did"
        " harm were pruned and the rest was trained again (XPrompt, Ma et al."
        " 2022, arXiv 2210.04457). Pruned entries are zero."
    )
  if (
      pruned_tokens == "ignore"
      and not np.asarray(export.masks.token_mask).all()
  ):
    text += " Attention must not see the tokens whose `token_mask` is 0."
  return text


def _tickets(export: Export) -> str:
  columns = [
      ("row", "row"),
      ("seed", "seed"),
      ("token compression", "token_ratio"),
      ("piece compression", "piece_ratio"),
      ("kept tokens", "kept_tokens"),
      ("kept pieces", "kept_pieces"),
      ("trained numbers", "tunable_parameters"),
  ]
  rows = [[t.get(key) for _, key in columns] for t in export.tickets]
  table = _table([title for title, _ in columns], rows)
  length = len(export.positions) + (export.removed or 0)
  pieces = export.masks.piece_mask.shape[2]
  return (
      f"## Which ticket\n\nFrom {escape(export.source)}: prompts of"
      f" {length} tokens in {pieces} pieces each. Compression is the share of"
      f" the units then kept that was pruned.\n\n{table}"
  )


def _scores(export: Export) -> str:
  record = export.record
  if record is None:
    return (
        "## Scores\n\nNone are recorded: the prompt was read from a file that"
        " lies in no run's folder."
    )
  lines = []
  for ticket in export.tickets:
    for role in ("validation", "test"):
      for metric, value in ticket.get(role, {}).items():
        lines.append(
            [
                ticket["row"],
                ticket.get("seed"),
                role,
                record.num_examples.get(role),
                metric,
                _number(value),
            ]
        )
  table = _table(["row", "seed", "split", "examples", "metric", "value"], lines)
  tried = record.tickets_tried
  among = f" among {tried} tickets" if tried else ""
  text = (
      "## Scores\n\nAs the run recorded them; `score` is the mean of the"
      f" task's metrics.\n\n{table}\n\nThe checkpoint and the ticket were"
      f" chosen on validation{among}, so validation favours them."
  )
  if any("test" in ticket for ticket in export.tickets):
    return f"{text} Test was looked at once, at the end."
  return f"{text} There is no result on data that had no part in the choice."


def _settings(values: Mapping[str, Any]) -> list[tuple[str, object]]:
  """Fields of a config for a table, those that are not set left out."""
  return [
      (name.replace("_", " "), json.dumps(v) if isinstance(v, list) else v)
      for name, v in values.items()
      if v not in (None, [], ())
  ]


def _recipe(record: Record) -> str:
  config = record.config
  rows = [
      *((f"prompt: {k}", v) for k, v in _settings(config["prompt"])),
      *((f"Adafactor: {k}", v) for k, v in _settings(config["optimizer"])),
      *((f"training: {k}", v) for k, v in _settings(config["train"])),
      *((f"search: {k}", v) for k, v in _settings(record.search)),
      ("seeds of the run", json.dumps(config["seeds"])),
  ]
  return f"## Recipe\n\n{_table(['setting', 'value'], rows)}"


def _data(record: Record) -> str:
  task = record.config["task"]
  prints = {**record.config["splits"], "test": record.test_fingerprint}
  names = {role: task.get(f"{role}_split") for role in _ROLES}
  rows = [
      [
          role,
          names[role],
          record.num_examples.get(role),
          (prints.get(role) or "")[:_SHORT] or None,
      ]
      for role in _ROLES
      if prints.get(role)
  ]
  table = _table(["role", "split", "examples", "sha256"], rows)
  return (
      f"## Data\n\nTask {escape(task['name'])}, inputs of at most"
      f" {task['inputs_length']} tokens, targets of at most"
      f" {task['targets_length']}.\n\n{table}"
  )


def _removal(export: Export) -> str:
  if export.change is None:
    return "## Pruned tokens\n\nNo token was pruned, so nothing was removed."
  change = export.change
  rows = [
      (name, _number(value), _number(change.after[name]))
      for name, value in change.before.items()
  ]
  table = _table(["validation", "before", "after"], rows)
  return (
      f"## Pruned tokens\n\n{export.removed} pruned tokens were removed. That"
      " moves the others closer to the input, so it is not the prompt that"
      f" was scored above.\n\n{table}\n\nLogits of the validation targets"
      f" changed by at most {change.max_abs:.3g}, by {change.mean_abs:.3g} on"
      " average."
  )


def _words(found: Sequence[tuple[str, float]]) -> str | None:
  return ", ".join(f"{piece} ({cosine:.2f})" for piece, cosine in found) or None


def _kept_tokens(
    experiment: Experiment, export: Export, index: int, title: str
) -> str:
  """The table of one prompt's kept tokens."""
  pieces = np.asarray(export.masks.piece_mask)[index]
  kept = np.flatnonzero(
      np.asarray(export.masks.token_mask)[index] * pieces.any(axis=-1)
  )
  words = nearest_words(
      export.prompt[index][kept],
      experiment.frozen_params["token_embedder"]["embedding"],
      experiment.vocabulary,
  )
  scores = export.scores[index].get("token_scores")
  rows = []
  for token, near in zip(kept.tolist(), words, strict=True):
    place = export.positions[token]
    count = f"{int(pieces[token].sum())} of {pieces.shape[1]}"
    row = [place, count, _words(near)]
    if scores is not None:
      row.insert(2, f"{scores[place]:.3g}")
    rows.append(row)
  header = ["position", "kept pieces", "nearest words (cosine)"]
  if scores is not None:
    header.insert(2, "importance")
  return f"{title}\n\n{_table(header, rows)}"


def _all_kept_tokens(experiment: Experiment, export: Export) -> str:
  text = (
      "## Kept tokens\n\nPositions are those before anything was removed,"
      " counted from 0. Words are pieces of the model's vocabulary whose"
      " embeddings have the largest cosine with the token; a hint, not a"
      " meaning."
  )
  if any(export.scores):
    text += (
        " Importance is the mean over the training examples of |dL/dmask| of"
        " the tuned prompt, before anything was pruned."
    )
  one = len(export.rows) == 1
  parts = [
      _kept_tokens(experiment, export, i, "" if one else f"### Row {row}")
      for i, row in enumerate(export.rows)
  ]
  return "\n\n".join([text, *(part.strip() for part in parts)])


def _model(experiment: Experiment, export: Export) -> str:
  config = experiment.config
  sizes = dataclasses.asdict(config.model)
  rows = [
      ("checkpoint", config.checkpoint),
      ("weights kept in", config.frozen_dtype),
      ("sha256 of the weights", experiment.fingerprint),
      *_settings(sizes),
  ]
  text = f"## Frozen model\n\n{_table(['', ''], rows)}"
  record = export.record
  trained_on = record.config.get("frozen_params") if record else None
  if trained_on not in (None, experiment.fingerprint):
    text += (
        "\n\nThe prompt was trained in front of other weights, of sha256"
        f" {escape(trained_on)}; the nearest words are those of the model"
        " above."
    )
  return text


def card(
    experiment: Experiment, export: Export, versions: Mapping[str, str]
) -> str:
  """The whole text of a card.

  Args:
    experiment: the frozen model and its vocabulary.
    export: what is exported.
    versions: of the packages, by name, where the run recorded none.

  Returns:
    Markdown with YAML in front.
  """
  record = export.record
  used = record.versions if record and record.versions else versions
  parts = [
      _front_matter(export),
      _introduction(export, experiment.config.prompt.pruned_tokens),
      load_snippets.section(
          export.output_format,
          base=export.base.name,
          revision=export.base.revision,
          dtype=experiment.config.model.dtype,
          length=export.prompt.shape[1],
          embed_dim=export.prompt.shape[2],
      ),
      _tickets(export),
      _scores(export),
      *([_recipe(record), _data(record)] if record else []),
      *([_removal(export)] if export.removed is not None else []),
      _all_kept_tokens(experiment, export),
      _model(experiment, export),
      f"## Versions\n\n{_table(['package', 'version'], used.items())}",
  ]
  return "\n\n".join(parts) + "\n"
