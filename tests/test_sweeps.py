"""RUNS: several settings of one recipe, run one after another."""

import pathlib
import shutil

import pytest

from tests import command_line
from xprompt_jax import artifacts, prompts, scoreboard, sweeps
from xprompt_jax.errors import UserError
from xprompt_jax.weights import loading

SWEEP = (
    *command_line.TINY,
    "--gin.SEEDS=(4,)",
    "--gin.GRANULARITIES=('token',)",
)
# `source` runs on one task alone; the last run starts from what it left.
RUNS = """
RUNS = {
    "source": ("TASK_FILES = ('tasks/mini_cb.gin',)",),
    "short": ("LEARNING_RATE = 0.125",),
    "transfer": (
        "PROMPT_INIT = 'from_file'",
        "PROMPT_INIT_FILE = '{workdir}/../{SOURCE}/source/tune'",
    ),
}
SOURCE = "mini_cb"
TASK_FILES = ("tasks/mini_cb.gin", "tasks/mini_rte.gin")
"""


def refusal(function, *arguments):
  with pytest.raises(UserError) as found:
    function(*arguments)
  return str(found.value)


@pytest.fixture(scope="module")
def gin_file(tmp_path_factory):
  path = tmp_path_factory.mktemp("gin") / "sweep.gin"
  path.write_text(RUNS)
  return path


@pytest.fixture(scope="module")
def sweep(tmp_path_factory, gin_file):
  """WORKDIR of a sweep, and how often weights were read."""
  workdir = tmp_path_factory.mktemp("sweep") / "it's"
  loaded = []
  load_frozen = loading.load_frozen

  def counted(*arguments, **named):
    loaded.append(arguments[0])
    return load_frozen(*arguments, **named)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(loading, "load_frozen", counted)
    status = command_line.run(
        "train", *SWEEP, f"--gin_file={gin_file}", f"--workdir={workdir}"
    )
  assert status == 0
  return workdir, loaded


def test_each_task_of_each_run_has_a_folder(sweep):
  workdir, loaded = sweep
  result = artifacts.read_json(workdir / artifacts.RESULT)
  names = [
      "mini_cb/source",
      "mini_cb/short",
      "mini_rte/short",
      "mini_cb/transfer",
      "mini_rte/transfer",
  ]
  assert result["runs"] == names
  assert list(result["tasks"]) == names
  assert result["failed"] == {}
  found = sorted(p.parent for p in workdir.glob("*/*/result.json"))
  assert [str(p.relative_to(workdir)) for p in found] == sorted(names)
  # The model is the same in all of them.
  assert loaded == ["random:0"]


def test_statements_hold_beside_the_command_line(sweep):
  workdir, _ = sweep
  for name, rate in (("mini_cb/source", 0.3), ("mini_rte/short", 0.125)):
    summary = artifacts.read_json(workdir / name / artifacts.RESULT)
    # The command line's.
    assert (summary["prompt_length"], summary["num_pieces"]) == (4, 8)
    assert summary["config"]["optimizer"]["learning_rate"] == rate
    assert summary["task"] == name.partition("/")[0]


def test_the_command_line_does_not_set_what_a_run_sets(
    capsys, tmp_path, gin_file
):
  def refused(binding, *flags):
    return command_line.refused(
        capsys,
        "train",
        "--gin_file=xprompt_demo.gin",
        f"--gin_file={gin_file}",
        f"--gin.{binding}",
        f"--workdir={tmp_path}/w",
        *flags,
    )

  assert refused("LEARNING_RATE=0.5") == (
      "--gin.LEARNING_RATE=0.5: found LEARNING_RATE, which RUNS['short'] sets"
      " (LEARNING_RATE = 0.125), expected a macro that no run sets, or --run=NAME"
      " of others"
  )
  # Runs that are not chosen do not count.
  found = refused("PROMPT_LENGHT=2", "--run=transfer")
  assert found.startswith("--gin.PROMPT_LENGHT: found no such macro")


def test_tasks_of_the_command_line_are_those_of_runs_without_their_own():
  bindings = ["TASK_FILES=()", "SEEDS=(1,)"]
  own = ("TASK_FILES = ('tasks/mini_cb.gin',)",)
  sweeps.check_bindings("source", own, bindings)
  assert sweeps.not_task_files(own, bindings) == ["SEEDS=(1,)"]
  assert sweeps.not_task_files(("A = 1",), bindings) == bindings


def test_what_the_lines_of_a_statement_set():
  statement = "A = 1\nB = (\n    C,\n)\nx.Y:\n  z = 3\nD = '(' # ("
  assert sweeps.macros_of(statement) == ["A", "B", "D"]


def test_a_run_starts_from_what_an_earlier_one_left(sweep):
  workdir, _ = sweep
  tuned = artifacts.load_arrays(
      workdir / "mini_cb/source/tune/prompt.safetensors"
  )
  for task in ("mini_cb", "mini_rte"):
    path = workdir / task / "transfer/tune/prompt.safetensors"
    start = artifacts.load_arrays(path)["start"]
    assert (start == tuned["prompt"]).all()


def test_what_a_source_holds_stands_for_its_path(sweep):
  workdir, _ = sweep
  summary = artifacts.read_json(workdir / "mini_rte/transfer/result.json")
  assert summary["init_file"].endswith("/../mini_cb/source/tune")
  config = prompts.PromptConfig(
      length=4,
      num_pieces=8,
      init="from_file",
      init_file=str(workdir / "mini_cb/source/tune"),
  )
  start = artifacts.load_arrays(
      workdir / "mini_cb/source/tune/prompt.safetensors"
  )["prompt"]
  digest = artifacts.digest_arrays({"prompt": start})
  assert prompts.start_digest(config, (4,), start.shape[2]) == digest
  assert summary["config"]["prompt"]["init_file"] == digest


def test_a_source_that_changed_is_noticed(sweep, gin_file, tmp_path, capsys):
  workdir, _ = sweep
  copy = tmp_path / "copy"
  shutil.copytree(workdir, copy)
  command = (*SWEEP, f"--gin_file={gin_file}", f"--workdir={copy}")
  # The path alone does not matter.
  assert command_line.run("train", *command, "--run=transfer") == 0
  path = copy / "mini_cb/source/tune/prompt.safetensors"
  arrays = artifacts.load_arrays(path)
  artifacts.save_arrays(path, {**arrays, "prompt": arrays["prompt"] + 1})
  capsys.readouterr()
  assert command_line.run("train", *command, "--run=transfer") == 2
  assert "another config" in capsys.readouterr().err


def test_each_run_has_a_mean_over_its_tasks(sweep):
  workdir, _ = sweep
  result = artifacts.read_json(workdir / artifacts.RESULT)
  assert list(result["by_run"]) == ["source", "short", "transfer"]
  scores = [
      result["tasks"][name]["methods"]["xprompt"]["scores"][0]
      for name in ("mini_cb/short", "mini_rte/short")
  ]
  mean = result["by_run"]["short"]["average"]["scores"]["xprompt"]
  assert mean == [sum(scores) / 2]


def test_one_run_again_computes_nothing(sweep, gin_file, capsys):
  workdir, _ = sweep
  before = (workdir / artifacts.RESULT).read_bytes()
  arguments = (
      *SWEEP,
      f"--gin_file={gin_file}",
      "--run=short",
      f"--workdir={workdir}",
  )
  assert command_line.run("train", *arguments) == 0
  printed = capsys.readouterr().out
  assert "mini_rte/short: run 2 of 2" in printed
  assert "From earlier commands: mini_cb/source, mini_cb/transfer" in printed
  after = artifacts.read_json(workdir / artifacts.RESULT)
  assert sorted(after["runs"]) == sorted(
      [
          "mini_cb/source",
          "mini_cb/transfer",
          "mini_rte/transfer",
          "mini_cb/short",
          "mini_rte/short",
      ]
  )
  assert len(before) == len((workdir / artifacts.RESULT).read_bytes())


def test_a_command_about_one_prompt_wants_one_run(sweep, gin_file, capsys):
  workdir, _ = sweep
  arguments = (*SWEEP, f"--gin_file={gin_file}", f"--workdir={workdir}")
  assert command_line.refused(capsys, "infer", *arguments) == (
      "RUNS: found 5 runs, expected one for infer: add --run=source"
      " --gin.TASK_FILES=\"('tasks/mini_cb.gin',)\""
  )


@pytest.mark.parametrize(
    ("runs", "line"),
    [
        (
            "{'a': ('PROMPT_LENGHT = 10',)}",
            "RUNS['a']: PROMPT_LENGHT: found no such macro in the gin files,"
            " expected one of theirs such as PROMPT_LENGTH, or CLASS.PARAMETER",
        ),
        (
            "{'a': (), 'b': ('PROMPT_INIT_FILE = \\'{SORCE}\\'',)}",
            "RUNS['b']: PROMPT_INIT_FILE = '{SORCE}': {SORCE}: found None,"
            " expected {workdir} or a macro with a text or a number",
        ),
        (
            "{'a': ('NUM_PIECES = 5',)}",
            "RUNS['a']: PromptConfig.num_pieces: found 5, expected a divisor of"
            " the model's emb_dim 128",
        ),
        (
            "{'a': ('include \\'no.gin\\'',)}",
            "RUNS['a']: include 'no.gin': found no file no.gin, expected a"
            " path, a file in --gin_search_paths, or one of"
            f" {command_line.RECIPES}",
        ),
        (
            "{'a': ('PROMPT_LENGTH = (1',)}",
            "RUNS['a']: PROMPT_LENGTH = (1: found a bracket that is not closed,"
            " expected NAME=VALUE",
        ),
        (
            "{'a': 'PROMPT_LENGTH = 10'}",
            "RUNS['a']: found 'PROMPT_LENGTH = 10', expected a list of gin"
            " statements, such as ('PROMPT_LENGTH = 10',)",
        ),
        (
            "{'a': ('RUNS = {}',)}",
            "RUNS['a']: found RUNS among its statements, expected other macros",
        ),
        (
            "{'a/b': ()}",
            "RUNS: found the run 'a/b', expected a name that can be a folder's",
        ),
        (
            "('a',)",
            "RUNS: found ('a',), expected a dictionary from names of folders to"
            " lists of gin statements, such as {'length_10': ('PROMPT_LENGTH ="
            " 10',)}",
        ),
    ],
)
def test_refused(capsys, tmp_path, runs, line):
  found = command_line.refused(
      capsys,
      "train",
      "--gin_file=xprompt_demo.gin",
      f"--gin.RUNS={runs}",
      f"--workdir={tmp_path / 'run'}",
  )
  assert found == line
  assert not (tmp_path / "run").exists()


def test_a_run_that_is_not_there(capsys, gin_file):
  demo = "--gin_file=xprompt_demo.gin"
  assert command_line.refused(capsys, "train", demo, "--run=short") == (
      "--run=short: found no such run, expected gin files with RUNS"
  )
  found = command_line.refused(
      capsys, "eval", demo, f"--gin_file={gin_file}", "--run=shrot"
  )
  assert found == (
      "--run=shrot: found no such run, expected one of source, short, transfer"
  )


def test_no_runs_are_no_sweep():
  assert sweeps.check_runs(None) == {}
  assert sweeps.check_runs({}) == {}
  assert sweeps.check_runs({"b": ["A = 1"], "a": ()}) == {
      "b": ("A = 1",),
      "a": (),
  }
  assert refusal(sweeps.check_runs, []).startswith("RUNS: found []")


def test_braces_become_values():
  macros = {"SOURCE": "mini_cb", "RATE": 0.3, "RATES": (1, 2)}.get
  folder = pathlib.Path("/runs/it's/mini_rte")
  assert sweeps.fill("A = '{workdir}/../{SOURCE}'", folder, macros) == (
      "A = '/runs/it\\'s/mini_rte/../mini_cb'"
  )
  assert sweeps.fill("A = {RATE}", folder, macros) == "A = 0.3"
  # A dictionary's braces are its own.
  assert sweeps.fill("A = {'b': 1}", folder, macros) == "A = {'b': 1}"
  assert refusal(sweeps.fill, "A = {RATES}", folder, macros).startswith(
      "A = {RATES}: {RATES}: found (1, 2), expected {workdir} or a macro"
  )


def test_what_a_statement_sets():
  assert sweeps.macro_of(" A_1 = 2") == "A_1"
  assert sweeps.macro_of("include 'a=b.gin'") is None
  assert sweeps.macro_of("T5Config.emb_dim = 2") is None


def _summary(score):
  row = {"seed": 0, "validation": {"accuracy": score, "score": score}}
  return {
      "task": "t",
      "num_examples": {"validation": 4},
      "methods": [{"method": "xprompt", "rows": [row]}],
  }


def test_the_table_of_a_sweep(capsys):
  scores = {"a/x": 50.0, "b/x": 100.0, "a/y": 25.0, "b/y": 75.0}
  summaries = {name: _summary(score) for name, score in scores.items()}
  scoreboard.print_suite(scoreboard.suite_result(summaries, {}, is_sweep=True))
  lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
  assert lines == [
      "score of each task",
      "task       split  XPrompt",
      "─" * 25,
      "a/x        val      50.00",
      "b/x        val     100.00",
      "a/y        val      25.00",
      "b/y        val      75.00",
      "",
      "average x           75.00",
      "average y           50.00",
      "",
  ]
  # Of one task there is nothing to average.
  one = scoreboard.suite_result({"x": _summary(50.0)}, {}, is_sweep=True)
  scoreboard.print_suite(one)
  assert "average" not in capsys.readouterr().out
