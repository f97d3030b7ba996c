"""Result files of runs, written by hand for the tests of `t5x report`."""

import csv as csv_library
import json

from safetensors import numpy as safetensors_numpy

from xprompt_jax.html_report import reading
from xprompt_jax.html_report import sections as report_sections
from xprompt_jax.html_report.content import Table

# 2 * 8 * 4 embeddings, a layer each of 64 + 96 (+ 64) and norms, biases.
MODEL = {
    "vocab_size": 8,
    "emb_dim": 4,
    "num_heads": 2,
    "head_dim": 2,
    "num_encoder_layers": 1,
    "num_decoder_layers": 1,
    "mlp_dim": 8,
    "mlp_activations": ["gelu", "linear"],
    "relpos_num_buckets": 4,
}
MODEL_PARAMETERS = 64 + (64 + 96 + 8) + (128 + 96 + 12) + 8 + 16


def row(seed, right, *, size=4, splits=("validation", "test"), **more):
  """A row whose accuracy is `right` of `size` on each split."""
  score = 100.0 * right / size
  metrics = {split: {"accuracy": score, "score": score} for split in splits}
  sizes = {split: {"accuracy": size} for split in splits}
  return {
      "seed": seed,
      "kept_tokens": 2,
      "kept_pieces": 4,
      "tunable_parameters": 8,
      **metrics,
      "metric_sizes": sizes,
      **more,
  }


def config(**sections):
  """A config; a section given adds to what stands here."""
  found = {
      "model": MODEL,
      "task": {"name": "rte", "module": "tasks"},
      "prompt": {"length": 2, "num_pieces": 2, "init": "sampled_vocab"},
      "train": {"num_steps": 10},
      "splits": {"train": "a" * 64},
      "search": {"granularities": ["token", "piece"]},
  }
  for name, fields in sections.items():
    found[name] = {**found.get(name, {}), **fields}
  return found


def summary(methods=None, *, task="rte", num_examples=None, **sections):
  """`result.json` of a run: by method, how many of 4 each seed got right."""
  methods = methods or {"prompt_tuning": (2, 2), "xprompt": (3, 3)}
  return {
      "schema": 1,
      "config": config(**{"task": {"name": task}, **sections}),
      "task": task,
      "num_examples": num_examples or {"train": 8, "validation": 4, "test": 4},
      "prompt_length": 2,
      "num_pieces": 2,
      "methods": [
          {
              "method": name,
              "rows": [
                  one if isinstance(one, dict) else row(seed, one)
                  for seed, one in enumerate(rows)
              ],
          }
          for name, rows in methods.items()
      ],
      "tickets_tried": 18,
      "seconds": {"tune": 2.5, "evaluate": 1.0},
  }


def write_json(path, value):
  """Writes JSON, folders too."""
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(json.dumps(value))


def write_run(workdir, **options):
  """A finished run that has its `result.json` alone; returns WORKDIR."""
  write_json(workdir / "result.json", summary(**options))
  return workdir


def write_suite(workdir, **runs):
  """A suite or sweep of finished runs by name; returns WORKDIR."""
  for name, options in runs.items():
    write_run(workdir / name, **options)
  write_json(workdir / "result.json", {"schema": 1, "runs": list(runs)})
  return workdir


def write_arrays(path, **arrays):
  """Writes safetensors, folders too."""
  path.parent.mkdir(parents=True, exist_ok=True)
  safetensors_numpy.save_file(arrays, path)


def sections(*workdirs):
  """Sections by anchor."""
  found = report_sections.build(reading.read_runs(workdirs))
  return {section.anchor: section for section in found}


def table(section, number=0):
  tables = [item for item in section.items if isinstance(item, Table)]
  return [list(tables[number].columns), *map(list, tables[number].rows)]


def csv(section, number=0):
  tables = [item for item in section.items if isinstance(item, Table)]
  return list(csv_library.reader(tables[number].as_csv().splitlines()))
