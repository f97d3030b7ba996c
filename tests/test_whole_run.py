"""Whole runs of settings that other tests take one at a time, and real data."""

import dataclasses
import json

import numpy as np
import pytest

from tests import command_line, shared_data
from tests.tiny_experiment import (
    CHECKSUM,
    CONFIG,
    EXACT_MATCH,
    arrays_of,
    make_experiment,
)
from xprompt_jax import artifacts, search

WSC = (
    "--gin_file=xprompt_wsc.gin",
    "--gin.CHECKPOINT='random:0'",
    "--gin.T5Config.emb_dim=32",
    "--gin.T5Config.mlp_dim=24",
    "--gin.T5Config.num_heads=2",
    "--gin.T5Config.head_dim=8",
    "--gin.T5Config.num_encoder_layers=1",
    "--gin.T5Config.num_decoder_layers=1",
    "--gin.PROMPT_LENGTH=4",
    "--gin.NUM_PIECES=8",
    "--gin.NUM_EPOCHS=None",
    "--gin.NUM_STEPS=2",
    "--gin.TOKEN_RATIOS=(0.5,)",
    "--gin.PIECE_RATIOS=(0.25,)",
)


def numbers_of(value):
  """Every number inside a JSON value."""
  if isinstance(value, dict):
    value = list(value.values())
  if isinstance(value, list):
    return [number for part in value for number in numbers_of(part)]
  return [value] if isinstance(value, (int, float)) else []


@pytest.mark.slow
def test_what_saves_memory_works_together(tmp_path):
  """bfloat16, remat, dropout, hidden tokens, a grid and two metrics."""
  config = dataclasses.replace(
      CONFIG,
      model=dataclasses.replace(
          CONFIG.model, dtype="bfloat16", remat=True, dropout_rate=0.1
      ),
      prompt=dataclasses.replace(CONFIG.prompt, pruned_tokens="ignore"),
      train=dataclasses.replace(
          CONFIG.train, num_steps=2, eval_every_steps=1, rows_per_chunk=2
      ),
      search=dataclasses.replace(
          CONFIG.search,
          strategy="grid",
          token_ratios=(0.4,),
          piece_ratios=(0.25,),
      ),
  )
  experiment = make_experiment(tmp_path, config, (EXACT_MATCH, CHECKSUM))
  summary = search.run_experiment(experiment)
  # Per seed: tokens alone, pieces alone, and both.
  assert summary["tickets_tried"] == 6
  for method in summary["methods"]:
    for row in method["rows"]:
      for role in ("validation", "test"):
        found = row[role]
        assert found.keys() == {"accuracy", "checksum", "score"}
        assert found["score"] == (found["accuracy"] + found["checksum"]) / 2
  lines = artifacts.read_json_lines(tmp_path / "search_grid/metrics.jsonl")
  assert [line["step"] for line in lines] == [1] * 6 + [2] * 6
  found = [*numbers_of(summary), *numbers_of(lines)]
  assert len(found) > 100
  assert np.isfinite(found).all()
  for folder in ("tune", "search_grid", "rewind"):
    arrays = arrays_of(experiment, folder)
    assert arrays["prompt"].dtype == np.float32
    assert np.isfinite(arrays["prompt"]).all()
    # Something was learnt, behind the masks too.
    assert (arrays["prompt"] != arrays["start"]).any(axis=(1, 2)).all()


@pytest.mark.slow
def test_real_wsc_rows_go_through_the_whole_pipeline(monkeypatch, tmp_path):
  monkeypatch.setenv("SUPER_GLUE_DIR", str(shared_data.path("super_glue")))
  status = command_line.run(
      "train",
      *WSC,
      f"--gin.VOCABULARY={shared_data.t5_vocabulary()!r}",
      f"--workdir={tmp_path}",
  )
  assert status == 0
  summary = json.loads((tmp_path / artifacts.RESULT).read_text())
  assert summary["task"] == "wsc"
  # The label-true rows of 554, and all rows of the validation split.
  assert summary["num_examples"] == {"train": 259, "validation": 104}
  for method in summary["methods"]:
    for row in method["rows"]:
      # Accuracies of 104 rows.
      hits = row["validation"]["accuracy"] * 104 / 100
      assert hits == pytest.approx(round(hits), abs=1e-9)
