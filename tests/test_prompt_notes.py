"""What export.json and result.json beside a prompt say is held to."""

import hashlib
import json
import shutil

import numpy as np
import pytest

from tests.command_line import TINY, refused, run
from xprompt_jax import artifacts

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


def infer(tmp_path, prompt, *more):
  """Arguments of `t5x infer` with a prompt file."""
  (tmp_path / "in.jsonl").write_text('{"inputs": "a"}\n')
  files = [f"--input={tmp_path}/in.jsonl", f"--workdir={tmp_path}/run"]
  return ["infer", *TINY, f"--gin.PROMPT_FILE='{prompt}'", *files, *more]


def exported(tmp_path, run_dir, *more):
  """Exports the run's first row of pruned tokens as it was trained."""
  output = tmp_path / "out"
  to = ["--format=safetensors", f"--output={output}", f"--workdir={run_dir}"]
  assert run("export", *TINY, *more, *to) == 0
  return output


@pytest.mark.parametrize("whole", [True, False])
def test_an_export_keeps_what_its_pruned_tokens_are(
    tiny_run, tmp_path, capsys, whole
):
  output = exported(tmp_path, tiny_run)
  capsys.readouterr()
  path = output if whole else output / "prompt.safetensors"
  assert refused(capsys, *infer(tmp_path, path, IGNORE)) == (
      f"{path}: found PromptConfig.pruned_tokens = 'ignore' and 2 pruned"
      " tokens, expected --gin.PromptConfig.pruned_tokens=\"'zero'\", as"
      f" {output}/export.json says"
  )
  # As it was meant, and without a word about weights.
  assert run(*infer(tmp_path, path)) == 0
  assert capsys.readouterr().err == ""


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
  assert run(*infer(tmp_path, path, IGNORE)) == 0


@pytest.mark.parametrize(
    ("token_mask", "note"),
    [
        ([1, 1, 1], {"pruned_tokens": "ignore"}),
        ([1, 0, 1], {}),
        ([1, 0, 1], {"pruned_tokens": "ignore", "file": "another.npy"}),
    ],
)
def test_nothing_is_refused_where_nothing_differs(
    tmp_path, capsys, token_mask, note
):
  path = tmp_path / "out" / "mine.safetensors"
  write_prompt(path, token_mask, **note)
  assert run(*infer(tmp_path, path)) == 0
  assert capsys.readouterr().err == ""


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
  alone = infer(tmp_path, tmp_path / "prompt.safetensors", IGNORE)
  assert run(*alone) == 0


def test_other_frozen_weights_are_told(tiny_run, tmp_path, capsys):
  output = exported(tmp_path, tiny_run)
  meant = json.loads(capsys.readouterr().out)["frozen_params"]
  found = json.loads((tiny_run / "run.json").read_text())["frozen_params"]
  assert meant == found
  other = "--gin.CHECKPOINT='random:9'"
  assert run(*infer(tmp_path, output, other)) == 0
  printed = capsys.readouterr()
  assert printed.out.startswith('{"inputs": "a"')
  begin, _, end = printed.err.partition(", expected ")
  assert begin.startswith(f"{output}: found frozen weights ")
  assert end == f"{meant[:12]} by {output}/export.json: answers may be others\n"
