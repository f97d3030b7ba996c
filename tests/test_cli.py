"""The program around the commands: help, signals, pipes, full disks."""

import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys

import jax
import pytest

from tests.command_line import RECIPES, TINY, run
from xprompt_jax import commands, conversion, flags
from xprompt_jax.export import exporting
from xprompt_jax.t5.config import T5Config

_HELP = """
import sys
from xprompt_jax import flags, main
for arguments in (["--help"], *([c, "--help"] for c in flags.COMMANDS)):
  try:
    main.main(arguments)
  except SystemExit as e:
    assert e.code == 0
heavy = {"jax", "tensorflow", "seqio", "gin"} & set(sys.modules)
assert not heavy, heavy
"""


def _python(*arguments, **more):
  return subprocess.run(
      [sys.executable, *arguments],
      capture_output=True,
      text=True,
      check=False,
      **more,
  )


def test_help_loads_nothing_heavy():
  done = _python("-c", _HELP)
  assert (done.returncode, done.stderr) == (0, "")
  for command in flags.COMMANDS:
    assert re.search(rf"\n    {command}\s", done.stdout)
  assert "--gin.NAME" in done.stdout


def test_a_mistake_is_one_line_in_a_process_of_its_own(tmp_path):
  done = _python(
      "-m",
      "xprompt_jax.main",
      "train",
      "--gin_file=no.gin",
      cwd=tmp_path,
      env={**os.environ, "PYTHONPATH": str(pathlib.Path.cwd())},
  )
  assert (done.returncode, done.stdout) == (2, "")
  assert done.stderr == (
      "t5x: --gin_file=no.gin: found no file no.gin, expected a path, a file in"
      f" --gin_search_paths, or one of {RECIPES}\n"
  )
  assert list(tmp_path.iterdir()) == []


def test_files_of_the_current_folder_come_first(tmp_path, monkeypatch, capsys):
  (tmp_path / "xprompt_demo.gin").write_text("include 'xprompt.gin'\n")
  monkeypatch.chdir(tmp_path)
  assert run("train", "--gin_file=xprompt_demo.gin") == 2
  assert capsys.readouterr().err.startswith("t5x: CHECKPOINT, INPUTS_LENGTH, ")


def test_search_paths(tmp_path, monkeypatch, capsys):
  (tmp_path / "b").mkdir()
  (tmp_path / "b" / "own.gin").write_text(
      "include 'xprompt_demo.gin'\nNUM_PIECES = 7\n"
  )
  monkeypatch.chdir(tmp_path)
  paths = f"--gin_search_paths={tmp_path}/a,{tmp_path}/b"
  assert run("train", "--gin_file=own.gin", paths) == 2
  assert capsys.readouterr().err == (
      "t5x: PromptConfig.num_pieces: found 7, expected a divisor of the"
      " model's emb_dim 128\n"
  )


def _instead_of_train(monkeypatch, function):
  monkeypatch.setattr(commands, "train", lambda *unused: function())


def test_workdir_is_named_after_the_gin_file(monkeypatch):
  seen = []
  monkeypatch.setattr(commands, "train", lambda *a: seen.append(a[1]))
  assert run("train", "--gin_file=xprompt_demo.gin") == 0
  assert run("train", *TINY, "--workdir=some/where") == 0
  assert seen == [
      pathlib.Path("runs/xprompt_demo"),
      pathlib.Path("some/where"),
  ]


def test_interrupt(monkeypatch, capsys):
  # A job in the background of a shell ignores the signal itself.
  before = signal.signal(signal.SIGINT, signal.default_int_handler)
  _instead_of_train(monkeypatch, lambda: signal.raise_signal(signal.SIGINT))
  try:
    assert run("train", *TINY) == 130
  finally:
    signal.signal(signal.SIGINT, before)
  assert capsys.readouterr().err == (
      "t5x: stopped; the same command goes on from here\n"
  )


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            OSError(28, "No space left on device"),
            "t5x: standard output: No space left on device\n",
        ),
        (
            PermissionError(13, "Permission denied", "/a/b"),
            "t5x: /a/b: Permission denied\n",
        ),
    ],
)
def test_what_the_system_refuses(monkeypatch, capsys, error, line):
  def refuse():
    raise error

  _instead_of_train(monkeypatch, refuse)
  assert run("train", *TINY) == 2
  assert capsys.readouterr().err == line


def test_bugs_are_not_hidden(monkeypatch):
  def bug():
    raise IndexError("a bug")

  _instead_of_train(monkeypatch, bug)
  with pytest.raises(IndexError, match="a bug"):
    run("train", *TINY)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_full_standard_output(tiny_run):
  with open("/dev/full", "w") as full:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "xprompt_jax.main",
            "cache",
            *TINY,
            f"--workdir={tiny_run}",
        ],
        stdout=full,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
  assert done.returncode == 2
  assert done.stderr == "t5x: standard output: No space left on device\n"


def test_full_disk(tmp_path, tiny_cache, monkeypatch, capsys):
  """The write of the trained prompt fails; what was whole before stays."""
  shutil.copytree(tiny_cache, tmp_path / "run" / "cache")
  write_bytes = pathlib.Path.write_bytes

  def full(self, data):
    if "prompt.safetensors" in self.name:
      write_bytes(self, data[:10])
      raise OSError(28, "No space left on device")
    return write_bytes(self, data)

  monkeypatch.setattr(pathlib.Path, "write_bytes", full)
  arguments = ["train", *TINY, f"--workdir={tmp_path}/run"]
  assert run(*arguments) == 2
  assert capsys.readouterr().err.splitlines()[-1] == (
      f"t5x: {tmp_path}/run/tune/prompt.safetensors: cannot write: No space left"
      " on device"
  )
  assert {path.name for path in (tmp_path / "run" / "tune").rglob("*")} == {
      "metrics.jsonl",
      "state",
      "config.json",
      "state.safetensors",
  }


def test_folder_that_is_a_file(tmp_path, tiny_cache, capsys):
  (tmp_path / "run").write_text("in the way")
  assert run("cache", *TINY, f"--workdir={tmp_path}/run") == 2
  assert capsys.readouterr().err == (
      f"t5x: {tmp_path}/run/cache/mini_boolq/train.safetensors: cannot write:"
      " Not a directory\n"
  )
  assert (tmp_path / "run").read_text() == "in the way"


def test_a_device_out_of_memory_ends_in_one_line(monkeypatch, capsys):
  def train(*unused):
    raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory\nx")

  monkeypatch.setattr(commands, "train", train)
  assert run("train", *TINY) == 2
  found = capsys.readouterr().err
  assert found.startswith("t5x: the device is out of memory, expected less")
  assert "ROWS_PER_CHUNK" in found and found.count("\n") == 1


def test_another_error_of_the_runtime_is_a_bug(monkeypatch):
  def train(*unused):
    raise jax.errors.JaxRuntimeError("INTERNAL: something else")

  monkeypatch.setattr(commands, "train", train)
  with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
    run("train", *TINY)


def test_export_is_called_with_its_flags(monkeypatch):
  seen = []
  monkeypatch.setattr(exporting, "export", lambda *a, **k: seen.append((a, k)))
  assert run("export", *TINY, "--format=npy", "--output=out") == 0
  assert (
      run(
          "export",
          *TINY,
          "--gin.PROMPT_FILE='a.npy'",
          "--workdir=w",
          "--format=peft",
          "--output=out",
          "--row=1",
          "--remove_pruned_tokens",
      )
      == 0
  )
  assert [a[0].prompt.length for a, _ in seen] == [4, 4]
  assert [(a[1], k) for a, k in seen] == [
      (
          pathlib.Path("runs/xprompt_demo"),
          {
              "prompt_file": None,
              "row": None,
              "output_format": "npy",
              "output": pathlib.Path("out"),
              "remove_pruned_tokens": False,
          },
      ),
      (
          pathlib.Path("w"),
          {
              "prompt_file": "a.npy",
              "row": 1,
              "output_format": "peft",
              "output": pathlib.Path("out"),
              "remove_pruned_tokens": True,
          },
      ),
  ]


def test_import_needs_no_gin_file(monkeypatch):
  seen = []
  monkeypatch.setattr(
      conversion, "convert", lambda *a, **k: seen.append((a, k))
  )
  arguments = ["import", "--checkpoint=a/b", "--output=out", "--format=t5x"]
  assert run(*arguments) == 0
  assert (
      run(
          *arguments,
          "--gin_file=models/bundled.gin",
          "--gin.T5Config.mlp_dim=200",
      )
      == 0
  )
  # A whole recipe has the sizes as well.
  assert run(*arguments, *TINY) == 0
  out = pathlib.Path("out")
  assert [a for a, _ in seen] == [("a/b", out)] * 3
  assert {k["output_format"] for _, k in seen} == {"t5x"}
  assert [k["config"] and k["config"].mlp_dim for _, k in seen] == [
      None,
      200,
      48,
  ]
  assert seen[1][1]["config"] == T5Config(
      vocab_size=288,
      emb_dim=128,
      num_heads=4,
      head_dim=32,
      num_encoder_layers=3,
      num_decoder_layers=2,
      mlp_dim=200,
      mlp_activations=("gelu", "linear"),
      logits_via_embedding=False,
  )


def test_export_knows_the_formats_of_its_flag():
  assert flags.PROMPT_FORMATS == exporting.FORMATS
