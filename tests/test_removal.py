"""Pruned tokens left out at export: the shorter prompt, and what changes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

from tests import examples, tiny_experiment
from xprompt_jax import artifacts, prompt_formats
from xprompt_jax.export import contents, exporting, removal, run_records
from xprompt_jax.types import PromptMasks, UserError

# P 5, K 4, H 12.
H, K = 12, 4
# Where it is not what is looked at: it takes predictions of two lengths.
UNMEASURED = removal.Change(before={}, after={}, max_abs=0.0, mean_abs=0.0)


def make(experiment, source, output_format="npy"):
  prompt, masks, path = source
  return contents.make_export(
      experiment,
      prompt,
      masks,
      path=path,
      record=run_records.read_record(path, prompt),
      rows=(0,),
      output_format=output_format,
      remove_pruned_tokens=True,
  )


def masked(prompt, masks):
  keep = np.repeat(masks.piece_mask, H // K, axis=-1) > 0
  return np.where(keep, prompt, 0)


def pruned(rows=1):
  """Prompts of 5 tokens, of which the second and the fourth are pruned."""
  token = np.array([[1, 0, 1, 0, 1]] * rows, np.float32)
  piece = np.repeat(token[..., None], K, axis=-1)
  piece[:, 2, 1] = 0
  prompt = np.asarray(examples.random_prompt(rows, 5, H, seed=7))
  return prompt, PromptMasks(token_mask=token, piece_mask=piece)


def logits_apart(experiment, *prompts):
  """Differences of target logits [N, V], in one batch of the model itself."""
  split = experiment.splits["validation"]
  (batch,) = examples.rows_of(split).every_example(len(split))
  arrays = jax.tree.map(jnp.asarray, batch.arrays)
  logits = jax.jit(experiment.model.logits)
  one, other = (
      logits(
          experiment.frozen_params,
          jnp.repeat(jnp.asarray(values, jnp.float32), len(split), axis=0),
          jnp.repeat(jnp.asarray(visible), len(split), axis=0),
          arrays,
      )
      for values, visible in prompts
  )
  targets = batch.arrays["decoder_loss_weights"] > 0
  return np.abs(np.asarray(one) - np.asarray(other))[targets]


@pytest.fixture(scope="module", params=["zero", "ignore"])
def measured(request, tmp_path_factory):
  """An experiment, a prompt with masks, and what is exported of it."""
  folder = tmp_path_factory.mktemp("measured")
  config = dataclasses.replace(
      tiny_experiment.CONFIG,
      prompt=dataclasses.replace(
          tiny_experiment.CONFIG.prompt, pruned_tokens=request.param
      ),
      # Several batches, the last one filled up.
      score_batch_size=3,
  )
  experiment = tiny_experiment.make_experiment(
      folder, config, [tiny_experiment.CHECKSUM]
  )
  prompt, masks = pruned()
  np.save(folder / "p.npy", prompt[0])
  source = (prompt, masks, str(folder / "p.npy"))
  return experiment, prompt, masks, make(experiment, source)


@pytest.mark.parametrize("name", ["peft", "npy", "safetensors"])
def test_removed_tokens_leave_a_shorter_prompt(measured, tmp_path, name):
  experiment, prompt, masks, made = measured
  made = dataclasses.replace(made, output_format=name)
  line = exporting.write_export(experiment, made, tmp_path / "out")
  shorter = masked(prompt, masks)[:, [0, 2, 4]]
  found = prompt_formats.read_prompt(tmp_path / "out", H)
  np.testing.assert_array_equal(found["prompt"], shorter)
  np.testing.assert_array_equal(found["token_mask"], [[1, 1, 1]])
  np.testing.assert_array_equal(
      found["piece_mask"], masks.piece_mask[:, [0, 2, 4]]
  )
  assert made.positions == (0, 2, 4)
  assert (line["removed_tokens"], line["prompt_length"]) == (2, 3)
  card = (tmp_path / "out" / "README.md").read_text()
  assert "2 pruned tokens were removed." in card
  before, after = (line["validation"][k]["score"] for k in ("before", "after"))
  assert f"\n| score | {before:.2f} | {after:.2f} |\n" in card
  assert f"by at most {line['logits']['max_abs']:.3g}, by" in card


def test_what_removal_changes_is_measured(measured, tmp_path):
  experiment, prompt, masks, made = measured
  line = exporting.write_export(experiment, made, tmp_path / "out")
  shorter = masked(prompt, masks)[:, [0, 2, 4]]
  ones = PromptMasks(
      token_mask=np.ones((1, 3), np.float32),
      piece_mask=np.ones((1, 3, K), np.float32),
  )
  assert line["validation"] == {
      "before": experiment.evaluate("validation", prompt, masks)[0],
      "after": experiment.evaluate("validation", shorter, ones)[0],
  }
  hidden = experiment.config.prompt.pruned_tokens == "ignore"
  visible = masks.token_mask > 0 if hidden else np.ones((1, 5), bool)
  apart = logits_apart(
      experiment,
      (masked(prompt, masks), visible),
      (shorter, np.ones((1, 3), bool)),
  )
  assert apart.max() > 1e-3
  np.testing.assert_allclose(line["logits"]["max_abs"], apart.max(), rtol=1e-4)
  np.testing.assert_allclose(
      line["logits"]["mean_abs"], apart.mean(), rtol=1e-4
  )


def test_scores_stay_with_the_tokens_that_stay(tmp_path, monkeypatch):
  experiment = tiny_experiment.make_experiment(tmp_path)
  monkeypatch.setattr(removal, "measure", lambda *_: UNMEASURED)
  prompt, masks = pruned()
  path = tmp_path / "scored.safetensors"
  arrays = {
      "prompt": prompt[0],
      "token_mask": masks.token_mask[0],
      "piece_mask": masks.piece_mask[0],
      "token_scores": np.array([10, 11, 12, 13, 14], np.float32),
      "piece_scores": np.arange(20, dtype=np.float32).reshape(5, K),
  }
  safetensors_numpy.save_file(arrays, path)
  made = make(experiment, (prompt, masks, str(path)), "safetensors")
  exporting.write_export(experiment, made, tmp_path / "out")
  found = safetensors_numpy.load_file(tmp_path / "out" / "prompt.safetensors")
  assert found["token_scores"].tolist() == [10, 12, 14]
  assert found["piece_scores"].tolist() == [
      [0, 1, 2, 3],
      [8, 9, 10, 11],
      [16, 17, 18, 19],
  ]
  card = (tmp_path / "out" / "README.md").read_text()
  table = card.partition("## Kept tokens")[2].partition("## Frozen")[0]
  lines = [x.rpartition(" | ")[0] for x in table.splitlines() if "|" in x]
  assert lines[2:] == [
      "| 0 | 4 of 4 | 10",
      "| 2 | 3 of 4 | 12",
      "| 4 | 4 of 4 | 14",
  ]


def test_a_runs_prompt_is_measured_on_its_own_validation(finished, monkeypatch):
  experiment, _ = finished
  path = str(experiment.workdir / "rewind" / artifacts.PROMPT)
  prompt = prompt_formats.read_prompt(path, H)["prompt"]
  source = (prompt, pruned(rows=2)[1], path)
  validation = experiment.splits["validation"]
  changed = {**validation.info, "arrays_sha256": "another"}
  changed = dataclasses.replace(validation, info=changed)
  splits = {"validation": changed}
  own, other = validation.fingerprint, changed.fingerprint
  task = dataclasses.replace(experiment.config.task, name="other")
  config = dataclasses.replace(experiment.config, task=task)
  for fields, line in (
      (
          {"config": config},
          "--remove_pruned_tokens: found task 'other', expected 'tiny', that"
          f" of the run of {path}",
      ),
      (
          {"splits": splits},
          f"--remove_pruned_tokens: found a validation split of sha256 {other},"
          f" expected {own}, that of the run of {path}",
      ),
  ):
    with pytest.raises(UserError) as refusal:
      make(dataclasses.replace(experiment, **fields), source)
    assert str(refusal.value) == line
  monkeypatch.setattr(removal, "measure", lambda *_: UNMEASURED)
  assert make(experiment, source).change is UNMEASURED


def test_nothing_is_removed_where_nothing_is_pruned(tmp_path):
  experiment = tiny_experiment.make_experiment(tmp_path)
  prompt, masks = pruned()
  # A token without pieces is kept: its mask is 1.
  masks = PromptMasks(
      token_mask=np.ones_like(masks.token_mask), piece_mask=masks.piece_mask
  )
  np.save(tmp_path / "p.npy", prompt[0])
  source = (prompt, masks, str(tmp_path / "p.npy"))
  made = make(experiment, source)
  line = exporting.write_export(experiment, made, tmp_path / "out")
  assert line["removed_tokens"] == 0
  assert "validation" not in line and "logits" not in line
  card = (tmp_path / "out" / "README.md").read_text()
  assert "No token was pruned, so nothing was removed." in card


def test_a_prompt_without_kept_tokens_cannot_lose_them():
  prompt, masks = pruned()
  none = PromptMasks(
      token_mask=0 * masks.token_mask, piece_mask=0 * masks.piece_mask
  )
  with pytest.raises(UserError) as refusal:
    removal.without_pruned_tokens(prompt, none, "p")
  assert str(refusal.value) == (
      "p: token_mask: found every token pruned, expected one that is kept"
  )
