"""Several devices compute what one computes: training, scoring, decoding."""

import pytest

from tests import four_devices

_ON_FOUR_DEVICES = """
import json
import pathlib
import tempfile
import jax
import numpy as np
from tests import examples
from xprompt_jax import candidates, evaluation, masks, partitioning, scoring
from xprompt_jax import vocabularies
from xprompt_jax.methods.prompt_tuning import PromptTuning
from xprompt_jax.optimizer import OptimizerConfig
from xprompt_jax.t5.config import T5Config
from xprompt_jax.train_step import train_step
from xprompt_jax.trainer import TableTrainer, TrainConfig
from xprompt_jax.model import PromptedT5
from xprompt_jax.weights import loading

config = T5Config(vocab_size=38, emb_dim=12, num_heads=4, head_dim=5,
                  num_encoder_layers=1, num_decoder_layers=1, mlp_dim=18)
params = loading.load_frozen("random:3", config).params
mesh = partitioning.make_mesh(2)
shardings = partitioning.param_shardings(config, mesh)
placed = {None: params, mesh: jax.device_put(params, shardings)}
split = examples.tiny_split(8)
for i, example in enumerate(split.examples):
  example["fields"]["candidates"] = ["!\\t ", " \\t", "\\t"][: 2 + i % 2]
rows = examples.rows_of(split, (0, 1, 2))
some = examples.random_masks(3, 5, 4)
start = np.asarray(examples.random_prompt(3, 5, 12))
found, traces = {}, []
for where, frozen in placed.items():
  common = {"model": PromptedT5(t5_config=config), "frozen_params": frozen}
  train_step.clear_cache()
  trained = TableTrainer(
      config=TrainConfig(batch_size=4, num_epochs=None, num_steps=3),
      optimizer=OptimizerConfig(), constants=some, rows=rows,
      method=PromptTuning(), evaluate=lambda trained: [{"score": 1.0}] * 3,
      folder=pathlib.Path(tempfile.mkdtemp()), mesh=where, **common,
  ).train({"prompt": start}).trained["prompt"]
  traces.append(train_step._cache_size())
  scores = scoring.score_table(start, some, rows, batch_size=6, mesh=where,
                               **common)
  common["vocabulary"] = vocabularies.load_vocabulary("bytes", 0)
  texts = [
      evaluation.predict_table(
          start, some, rows, batch_size=6, mesh=where, **common),
      evaluation.predict_named(
          start, some, rows.splits[0], np.arange(8) % 3, buckets=rows.buckets,
          targets_length=4, batch_size=6, mesh=where, **common),
      evaluation.predict_table(
          start, some, rows, batch_size=6, mesh=where, num_beams=2, **common),
  ]
  ranked = [
      np.concatenate(candidates.score_table(
          start, some, rows, way, batch_size=6, mesh=where, **common))
      for way in ("rank", "first_token")
  ]
  prompt = np.asarray(masks.apply_masks(trained, some))
  ranked = [np.where(np.isfinite(s), s, 0.0) for s in ranked]
  found[where] = (prompt, *scores, *ranked, texts)
one, many = found[None], found[mesh]
differences = [
    float(np.abs(a - b).max() / np.abs(a).max())
    for a, b in zip(one[:5], many[:5])
]
print(json.dumps({"differences": differences, "same": one[5] == many[5],
                  "traces": traces}))
"""


@pytest.fixture(scope="module")
def on_four_devices():
  return four_devices.run("-c", _ON_FOUR_DEVICES)


def test_prompts_and_scores_agree_with_one_device(on_four_devices):
  prompt, token_scores, piece_scores, *ranked = on_four_devices["differences"]
  assert prompt < 1e-4
  assert token_scores < 1e-5
  assert piece_scores < 1e-5
  assert len(ranked) == 2 and max(ranked) < 1e-5


def test_predictions_are_the_same(on_four_devices):
  assert on_four_devices["same"]


def test_a_step_is_compiled_once_with_and_without_a_mesh(on_four_devices):
  assert on_four_devices["traces"] == [1, 1]
