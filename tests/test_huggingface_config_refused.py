"""What a `config.json` is refused for."""

import pytest

from tests import huggingface_folders as folders
from tests.huggingface_folders import refused
from xprompt_jax.weights import huggingface


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"model_type": "longt5", "architectures": None},
            "model_type: found 'longt5', expected one of t5, mt5, umt5",
        ),
        (
            {"architectures": ["BartForConditionalGeneration"]},
            (
                "architectures: found 'BartForConditionalGeneration', expected"
                " an encoder-decoder such as T5ForConditionalGeneration"
            ),
        ),
        (
            {"architectures": ["T5EncoderModel"]},
            (
                "architectures: found 'T5EncoderModel', expected an"
                " encoder-decoder such as T5ForConditionalGeneration"
            ),
        ),
        (
            {"d_model": "4"},
            "d_model: found '4', expected an integer >= 1",
        ),
        ({"d_kv": None}, "d_kv: found None, expected an integer >= 1"),
        ({"num_layers": 0}, "num_layers: found 0, expected an integer >= 1"),
        (
            {"num_decoder_layers": 1.5},
            "num_decoder_layers: found 1.5, expected an integer >= 1",
        ),
        (
            {"relative_attention_num_buckets": 2},
            (
                "T5Config.relpos_num_buckets: found 2, expected an"
                " integer >= 4"
            ),
        ),
        (
            {"layer_norm_epsilon": 1e-5},
            "layer_norm_epsilon: found 1e-05, expected 1e-06",
        ),
        (
            {"tie_word_embeddings": "no"},
            "tie_word_embeddings: found 'no', expected true or false",
        ),
        (
            {"feed_forward_proj": "gelu"},
            (
                "feed_forward_proj: found 'gelu', expected relu, gated-gelu,"
                " gated-silu or the like"
            ),
        ),
        (
            {"feed_forward_proj": "double-gelu"},
            (
                "feed_forward_proj: found 'double-gelu', expected relu,"
                " gated-gelu, gated-silu or the like"
            ),
        ),
        (
            {"feed_forward_proj": 3},
            "feed_forward_proj: found 3, expected a string",
        ),
        (
            {"dense_act_fn": "gelu"},
            (
                "dense_act_fn: found 'gelu', expected one of relu, gelu_new,"
                " gelu_pytorch_tanh, silu, swish, linear"
            ),
        ),
        (
            {"dense_act_fn": ["relu"]},
            (
                "dense_act_fn: found ['relu'], expected one of relu, gelu_new,"
                " gelu_pytorch_tanh, silu, swish, linear"
            ),
        ),
        (
            {"architectures": "T5EncoderModel"},
            "architectures: found 'T5EncoderModel', expected a list of names",
        ),
        (
            {"architectures": [["T5ForConditionalGeneration"]]},
            (
                "architectures: found ['T5ForConditionalGeneration'], expected"
                " an encoder-decoder such as T5ForConditionalGeneration"
            ),
        ),
        (
            {"model_type": ["t5"]},
            "model_type: found ['t5'], expected one of t5, mt5, umt5",
        ),
        (
            {"feed_forward_proj": ["relu"]},
            "feed_forward_proj: found ['relu'], expected a string",
        ),
        (
            {"layer_norm_epsilon": [1e-6]},
            "layer_norm_epsilon: found [1e-06], expected 1e-06",
        ),
        ({"is_gated_act": 1}, "is_gated_act: found 1, expected true or false"),
    ],
)
def test_configs_refused(fields, message, tmp_path):
  folders.write_config(tmp_path, **fields)
  found = refused(huggingface.read_config, tmp_path)
  assert found == f"{tmp_path / 'config.json'}: {message}"


def test_config_missing_or_no_json(tmp_path):
  path = tmp_path / "config.json"
  assert refused(huggingface.read_config, tmp_path) == (
      f"{path}: cannot read: No such file or directory"
  )
  path.write_text("{")
  assert refused(huggingface.read_config, tmp_path).startswith(
      f"{path}: not JSON: "
  )
