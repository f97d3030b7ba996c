"""How many numbers each method trains, and how many inference needs."""

import dataclasses

from flax import linen as nn
import jax
import jax.numpy as jnp
import pytest

from tests import examples
from xprompt_jax import main
from xprompt_jax.methods.fine_tuning import FineTuning
from xprompt_jax.methods.p_tuning import PTuning
from xprompt_jax.methods.p_tuning_v2 import PTuningV2
from xprompt_jax.methods.prefix_tuning import PrefixTuning
from xprompt_jax.methods.prompt_tuning import PromptTuning
from xprompt_jax.model import PromptedT5
from xprompt_jax.t5.network import T5

# Of T5 1.1, whose sizes are those of the LM-adapted checkpoints, with both its
# tables: embedding and output layer.
MODELS = {
    "t5_1_1_large": 783_150_080,
    "t5_1_1_xl": 2_849_757_184,
    "t5_1_1_xxl": 11_135_332_352,
    "bundled": 1_026_048,
}
# Trained and needed; literal, so that a closed form that changes is noticed.
EXPECTED = {
    "t5_1_1_large": [
        (77_250_048, 1_474_560),
        (45_144_064, 20_480),
        (2_119_680, 20_480),
        (1_179_648, 1_179_648),
    ],
    "t5_1_1_xl": [
        (154_498_560, 2_949_120),
        (180_465_664, 40_960),
        (8_433_664, 40_960),
        (2_359_296, 2_359_296),
    ],
    "t5_1_1_xxl": [
        (308_995_584, 5_898_240),
        (721_641_472, 81_920),
        (33_644_544, 81_920),
        (4_718_592, 4_718_592),
    ],
    "bundled": [
        (1_121_280, 17_920),
        (711_424, 2_560),
        (35_584, 2_560),
        (14_336, 14_336),
    ],
}
BASELINES = (
    PrefixTuning(length=10, mid_dim=512),
    PTuning(length=20, encoder="lstm"),
    PTuning(length=20, encoder="mlp"),
    PTuningV2(length=8),
)


def config_of(name):
  return main.parse_gin([f"models/{name}.gin"], [], model_only=True)


def frozen_shapes(config):
  """The T5's parameters as shapes: nothing is allocated."""
  tokens = jax.ShapeDtypeStruct((1, 1), jnp.int32)
  made = jax.eval_shape(T5(config).init, jax.random.key(0), tokens, tokens)
  return nn.unbox(made)["params"]


def size(tree):
  return sum(leaf.size for leaf in jax.tree.leaves(tree))


def check(config, methods):
  """Counts the leaves that a method makes, and those left after folding."""
  frozen = frozen_shapes(config)

  def made(key, frozen, method):
    leaves = method.initial(key, config, frozen)
    model = PromptedT5(t5_config=config)
    return leaves, method.adapt(leaves, {}, model, frozen)

  found = []
  for method in methods:
    leaves, adapted = jax.eval_shape(
        lambda key, frozen, method=method: made(key, frozen, method),
        jax.random.key(0),
        frozen,
    )
    needed = size(adapted.params) + adapted.prompt.size
    if method.name != "fine_tuning":
      needed -= size(frozen)
    assert size(leaves) == method.trained_parameters(config), method
    assert needed == method.inference_parameters(config), method
    found.append((size(leaves), needed))
  return found


@pytest.mark.parametrize("name", MODELS)
def test_each_model_has_so_many_numbers_to_train(name):
  config = config_of(name)
  found = [
      (m.trained_parameters(config), m.inference_parameters(config))
      for m in (FineTuning(), *BASELINES)
  ]
  assert found == [(MODELS[name], MODELS[name]), *EXPECTED[name]]


def test_leaves_of_the_bundled_model_are_the_closed_form():
  config = config_of("bundled")
  assert size(frozen_shapes(config)) == MODELS["bundled"]
  found = check(config, (FineTuning(), *BASELINES))
  assert found[1:] == EXPECTED["bundled"]


@pytest.mark.parametrize("name", ["t5_1_1_large", "t5_1_1_xl", "t5_1_1_xxl"])
def test_the_frozen_models_have_so_many_parameters(name):
  assert size(frozen_shapes(config_of(name))) == MODELS[name]


def test_leaves_of_an_odd_model_are_the_closed_form():
  """Heads x head_dim is not H, and the stacks differ: TINY has 15, 12; 2, 1."""
  found = check(
      examples.TINY,
      (
          PrefixTuning(length=3, mid_dim=7),
          PTuning(length=3, encoder="lstm"),
          PTuningV2(length=3),
      ),
  )
  assert found == [
      # 3 (3 x 12 + 13 x 7) + 8 x 2 x 15 x 4; folded 2 x 3 x 15 x 4.
      (1341, 360),
      # 36 + 8 x 12 x (12 + 12 + 2) + 8 x 12 x (24 + 12 + 2) + 12 x (25 + 13).
      (6636, 36),
      (360, 360),
  ]


@pytest.mark.parametrize(
    "fields",
    [
        {"mlp_activations": ("relu",), "logits_via_embedding": True},
        {"relpos_per_layer": True},
    ],
)
def test_other_kinds_of_t5_are_counted(fields):
  config = dataclasses.replace(examples.TINY, **fields)
  check(config, (FineTuning(),))


def test_20_x_2048_is_the_papers_share_of_xl():
  """0.0014 % of the 2,849,757,184 parameters of T5-XL LM-adapted.

  Of the T5 1.0 that is called 3B, 2,851,598,336, it is 0.0014 % as well.
  """
  xl = config_of("t5_1_1_xl")
  trained = PromptTuning(length=20).trained_parameters(xl)
  assert trained == 20 * 2048 == 40_960
  share = 100 * trained / FineTuning().trained_parameters(xl)
  assert f"{share:.4f}" == "0.0014"
  three_b = FineTuning().trained_parameters(config_of("t5_3b"))
  assert three_b == size(frozen_shapes(config_of("t5_3b"))) == 2_851_598_336
  assert f"{100 * trained / three_b:.4f}" == "0.0014"
