"""What each command does once its config is there.

`main.py` reads flags and gin files; this module loads the experiment, calls
`search`, `evaluation` or `scoring`, and writes and prints results.
"""

from collections.abc import Iterator
import contextlib
import importlib.metadata
import json
import pathlib
import sys
from typing import Any, TextIO

import jax
import numpy as np

from xprompt_jax import artifacts, evaluation, prompts, report, scoring, search
from xprompt_jax import masks as masks_lib
from xprompt_jax.experiment import (
    Experiment,
    ExperimentConfig,
    load_experiment,
    load_splits,
)
from xprompt_jax.tables import TableRows
from xprompt_jax.token_cache import CachedSplit
from xprompt_jax.types import PromptMasks, UserError, require

_PACKAGES = ("xprompt-jax", "jax", "jaxlib", "flax", "optax", "numpy")


def _run_facts(experiment: Experiment) -> dict[str, Any]:
  versions = {}
  for name in _PACKAGES:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
      versions[name] = importlib.metadata.version(name)
  return {
      "versions": versions,
      "devices": [str(device) for device in jax.devices()],
      "seeds": list(experiment.config.seeds),
      "frozen_params": experiment.fingerprint,
  }


def train(
    config: ExperimentConfig, workdir: pathlib.Path, gin_config: str
) -> None:
  """Runs all stages and prints the table of results.

  Args:
    config: the root config.
    workdir: where everything goes.
    gin_config: the operative config, kept as `config.gin`.
  """
  experiment = load_experiment(config, workdir)
  facts = _run_facts(experiment)
  finished = (workdir / artifacts.RESULT).exists()
  # Until a stage has begun, WORKDIR may still take another config.
  if (workdir / artifacts.TUNE / artifacts.STARTED).exists():
    _check_weights(workdir, experiment)
  else:
    artifacts.write_json(workdir / artifacts.RUN, facts)
    artifacts.write_text(workdir / artifacts.CONFIG, gin_config)
  summary = search.run_experiment(experiment)
  if not finished:
    # A run that was stopped may have gone on with another search.
    artifacts.write_text(workdir / artifacts.CONFIG, gin_config)
  report.print_summary(summary, workdir)


def _check_weights(workdir: pathlib.Path, experiment: Experiment) -> None:
  """Refuses frozen weights that are not those of the run in WORKDIR."""
  path = workdir / artifacts.RUN
  key = "frozen_params"
  old = artifacts.read_json(path).get(key)
  artifacts.check_config(path, {key: old}, {key: experiment.fingerprint})


def _load_prompts(
    config: ExperimentConfig, workdir: pathlib.Path, prompt_file: str | None
) -> tuple[np.ndarray, PromptMasks, str]:
  """The prompts a command is about: a given file, or what the run left."""
  candidates = [
      workdir / folder / artifacts.PROMPT
      for folder in (artifacts.REWIND, artifacts.TUNE)
  ]
  found = next((p for p in candidates if p.exists()), None)
  if prompt_file is None and found is None:
    raise UserError(
        f"{workdir}: holds no trained prompt, expected {candidates[0]}, or a"
        " prompt given by --gin.PROMPT_FILE"
    )
  path = prompt_file if prompt_file is not None else str(found)
  arrays = prompts.read_prompt_file(
      path, config.prompt.length, config.model.emb_dim
  )
  prompt = arrays["prompt"]
  full = masks_lib.full_masks(
      prompt.shape[0], config.prompt.length, config.prompt.num_pieces
  )
  masks = PromptMasks(
      token_mask=arrays.get("token_mask", np.asarray(full.token_mask)),
      piece_mask=arrays.get("piece_mask", np.asarray(full.piece_mask)),
  )
  for name in ("token_mask", "piece_mask"):
    shape, expected = getattr(masks, name).shape, getattr(full, name).shape
    if shape != expected:
      raise UserError(f"{path}: {name}: found {shape}, expected {expected}")
  # A pruned token has no pieces, whatever a file says.
  piece_mask = masks.piece_mask * masks.token_mask[..., None]
  masks = PromptMasks(token_mask=masks.token_mask, piece_mask=piece_mask)
  return prompt, masks, path


def evaluate(
    config: ExperimentConfig,
    workdir: pathlib.Path,
    split: str | None,
    prompt_file: str | None,
) -> None:
  """Prints a JSON line of metrics for each prompt of a file or a run.

  Args:
    config: the root config.
    workdir: of the run; its token cache is used.
    split: `train`, `validation` or `test`; None means test where there is
      one.
    prompt_file: a prompt to evaluate instead of the run's.
  """
  prompt, masks, path = _load_prompts(config, workdir, prompt_file)
  split = split or ("test" if config.task.test_split else "validation")
  require(
      getattr(config.task, f"{split}_split") is not None,
      f"--split={split}",
      f"{split.upper()}_SPLIT = None",
      "a split that the task has",
  )
  experiment = load_experiment(config, workdir, roles=(split,))
  if prompt_file is None:
    _check_weights(workdir, experiment)
  for row, found in enumerate(experiment.evaluate(split, prompt, masks)):
    line = {
        "prompt": path,
        "row": row,
        "task": config.task.name,
        "split": split,
        "num_examples": len(experiment.splits[split]),
        "kept_tokens": int(masks_lib.kept_tokens(masks)[row]),
        "kept_pieces": int(masks_lib.kept_pieces(masks)[row]),
        **found,
    }
    print(json.dumps(line))


def score(
    config: ExperimentConfig, workdir: pathlib.Path, prompt_file: str | None
) -> None:
  """Writes the importance scores of a prompt, at its masks.

  The result is `WORKDIR/score/scores.safetensors`: token_scores [R, P] and
  piece_scores [R, P, K].
  """
  prompt, masks, path = _load_prompts(config, workdir, prompt_file)
  experiment = load_experiment(config, workdir, roles=("train",))
  if prompt_file is None:
    _check_weights(workdir, experiment)
  token_scores, piece_scores = scoring.score_table(
      prompt,
      masks,
      experiment.rows("train", range(prompt.shape[0])),
      model=experiment.model,
      frozen_params=experiment.frozen_params,
      batch_size=experiment.whole_batches(config.score_batch_size),
      mesh=experiment.mesh,
  )
  output = workdir / artifacts.SCORE / artifacts.SCORES
  artifacts.save_arrays(
      output, {"token_scores": token_scores, "piece_scores": piece_scores}
  )
  print(
      json.dumps(
          {
              "prompt": path,
              "num_examples": len(experiment.splits["train"]),
              "token_scores": np.round(token_scores, 6).tolist(),
              "scores": str(output),
          }
      )
  )


def cache(config: ExperimentConfig, workdir: pathlib.Path) -> None:
  """Makes the token caches of every configured split, and names them."""
  _, splits = load_splits(
      config.task, workdir / artifacts.CACHE, config.model.vocab_size
  )
  for role, split in splits.items():
    line = {
        "split": split.split,
        "role": role,
        "num_examples": len(split),
        "longest_input": int(split.input_lengths.max()),
        "longest_target": int(split.target_lengths.max()),
        "truncated_inputs": split.info["num_truncated_inputs"],
        "folder": str(workdir / artifacts.CACHE / config.task.name),
    }
    print(json.dumps(line))


@contextlib.contextmanager
def _open_output(name: str) -> Iterator[TextIO]:
  if name == "-":
    yield sys.stdout
    return
  with (
      artifacts.replacing(pathlib.Path(name)) as temporary,
      open(temporary, "w", encoding="utf-8") as f,
  ):
    yield f


def _read_inputs(name: str) -> list[dict[str, Any]]:
  try:
    content = (
        sys.stdin.buffer.read()
        if name == "-"
        else pathlib.Path(name).read_bytes()
    )
    text = content.decode("utf-8-sig")
  except (OSError, UnicodeDecodeError) as e:
    raise UserError(f"--input={name}: cannot read: {e}") from e
  rows = []
  # Not splitlines, which also ends lines at characters JSON text may hold.
  for number, line in enumerate(text.split("\n"), 1):
    if not line.strip():
      continue
    try:
      row = json.loads(line)
    except ValueError as e:
      raise UserError(f"--input={name}: line {number}: not JSON: {e}") from e
    if not isinstance(row, dict) or not isinstance(row.get("inputs"), str):
      raise UserError(
          f"--input={name}: line {number}: found {line[:60]!r}, expected an"
          " object with a text `inputs`"
      )
    rows.append(row)
  if not rows:
    raise UserError(f"--input={name}: found no lines, expected JSON lines")
  return rows


def infer(
    config: ExperimentConfig,
    workdir: pathlib.Path,
    prompt_file: str | None,
    row: int,
    source: str,
    target: str,
) -> None:
  """Reads JSON lines with `inputs` and writes them with `prediction` added.

  Args:
    config: the root config.
    workdir: of the run whose prompt is used.
    prompt_file: a prompt to use instead.
    row: which of its prompts; a run has one for each seed.
    source: JSON lines; `-` is standard input.
    target: where predictions go; `-` is standard output.
  """
  lines = _read_inputs(source)
  prompt, masks, path = _load_prompts(config, workdir, prompt_file)
  if not 0 <= row < prompt.shape[0]:
    raise UserError(
        f"--row={row}: {path} holds {prompt.shape[0]} prompts, expected a row"
        f" in [0, {prompt.shape[0]})"
    )
  experiment = load_experiment(config, workdir, roles=())
  if prompt_file is None:
    _check_weights(workdir, experiment)
  split = _text_split([line["inputs"] for line in lines], experiment)
  rows = TableRows(
      seeds=(0,),
      splits=(split,),
      buckets=config.task.buckets,
      targets_length=config.task.targets_length,
  )
  (predictions,) = evaluation.predict_table(
      prompt[[row]],
      masks_lib.take_rows(masks, np.array([row])),
      rows,
      model=experiment.model,
      frozen_params=experiment.frozen_params,
      vocabulary=experiment.vocabulary,
      batch_size=experiment.whole_batches(config.eval_batch_size),
      mesh=experiment.mesh,
  )
  with _open_output(target) as f:
    for line, prediction in zip(lines, predictions, strict=True):
      f.write(json.dumps({**line, "prediction": prediction}) + "\n")


def _text_split(texts: list[str], experiment: Experiment) -> CachedSplit:
  """Texts as a split without targets, tokenised as the cache does."""
  vocabulary = experiment.vocabulary
  most = experiment.config.task.inputs_length - 1
  inputs = [
      np.array([*vocabulary.encode(t)[:most], vocabulary.eos_id], np.int32)
      for t in texts
  ]
  return CachedSplit(
      task=artifacts.INFER,
      split="inputs",
      inputs=np.concatenate(inputs),
      input_offsets=np.cumsum([0, *map(len, inputs)]),
      targets=np.full(len(texts), vocabulary.eos_id, np.int32),
      target_offsets=np.arange(len(texts) + 1),
      examples=[{"id": i} for i in range(len(texts))],
      info={},
  )
