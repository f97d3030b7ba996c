"""What `config.json` says, released or saved by transformers."""

import json

import pytest

from tests import huggingface_folders as folders
from xprompt_jax.t5.config import T5Config
from xprompt_jax.weights import checkpoints, huggingface

# What it says of itself, as released.
T5_SMALL = {
    "architectures": ["T5ForConditionalGeneration"],
    "d_ff": 2048,
    "d_kv": 64,
    "d_model": 512,
    "decoder_start_token_id": 0,
    "dropout_rate": 0.1,
    "eos_token_id": 1,
    "initializer_factor": 1.0,
    "is_encoder_decoder": True,
    "layer_norm_epsilon": 1e-06,
    "model_type": "t5",
    "n_positions": 512,
    "num_heads": 8,
    "num_layers": 6,
    "output_past": True,
    "pad_token_id": 0,
    "relative_attention_num_buckets": 32,
    "vocab_size": 32128,
}
T5_LARGE_LM = {
    "architectures": ["T5ForConditionalGeneration"],
    "d_ff": 2816,
    "d_kv": 64,
    "d_model": 1024,
    "feed_forward_proj": "gated-gelu",
    "layer_norm_epsilon": 1e-06,
    "model_type": "t5",
    "num_decoder_layers": 24,
    "num_heads": 16,
    "num_layers": 24,
    "relative_attention_num_buckets": 32,
    "tie_word_embeddings": False,
    "vocab_size": 32128,
}
FLAN_T5_XL = {
    **T5_LARGE_LM,
    "d_ff": 5120,
    "d_model": 2048,
    "dense_act_fn": "gelu_new",
    "is_gated_act": True,
    "num_heads": 32,
    "relative_attention_max_distance": 128,
    "torch_dtype": "float32",
    "transformers_version": "4.23.1",
}
MT5_SMALL = {
    "architectures": ["MT5ForConditionalGeneration"],
    "d_ff": 1024,
    "d_kv": 64,
    "d_model": 512,
    "feed_forward_proj": "gated-gelu",
    "layer_norm_epsilon": 1e-06,
    "model_type": "mt5",
    "num_decoder_layers": 8,
    "num_heads": 6,
    "num_layers": 8,
    "relative_attention_num_buckets": 32,
    "tie_word_embeddings": False,
    "tokenizer_class": "T5Tokenizer",
    "vocab_size": 250112,
}
BYT5_SMALL = {
    **T5_LARGE_LM,
    "d_ff": 3584,
    "d_model": 1472,
    "num_decoder_layers": 4,
    "num_heads": 6,
    "num_layers": 12,
    "tokenizer_class": "ByT5Tokenizer",
    "vocab_size": 384,
}
UMT5_SMALL = {
    "architectures": ["UMT5ForConditionalGeneration"],
    "d_ff": 1024,
    "d_kv": 64,
    "d_model": 512,
    "dense_act_fn": "gelu_new",
    "feed_forward_proj": "gated-gelu",
    "is_gated_act": True,
    "layer_norm_epsilon": 1e-06,
    "num_decoder_layers": 8,
    "num_heads": 6,
    "num_layers": 8,
    "relative_attention_max_distance": 128,
    "relative_attention_num_buckets": 32,
    "tie_word_embeddings": False,
    "transformers_version": "4.31.0.dev0",
    "vocab_size": 256384,
}


def sizes(v, h, heads, d_kv, encoder, decoder, d_ff, activations, **kwargs):
  return T5Config(
      vocab_size=v,
      emb_dim=h,
      num_heads=heads,
      head_dim=d_kv,
      num_encoder_layers=encoder,
      num_decoder_layers=decoder,
      mlp_dim=d_ff,
      mlp_activations=activations,
      **kwargs,
  )


GATED = ("gelu", "linear")
TABLE = {"logits_via_embedding": True}
RELEASED = {
    "t5-small": (
        T5_SMALL,
        sizes(32128, 512, 8, 64, 6, 6, 2048, ("relu",), **TABLE),
    ),
    "t5-large-lm-adapt": (
        T5_LARGE_LM,
        sizes(32128, 1024, 16, 64, 24, 24, 2816, GATED),
    ),
    "flan-t5-xl": (FLAN_T5_XL, sizes(32128, 2048, 32, 64, 24, 24, 5120, GATED)),
    "mt5-small": (MT5_SMALL, sizes(250112, 512, 6, 64, 8, 8, 1024, GATED)),
    "byt5-small": (BYT5_SMALL, sizes(384, 1472, 6, 64, 12, 4, 3584, GATED)),
    "umt5-small": (
        UMT5_SMALL,
        sizes(256384, 512, 6, 64, 8, 8, 1024, GATED, relpos_per_layer=True),
    ),
}


@pytest.mark.parametrize("name", RELEASED)
def test_released_configs(name, tmp_path):
  fields, expected = RELEASED[name]
  (tmp_path / "config.json").write_text(json.dumps(fields))
  assert huggingface.read_config(tmp_path) == expected


def test_released_umt5_says_in_its_architecture_what_it_is(tmp_path):
  assert "model_type" not in UMT5_SMALL
  (tmp_path / "config.json").write_text(json.dumps(UMT5_SMALL))
  assert checkpoints.huggingface_folder(str(tmp_path)) == tmp_path


@pytest.mark.parametrize(
    ("fields", "tied"),
    [
        ({"tie_word_embeddings": False}, False),
        ({"tie_word_embeddings": True}, True),
        # transformers 5 writes true whatever it does.
        ({"tie_word_embeddings": True, "scale_decoder_outputs": False}, False),
        ({"tie_word_embeddings": True, "scale_decoder_outputs": True}, True),
        ({"model_type": "mt5", "tie_word_embeddings": False}, False),
        ({"model_type": "mt5", "tie_word_embeddings": True}, True),
        (
            {
                "model_type": "mt5",
                "tie_word_embeddings": True,
                "transformers_version": "5.23.0",
            },
            False,
        ),
        ({"model_type": "umt5", "tie_word_embeddings": False}, False),
        ({"model_type": "umt5", "tie_word_embeddings": True}, True),
    ],
)
def test_whether_logits_come_from_the_embedding_table(fields, tied, tmp_path):
  folders.write_config(tmp_path, **fields)
  assert huggingface.read_config(tmp_path).logits_via_embedding is tied


@pytest.mark.parametrize(
    ("kind", "tied"), [("t5", True), ("mt5", False), ("umt5", True)]
)
def test_without_a_word_on_tying_it_is_as_in_transformers_4(
    kind, tied, tmp_path
):
  folders.write_config(
      tmp_path, without=("tie_word_embeddings",), model_type=kind
  )
  assert huggingface.read_config(tmp_path).logits_via_embedding is tied


def test_a_umt5_by_transformers_5_ties_unless_its_weights_say_otherwise(
    tmp_path,
):
  fields = {
      "model_type": "umt5",
      "tie_word_embeddings": True,
      "transformers_version": "5.23.0",
  }
  found = folders.tensors()
  folders.write(tmp_path, found, **fields)
  assert not huggingface.read_config(tmp_path).logits_via_embedding
  found["lm_head.weight"] = found["shared.weight"]
  folders.write(tmp_path, found, **fields)
  assert huggingface.read_config(tmp_path).logits_via_embedding
  del found["lm_head.weight"]
  folders.write(tmp_path, found, **fields)
  assert huggingface.read_config(tmp_path).logits_via_embedding


@pytest.mark.parametrize(
    ("fields", "activations"),
    [
        ({"feed_forward_proj": "relu"}, ("relu",)),
        ({"feed_forward_proj": "gated-relu"}, ("relu", "linear")),
        ({"feed_forward_proj": "gated-silu"}, ("silu", "linear")),
        ({"feed_forward_proj": "gelu_new"}, ("gelu",)),
        (
            {
                "feed_forward_proj": "gated-gelu",
                "dense_act_fn": "silu",
                "is_gated_act": True,
            },
            ("silu", "linear"),
        ),
        (
            {
                "feed_forward_proj": "gated-gelu",
                "dense_act_fn": "relu",
                "is_gated_act": False,
            },
            ("relu",),
        ),
    ],
)
def test_activations(fields, activations, tmp_path):
  folders.write_config(tmp_path, **fields)
  assert huggingface.read_config(tmp_path).mlp_activations == activations


@pytest.mark.parametrize(
    ("version", "tied"),
    [
        ("4.57.0", True),
        ("5", False),
        ("5.0.0.dev0", False),
        ("9" * 5000, True),
        (["5"], True),
        (None, True),
    ],
)
def test_the_version_of_transformers(version, tied, tmp_path):
  folders.write_config(
      tmp_path,
      model_type="mt5",
      tie_word_embeddings=True,
      transformers_version=version,
  )
  assert huggingface.read_config(tmp_path).logits_via_embedding is tied


def test_what_a_config_may_leave_out(tmp_path):
  folders.write_config(
      tmp_path,
      without=(
          "architectures",
          "feed_forward_proj",
          "layer_norm_epsilon",
          "num_decoder_layers",
          "relative_attention_max_distance",
          "relative_attention_num_buckets",
          "tie_word_embeddings",
      ),
      num_layers=3,
  )
  config = huggingface.read_config(tmp_path)
  assert config.num_decoder_layers == 3
  assert config.relpos_num_buckets == 32
  assert config.relpos_max_distance == 128
  assert config.mlp_activations == ("relu",)
  folders.write_config(tmp_path, num_layers=3, num_decoder_layers=None)
  assert huggingface.read_config(tmp_path).num_decoder_layers == 3
