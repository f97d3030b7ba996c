"""Sizes of a T5: what is refused, and what the packaged gin files bind."""

import pathlib

import gin
import jax
import jax.numpy as jnp
import pytest

import xprompt_jax
from xprompt_jax.t5.config import T5Config
from xprompt_jax.t5.network import T5
from xprompt_jax.types import UserError
from xprompt_jax.weights import bundled

GIN = pathlib.Path(xprompt_jax.__file__).parent / "gin"
SIZES = {
    "vocab_size": 13,
    "emb_dim": 6,
    "num_heads": 2,
    "head_dim": 5,
    "num_encoder_layers": 1,
    "num_decoder_layers": 3,
    "mlp_dim": 7,
}


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("emb_dim", 0, "an integer >= 1"),
        ("num_heads", 2.0, "an integer >= 1"),
        ("mlp_dim", True, "an integer >= 1"),
        ("vocab_size", "13", "an integer >= 1"),
        ("relpos_num_buckets", 3, "an integer >= 4"),
        ("relpos_max_distance", 16, "an integer >= 17"),
        ("mlp_activations", "relu", "one or two of relu, gelu, silu, linear"),
        ("mlp_activations", (), "one or two of relu, gelu, silu, linear"),
        (
            "mlp_activations",
            ("tanh",),
            "one or two of relu, gelu, silu, linear",
        ),
        ("dtype", "float16", "one of float32, bfloat16"),
        ("dropout_rate", -0.1, "a number >= 0"),
        ("dropout_rate", 1.0, "a number < 1"),
        ("remat", "yes", "True or False"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_a_bad_field_is_named_with_what_was_found(field, value, expected):
  with pytest.raises(UserError) as error:
    T5Config(**{**SIZES, field: value})
  message = f"T5Config.{field}: found {value!r}, expected {expected}"
  assert str(error.value) == message


@pytest.mark.usefixtures("unchecked")
def test_a_list_of_activations_from_gin_becomes_hashable():
  config = T5Config(**SIZES, mlp_activations=["gelu", "linear"])
  assert config == T5Config(**SIZES, mlp_activations=("gelu", "linear"))
  assert hash(config) == hash(T5Config(**SIZES))


# Counts of the released checkpoints; `expected_count` derives them again.
PUBLISHED = {
    "t5_small": 60_506_624,
    "t5_base": 222_903_552,
    "t5_large": 737_668_096,
    "t5_3b": 2_851_598_336,
    "t5_11b": 11_307_321_344,
    "t5_1_1_small": 76_961_152,
    "t5_1_1_base": 247_577_856,
    "t5_1_1_large": 783_150_080,
    "t5_1_1_xl": 2_849_757_184,
    "t5_1_1_xxl": 11_135_332_352,
    "mt5_small": 300_176_768,
    "mt5_base": 582_401_280,
    "mt5_large": 1_229_581_312,
    "mt5_xl": 3_742_619_648,
    "mt5_xxl": 12_921_057_280,
    "byt5_small": 299_637_760,
    "byt5_base": 581_653_248,
    "byt5_large": 1_228_183_552,
    "byt5_xl": 3_737_801_728,
    "byt5_xxl": 12_906_899_328,
}


def expected_count(c: T5Config) -> int:
  """Parameters of a T5, from its sizes alone."""
  attention = 4 * c.emb_dim * c.num_heads * c.head_dim
  mlp = (len(c.mlp_activations) + 1) * c.emb_dim * c.mlp_dim
  encoder = c.num_encoder_layers * (attention + mlp + 2 * c.emb_dim)
  decoder = c.num_decoder_layers * (2 * attention + mlp + 3 * c.emb_dim)
  final_norms = 2 * c.emb_dim
  position_biases = 2 * c.num_heads * c.relpos_num_buckets
  tables = (1 if c.logits_via_embedding else 2) * c.vocab_size * c.emb_dim
  return encoder + decoder + final_norms + position_biases + tables


@pytest.fixture
def parse():
  gin.clear_config()
  gin.add_config_file_search_path(str(GIN))

  def parse_model(name: str) -> T5Config:
    gin.parse_config_file(f"models/{name}.gin")
    return gin.get_configurable(T5Config)()

  yield parse_model
  gin.clear_config()


def test_every_model_file_has_its_published_count_here():
  # Neither a family's file nor `from_checkpoint` is a model of its own.
  families = {"t5_1_0", "t5_1_1", "byt5", "from_checkpoint"}
  families |= {"bundled", "bundled_small"}
  files = {path.stem for path in (GIN / "models").glob("*.gin")}
  assert files - families == set(PUBLISHED)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_model_file_gives_the_published_count(name, parse):
  assert expected_count(parse(name)) == PUBLISHED[name]
  header = (GIN / "models" / f"{name}.gin").read_text()
  assert f"{PUBLISHED[name]:,} parameters" in header


@pytest.mark.parametrize("name", ["t5_small", "t5_1_1_small", "byt5_small"])
def test_the_network_has_the_published_count(name, parse):
  tokens = jax.ShapeDtypeStruct((1, 1), jnp.int32)
  init = T5(parse(name)).init
  shapes = jax.eval_shape(init, jax.random.key(0), tokens, tokens)
  count = sum(leaf.size for leaf in jax.tree.leaves(shapes))
  assert count == PUBLISHED[name]


@pytest.mark.parametrize("name", ["bundled", "bundled_small"])
def test_a_bundled_models_file_has_its_sizes(name, parse):
  assert parse(name) == bundled.bundled_config(name)


@pytest.mark.parametrize(
    ("name", "vocabulary", "extra_ids"),
    [
        ("bundled", "bundled", 32),
        ("byt5_small", "bytes", 125),
        ("mt5_base", "gs://t5-data/vocabs/mc4.250000.100extra/", 0),
        ("t5_large", "gs://t5-data/vocabs/cc_all.32000/", 100),
        ("t5_1_1_xxl", "gs://t5-data/vocabs/cc_all.32000/", 100),
    ],
)
def test_a_model_brings_its_vocabulary(name, vocabulary, extra_ids):
  gin.clear_config()
  gin.add_config_file_search_path(str(GIN))
  gin.parse_config_file(f"models/{name}.gin")
  found = gin.query_parameter("VOCABULARY/gin.macro.value")
  assert found.startswith(vocabulary)
  assert gin.query_parameter("EXTRA_IDS/gin.macro.value") == extra_ids
