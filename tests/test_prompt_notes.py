"""What export.json and result.json beside a prompt say is held to."""

import dataclasses
import hashlib
import json
import shutil

import numpy as np
import pytest

from tests import tiny_experiment
from tests.command_line import TINY, refused, run
from tests.prompt_files import BASE
from xprompt_jax import artifacts, stored_prompts
from xprompt_jax.prompt_formats import npy, peft
from xprompt_jax.types import UserError

MASKS_SHA256 = (
    "2415fa533ef5ca660d38bf07c0c576b5d036e942302e0ca3d0d07cd011181e89"
)
IGNORE = "--gin.PromptConfig.pruned_tokens='ignore'"


def write_prompt(path, token_mask, **note):
  """R 1, P 3, H 32, and the export.json of the file."""
  path.parent.mkdir()
  arrays = {
      "prompt": np.ones((1, 3, 32), np.float32),
      "token_mask": np.array([token_mask], np.float32),
  }
  artifacts.save_arrays(path, arrays)
  artifacts.write_json(path.with_name("export.json"), note)


def read(path, pruned_tokens="zero"):
  """What every command does with a prompt before it computes anything."""
  config = tiny_experiment.CONFIG
  config = dataclasses.replace(
      config,
      model=dataclasses.replace(config.model, emb_dim=32),
      prompt=dataclasses.replace(config.prompt, pruned_tokens=pruned_tokens),
  )
  return stored_prompts.read_prompts(str(path), config)


def infer(tmp_path, prompt, *more):
  """Arguments of `t5x infer` with a prompt file."""
  (tmp_path / "in.jsonl").write_text('{"inputs": "a"}\n')
  files = [f"--input={tmp_path}/in.jsonl", f"--workdir={tmp_path}/run"]
  return ["infer", *TINY, f"--gin.PROMPT_FILE='{prompt}'", *files, *more]


@pytest.fixture(scope="module")
def output(tiny_run, tmp_path_factory):
  """The run's first row of pruned tokens, exported as it was trained."""
  folder = tmp_path_factory.mktemp("exported") / "out"
  to = ["--format=safetensors", f"--output={folder}", f"--workdir={tiny_run}"]
  assert run("export", *TINY, *to) == 0
  return folder


@pytest.mark.parametrize("whole", [True, False])
def test_an_export_keeps_what_its_pruned_tokens_are(
    output, tmp_path, capsys, whole
):
  path = output if whole else output / "prompt.safetensors"
  assert refused(capsys, *infer(tmp_path, path, IGNORE)) == (
      f"{path}: found PromptConfig.pruned_tokens = 'ignore' and 2 pruned"
      " tokens, expected --gin.PromptConfig.pruned_tokens=\"'zero'\", as"
      f" {output}/export.json says"
  )
  # As it was meant.
  assert read(path)[1].token_mask.sum() == 2


def test_a_prompt_that_was_trained_with_ignore(tmp_path, capsys):
  # Under a name of the user's own, and in a library too.
  path = tmp_path / "out" / "compact.safetensors"
  note = {"file": path.name, "pruned_tokens": "ignore"}
  write_prompt(path, [1, 0, 0], **note)
  # export.json knows the sum of what it was written beside.
  digest = hashlib.sha256(path.read_bytes()).hexdigest()
  artifacts.write_json(
      path.with_name("export.json"), {**note, "sha256": digest}
  )
  line = (
      f"{path}: found PromptConfig.pruned_tokens = 'zero' and 2 pruned tokens,"
      " expected --gin.PromptConfig.pruned_tokens=\"'ignore'\", as"
      f" {path.parent}/export.json says"
  )
  assert refused(capsys, *infer(tmp_path, path)) == line
  library = infer(tmp_path, path)
  library[library.index(f"--gin.PROMPT_FILE='{path}'")] = f"--prompt=a={path}"
  assert refused(capsys, *library) == line
  assert read(path, "ignore")[1].token_mask.tolist() == [[1, 0, 0]]


@pytest.mark.parametrize(
    ("token_mask", "note"),
    [
        ([1, 1, 1], {"pruned_tokens": "ignore"}),
        ([1, 0, 1], {}),
        ([1, 0, 1], {"pruned_tokens": "ignore", "file": "another.npy"}),
    ],
)
def test_nothing_is_refused_where_nothing_differs(tmp_path, token_mask, note):
  path = tmp_path / "out" / "mine.safetensors"
  write_prompt(path, token_mask, **note)
  assert read(path)[1].token_mask.tolist() == [token_mask]


def test_a_runs_own_prompt_keeps_what_its_pruned_tokens_are(
    tiny_run, tmp_path, capsys
):
  path = f"{tiny_run}/rewind/prompt.safetensors"
  line = (
      f"{path}: found PromptConfig.pruned_tokens = 'ignore' and 4 pruned"
      " tokens, expected --gin.PromptConfig.pruned_tokens=\"'zero'\", as"
      f" {tiny_run}/tune/result.json says"
  )
  arguments = [*TINY, IGNORE]
  assert refused(capsys, "eval", *arguments, f"--workdir={tiny_run}") == line
  assert refused(capsys, *infer(tmp_path, path, IGNORE)) == line
  # Alone it may be used either way.
  shutil.copy(path, tmp_path / "prompt.safetensors")
  _, masks = read(tmp_path / "prompt.safetensors", "ignore")
  assert masks.token_mask.sum() == 4


@pytest.mark.parametrize("name", ["prompt.npy", "adapter_model.safetensors"])
def test_formats_without_masks_keep_what_their_pruned_tokens_are(
    tmp_path, name
):
  """export.json has the masks, and they are those of every command."""
  folder = tmp_path / "out"
  folder.mkdir()
  prompt = np.ones((3, 32), np.float32) * np.array([[1], [0], [1]], np.float32)
  if name == "prompt.npy":
    npy.write(folder / name, prompt)
  else:
    peft.write(folder, prompt, BASE)
  digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
  note = {
      "file": name,
      "sha256": digest,
      "pruned_tokens": "zero",
      "token_mask": "101",
      "piece_mask": ["11", "00", "11"],
      "masks_sha256": MASKS_SHA256,
  }
  artifacts.write_json(folder / "export.json", note)
  found, masks = read(folder)
  np.testing.assert_array_equal(found, [prompt])
  assert masks.token_mask.tolist() == [[1, 0, 1]]
  assert masks.piece_mask.tolist() == [[[1, 1], [0, 0], [1, 1]]]
  with pytest.raises(UserError, match="and 1 pruned tokens, expected --gin"):
    read(folder, "ignore")
  artifacts.write_json(folder / "export.json", note | {"token_mask": "111"})
  with pytest.raises(UserError, match="json: masks: contents have sha256 "):
    read(folder)


def test_other_frozen_weights_are_told(output, tiny_run, tmp_path, capsys):
  meant = json.loads((output / "export.json").read_text())["frozen_params"]
  found = json.loads((tiny_run / "run.json").read_text())["frozen_params"]
  assert meant == found
  own = tiny_experiment.make_experiment(tmp_path)
  own = dataclasses.replace(own, fingerprint=meant)
  stored_prompts.warn_of_other_weights(str(output), own)
  assert capsys.readouterr().err == ""
  other = "--gin.CHECKPOINT='random:9'"
  assert run(*infer(tmp_path, output, other)) == 0
  printed = capsys.readouterr()
  assert printed.out.startswith('{"inputs": "a"')
  begin, _, end = printed.err.partition(", expected ")
  assert begin.startswith(f"{output}: found frozen weights ")
  assert end == f"{meant[:12]} by {output}/export.json: answers may be others\n"
