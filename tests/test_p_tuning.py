"""P-tuning's prompt encoder, and how a baseline is named."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import examples
from xprompt_jax.methods import MethodConfig, build_baseline
from xprompt_jax.methods.p_tuning import PTuning, lstm
from xprompt_jax.types import UserError


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


def lstm_by_hand(leaves, inputs):
  """Hochreiter and Schmidhuber 1997 with torch's gates, a loop in NumPy."""
  hidden = cell = np.zeros(leaves["hidden"].shape[0])
  found = []
  for x in inputs:
    joined = x @ leaves["input"] + hidden @ leaves["hidden"]
    joined = joined + leaves["input_bias"] + leaves["hidden_bias"]
    i, f, g, o = np.split(joined, 4)
    cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(g)
    hidden = sigmoid(o) * np.tanh(cell)
    found.append(hidden)
  return np.stack(found)


def test_lstm_is_a_loop_over_positions_in_both_directions():
  rng = np.random.default_rng(0)
  # I 4, U 3, P 5.
  leaves = {
      "input": rng.normal(size=(4, 12)),
      "hidden": rng.normal(size=(3, 12)),
      "input_bias": rng.normal(size=12),
      "hidden_bias": rng.normal(size=12),
  }
  inputs = rng.normal(size=(5, 4))
  device = jax.tree.map(lambda x: jnp.array(x, jnp.float32), leaves)
  forward = lstm(device, jnp.array(inputs, jnp.float32))
  backward = lstm(device, jnp.array(inputs, jnp.float32), True)
  np.testing.assert_allclose(forward, lstm_by_hand(leaves, inputs), atol=1e-6)
  np.testing.assert_allclose(
      backward, lstm_by_hand(leaves, inputs[::-1])[::-1], atol=1e-6
  )


def test_the_prompt_encoder_is_torchs(torch):
  method = PTuning(length=5, encoder="lstm")
  leaves = method.initial(jax.random.key(2), examples.TINY, None)
  width = units = 12
  theirs = torch.nn.LSTM(
      width, units, num_layers=2, bidirectional=True, batch_first=True
  )
  names = {
      "input": "weight_ih",
      "hidden": "weight_hh",
      "input_bias": "bias_ih",
      "hidden_bias": "bias_hh",
  }

  def tensor(x):
    return torch.tensor(np.array(x.T))

  with torch.no_grad():
    for layer in (0, 1):
      for direction, suffix in (("forward", ""), ("backward", "_reverse")):
        for name, own in leaves["lstm"][f"layer_{layer}"][direction].items():
          getattr(theirs, f"{names[name]}_l{layer}{suffix}").copy_(tensor(own))
    x = theirs(torch.tensor(np.array(leaves["embedding"]))[None])[0][0]
    mlp = leaves["mlp"]
    for layer, act in (("hidden", torch.relu), ("out", lambda x: x)):
      weights = mlp[layer]
      x = act(
          torch.nn.functional.linear(
              x, tensor(weights["kernel"]), tensor(weights["bias"])
          )
      )
  np.testing.assert_allclose(
      method.prompt(leaves), x.numpy(), rtol=1e-5, atol=1e-6
  )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"name": "lora"},
            "METHOD: found 'lora', expected one of prompt_tuning",
        ),
        ({"mid_dim": 0}, "MethodConfig.mid_dim: found 0"),
        ({"prompt_encoder": "gru"}, "found 'gru', expected one of lstm, mlp"),
    ],
)
def test_config_names_the_field(fields, message):
  with pytest.raises(UserError, match=message):
    MethodConfig(**fields)


def test_each_name_builds_its_method():
  for name in ("fine_tuning", "prefix_tuning", "p_tuning", "p_tuning_v2"):
    method = build_baseline(MethodConfig(name=name), 6)
    assert method.name == name
    assert method.length == (0 if name == "fine_tuning" else 6)
  with pytest.raises(ValueError, match="prompt_tuning is no baseline"):
    build_baseline(MethodConfig(), 6)


def test_the_encoder_is_compiled_once_for_equal_methods():
  before = PTuning.prompt._cache_size()
  for _ in range(3):
    method = PTuning(length=3, encoder="lstm")
    method.prompt(method.initial(jax.random.key(0), examples.TINY, None))
  assert PTuning.prompt._cache_size() == before + 1
