"""A suite: one recipe, several tasks, one result; stopped and gone on with."""

import dataclasses
import json

import pytest

from tests import command_line, tiny_experiment
from xprompt_jax import artifacts, counts, scoreboard, trainer
from xprompt_jax import suite as suite_lib
from xprompt_jax.types import UserError
from xprompt_jax.weights import loading

SUITE = (
    *command_line.TINY,
    "--gin.SEEDS=(4,)",
    "--gin.TASK_FILES=('tasks/mini_cb.gin', 'tasks/mini_rte.gin')",
)


def files_of(folder):
  """What a suite leaves, but for event files and wall times."""
  found = {}
  for path in sorted(folder.rglob("*")):
    if path.is_dir() or artifacts.TENSORBOARD in path.parts:
      continue
    content = path.read_bytes()
    if path.suffix == ".json":
      content = json.loads(content)
      content.pop("seconds", None)
    found[str(path.relative_to(folder))] = content
  return found


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
  """WORKDIR of a suite that nothing stopped, and how often weights were read."""
  workdir = tmp_path_factory.mktemp("suite") / "run"
  loaded = []
  load_frozen = loading.load_frozen

  def counted(*arguments, **named):
    loaded.append(arguments[0])
    return load_frozen(*arguments, **named)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(loading, "load_frozen", counted)
    status = command_line.run("train", *SUITE, f"--workdir={workdir}")
  assert status == 0
  return workdir, loaded


def test_a_suite_and_a_sweep_have_folders_of_their_own(suite, capsys):
  workdir, _ = suite
  found = command_line.refused(
      capsys,
      "train",
      *SUITE,
      "--gin.RUNS={'a': ('LEARNING_RATE = 0.1',)}",
      f"--workdir={workdir}",
  )
  assert found == (
      f"{workdir}/result.json: found the result of a suite of tasks, expected"
      " that of a sweep of RUNS, or another --workdir"
  )


def test_each_task_has_a_folder_and_the_weights_are_read_once(suite):
  workdir, loaded = suite
  assert sorted(path.name for path in workdir.iterdir()) == [
      "mini_cb",
      "mini_rte",
      "result.json",
  ]
  assert loaded == ["random:0"]
  for name in ("mini_cb", "mini_rte"):
    summary = artifacts.read_json(workdir / name / artifacts.RESULT)
    assert summary["task"] == name
    assert summary["tickets_tried"] == 2
    assert (
        f'MIXTURE_OR_TASK_NAME = "{name}"'.replace('"', "'")
        in (workdir / name / artifacts.CONFIG).read_text()
    )


def test_the_result_names_tasks_methods_and_their_mean(suite):
  workdir, _ = suite
  result = artifacts.read_json(workdir / artifacts.RESULT)
  assert list(result) == ["schema", "tasks", "failed", "average", "runs"]
  assert result["failed"] == {}
  assert result["runs"] == ["mini_cb", "mini_rte"]
  assert list(result["tasks"]) == ["mini_cb", "mini_rte"]
  for name, task in result["tasks"].items():
    summary = artifacts.read_json(workdir / name / artifacts.RESULT)
    assert task["task"] == name
    assert task["split"] == "test"
    assert task["num_examples"] == 12
    assert list(task["methods"]) == [
        "no_prompt",
        "prompt_tuning",
        "token",
        "xprompt",
    ]
    for method in summary["methods"]:
      row = method["rows"][0]
      assert task["methods"][method["method"]] == {
          "seeds": [row["seed"]],
          "scores": [row["test"]["score"]],
          "metrics": {k: [v] for k, v in row["test"].items() if k != "score"},
          "counts": counts.of_metrics(row["test"], {"accuracy": 12}),
      }
  scores = [
      task["methods"]["xprompt"]["scores"][0]
      for task in result["tasks"].values()
  ]
  assert result["average"]["scores"]["xprompt"] == [sum(scores) / 2]


class Killed(BaseException):
  """Nothing in the package catches it, as nothing catches a kill."""


def test_a_suite_stopped_in_its_second_task_goes_on(
    suite, monkeypatch, tmp_path
):
  workdir, _ = suite
  arguments = ("train", *SUITE, f"--workdir={tmp_path / 'run'}")
  save, saved = trainer._Run.save, []

  def stopping(run, folder):
    save(run, folder)
    saved.append(folder)
    # Tuning saves two states, each search two.
    if len(saved) == 9:
      raise Killed

  with monkeypatch.context() as patch:
    patch.setattr(trainer._Run, "save", stopping)
    with pytest.raises(Killed):
      command_line.run(*arguments)
  assert saved[-1] == tmp_path / "run/mini_rte/search_token"
  assert not (tmp_path / "run" / artifacts.RESULT).exists()
  assert command_line.run(*arguments) == 0
  assert files_of(tmp_path / "run") == files_of(workdir)


def test_a_finished_suite_again_touches_no_file(suite, capsys):
  workdir, _ = suite

  def times():
    return {p: p.stat().st_mtime_ns for p in workdir.rglob("*") if p.is_file()}

  before = times()
  assert command_line.run("train", *SUITE, f"--workdir={workdir}") == 0
  after = times()
  changed = {
      path.name
      for path in after
      if artifacts.TENSORBOARD not in path.parts
      and after[path] != before.get(path)
  }
  assert changed <= {"run.json", "config.gin"}
  printed = capsys.readouterr().out
  assert "mini_rte: task 2 of 2" in printed
  assert "score of each task" in printed


def test_a_task_that_fails_is_named_after_the_others_ran(
    suite, capsys, tmp_path
):
  workdir, _ = suite
  status = command_line.run(
      "train",
      *SUITE,
      "--gin.TASK_FILES=('broken.gin', 'tasks/mini_rte.gin')",
      f"--gin_search_paths={_broken(tmp_path)}",
      f"--workdir={workdir}",
  )
  printed = capsys.readouterr()
  assert status == 2
  assert printed.err.count("\n") == 1
  assert printed.err.startswith(
      "t5x: 1 of 2 tasks failed: broken: MIXTURE_OR_TASK_NAME nothing:"
  )
  result = artifacts.read_json(workdir / artifacts.RESULT)
  # What an earlier command found stays.
  assert list(result["tasks"]) == ["mini_cb", "mini_rte"]
  assert list(result["failed"]) == ["broken"]
  assert "Failed: broken." in printed.out
  assert "From earlier commands: mini_cb." in printed.out


def test_a_suite_and_a_single_run_keep_out_of_each_others_folders(
    suite, capsys
):
  workdir, _ = suite
  result = workdir / artifacts.RESULT
  before = result.read_bytes()
  single = (*SUITE, "--gin.TASK_FILES=()", f"--workdir={workdir}")
  assert command_line.refused(capsys, "train", *single) == (
      f"{result}: found the result of a suite, expected that of a single task,"
      " or another --workdir"
  )
  task = workdir / "mini_rte"
  line = command_line.refused(capsys, "train", *SUITE, f"--workdir={task}")
  assert line == (
      f"{task / 'result.json'}: found the result of a single task, expected a"
      " suite's, or another --workdir"
  )
  assert result.read_bytes() == before


def test_a_full_device_or_disk_ends_its_own_task_only(
    monkeypatch, capsys, tmp_path
):
  done = []

  def train(config, workdir, gin_config, weights):
    done.append(workdir.name)
    raise {
        "a": RuntimeError("RESOURCE_EXHAUSTED: out of memory"),
        "b": OSError(28, "No space left on device", "b/state"),
        "c": UserError("c: found 1, expected 2"),
    }[workdir.name]

  monkeypatch.setattr(suite_lib.commands, "train", train)
  config = tiny_experiment.make_experiment(tmp_path).config
  task = suite_lib.SuiteTask(config=config, workdir=tmp_path, gin_config="")
  tasks = {
      name: dataclasses.replace(task, workdir=tmp_path / name) for name in "abc"
  }
  with pytest.raises(UserError) as refusal:
    suite_lib.train(tasks, tmp_path)
  assert done == ["a", "b", "c"]
  line = str(refusal.value)
  assert line.startswith("3 of 3 tasks failed: a: the device is out of memory")
  assert "; b: b/state: No space left on device; c: c: found 1," in line
  result = artifacts.read_json(tmp_path / artifacts.RESULT)
  assert (list(result["failed"]), result["runs"]) == (["a", "b", "c"], [])
  capsys.readouterr()
  monkeypatch.setattr(suite_lib.commands, "train", lambda *_: 1 / 0)
  with pytest.raises(ZeroDivisionError):
    suite_lib.train(tasks, tmp_path)


def _broken(folder):
  (folder / "broken.gin").write_text(
      'include "tasks/mini_cb.gin"\nMIXTURE_OR_TASK_NAME = "nothing"\n'
  )
  return folder


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            (
                "train",
                "--gin.TASK_FILES=('tasks/mini_cb.gin', 'x/mini_cb.gin')",
            ),
            "TASK_FILES: found ('tasks/mini_cb.gin', 'x/mini_cb.gin'), expected"
            " a list of gin files with different names",
        ),
        (
            ("train", "--gin.TASK_FILES='tasks/mini_cb.gin'"),
            "TASK_FILES: found 'tasks/mini_cb.gin', expected a list of gin"
            " files with different names",
        ),
        (
            ("infer",),
            "TASK_FILES: found 2 tasks, expected one for infer: add"
            " --gin_file=tasks/mini_cb.gin"
            ' --gin.TASK_FILES="()" --workdir=runs/xprompt_demo/mini_cb',
        ),
    ],
)
def test_refused(capsys, arguments, line):
  command, *rest = arguments
  assert command_line.refused(capsys, command, *SUITE, *rest) == line


def test_a_mistake_in_any_gin_file_is_found_before_the_first_task(
    capsys, tmp_path
):
  found = command_line.refused(
      capsys,
      "train",
      *SUITE,
      "--gin.TASK_FILES=('tasks/mini_cb.gin', 'tasks/no.gin')",
      f"--workdir={tmp_path / 'run'}",
  )
  assert "found no file tasks/no.gin" in found
  assert not (tmp_path / "run").exists()


def _summary(task, scores, **more):
  """A summary of two seeds whose metrics are given by method."""

  def row(seed, found):
    metrics = dict(zip(("f1a", "em"), found, strict=False))
    score = sum(found) / len(found)
    return {"seed": seed, "validation": {**metrics, "score": score}}

  return {
      "task": task,
      "num_examples": {"train": 9, "validation": 4},
      "methods": [
          {
              "method": method,
              "rows": [row(seed, found) for seed, found in enumerate(of_seed)],
          }
          for method, of_seed in scores.items()
      ],
      **more,
  }


TWO_TASKS = {
    "multirc": _summary(
        "super_glue_multirc_v102",
        {
            "no_prompt": [(0.0, 0.0)],
            "xprompt": [(80.0, 40.0), (90.0, 50.0)],
        },
    ),
    "cb": _summary(
        "cb", {"no_prompt": [(12.5,)], "xprompt": [(90.0,), (100.0,)]}
    ),
}


def test_superglue_averages_metrics_first_and_then_tasks():
  result = scoreboard.suite_result(TWO_TASKS, {"rte": "why"})
  assert result["superglue"] == {
      "tasks": ["cb", "multirc"],
      "missing": ["boolq", "copa", "record", "rte", "wic", "wsc"],
      # Seed 0: (60 + 90) / 2; seed 1: (70 + 100) / 2.
      "scores": {"no_prompt": [6.25], "xprompt": [75.0, 85.0]},
  }
  assert result["tasks"]["multirc"]["methods"]["xprompt"] == {
      "seeds": [0, 1],
      "scores": [60.0, 70.0],
      "metrics": {"f1a": [80.0, 90.0], "em": [40.0, 50.0]},
      "counts": {},
  }


def test_the_table_of_a_suite(capsys):
  scoreboard.print_suite(scoreboard.suite_result(TWO_TASKS, {"rte": "why"}))
  lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
  assert lines == [
      "score of each task",
      "task       split  no prompt       XPrompt",
      "─" * 41,
      "multirc    val         0.00  65.00 ± 7.07",
      "  f1a                  0.00  85.00 ± 7.07",
      "  em                   0.00  45.00 ± 7.07",
      "cb         val        12.50  95.00 ± 7.07",
      "",
      "SuperGLUE              6.25  80.00 ± 7.07",
      "",
      "SuperGLUE: mean over 2 of its 8 tasks, several metrics of a task"
      " averaged first;",
      "without boolq, copa, record, rte, wic, wsc.",
      "Failed: rte.",
  ]


@pytest.mark.parametrize(
    ("task", "name"),
    [
        ("boolq", "boolq"),
        ("super_glue_wsc_v102_simple", "wsc"),
        ("super_glue_record_v102", "record"),
        ("rte_fewglue", "rte"),
        ("mini_rte", None),
        ("axb", None),
        ("super_glue_axg_v102", None),
    ],
)
def test_which_tasks_count_for_superglue(task, name):
  assert scoreboard.superglue_name(task) == name
