"""The diagnostics' gin files: a prompt for RTE is asked AX-b and AX-g."""

import json

import numpy as np
import pytest

from tests.command_line import TINY, refused, run

ROWS = {"axb": ("AX-b", 1_104), "axg": ("AX-g", 356)}
LABELS = ("entailment", "not_entailment")


@pytest.fixture
def arguments(monkeypatch, tmp_path):
  """Flags for one of the tasks: made-up rows, and a prompt from a file."""

  def call(task):
    name, size = ROWS[task]
    texts = (
        {"sentence1": "anna has a ball .", "sentence2": "ben sat ."}
        if task == "axb"
        else {"premise": "anna has a ball .", "hypothesis": "ben sat ."}
    )
    found = [
        # AX-b writes its numbers as text.
        {"idx": str(i) if task == "axb" else i, "label": LABELS[i % 2], **texts}
        for i in range(size)
    ]
    (tmp_path / name).mkdir()
    (tmp_path / name / f"{name}.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in found)
    )
    monkeypatch.setenv("SUPER_GLUE_DIR", str(tmp_path))
    np.save(tmp_path / "prompt.npy", np.ones((4, 32), np.float32))
    return (
        *TINY,
        f"--gin_file=tasks/{task}.gin",
        f"--gin.PROMPT_FILE='{tmp_path}/prompt.npy'",
        "--gin.INPUTS_LENGTH=32",
        "--gin.BATCH_SIZE=64",
        "--gin.TaskConfig.max_examples=None",
        f"--workdir={tmp_path}/run",
    )

  return call


@pytest.mark.parametrize("task", ROWS)
def test_a_submission(arguments, tmp_path, capsys, task):
  name, size = ROWS[task]
  to = tmp_path / "to"
  assert run("eval", *arguments(task), f"--submission={to}") == 0
  (line,) = map(json.loads, capsys.readouterr().out.splitlines())
  file = to / f"{name}.jsonl"
  assert (line["task"], line["split"], line["file"]) == (
      task,
      "test",
      str(file),
  )
  written = [json.loads(row) for row in file.read_text().splitlines()]
  assert [row["idx"] for row in written] == list(range(size))
  assert {row["label"] for row in written} <= set(LABELS)


def test_metrics_and_no_training(arguments, capsys):
  flags = arguments("axg")
  assert run("eval", *flags) == 0
  (line,) = map(json.loads, capsys.readouterr().out.splitlines())
  assert (line["task"], line["num_examples"]) == ("axg", 356)
  assert line["ways"]["rank"]["counts"] == {
      "gender_parity": line["ways"]["rank"]["counts"]["gender_parity"],
      "accuracy": "178/356",  # One text, and each label in turn.
  }
  assert refused(capsys, "train", *flags) == (
      "task axg: has no split train, expected one of test"
  )
