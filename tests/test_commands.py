"""What each command reads, prints and writes, on one tiny run."""

import io
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

from tests.command_line import TINY, run
from xprompt_jax import artifacts


def _json_lines(text):
  return [json.loads(line) for line in text.splitlines()]


def test_summary(tiny_run):
  summary = json.loads((tiny_run / "result.json").read_text())
  assert summary["schema"] == 1
  assert summary["num_examples"] == {"train": 12, "validation": 12, "test": 12}
  found = [
      (
          m["method"],
          [(r["seed"], r["kept_tokens"], r["kept_pieces"]) for r in m["rows"]],
      )
      for m in summary["methods"]
  ]
  # Half of 4 tokens; of their 2 * 8 pieces a quarter.
  assert found == [
      ("no_prompt", [(None, 0, 0)]),
      ("prompt_tuning", [(0, 4, 32), (5, 4, 32)]),
      ("token", [(0, 2, 16), (5, 2, 16)]),
      ("xprompt", [(0, 2, 12), (5, 2, 12)]),
  ]
  tickets = _json_lines((tiny_run / "tickets.jsonl").read_text())
  assert [(t["folder"], t["row"]) for t in tickets] == [
      ("tune", 0),
      ("tune", 1),
      ("search_token", 0),
      ("search_token", 1),
      ("search_piece", 0),
      ("search_piece", 1),
  ]


def test_finished_run_changes_no_file(tiny_run, capsys):
  files = [path for path in tiny_run.rglob("*") if path.is_file()]
  before = {
      path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files
  }
  assert run("train", *TINY, f"--workdir={tiny_run}") == 0
  printed = capsys.readouterr()
  assert printed.out.startswith(
      "mini_boolq: 2 seeds, mean ± standard deviation"
  )
  assert printed.err == ""
  after = [path for path in tiny_run.rglob("*") if path.is_file()]
  assert sorted(after) == sorted(files)
  for path, (content, changed) in before.items():
    assert path.stat().st_mtime_ns == changed, path
    assert path.read_bytes() == content, path


def test_a_finished_run_gets_no_nearest_words(tiny_run, tmp_path):
  """They are written when a run ends, not into one that had ended before."""
  found = json.loads((tiny_run / "nearest_words.json").read_text())
  assert [(row["seed"], len(row["tokens"])) for row in found["rows"]] == [
      (0, 4),
      (5, 4),
  ]
  workdir = tmp_path / "run"
  shutil.copytree(tiny_run, workdir)
  (workdir / "nearest_words.json").unlink()
  assert run("train", *TINY, f"--workdir={workdir}") == 0
  assert not (workdir / "nearest_words.json").exists()


def test_workdir_of_another_config_is_refused(tiny_run, capsys):
  before = (tiny_run / "config.gin").read_bytes()
  arguments = ["train", *TINY, f"--workdir={tiny_run}"]
  assert run(*arguments, "--gin.LEARNING_RATE=0.1") == 2
  assert capsys.readouterr().err == (
      f"t5x: {tiny_run}/result.json: belongs to another config:"
      " optimizer.learning_rate is 0.3 there and 0.1 now; expected the same"
      " config, or another --workdir\n"
  )
  assert run(*arguments, "--gin.CHECKPOINT='random:1'") == 2
  assert "frozen_params is " in capsys.readouterr().err
  assert (tiny_run / "config.gin").read_bytes() == before


INPUTS = '{"inputs": "passage: a", "id": 7}\n\n{"inputs": "question: b ?"}\n'


def test_infer_from_and_to_files(tiny_run, tmp_path, capsys):
  (tmp_path / "in.jsonl").write_text(INPUTS)
  assert (
      run(
          "infer",
          *TINY,
          f"--input={tmp_path}/in.jsonl",
          f"--output={tmp_path}/new/out.jsonl",
          f"--workdir={tiny_run}",
      )
      == 0
  )
  assert capsys.readouterr().out == ""
  lines = _json_lines((tmp_path / "new" / "out.jsonl").read_text())
  assert [list(line) for line in lines] == [
      ["inputs", "id", "prediction"],
      ["inputs", "prediction"],
  ]
  assert lines[0]["inputs"] == "passage: a" and lines[0]["id"] == 7
  assert all(isinstance(line["prediction"], str) for line in lines)
  assert [p.name for p in (tmp_path / "new").iterdir()] == ["out.jsonl"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "--input=-: found no lines, expected JSON lines"),
        (
            '{"inputs": "a"}\n{"inputs": 3}\n',
            "--input=-: line 2: found '{\"inputs\": 3}', expected an object with"
            " a text `inputs`",
        ),
        (
            "[\n",
            "--input=-: line 1: not JSON: Expecting value: line 1 column 2"
            " (char 1)",
        ),
    ],
)
def test_infer_refuses_other_lines(capsys, monkeypatch, tmp_path, text, line):
  stdin = io.TextIOWrapper(io.BytesIO(text.encode()))
  monkeypatch.setattr(sys, "stdin", stdin)
  assert run("infer", *TINY, f"--workdir={tmp_path}") == 2
  assert capsys.readouterr().err == f"t5x: {line}\n"


def test_score(tiny_run, tmp_path, capsys):
  shutil.copytree(tiny_run / "cache", tmp_path / "run" / "cache")
  prompt = tiny_run / "tune" / "prompt.safetensors"
  assert (
      run(
          "score",
          *TINY,
          f"--gin.PROMPT_FILE='{prompt}'",
          f"--workdir={tmp_path}/run",
      )
      == 0
  )
  (line,) = _json_lines(capsys.readouterr().out)
  path = tmp_path / "run" / "score" / "scores.safetensors"
  assert line["scores"] == str(path)
  assert line["num_examples"] == 12
  found = safetensors_numpy.load_file(path)
  # The run scored the same prompt behind the same masks.
  stage = tiny_run / "score_token" / "scores.safetensors"
  for name, array in safetensors_numpy.load_file(stage).items():
    np.testing.assert_array_equal(found[name], array)
  np.testing.assert_allclose(
      line["token_scores"], found["token_scores"], rtol=0, atol=1e-6
  )


def test_cache(tiny_run, capsys):
  assert run("cache", *TINY, f"--workdir={tiny_run}") == 0
  lines = _json_lines(capsys.readouterr().out)
  assert lines == [
      {
          "split": split,
          "role": split,
          "num_examples": 12,
          "longest_input": 27,
          "longest_target": 2,
          "truncated_inputs": 0,
          "folder": f"{tiny_run}/cache/mini_boolq",
      }
      for split in ("train", "validation", "test")
  ]


_WITHOUT_TENSORFLOW = """
import sys
for name in ("tensorflow", "seqio", "tensorflow_datasets", "tensorflow_text"):
  sys.modules[name] = None
from xprompt_jax import main
status = main.main(sys.argv[1:])
sys.exit(status or main.main(["eval", *sys.argv[2:]]))
"""


def test_infer_and_eval_without_tensorflow(tiny_run):
  done = subprocess.run(
      [
          sys.executable,
          "-c",
          _WITHOUT_TENSORFLOW,
          "infer",
          *TINY,
          f"--workdir={tiny_run}",
      ],
      input=INPUTS,
      capture_output=True,
      text=True,
      check=False,
  )
  # `eval` takes no --input, and `infer` reads standard input by default.
  assert (done.returncode, done.stderr) == (0, "")
  lines = _json_lines(done.stdout)
  assert ["prediction" in line for line in lines] == [True] * 2 + [False] * 4
  assert [line["score"] for line in lines[2:4]] == [
      row["test"]["score"]
      for row in json.loads((tiny_run / "result.json").read_text())["methods"][
          -1
      ]["rows"]
  ]


def test_infer_uses_the_row_that_is_asked_for(tiny_run, tmp_path, capsys):
  arrays = artifacts.load_arrays(tiny_run / "tune" / "prompt.safetensors")
  # Far apart, so that the two rows answer differently.
  prompt = arrays["prompt"] * np.array([30.0, -30.0], np.float32)[:, None, None]
  artifacts.save_arrays(tmp_path / "both.safetensors", {"prompt": prompt})
  np.save(tmp_path / "second.npy", prompt[1])
  (tmp_path / "in.jsonl").write_text(INPUTS)
  answers = []
  for name, row in (
      ("both.safetensors", 0),
      ("both.safetensors", 1),
      ("second.npy", 0),
  ):
    assert (
        run(
            "infer",
            *TINY,
            f"--gin.PROMPT_FILE='{tmp_path / name}'",
            f"--row={row}",
            f"--input={tmp_path}/in.jsonl",
            f"--workdir={tiny_run}",
        )
        == 0
    )
    lines = _json_lines(capsys.readouterr().out)
    answers.append([line["prediction"] for line in lines])
  assert answers[1] == answers[2]
  assert answers[0] != answers[1]


def test_infer_refuses_a_row_that_is_not_there(tiny_run, tmp_path, capsys):
  (tmp_path / "in.jsonl").write_text(INPUTS)
  arguments = ["--row=2", f"--input={tmp_path}/in.jsonl"]
  assert run("infer", *TINY, *arguments, f"--workdir={tiny_run}") == 2
  assert capsys.readouterr().err == (
      f"t5x: --row=2: {tiny_run}/rewind/prompt.safetensors holds 2 prompts,"
      " expected a row in [0, 2)\n"
  )


@pytest.mark.parametrize("command", ["eval", "score"])
def test_weights_of_another_run_are_refused(tiny_run, capsys, command):
  arguments = [*TINY, "--gin.CHECKPOINT='random:9'", f"--workdir={tiny_run}"]
  assert run(command, *arguments) == 2
  found = capsys.readouterr()
  assert found.out == ""
  assert f"{tiny_run}/run.json: belongs to another config" in found.err


def test_infer_reads_a_mark_and_separators_inside_a_text(
    tiny_run, tmp_path, capsys
):
  text = '\ufeff{"inputs": "a\u2028b\u0085c"}\r\n'
  (tmp_path / "in.jsonl").write_bytes(text.encode())
  arguments = [f"--input={tmp_path}/in.jsonl", f"--workdir={tiny_run}"]
  assert run("infer", *TINY, *arguments) == 0
  (line,) = _json_lines(capsys.readouterr().out.strip("\n"))
  assert line["inputs"] == "a\u2028b\u0085c"


def test_a_prompt_file_of_another_length(tiny_run, tmp_path, capsys):
  """The file decides P and K, whatever PROMPT_LENGTH and NUM_PIECES say."""
  shutil.copytree(tiny_run / "cache", tmp_path / "run" / "cache")
  path = tmp_path / "prompt.safetensors"
  # R 1, P 7, K 2; its last two tokens are pruned, and a piece of the first.
  piece_mask = np.ones((1, 7, 2), np.float32)
  piece_mask[0, 5:] = 0
  piece_mask[0, 0, 1] = 0
  artifacts.save_arrays(
      path,
      {
          "prompt": np.random.default_rng(0).normal(size=(1, 7, 32)),
          "token_mask": np.array([[1, 1, 1, 1, 1, 0, 0]], np.float32),
          "piece_mask": piece_mask,
      },
  )
  arguments = [f"--gin.PROMPT_FILE='{path}'", f"--workdir={tmp_path}/run"]
  assert run("eval", *TINY, *arguments) == 0
  (line,) = _json_lines(capsys.readouterr().out)
  assert (line["kept_tokens"], line["kept_pieces"]) == (5, 9)
  assert run("score", *TINY, *arguments) == 0
  (line,) = _json_lines(capsys.readouterr().out)
  assert [len(row) for row in line["token_scores"]] == [7]
  found = artifacts.load_arrays(tmp_path / "run/score/scores.safetensors")
  assert found["piece_scores"].shape == (1, 7, 2)
  assert (found["token_scores"] > 0).tolist() == [[True] * 5 + [False] * 2]
