"""Wrong files, data and losses end with status 2 and one line."""

import json
import shutil

import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

from tests.command_line import TINY, refused

pytestmark = pytest.mark.usefixtures("unchecked")


def _prompt_files(folder):
  prompt = np.zeros((4, 32), np.float32)
  ones = np.ones((1, 4), np.float32)
  np.save(folder / "shape.npy", prompt[:, :31])
  np.save(folder / "nan.npy", np.where(np.eye(4, 32) > 0, np.nan, prompt))
  np.save(folder / "text.npy", np.full((4, 32), "a"))
  (folder / "empty.npy").touch()
  for name, arrays in {
      "other": {"weights": prompt},
      "masks": {"prompt": prompt, "token_mask": ones[:, :3]},
      "half": {"prompt": prompt, "token_mask": ones / 2},
  }.items():
    safetensors_numpy.save_file(arrays, folder / f"{name}.safetensors")
  whole = (folder / "masks.safetensors").read_bytes()
  (folder / "cut.safetensors").write_bytes(whole[:100])


@pytest.mark.parametrize(
    ("name", "line"),
    [
        (
            "shape.npy",
            "prompt: found (4, 31), expected [P, 32] or [R, P, 32]: the model's"
            " emb_dim is 32",
        ),
        ("nan.npy", "prompt: found 'NaN or infinity', expected finite numbers"),
        ("text.npy", "prompt: found '<U1', expected numbers"),
        (
            "empty.npy",
            "found a file that starts with b'', expected a whole .npy,"
            " safetensors or torch file",
        ),
        ("no.npy", "cannot read: No such file or directory"),
        (
            "other.safetensors",
            "found 'weights', expected a tensor named 'prompt', or"
            " 'prompt_embeddings' (PEFT)",
        ),
        ("masks.safetensors", "token_mask: found (1, 3), expected (1, 4)"),
        (
            "half.safetensors",
            "token_mask: found 'other values', expected only 1 (keep) and 0"
            " (pruned)",
        ),
        (
            "cut.safetensors",
            "not a whole safetensors file: Error while deserializing header:"
            " invalid header length",
        ),
    ],
)
def test_prompt_files(capsys, tmp_path, name, line):
  _prompt_files(tmp_path)
  path = tmp_path / name
  found = refused(
      capsys, "eval", *TINY, f"--gin.PROMPT_FILE='{path}'", "--workdir=none"
  )
  assert found == f"{path}: {line}"


@pytest.mark.parametrize(
    ("bindings", "line"),
    [
        (
            ["T5Config.vocab_size=100"],
            "has 288 ids with 32 extra ids, expected at most the model's"
            " vocab_size 100",
        ),
        (
            ["EXTRA_IDS=100"],
            "has 356 ids with 100 extra ids, expected at most the model's"
            " vocab_size 288",
        ),
    ],
)
def test_vocabulary_that_does_not_fit(capsys, tmp_path, bindings, line):
  arguments = [f"--gin.{binding}" for binding in bindings]
  found = refused(
      capsys, "train", *TINY, *arguments, f"--workdir={tmp_path / 'run'}"
  )
  assert found.startswith("vocabulary ")
  assert found.endswith(f"sentencepiece.model: {line}")
  assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("bindings", "line"),
    [
        (
            ["MIXTURE_OR_TASK_NAME='mini_bool'"],
            "MIXTURE_OR_TASK_NAME mini_bool: xprompt_jax.tasks.mini registers"
            " no such task, expected one such as mini_boolq, ",
        ),
        (
            ["MIXTURE_OR_TASK_MODULE='no.such'"],
            "MIXTURE_OR_TASK_MODULE no.such: cannot be imported (No module"
            " named 'no')",
        ),
        (
            ["TRAIN_SPLIT='trian'"],
            "task mini_boolq: has no split trian, expected one of train,"
            " validation, test",
        ),
    ],
)
def test_tasks_and_splits(capsys, tmp_path, bindings, line):
  arguments = [f"--gin.{binding}" for binding in bindings]
  found = refused(
      capsys, "cache", *TINY, *arguments, f"--workdir={tmp_path / 'run'}"
  )
  assert found.startswith(line)
  assert not (tmp_path / "run").exists()


RTE = {"hypothesis": "a b", "premise": "c", "label": "entailment", "idx": 0}


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (
            json.dumps(RTE) + "\n{oops\n",
            "FILE, line 2: is not JSON in UTF-8 (Expecting property name"
            " enclosed in double quotes: line 1 column 2 (char 1)), expected"
            " one object a line",
        ),
        (
            json.dumps({k: v for k, v in RTE.items() if k != "premise"}),
            "FILE, line 1: lacks the field 'premise'",
        ),
        (
            json.dumps({**RTE, "label": "perhaps"}),
            'FILE, line 1: label is "perhaps", expected one of entailment,'
            " not_entailment",
        ),
        (
            "",
            "FILE: has 0 rows, expected the official 2,490; another data set is"
            " a task of its own",
        ),
    ],
)
def test_jsonl(capsys, tmp_path, monkeypatch, content, line):
  file = tmp_path / "RTE" / "train.jsonl"
  file.parent.mkdir()
  file.write_text(content)
  monkeypatch.setenv("SUPER_GLUE_DIR", str(tmp_path))
  found = refused(
      capsys,
      "cache",
      *TINY,
      "--gin.MIXTURE_OR_TASK_NAME='rte'",
      "--gin.MIXTURE_OR_TASK_MODULE='xprompt_jax.tasks.super_glue'",
      f"--workdir={tmp_path / 'run'}",
  )
  assert found == line.replace("FILE", str(file))
  assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("save_every", "what", "kept"),
    [
        # Checked at the end alone: the third loss is the first that shows it.
        (
            6,
            "loss of row 0 (seed 7) at step 3: found nan, expected a finite",
            0,
        ),
        (
            1,
            "prompt of row 0 (seed 7) at step 2: found NaN or infinity, expected"
            " finite",
            1,
        ),
    ],
)
def test_divergence(capsys, tmp_path, tiny_cache, save_every, what, kept):
  folder = tmp_path / "run" / "tune"
  shutil.copytree(tiny_cache, tmp_path / "run" / "cache")
  arguments = [
      "train",
      *TINY,
      "--gin.SEEDS=(7,)",
      # Each step multiplies the prompt by it: infinite after the second.
      "--gin.OptimizerConfig.weight_decay_rate=1e20",
      "--gin.NUM_STEPS=6",
      "--gin.EVAL_EVERY_STEPS=6",
      f"--gin.TrainConfig.save_every_steps={save_every}",
      f"--workdir={tmp_path / 'run'}",
  ]
  line = refused(capsys, *arguments)
  assert line.startswith(f"{folder}: {what}")
  assert line.endswith(
      "; the last good state is kept; try a smaller"
      " OptimizerConfig.learning_rate"
  )
  state = folder / "state" / "state.safetensors"
  assert state.exists() == bool(kept)
  if kept:
    arrays = safetensors_numpy.load_file(state)
    assert arrays["step"].item() == kept
    assert np.isfinite(arrays["prompt"]).all()
  assert not (folder / "result.json").exists()
  # Started again it says the same.
  assert refused(capsys, *arguments) == line
