"""What each command does once its config is there.

`main.py` reads flags and gin files; this module loads the experiment, calls
`search`, `evaluation` or `scoring`, and writes and prints results.
"""

import contextlib
import dataclasses
import json
import pathlib
from typing import Any

import jax
import numpy as np

from xprompt_jax import (
    artifacts,
    baselines,
    nearest_words,
    scoreboard,
    scoring,
    search,
    stored_prompts,
)
from xprompt_jax.experiment import (
    Experiment,
    ExperimentConfig,
    SharedWeights,
    load_experiment,
    load_splits,
)
from xprompt_jax.methods.config import PROMPT_TUNING
from xprompt_jax.mixtures import MixedSplit
from xprompt_jax.t5x_engine import requirements
from xprompt_jax.types import UserError


def _run_facts(experiment: Experiment) -> dict[str, Any]:
  engine = experiment.config.engine
  return {
      **({} if engine == requirements.NATIVE else {"engine": engine}),
      "versions": artifacts.package_versions(),
      "devices": [str(device) for device in jax.devices()],
      "seeds": list(experiment.config.seeds),
      **_few_shot_facts(experiment),
      **stored_prompts.weights_facts(experiment),
  }


def _few_shot_facts(experiment: Experiment) -> dict[str, Any]:
  """Ids of the examples that each seed trains on, where they were chosen."""
  subsets = experiment.data.few_shots(experiment.config.seeds)
  ids = {
      name: [example["id"] for example in subset.examples]
      for name, subset in subsets.items()
  }
  return {"few_shot": ids} if ids else {}


def train(
    config: ExperimentConfig,
    workdir: pathlib.Path,
    gin_config: str,
    weights: SharedWeights | None = None,
) -> dict[str, Any]:
  """Runs all stages and prints the table of results.

  Args:
    config: the root config.
    workdir: where everything goes.
    gin_config: the operative config, kept as `config.gin`.
    weights: of the runs before; None loads them.

  Returns:
    The summary, as in `WORKDIR/result.json`.
  """
  _check_no_suite(workdir)
  experiment = load_experiment(config, workdir, weights=weights)
  facts = _run_facts(experiment)
  finished = (workdir / artifacts.RESULT).exists()
  # Until a stage has begun, WORKDIR may still take another config.
  if (workdir / artifacts.TUNE / artifacts.STARTED).exists():
    stored_prompts.check_weights(workdir, experiment)
  else:
    artifacts.write_json(workdir / artifacts.RUN, facts)
    artifacts.write_text(workdir / artifacts.CONFIG, gin_config)
  is_baseline = config.method.name != PROMPT_TUNING
  run = baselines.run_experiment if is_baseline else search.run_experiment
  with contextlib.closing(experiment):
    summary = run(experiment)
  if not finished:
    nearest_words.write(
        workdir,
        experiment.frozen_params["token_embedder"]["embedding"],
        experiment.vocabulary,
    )
    # A run that was stopped may have gone on with another search.
    artifacts.write_text(workdir / artifacts.CONFIG, gin_config)
  scoreboard.print_run(summary, workdir)
  return summary


def _check_no_suite(workdir: pathlib.Path) -> None:
  path = workdir / artifacts.RESULT
  if path.exists() and "runs" in artifacts.read_json(path):
    raise UserError(
        f"{path}: found the result of a suite, expected that of a single task,"
        " or another --workdir"
    )


def score(
    config: ExperimentConfig,
    workdir: pathlib.Path,
    prompt_file: str | None,
    weights: SharedWeights | None = None,
) -> None:
  """Writes the importance scores of a prompt, at its masks.

  The result is `WORKDIR/score/scores.safetensors`: token_scores [R, P] and
  piece_scores [R, P, K].
  """
  # Nothing is evaluated.
  config = dataclasses.replace(config, eval_tasks=())
  prompt, masks, path = stored_prompts.load_prompts(
      config, workdir, prompt_file
  )
  experiment = load_experiment(
      config, workdir, roles=("train",), weights=weights
  )
  if prompt_file is None:
    stored_prompts.check_weights(workdir, experiment)
  stored_prompts.warn_of_other_weights(path, experiment)
  rows = experiment.rows(
      "train", *stored_prompts.row_labels(experiment, path, len(prompt))
  )
  token_scores, piece_scores = scoring.score_table(
      prompt,
      masks,
      rows,
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
              "num_examples": max(map(len, rows.splits)),
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
  parts = [
      (role, part)
      for role, split in splits.items()
      for part in (split.members if isinstance(split, MixedSplit) else [split])
  ]
  for role, split in parts:
    line = {
        "split": split.split,
        "role": role,
        "num_examples": len(split),
        "longest_input": int(split.input_lengths.max()),
        "longest_target": int(split.target_lengths.max()),
        "truncated_inputs": split.info["num_truncated_inputs"],
        "folder": str(workdir / artifacts.CACHE / split.task),
    }
    print(json.dumps(line))
