"""A prompt inside T5X against the same prompt here: logits, losses, steps."""

import functools

from flax import core, traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import examples, t5x_examples, t5x_required
from tests.t5x_examples import allowed, scalable_network
from tests.t5x_examples import t5_network as t5x_network
from xprompt_jax import optimizer as optimizer_lib
from xprompt_jax import train_step as train_step_lib
from xprompt_jax.methods.prompt_tuning import PromptTuning
from xprompt_jax.model import PromptedT5, target_losses
from xprompt_jax.optimizer import OptimizerConfig
from xprompt_jax.prompts import PromptConfig, masked_prompts
from xprompt_jax.t5.config import T5Config
from xprompt_jax.t5x_engine import moving, names
from xprompt_jax.t5x_engine.starting import StartingPrompt
from xprompt_jax.types import PromptMasks, UserError
from xprompt_jax.weights import t5x_names

trainer_lib = t5x_required.t5x_module("t5x.trainer")
utils = t5x_required.t5x_module("t5x.utils")
decoding = t5x_required.t5x_module("t5x.decoding")
network = t5x_required.t5x_module("xprompt_jax.t5x_engine.network")
model_lib = t5x_required.t5x_module("xprompt_jax.t5x_engine.model")
initializing = t5x_required.t5x_module("xprompt_jax.t5x_engine.initializing")
optimizers = t5x_required.t5x_module("xprompt_jax.t5x_engine.optimizer")

pytestmark = [pytest.mark.t5x, pytest.mark.filterwarnings("ignore")]
# The fixture of every test here as well.
__all__ = ["allowed"]

# P 5, K 4, H 12, V 37; B 3, T 6, L 4. The prompt is shorter than some input.
P, K = examples.TINY_P, examples.TINY_K
BATCH = {
    "encoder_input_tokens": np.array(
        [[7, 3, 9, 4, 8, 1], [5, 2, 2, 1, 0, 0], [1, 0, 0, 0, 0, 0]], np.int32
    ),
    "decoder_input_tokens": np.array(
        [[0, 4, 8, 2], [0, 6, 0, 0], [0, 9, 5, 0]], np.int32
    ),
    "decoder_target_tokens": np.array(
        [[4, 8, 2, 1], [6, 1, 0, 0], [9, 5, 1, 0]], np.int32
    ),
    "decoder_loss_weights": np.array(
        [[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0]], np.float32
    ),
}
NAMES = (names.PROMPT, names.TOKEN_MASK, names.PIECE_MASK)
NETWORKS = {
    "t5": (t5x_network, {}),
    "scanned": (scalable_network, {"scan_layers": True}),
    # T5X's gin files have this policy, by which its decoder would lose its masks.
    "unscanned": (
        scalable_network,
        {"scan_layers": False, "remat_policy": "minimal"},
    ),
}


class Vocabulary:
  """What T5X asks of one where nothing is decoded into text."""

  eos_id = 1


def config_of(kind):
  base = examples.TINY
  sizes = {f: getattr(base, f) for f in base.__dataclass_fields__}
  return T5Config(**{**sizes, "relpos_per_layer": kind != "t5"})


def t5xs_model(
    kind,
    pruned_tokens="zero",
    decode_fn=decoding.beam_search,
    config=examples.TINY,
    **start,
):
  """T5X's model of a config's sizes, with a prompt of P tokens."""
  network, kwargs = NETWORKS[kind]
  start = StartingPrompt(
      config=PromptConfig(
          length=P,
          num_pieces=K,
          pruned_tokens=pruned_tokens,
          **{"init": "random_uniform", **start},
      ),
      seed=3,
  )
  return model_lib.PromptedEncoderDecoderModel(
      t5x_examples.network_of(config, network, dropout_rate=0.0, **kwargs),
      start,
      input_vocabulary=Vocabulary(),
      output_vocabulary=Vocabulary(),
      optimizer_def=optimizers.prompt_optimizer(),
      loss_normalizing_factor="NUM_REAL_TARGET_TOKENS",
      decode_fn=decode_fn,
  )


def initializer_of(model):
  """T5X's partitioner, and its initialiser as the gin files have it."""
  shapes = {name: a.shape for name, a in BATCH.items()}
  kind = initializing.PromptInitializer
  return t5x_examples.initializer_of(model, shapes, kind)


def initial_state(model):
  """As `initializer_of`, and the train state from scratch."""
  partitioner, initializer = initializer_of(model)
  return partitioner, initializer, initializer.from_scratch(jax.random.key(0))


def with_ticket(params, masks):
  """T5X's parameters with other masks, and the prompt [1, P, H] in them."""
  params = core.unfreeze(params)
  arrays = moving.from_parameters(params)
  arrays["token_mask"] = np.asarray(masks.token_mask)
  arrays["piece_mask"] = np.asarray(masks.piece_mask)
  part = moving.to_parameters(arrays)
  params["encoder"]["prompt"] = part["encoder"]["prompt"]
  return params, jnp.asarray(arrays["prompt"])


def own_params(params, config):
  """The frozen parameters under this network's names."""
  stored = {
      name: examples.leaf_of(np.asarray(array), tensor=name)
      for name, array in traverse_util.flatten_dict(params, sep="/").items()
      if not name.startswith(names.SCOPE)
  }
  leaves = t5x_names.network_leaves(stored, config)
  return traverse_util.unflatten_dict(
      {name: jnp.asarray(leaf.whole()) for name, leaf in leaves.items()},
      sep="/",
  )


def own_view(prompt, masks, pruned_tokens, config):
  """The model here, with one masked prompt for each example."""
  model = PromptedT5(t5_config=config, pruned_tokens=pruned_tokens)
  rows = jnp.zeros(3, jnp.int32)
  visible = model.prompt_visible(jax.tree.map(jnp.asarray, masks))[rows]
  return model, masked_prompts(prompt, masks, rows), visible


@pytest.fixture(scope="module", params=NETWORKS)
def variables(request):
  with jax.numpy_rank_promotion("allow"):
    model = t5xs_model(request.param)
    shapes = {name: a.shape for name, a in BATCH.items()}
    init = jax.jit(
        lambda key: model.get_initial_variables(key, shapes)["params"]
    )
    return request.param, init(jax.random.key(0))


@pytest.mark.parametrize("pruned_tokens", ["zero", "ignore"])
def test_logits_loss_scores_and_predictions(variables, pruned_tokens):
  kind, params = variables
  config = config_of(kind)
  masks = examples.random_masks(1, P, K, seed=1)
  assert masks.token_mask.sum() < P
  params, prompt = with_ticket(params, masks)
  frozen = own_params(params, config)
  native, masked, visible = own_view(prompt, masks, pruned_tokens, config)
  batch = {name: jnp.asarray(array) for name, array in BATCH.items()}
  expected = native.logits(frozen, masked, visible, batch)

  model = t5xs_model(kind, pruned_tokens)
  logits = model._compute_logits(params, BATCH)
  real = BATCH["decoder_loss_weights"] > 0
  np.testing.assert_allclose(logits[real], expected[real], rtol=1e-4, atol=1e-5)
  losses = target_losses(expected, batch)
  np.testing.assert_allclose(
      model.loss_fn(params, BATCH, None)[0], losses.sum() / 9, rtol=1e-4
  )
  np.testing.assert_allclose(
      model.score_batch(params, BATCH), -losses, rtol=1e-4
  )
  # T5X's beam search of one beam is not greedy, and neither is ours.
  greedy = functools.partial(decoding.temperature_sample, temperature=0.0)
  for beams, decode_fn in ((1, greedy), (2, decoding.beam_search)):
    model = t5xs_model(kind, pruned_tokens, decode_fn)
    found, _ = model.predict_batch_with_aux(params, BATCH, num_decodes=beams)
    answer = native.generate(
        frozen, masked, visible, batch["encoder_input_tokens"], 4, beams
    )
    np.testing.assert_array_equal(found, answer)


def test_the_two_treatments_of_pruned_tokens_differ(variables):
  kind, params = variables
  params, _ = with_ticket(params, examples.random_masks(1, P, K, seed=1))
  zero, ignore = (
      t5xs_model(kind, pruned)._compute_logits(params, BATCH)
      for pruned in ("zero", "ignore")
  )
  assert np.abs(zero - ignore).max() > 1e-4


def test_packed_examples_are_refused(variables):
  kind, params = variables
  packed = dict(BATCH, encoder_segment_ids=np.ones((3, 6), np.int32))
  with pytest.raises(UserError, match="expected pack = False"):
    t5xs_model(kind)._compute_logits(params, packed)


def test_another_module_is_refused():
  start = StartingPrompt(config=PromptConfig())
  with pytest.raises(UserError, match=r"module: found .*MaskedPrompt"):
    network.with_prompt(network.MaskedPrompt(start, 12), start)


@pytest.mark.parametrize("size", [18, 38])
def test_the_vocabulary_of_another_model_is_refused(monkeypatch, size):
  """T5's for mT5, or for ByT5: ids would mean nothing, or not be there."""
  model = t5xs_model("t5")
  for fitting in (19, 37):
    monkeypatch.setattr(Vocabulary, "vocab_size", fitting, raising=False)
    initial_state(model)
  monkeypatch.setattr(Vocabulary, "vocab_size", size)
  with pytest.raises(UserError) as error:
    initial_state(model)
  assert str(error.value) == (
      f"VOCABULARY: found {size} ids, of the task, and 37 embeddings, of the"
      " network, expected a task with the model's own vocabulary"
  )


def test_a_start_is_that_of_this_program():
  """Its seed, and its values, before any checkpoint is restored."""
  model = t5xs_model("t5")
  _, _, state = initial_state(model)
  found = moving.from_parameters(core.unfreeze(state.params))
  expected, _ = model.module.start.table(examples.TINY.emb_dim)
  np.testing.assert_array_equal(found["prompt"], expected[None])
  np.testing.assert_array_equal(found["token_mask"], np.ones((1, P)))
  np.testing.assert_array_equal(found["piece_mask"], np.ones((1, P, K)))


def own_steps(prompt, masks, frozen, steps, optimizer):
  """Steps of `xprompt_jax.train_step`, from a fresh optimizer."""
  trained = {"prompt": prompt}
  state = train_step_lib.TrainState(
      trained=trained, optimizer=optimizer_lib.init_rows(optimizer, trained)
  )
  batch = {name: jnp.asarray(a)[None] for name, a in BATCH.items()}
  masks = PromptMasks(
      token_mask=jnp.asarray(masks.token_mask),
      piece_mask=jnp.asarray(masks.piece_mask),
  )
  for step in range(steps):
    state, _ = train_step_lib.train_step(
        state,
        masks,
        frozen,
        batch,
        jnp.zeros(1, jnp.uint32),
        jnp.int32(step),
        method=PromptTuning(),
        model=PromptedT5(t5_config=examples.TINY),
        optimizer=optimizer,
    )
  return state


def t5xs_steps(model, params, steps):
  """Steps of T5X's trainer from given parameters; the train state after."""
  partitioner, initializer, state = initial_state(model)
  trainer = trainer_lib.Trainer(
      model=model,
      train_state=state.replace_params(core.freeze(params)),
      partitioner=partitioner,
      eval_names=(),
      summary_dir=None,
      train_state_axes=initializer.train_state_axes,
      rng=jax.random.key(1),
      learning_rate_fn=utils.create_learning_rate_scheduler(
          factors="constant", base_learning_rate=0.3
      ),
      num_microbatches=None,
  )
  step = trainer._partitioned_train_step
  with partitioner.mesh:
    state = trainer.train_state
    for _ in range(steps):
      state, _ = step(state, BATCH)
  return state


def check_optimizer(state, own, steps):
  """The second moments of both engines, and the number of steps."""
  states = core.unfreeze(state.param_states)
  moments = states["encoder"]["prompt"]["prompt"].pop("prompt")
  (factored,) = (
      s
      for s in jax.tree.leaves(
          own.optimizer, is_leaf=lambda s: hasattr(s, "v_row")
      )
      if hasattr(s, "v_row")
  )
  np.testing.assert_allclose(
      moments.v, factored.v["prompt"][0], rtol=1e-3, atol=1e-12
  )
  assert int(state.step) == int(factored.count[0]) == steps
  # Nothing else has a state.
  assert jax.tree.leaves(states) == []


# The second is a weight decay that shows in ten steps.
@pytest.mark.parametrize(
    "optimizer", [OptimizerConfig(), OptimizerConfig(weight_decay_rate=0.05)]
)
def test_ten_steps_of_both_engines(optimizer):
  """T5X's trainer and Adafactor against optax's; only the prompt moves."""
  masks = examples.random_masks(1, P, K, seed=1)
  model = t5xs_model("t5")
  model.optimizer_def = optimizers.prompt_optimizer(optimizer)
  _, _, state = initial_state(model)
  params, prompt = with_ticket(state.params, masks)
  # As a retraining starts: pruned entries are zero.
  prompt = jnp.asarray(masked_prompts(prompt, masks, jnp.zeros(1, jnp.int32)))
  params["encoder"]["prompt"]["prompt"]["prompt"] = prompt[0]
  started = np.asarray(prompt[0])
  before = jax.tree.map(np.asarray, params)
  state = t5xs_steps(model, params, 10)

  own = own_steps(
      prompt, masks, own_params(before, examples.TINY), 10, optimizer
  )
  after = traverse_util.flatten_dict(core.unfreeze(state.params), sep="/")
  found = np.asarray(after.pop(names.PROMPT))
  np.testing.assert_allclose(
      found, own.trained["prompt"][0], rtol=1e-3, atol=1e-3
  )
  assert np.abs(found - started).max() > 0.5
  factor = np.repeat(masks.piece_mask[0], 3, axis=-1)
  assert (found[factor == 0] == 0).all() and (factor == 0).any()
  check_optimizer(state, own, 10)

  before = traverse_util.flatten_dict(before, sep="/")
  del before[names.PROMPT]
  assert after.keys() == before.keys()
  for name, array in after.items():
    assert np.asarray(array).tobytes() == before[name].tobytes(), name
