"""`t5x infer` with several prompts: what it reads, writes and refuses."""

import io
import json
import sys

import numpy as np
import pytest

from tests.command_line import TINY, refused, run
from tests.mixed_library import ANSWERS, PROMPTS, TEXTS, alone, library
from xprompt_jax import artifacts, evaluation
from xprompt_jax.prompt_formats import compact


@pytest.fixture
def flags(tmp_path):
  """A library in files of several formats, as flags."""
  truth, color, thing, clash = library()
  np.save(tmp_path / "color=1.npy", color[0])
  # Two rows; the second is `truth`.
  both = np.stack([-truth[0], truth[0]])
  artifacts.save_arrays(tmp_path / "both#2.safetensors", {"prompt": both})
  thing = alone(*thing)
  artifacts.save_arrays(
      tmp_path / "thing.safetensors",
      {
          "prompt": thing[0],
          "token_mask": thing[1].token_mask,
          "piece_mask": thing[1].piece_mask,
      },
  )
  compact.write(tmp_path / "clash.tickets", *alone(*clash))
  return [
      f"--prompt=color={tmp_path}/color=1.npy",
      f"--prompt=truth={tmp_path}/both#2.safetensors#1",
      f"--prompt=thing={tmp_path}/thing.safetensors",
      f"--prompt=clash={tmp_path}/clash.tickets",
  ]


DEMO = ("--gin_file=xprompt_demo.gin", "--gin.BUCKETS=(16, 24, 32)")


def test_command_line(tmp_path, flags, capsys):
  lines = [
      {"inputs": text, "prompt": name, "id": [name, place]}
      for place, text in enumerate(TEXTS)
      for name in PROMPTS
  ]
  # Fields in another order stay where they are.
  lines[3] = {"prompt": "clash", "inputs": TEXTS[0]}
  path = tmp_path / "in.jsonl"
  path.write_text("\n\n".join(map(json.dumps, lines)))
  evaluation.generate.clear_cache()
  # No run is needed, and none is made.
  arguments = [f"--input={path}", f"--workdir={tmp_path}/run"]
  assert run("infer", *DEMO, *flags, *arguments) == 0
  found = capsys.readouterr()
  assert found.err == ""
  answers = [ANSWERS[name][place] for place in range(3) for name in PROMPTS]
  assert [
      list(json.loads(text).items()) for text in found.out.splitlines()
  ] == [
      [*line.items(), ("prediction", answer)]
      for line, answer in zip(lines, answers, strict=True)
  ]
  # All 12 lines fit one batch.
  assert evaluation.generate._cache_size() == 1
  assert not (tmp_path / "run").exists()


def test_lines_with_candidates_are_answered_by_the_likeliest(
    tmp_path, flags, capsys
):
  lines = [
      {
          "inputs": text,
          "prompt": name,
          "candidates": ["no such word", ANSWERS[name][place]],
      }
      for place, text in enumerate(TEXTS)
      for name in PROMPTS
  ]
  path = tmp_path / "in.jsonl"
  path.write_text("\n".join(map(json.dumps, lines)))
  arguments = [*flags, f"--input={path}", "--gin.PREDICT_BY='rank'"]
  assert run("infer", *DEMO, *arguments) == 0
  found = capsys.readouterr().out.splitlines()
  assert [json.loads(line)["prediction"] for line in found] == [
      ANSWERS[name][place] for place in range(3) for name in PROMPTS
  ]
  lines[4]["candidates"] = "yes or no"
  path.write_text("\n".join(map(json.dumps, lines)))
  assert refused(capsys, "infer", *DEMO, *arguments) == (
      f"--input={path}: line 5: found candidates 'yes or no', expected a list of"
      " texts, for PREDICT_BY = 'rank'"
  )


def test_candidates_that_cannot_be_tokenised_are_refused(tmp_path, capsys):
  path = tmp_path / "in.jsonl"
  path.write_text('{"inputs": "a", "candidates": ["b", "c \\ud800"]}\n')
  arguments = [f"--input={path}", "--gin.PREDICT_BY='rank'"]
  assert refused(capsys, "infer", *DEMO, *arguments) == (
      f"--input={path}: line 1: candidates[1]: found '\\ud800' at 2, expected"
      " text that UTF-8 can encode"
  )


def test_one_prompt_needs_no_name_in_the_lines(tmp_path, flags, capsys):
  path = tmp_path / "in.jsonl"
  path.write_text(
      json.dumps({"inputs": TEXTS[0]})
      + "\n"
      + json.dumps({"inputs": TEXTS[1], "prompt": "color"})
  )
  assert run("infer", *DEMO, flags[0], f"--input={path}") == 0
  assert capsys.readouterr().out == (
      f'{{"inputs": "{TEXTS[0]}", "prediction": "red"}}\n'
      f'{{"inputs": "{TEXTS[1]}", "prompt": "color", "prediction": "blue"}}\n'
  )


def test_a_field_named_prompt_means_nothing_without_a_library(
    tiny_run, tmp_path, capsys
):
  path = tmp_path / "in.jsonl"
  path.write_text(
      '{"inputs": "a", "prompt": 3}\n'
      + '{"inputs": "a", "prompt": "color"}\n' * 2
  )
  arguments = [f"--input={path}", f"--workdir={tiny_run}"]
  assert run("infer", *TINY, *arguments) == 0
  found = capsys.readouterr()
  for line in found.out.splitlines():
    assert list(json.loads(line)) == ["inputs", "prompt", "prediction"]
  assert found.err == (
      f"--input={path}: line 2: found prompt 'color', which no --prompt names:"
      " all lines are answered with one prompt\n"
  )


def test_inputs_that_are_cut_are_counted(tiny_run, tmp_path, capsys):
  path = tmp_path / "in.jsonl"
  # Each " a" is a token at least; one text has no room for the end mark.
  lines = [{"inputs": text} for text in ("a", "a " * 200, "a " * 300)]
  path.write_text("\n".join(map(json.dumps, lines)))
  arguments = [f"--input={path}", f"--workdir={tiny_run}"]
  assert run("infer", *TINY, *arguments) == 0
  assert capsys.readouterr().err == (
      f"--input={path}: 2 of 3 inputs were cut to the 32 tokens of"
      " INPUTS_LENGTH\n"
  )


def test_a_folder_as_output_is_refused_first(tmp_path, capsys):
  arguments = [f"--output={tmp_path}", "--input=no.jsonl"]
  assert refused(capsys, "infer", *DEMO, *arguments) == (
      f"--output={tmp_path}: found a folder, expected a file, or -"
  )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[" * 100_000, "not JSON: nested too deeply"),
        (
            '{"inputs": "a", "b": [NaN]}',
            "not JSON: found NaN, expected a finite number",
        ),
        (
            '{"inputs": "a", "b": -Infinity}',
            "not JSON: found -Infinity, expected a finite number",
        ),
        (
            '{"inputs": "a", "b": 1e999}',
            "not JSON: found 1e999, expected a finite number",
        ),
        (
            '{"inputs": "a \\ud800 x"}',
            "inputs: found '\\ud800' at 2, expected text that UTF-8 can encode",
        ),
    ],
)
def test_lines_that_cannot_be_answered(tmp_path, capsys, line, message):
  path = tmp_path / "in.jsonl"
  path.write_text('{"inputs": "a", "b": 1.5}\n' + line)
  assert refused(capsys, "infer", *DEMO, f"--input={path}") == (
      f"--input={path}: line 2: {message}"
  )


_FORM = "expected NAME=PATH or NAME=PATH#ROW"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ["--prompt=a"],
            f"--prompt=a: found no name and path, {_FORM}",
        ),
        (
            ["--prompt==a.npy"],
            f"--prompt==a.npy: found no name and path, {_FORM}",
        ),
        (
            ["--prompt=a="],
            f"--prompt=a=: found no name and path, {_FORM}",
        ),
        (
            ["--prompt=a=#1"],
            f"--prompt=a=#1: found no name and path, {_FORM}",
        ),
        (
            ["--prompt=a=b.npy#"],
            f"--prompt=a=b.npy#: found '' after #, {_FORM} with a row >= 0",
        ),
        (
            ["--prompt=a=b.npy#-1"],
            f"--prompt=a=b.npy#-1: found '-1' after #, {_FORM} with a row >= 0",
        ),
        (
            [f"--prompt=a=b.npy#{'1' * 5000}"],
            f"--prompt=a=b.npy: found 5000 digits after #, {_FORM} with a row"
            " of at most 9 digits",
        ),
        (
            ["--prompt=a=b.npy", "--prompt=c=b.npy", "--prompt=a=d.npy#1"],
            "--prompt=a=d.npy#1: found the name 'a' a second time after"
            " --prompt=a=b.npy, expected each name once",
        ),
        (
            ["--prompt=a=b.npy", "--row=0"],
            "--prompt=a=b.npy: found '--row=0', expected prompts from --prompt"
            " alone, as NAME=PATH#ROW",
        ),
        (
            ["--prompt=a=b.npy", "--gin.PROMPT_FILE='c.npy'"],
            "--prompt=a=b.npy: found 'PROMPT_FILE=c.npy', expected prompts from"
            " --prompt alone",
        ),
    ],
)
def test_flags_that_are_refused(capsys, arguments, line):
  assert refused(capsys, "infer", *DEMO, *arguments) == line


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            '{"inputs": "a", "prompt": "b"}\n\n{"inputs": "a"}\n',
            "--input=-: line 3: found no `prompt`, expected one of a, b",
        ),
        (
            '{"inputs": "a", "prompt": "c"}\n',
            "--input=-: line 1: found prompt 'c', expected one of a, b",
        ),
        (
            '{"inputs": "a", "prompt": ["a"]}\n',
            "--input=-: line 1: found prompt ['a'], expected one of a, b",
        ),
        (
            '{"inputs": "a", "prompt": null}\n',
            "--input=-: line 1: found prompt None, expected one of a, b",
        ),
    ],
)
def test_lines_that_are_refused(capsys, monkeypatch, text, line):
  stdin = io.TextIOWrapper(io.BytesIO(text.encode()))
  monkeypatch.setattr(sys, "stdin", stdin)
  # Before any file is read.
  flags = ["--prompt=a=no.npy", "--prompt=b=no.npy"]
  assert refused(capsys, "infer", *DEMO, *flags) == line


def test_an_unknown_name_is_refused_with_one_prompt_too(capsys, monkeypatch):
  text = b'{"inputs": "a"}\n{"inputs": "a", "prompt": "b"}\n'
  monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
  assert refused(capsys, "infer", *DEMO, "--prompt=a=no.npy") == (
      "--input=-: line 2: found prompt 'b', expected one of a"
  )


@pytest.mark.parametrize(
    ("place", "line"),
    [
        ("no.npy", "{path}: cannot read: No such file or directory"),
        (
            "two.npy",
            "{path}: prompt: found (2, 3), expected [P, 128] or [R, P, 128]:"
            " the model's emb_dim is 128",
        ),
        (
            "rows.safetensors#2",
            "--prompt=b={path}#2: {path} holds 2 prompts, expected a row in"
            " [0, 2)",
        ),
    ],
)
def test_files_that_are_refused(tmp_path, flags, capsys, place, line):
  np.save(tmp_path / "two.npy", np.zeros((2, 3), np.float32))
  artifacts.save_arrays(
      tmp_path / "rows.safetensors",
      {"prompt": np.zeros((2, 5, 128), np.float32)},
  )
  lines = tmp_path / "in.jsonl"
  lines.write_text('{"inputs": "a", "prompt": "b"}\n')
  name = place.partition("#")[0]
  found = refused(
      capsys,
      "infer",
      *DEMO,
      flags[0],
      f"--prompt=b={tmp_path}/{place}",
      f"--input={lines}",
  )
  assert found == line.format(path=tmp_path / name)
