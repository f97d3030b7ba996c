"""`t5x import` from Hugging Face to T5X and back, and what it prints."""

import json

import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

from tests import command_line, examples, huggingface_folders, shared_data
from xprompt_jax import conversion
from xprompt_jax.weights import huggingface, t5x_native

# Leaves of `huggingface_folders.CONFIG`.
NUM_LEAVES = 29


def imported(capsys, *arguments):
  """Runs `t5x import`: its JSON lines, and what it says beside them."""
  assert command_line.run("import", *arguments) == 0
  printed = capsys.readouterr()
  return [json.loads(line) for line in printed.out.splitlines()], printed.err


@pytest.fixture
def source(tmp_path):
  return huggingface_folders.write(tmp_path / "source")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_there_and_back_every_bit_is_kept(tmp_path, capsys, dtype):
  tensors = huggingface_folders.tensors(dtype)
  source = huggingface_folders.write(tmp_path / "source", tensors)
  native, back = tmp_path / "native", tmp_path / "back"
  to_native, _ = imported(
      capsys, f"--checkpoint={source}", f"--output={native}", "--format=t5x"
  )
  to_back, _ = imported(
      capsys,
      f"--checkpoint={native}",
      f"--output={back}",
      "--format=huggingface",
  )
  for lines in (to_native, to_back):
    assert len(lines) == NUM_LEAVES + 1
    assert all(line["bit_identical"] for line in lines[:-1])
    assert {line["dtype"] for line in lines[:-1]} == {dtype}
    assert (
        lines[-1]["tensors_bit_identical"] == lines[-1]["tensors"] == NUM_LEAVES
    )
    assert lines[-1]["max_difference"] == 0.0
    assert lines[-1]["logits_max_difference"] == 0.0
    assert lines[-1]["logits_max"] > 1.0
  found = safetensors_numpy.load_file(back / "model.safetensors")
  assert found.keys() == tensors.keys()
  for name, expected in tensors.items():
    assert found[name].dtype == expected.dtype
    assert found[name].tobytes() == expected.tobytes()


def test_a_line_for_each_tensor(tmp_path, capsys, source):
  lines, errors = imported(
      capsys,
      f"--checkpoint={source}",
      f"--output={tmp_path / 'native'}",
      "--format=t5x",
  )
  assert errors == ""
  assert {
      "tensor": "decoder/layers_0/mlp/wo/kernel",
      "shape": [5, 4],
      "dtype": "float32",
      "bit_identical": True,
      "max_difference": 0.0,
  } in lines
  assert lines[-1].keys() == {
      "source",
      "output",
      "tensors",
      "tensors_bit_identical",
      "max_difference",
      "logits_max",
      "logits_max_difference",
      "vocabulary",
  }


def test_a_difference_is_seen():
  old = {"a": examples.leaf_of(np.ones((2, 3), np.float32), "f")}
  changed = np.ones((2, 3), np.float32)
  changed[1, 2] = 0.75
  new = {"a": examples.leaf_of(changed, "g")}
  (line,) = conversion.compared(old, new)
  assert line == {
      "tensor": "a",
      "shape": [2, 3],
      "dtype": "float32",
      "bit_identical": False,
      "max_difference": 0.25,
  }


def test_a_negative_zero_is_another_bit():
  old = {"a": examples.leaf_of(np.zeros(1, np.float32), "f")}
  new = {"a": examples.leaf_of(-np.zeros(1, np.float32), "g")}
  (line,) = conversion.compared(old, new)
  assert (line["bit_identical"], line["max_difference"]) == (False, 0.0)


def test_sizes_of_t5x_are_told_or_stated(tmp_path, capsys):
  tiny = shared_data.path("checkpoints/t5x_tiny/checkpoint_3")
  _, said = imported(
      capsys,
      f"--checkpoint={tiny}",
      f"--output={tmp_path / 'told'}",
      "--format=huggingface",
  )
  assert said.startswith(
      f"{tiny}: sizes told from names and shapes; gelu and linear and"
      " relpos_max_distance 128 are assumed, a file of models/ can state"
      " others\n"
  )
  told = json.loads((tmp_path / "told" / "config.json").read_text())
  assert told["relative_attention_max_distance"] == 128
  recipe = tmp_path / "tiny.gin"
  recipe.write_text(
      "from __gin__ import dynamic_registration\n"
      "from xprompt_jax.t5 import config as t5_config\n"
      'include "models/t5_1_1.gin"\n'
      'VOCABULARY = "bytes"\nEXTRA_IDS = 125\n'
      "t5_config.T5Config:\n"
      "  emb_dim = 4\n  num_heads = 2\n  head_dim = 2\n  mlp_dim = 8\n"
      "  num_encoder_layers = 2\n  num_decoder_layers = 2\n"
      "  relpos_num_buckets = 4\n  relpos_max_distance = 8\n"
  )
  _, said = imported(
      capsys,
      f"--checkpoint={tiny}",
      f"--output={tmp_path / 'stated'}",
      "--format=huggingface",
      f"--gin_file={recipe}",
  )
  assert "sizes told" not in said
  stated = json.loads((tmp_path / "stated" / "config.json").read_text())
  assert stated["relative_attention_max_distance"] == 8
  # The weights themselves are T5X's.
  config = huggingface.read_config(tmp_path / "stated")
  old = t5x_native.open_checkpoint(str(tiny), config)
  new = huggingface.open_folder(tmp_path / "stated", config)
  assert all(line["bit_identical"] for line in conversion.compared(old, new))


def test_a_folder_that_is_taken_is_refused(tmp_path, capsys, source):
  for output_format in ("huggingface", "t5x"):
    taken = tmp_path / output_format
    arguments = (
        f"--checkpoint={source}",
        f"--output={taken}",
        f"--format={output_format}",
    )
    imported(capsys, *arguments)
    before = sorted(str(p) for p in taken.rglob("*"))
    message = command_line.refused(capsys, "import", *arguments)
    assert message.startswith(str(taken))
    assert sorted(str(p) for p in taken.rglob("*")) == before


def test_nothing_is_left_of_a_source_that_is_damaged(tmp_path, capsys, source):
  path = source / "model.safetensors"
  path.write_bytes(path.read_bytes()[:-9])
  message = command_line.refused(
      capsys,
      "import",
      f"--checkpoint={source}",
      f"--output={tmp_path / 'native'}",
      "--format=t5x",
  )
  assert message.startswith(str(path))
  assert [p.name for p in tmp_path.iterdir()] == ["source"]


def test_nothing_is_left_of_weights_that_are_not_finite(tmp_path, capsys):
  tensors = huggingface_folders.tensors()
  tensors["encoder.final_layer_norm.weight"][2] = np.inf
  source = huggingface_folders.write(tmp_path / "source", tensors)
  for output_format in ("t5x", "huggingface"):
    message = command_line.refused(
        capsys,
        "import",
        f"--checkpoint={source}",
        f"--output={tmp_path / output_format}",
        f"--format={output_format}",
    )
    assert message == (
        f"{source / 'model.safetensors'}: encoder.final_layer_norm.weight: found"
        " NaN or infinity, expected finite numbers in float32"
    )
    assert not list((tmp_path / output_format).rglob("*"))


def test_the_folder_may_hold_other_checkpoints(tmp_path, capsys, source):
  # Neither another step nor a model of Hugging Face is taken for the new one.
  folder = huggingface_folders.write(tmp_path / "out")
  tensors = {n: 2 * a for n, a in huggingface_folders.tensors().items()}
  other = huggingface_folders.write(tmp_path / "other", tensors)
  (folder / "checkpoint_5").mkdir()
  lines, _ = imported(
      capsys, f"--checkpoint={other}", f"--output={folder}", "--format=t5x"
  )
  assert lines[-1]["output"] == str(folder / "checkpoint_0")
  assert lines[-1]["logits_max_difference"] == 0.0
  found = t5x_native.open_checkpoint(
      str(folder / "checkpoint_0"), huggingface_folders.CONFIG
  )
  table = found["token_embedder/embedding"].whole()
  np.testing.assert_array_equal(table, tensors["shared.weight"])


def test_other_weights_read_back_are_refused(
    tmp_path, capsys, source, monkeypatch
):
  opened = t5x_native.open_checkpoint

  def changed(path, config):
    found = dict(opened(path, config))
    name = "decoder/decoder_norm/scale"
    array = found[name].whole() + 1
    return {**found, name: examples.leaf_of(array, tensor=name)}

  monkeypatch.setattr(t5x_native, "open_checkpoint", changed)
  arguments = (f"--checkpoint={source}", f"--output={tmp_path / 'out'}")
  assert command_line.run("import", *arguments, "--format=t5x") == 2
  printed = capsys.readouterr()
  assert json.loads(printed.out.splitlines()[-1])["max_difference"] == 1.0
  assert printed.err == (
      f"t5x: {tmp_path / 'out' / 'checkpoint_0'}: read back other weights than"
      " were written, expected the same: the disk is not to be trusted\n"
  )


def test_weights_without_sizes_need_them_stated(tmp_path, capsys):
  message = command_line.refused(
      capsys,
      "import",
      "--checkpoint=bundled",
      f"--output={tmp_path / 'native'}",
      "--format=t5x",
  )
  assert message == (
      "CHECKPOINT: bundled does not tell the network's sizes, expected a file"
      " of models/ that does"
  )


def test_sizes_of_the_checkpoint_but_for_one_that_is_stated(tmp_path, capsys):
  tiny = shared_data.path("checkpoints/t5x_tiny/checkpoint_3")
  imported(
      capsys,
      f"--checkpoint={tiny}",
      f"--output={tmp_path / 'out'}",
      "--format=huggingface",
      "--gin_file=models/from_checkpoint.gin",
      "--gin.T5Config.relpos_max_distance=64",
  )
  stated = json.loads((tmp_path / "out" / "config.json").read_text())
  assert stated["d_model"] == 4
  assert stated["relative_attention_max_distance"] == 64


def test_a_recipe_takes_its_checkpoint_from_the_flag(tmp_path, capsys, source):
  recipe = tmp_path / "mine.gin"
  recipe.write_text(
      'include "models/from_checkpoint.gin"\nCHECKPOINT = "/nowhere"\n'
  )
  lines, _ = imported(
      capsys,
      f"--checkpoint={source}",
      f"--output={tmp_path / 'out'}",
      "--format=t5x",
      f"--gin_file={recipe}",
  )
  assert lines[-1]["tensors_bit_identical"] == NUM_LEAVES


def test_a_missing_tensor_is_called_what_the_file_calls_it(tmp_path, capsys):
  tensors = huggingface_folders.tensors()
  del tensors["encoder.block.0.layer.1.DenseReluDense.wo.weight"]
  source = huggingface_folders.write(tmp_path / "source", tensors)
  message = command_line.refused(
      capsys,
      "import",
      f"--checkpoint={source}",
      f"--output={tmp_path / 'out'}",
      "--format=t5x",
  )
  assert message == (
      f"{source}: does not fit T5Config: missing: encoder/layers_0/mlp/wo/kernel"
      " (encoder.block.0.layer.1.DenseReluDense.wo.weight); expected its 29"
      " parameters"
  )


def test_a_bucket_cannot_be_written_to(tmp_path, capsys, source, monkeypatch):
  monkeypatch.chdir(tmp_path)
  message = command_line.refused(
      capsys,
      "import",
      f"--checkpoint={source}",
      "--output=gs://bucket/model",
      "--format=t5x",
  )
  assert message == (
      "--output: found 'gs:/bucket/model', expected a local folder"
  )
  assert [p.name for p in tmp_path.iterdir()] == ["source"]


@pytest.mark.parametrize("output_format", ["t5x", "huggingface"])
def test_a_file_above_the_output_is_seen_before_anything_is_computed(
    tmp_path, capsys, source, monkeypatch, output_format
):
  computed = []
  monkeypatch.setattr(conversion, "_logits", computed.append)
  file = tmp_path / "file"
  file.touch()
  output = file if output_format == "t5x" else file / "out"
  place = file / ("checkpoint_0" if output_format == "t5x" else "out")
  message = command_line.refused(
      capsys,
      "import",
      f"--checkpoint={source}",
      f"--output={output}",
      f"--format={output_format}",
  )
  assert message == f"{place}: cannot write: Not a directory"
  assert computed == []


@pytest.mark.parametrize("output_format", ["t5x", "huggingface"])
def test_logits_that_cannot_be_computed_leave_nothing(
    tmp_path, source, monkeypatch, output_format
):
  def full(*args, **kwargs):
    raise RuntimeError("RESOURCE_EXHAUSTED: out of memory")

  monkeypatch.setattr(conversion, "_apply", full)
  arguments = (f"--checkpoint={source}", f"--output={tmp_path / 'out'}")
  run = command_line.run("import", *arguments, f"--format={output_format}")
  assert run == 2
  assert [p.name for p in tmp_path.iterdir()] == ["source"]


def test_the_folder_the_program_works_in(tmp_path, capsys, source, monkeypatch):
  (tmp_path / "here").mkdir()
  monkeypatch.chdir(tmp_path / "here")
  arguments = ("--checkpoint=../source", "--output=.", "--format=huggingface")
  lines, _ = imported(capsys, *arguments)
  assert (lines[-1]["output"], lines[-1]["tensors"]) == (".", NUM_LEAVES)
  message = command_line.refused(capsys, "import", *arguments)
  assert message == ".: exists, expected a new or an empty folder"


def test_the_vocabulary_of_the_gin_files(tmp_path, capsys):
  tiny = shared_data.path("checkpoints/t5x_tiny/checkpoint_3")
  lines, said = imported(
      capsys,
      f"--checkpoint={tiny}",
      f"--output={tmp_path / 'out'}",
      "--format=huggingface",
      "--gin_file=models/from_checkpoint.gin",
      "--gin.VOCABULARY='bytes'",
      "--gin.EXTRA_IDS=3",
  )
  assert said == ""
  assert lines[-1]["vocabulary"] == "bytes"
  written = json.loads((tmp_path / "out/tokenizer_config.json").read_text())
  assert written["tokenizer_class"] == "ByT5Tokenizer"
  assert written["extra_ids"] == 3
