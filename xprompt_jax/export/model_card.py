"""The README.md beside an exported prompt: a Hugging Face model card.

Says where the prompt comes from, what it scored as its run recorded it, what
was kept of it, and how to load it (`load_snippets.py`). The same export gives
the same text.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import json

import numpy as np

from xprompt_jax.experiment import Experiment
from xprompt_jax.export import load_snippets, record_text, run_records
from xprompt_jax.export.contents import Export
from xprompt_jax.export.markdown import escape, number, table
from xprompt_jax.nearest_words import nearest_words

FILE = "README.md"
# What only tickets have that gradients did not choose, and what the table says
# without it.
_OTHERS = (("importance", "gradient"), ("control", "none"))


def _pruned(export: Export) -> bool:
  return not np.asarray(export.masks.piece_mask).all() or bool(export.removed)


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
  # How somebody else's file came to be pruned is not known.
  tags += ["xprompt"] if _pruned(export) and export.record else []
  tags += [json.dumps(task)] if task else []
  lines += ["tags:", *(f"- {tag}" for tag in tags)]
  return "\n".join(["---", *lines, "---"])


def _masks_alone(export: Export) -> str:
  """What masks say of themselves, where no run tells how they came to be."""
  tokens = export.source_length * len(export.rows)
  pieces = tokens * export.masks.piece_mask.shape[2]
  tickets = export.tickets
  lost_tokens = tokens - sum(t["kept_tokens"] for t in tickets)
  lost_pieces = pieces - sum(t["kept_pieces"] for t in tickets)
  whose = "Its" if len(tickets) == 1 else "Their"
  return (
      f" {whose} masks prune {lost_tokens} of {tokens} tokens, and"
      f" {lost_pieces} of {pieces} pieces. Pruned entries are zero."
  )


def _by(export: Export) -> str:
  """Which units a run pruned: those of least importance, or others."""
  other = any(name in t for t in export.tickets for name, _ in _OTHERS)
  return "the table of tickets tells" if other else "did harm"


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
  if record is None and _pruned(export):
    text += _masks_alone(export)
  elif _pruned(export):
    text += (
        f" Each token is cut into {pieces} pieces; tokens and pieces that"
        f" {_by(export)} were pruned and the rest was trained again (XPrompt,"
        " Ma et al. 2022, arXiv 2210.04457). Pruned entries are zero."
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
  if export.record is None:
    sizes = (*columns[4:6], ("kept numbers", "tunable_parameters"))
    columns = [columns[0], *sizes]
  if any("task" in ticket for ticket in export.tickets):
    columns.insert(1, ("task", "task"))
  others = dict(_OTHERS)
  for name in others:
    if any(name in ticket for ticket in export.tickets):
      columns.append((name, name))
  rows = [
      [t.get(key, others.get(key)) for _, key in columns]
      for t in export.tickets
  ]
  shown = table([title for title, _ in columns], rows)
  pieces = export.masks.piece_mask.shape[2]
  source = (
      f"From {escape(export.source)}: prompts of {export.source_length} tokens"
      f" in {pieces} pieces each."
  )
  if export.record is None:
    return f"## What is kept\n\n{source}\n\n{shown}"
  return (
      f"## Which ticket\n\n{source} Compression is the share of the units then"
      f" kept that was pruned.\n\n{shown}"
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
    for role in ("validation", *run_records.REPORTING):
      for metric, value in ticket.get(role, {}).items():
        lines.append(
            [
                ticket["row"],
                ticket.get("seed"),
                role,
                record.examples_of(ticket, role),
                metric,
                number(value),
            ]
        )
  shown = table(["row", "seed", "split", "examples", "metric", "value"], lines)
  text = (
      "## Scores\n\nAs the run recorded them; `score` is the mean of the"
      f" task's metrics.\n\n{shown}\n\n{record_text.choice(record)}"
  )
  return text + record_text.reported(record, export.tickets)


def _removal(export: Export) -> str:
  if export.change is None:
    return "## Pruned tokens\n\nNo token was pruned, so nothing was removed."
  change = export.change
  rows = [
      (name, number(value), number(change.after[name]))
      for name, value in change.before.items()
  ]
  shown = table(["validation", "before", "after"], rows)
  return (
      f"## Pruned tokens\n\n{export.removed} pruned tokens were removed. That"
      " moves the others closer to the input, so it is not the prompt that"
      f" was scored above.\n\n{shown}\n\nLogits of the validation targets"
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
  return f"{title}\n\n{table(header, rows)}"


def _all_kept_tokens(experiment: Experiment, export: Export) -> str:
  text = (
      "## Kept tokens\n\nPositions are those before anything was removed,"
      " counted from 0. Words are pieces of the model's vocabulary whose"
      " embeddings have the largest cosine with the token; a hint, not a"
      " meaning."
  )
  shown = any("token_scores" in scores for scores in export.scores)
  if shown and export.record is None:
    text += " Importance is as the file states it."
  elif shown:
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
      ("checkpoint", load_snippets.absolute(config.checkpoint)),
      ("weights kept in", config.frozen_dtype),
      ("sha256 of the weights", experiment.fingerprint),
      *record_text.settings(sizes),
  ]
  text = f"## Frozen model\n\n{table(['', ''], rows)}"
  record = export.record
  trained_on = record.config.get("frozen_params") if record else None
  if trained_on not in (None, experiment.fingerprint):
    text += (
        "\n\nThe prompt was trained in front of other weights, of sha256"
        f" {escape(trained_on)}; the nearest words are those of the model"
        " above."
    )
  return text


def _dtypes(experiment: Experiment, export: Export) -> tuple[str, str]:
  """What the run's T5 was kept and computed in, else the config's."""
  kept, computed = experiment.config.frozen_dtype, experiment.config.model.dtype
  if export.record:
    config = export.record.config
    kept, computed = config["frozen_dtype"], config["model"]["dtype"]
  return kept or "float32", computed


def _lengths(experiment: Experiment, export: Export) -> tuple[int, int]:
  """T and L at most of the run's task, else of the config's."""
  task = dataclasses.asdict(experiment.config.task)
  task = export.record.config["task"] if export.record else task
  return task["inputs_length"], task["targets_length"]


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
          on_hub=export.on_hub,
          dtypes=_dtypes(experiment, export),
          lengths=_lengths(experiment, export),
          length=export.prompt.shape[1],
          embed_dim=export.prompt.shape[2],
      ),
      _tickets(export),
      _scores(export),
      *(
          [record_text.recipe(record), record_text.data(record)]
          if record
          else []
      ),
      *([_removal(export)] if export.removed is not None else []),
      _all_kept_tokens(experiment, export),
      _model(experiment, export),
      f"## Versions\n\n{table(['package', 'version'], used.items())}",
  ]
  return "\n\n".join(parts) + "\n"
