"""Pruned tokens left out at export: the shorter prompt, and what changes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import examples, tiny_experiment
from xprompt_jax import prompt_formats
from xprompt_jax.export import exporting, removal
from xprompt_jax.types import PromptMasks, UserError

# P 5, K 4, H 12.
H, K = 12, 4


def make(experiment, source, output_format="npy"):
  prompt, masks, path = source
  return exporting.make_export(
      experiment,
      prompt,
      masks,
      path=path,
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
  one, other = (
      experiment.model.logits(
          experiment.frozen_params,
          jnp.repeat(jnp.asarray(values, jnp.float32), len(split), axis=0),
          jnp.repeat(jnp.asarray(visible), len(split), axis=0),
          jax.tree.map(jnp.asarray, batch.arrays),
      )
      for values, visible in prompts
  )
  targets = batch.arrays["decoder_loss_weights"] > 0
  return np.abs(np.asarray(one) - np.asarray(other))[targets]


@pytest.mark.parametrize("mode", ["zero", "ignore"])
@pytest.mark.parametrize("name", ["peft", "npy", "safetensors"])
def test_removed_tokens_leave_a_shorter_prompt_and_a_measure(
    tmp_path, name, mode
):
  config = dataclasses.replace(
      tiny_experiment.CONFIG,
      prompt=dataclasses.replace(
          tiny_experiment.CONFIG.prompt, pruned_tokens=mode
      ),
      # Several batches, the last one filled up.
      score_batch_size=3,
  )
  experiment = tiny_experiment.make_experiment(
      tmp_path, config, [tiny_experiment.CHECKSUM]
  )
  prompt, masks = pruned()
  source = (prompt, masks, str(tmp_path / "p.npy"))
  np.save(tmp_path / "p.npy", prompt[0])
  made = make(experiment, source, name)
  line = exporting.write_export(experiment, made, tmp_path / "out")
  shorter = masked(prompt, masks)[:, [0, 2, 4]]
  found = prompt_formats.read_prompt(tmp_path / "out", H)
  np.testing.assert_array_equal(found["prompt"], shorter)
  if name == "safetensors":
    np.testing.assert_array_equal(found["token_mask"], [[1, 1, 1]])
    np.testing.assert_array_equal(
        found["piece_mask"], masks.piece_mask[:, [0, 2, 4]]
    )
  assert made.positions == (0, 2, 4)
  assert (line["removed_tokens"], line["prompt_length"]) == (2, 3)
  ones = PromptMasks(
      token_mask=np.ones((1, 3), np.float32),
      piece_mask=np.ones((1, 3, K), np.float32),
  )
  assert line["validation"] == {
      "before": experiment.evaluate("validation", prompt, masks)[0],
      "after": experiment.evaluate("validation", shorter, ones)[0],
  }
  visible = masks.token_mask > 0 if mode == "ignore" else np.ones((1, 5), bool)
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
  card = (tmp_path / "out" / "README.md").read_text()
  assert "2 pruned tokens were removed." in card
  before, after = (line["validation"][k]["score"] for k in ("before", "after"))
  assert f"\n| score | {before:.2f} | {after:.2f} |\n" in card
  assert f"by at most {line['logits']['max_abs']:.3g}, by" in card


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
