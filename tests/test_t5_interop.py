"""The T5 network against transformers', an implementation of other hands.

Random weights of this network are laid into `T5ForConditionalGeneration`;
logits and greedy generation must agree on padded batches.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xprompt_jax.t5.config import T5Config
from xprompt_jax.t5.decoding import greedy_decode
from xprompt_jax.t5.network import T5

_REASON = "needs torch and transformers: pip install -e '.[torch]'"
torch = pytest.importorskip("torch", reason=_REASON)
transformers = pytest.importorskip("transformers", reason=_REASON)

pytestmark = pytest.mark.interop

# B = 3, T = 6, L = 5.
INPUTS = np.array(
    [[7, 3, 9, 14, 8, 1], [5, 12, 2, 1, 0, 0], [1, 0, 0, 0, 0, 0]], np.int32
)
DECODER_INPUTS = np.array(
    [[0, 4, 8, 2, 11], [0, 6, 6, 10, 3], [0, 12, 5, 7, 9]], np.int32
)
MAX_LENGTH = 8
SIZES = {
    "vocab_size": 19,
    "emb_dim": 12,
    "num_heads": 3,
    "head_dim": 5,
    "num_encoder_layers": 2,
    "num_decoder_layers": 3,
    "mlp_dim": 14,
    "relpos_num_buckets": 8,
    "relpos_max_distance": 10,
}
VARIANTS = {
    "1.0": {"mlp_activations": ("relu",), "logits_via_embedding": True},
    "1.1": {
        "mlp_activations": ("gelu", "linear"),
        "logits_via_embedding": False,
    },
}

# Part of the network here: (name here, name there), in layer order there.
_ENCODER_PARTS = [("attention", "SelfAttention"), ("mlp", "DenseReluDense")]
_DECODER_PARTS = [
    ("self_attention", "SelfAttention"),
    ("encoder_decoder_attention", "EncDecAttention"),
    ("mlp", "DenseReluDense"),
]
_NORMS = {
    "attention": "pre_attention_layer_norm",
    "self_attention": "pre_self_attention_layer_norm",
    "encoder_decoder_attention": "pre_cross_attention_layer_norm",
    "mlp": "pre_mlp_layer_norm",
}
_KERNELS = {"query": "q", "key": "k", "value": "v", "out": "o"}


def make_params(t5: T5, seed: int) -> dict:
  tokens = jax.ShapeDtypeStruct((1, 1), jnp.int32)
  shapes = jax.eval_shape(t5.init, jax.random.key(0), tokens, tokens)
  rng = np.random.default_rng(seed)
  # The boxes that carry logical axes go: a leaf becomes a bare array.
  return jax.tree.map(
      lambda boxed: jnp.asarray(
          rng.standard_normal(boxed.value.shape, np.float32) * 0.7
      ),
      shapes["params"],
      is_leaf=lambda x: hasattr(x, "value"),
  )


def state_dict(params: dict) -> dict:
  """The same weights under transformers' names, matrices transposed."""
  named = {"shared.weight": params["token_embedder"]["embedding"]}
  stacks = (("encoder", _ENCODER_PARTS), ("decoder", _DECODER_PARTS))
  for stack, parts in stacks:
    tree = params[stack]
    named[f"{stack}.embed_tokens.weight"] = named["shared.weight"]
    named[f"{stack}.final_layer_norm.weight"] = tree[f"{stack}_norm"]["scale"]
    named[
        f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    ] = tree["relpos_bias"]["rel_embedding"].T
    num_layers = sum(name.startswith("layers_") for name in tree)
    for i in range(num_layers):
      layer = tree[f"layers_{i}"]
      for j, (ours, theirs) in enumerate(parts):
        prefix = f"{stack}.block.{i}.layer.{j}"
        named[f"{prefix}.layer_norm.weight"] = layer[_NORMS[ours]]["scale"]
        for name, leaf in layer[ours].items():
          full = f"{prefix}.{theirs}.{_KERNELS.get(name, name)}.weight"
          named[full] = leaf["kernel"].T
  head = params["decoder"].get("logits_dense")
  named["lm_head.weight"] = (
      named["shared.weight"] if head is None else head["kernel"].T
  )
  return {k: torch.tensor(np.asarray(v)) for k, v in named.items()}


def make_reference(params: dict, variant: str):
  tied = VARIANTS[variant]["logits_via_embedding"]
  config = transformers.T5Config(
      vocab_size=SIZES["vocab_size"],
      d_model=SIZES["emb_dim"],
      d_kv=SIZES["head_dim"],
      d_ff=SIZES["mlp_dim"],
      num_heads=SIZES["num_heads"],
      num_layers=SIZES["num_encoder_layers"],
      num_decoder_layers=SIZES["num_decoder_layers"],
      relative_attention_num_buckets=SIZES["relpos_num_buckets"],
      relative_attention_max_distance=SIZES["relpos_max_distance"],
      feed_forward_proj="relu" if tied else "gated-gelu",
      tie_word_embeddings=tied,
      dropout_rate=0.0,
      decoder_start_token_id=0,
  )
  model = transformers.T5ForConditionalGeneration(config).eval()
  named = state_dict(params)
  # Newer versions tie the output layer at first, whatever the config says,
  # and loading one would overwrite the other.
  model.lm_head.weight = torch.nn.Parameter(named["lm_head.weight"])
  model.load_state_dict(named)
  return model


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("seed", [0, 1])
def test_logits_agree_with_transformers(variant, seed):
  t5 = T5(T5Config(**SIZES, **VARIANTS[variant]))
  params = make_params(t5, seed)
  found = jax.jit(t5.apply)(
      {"params": params}, jnp.asarray(INPUTS), jnp.asarray(DECODER_INPUTS)
  )
  with torch.no_grad():
    expected = make_reference(params, variant)(
        input_ids=torch.tensor(INPUTS).long(),
        attention_mask=torch.tensor(INPUTS > 0).long(),
        decoder_input_ids=torch.tensor(DECODER_INPUTS).long(),
    ).logits.numpy()
  error = np.abs(found - expected).max() / np.abs(expected).max()
  print(f"\n{variant}, seed {seed}: largest difference {error:.1e}")
  assert error < 1e-5


@pytest.mark.parametrize("variant", VARIANTS)
def test_greedy_decoding_agrees_with_transformers(variant):
  t5 = T5(T5Config(**SIZES, **VARIANTS[variant]))
  visible = jnp.asarray(INPUTS > 0)

  @jax.jit
  def decode(params):
    variables = {"params": params}
    embedded = t5.apply(variables, jnp.asarray(INPUTS), method="embed")
    encoded = t5.apply(variables, embedded, visible, method="encode")
    return greedy_decode(t5, params, encoded, visible, MAX_LENGTH)

  ended = []
  for seed in range(12):
    params = make_params(t5, seed)
    expected = make_reference(params, variant).generate(
        input_ids=torch.tensor(INPUTS).long(),
        attention_mask=torch.tensor(INPUTS > 0).long(),
        max_new_tokens=MAX_LENGTH,
        do_sample=False,
        use_cache=False,  # Theirs wants as many layers as the encoder has.
    )
    # Theirs starts with the start token and ends with the longest row.
    expected = expected[:, 1:].numpy()
    found = np.asarray(decode(params))
    padding = ((0, 0), (0, MAX_LENGTH - expected.shape[1]))
    np.testing.assert_array_equal(found, np.pad(expected, padding))
    ended.extend((found == 1).any(axis=-1))
  assert any(ended) and not all(ended)
