"""Writes docs/results.md from the summaries of finished runs.

    .venv/bin/python docs/results.py runs/mini_boolq ... > docs/results.md

Every number comes from a `result.json`; the command beside it makes it again.
"""

import io
import pathlib
import sys

import rich.console

from xprompt_jax import artifacts, correctness, report, verdicts

_HEAD = """\
# Measured results

Written by `docs/results.py` from result files. All of it is about the bundled
1 M parameter model and its four synthetic tasks, and about nothing else: it shows
that the method runs as defined, not what it does for a large T5. Each seed
selects its checkpoint and its ticket on validation; nothing was chosen on test.
The verdict wants the 95 % interval of the mean difference to leave out 0;
[evaluation.md](evaluation.md) says what it stands on.
"""


def section(workdir: pathlib.Path) -> str:
  """One task: its command, its table, and the comparison in words."""
  summary = artifacts.read_json(workdir / artifacts.RESULT)
  task = summary["task"]
  seeds = ",".join(str(seed) for seed in summary["config"]["seeds"])
  text = io.StringIO()
  console = rich.console.Console(file=text, width=80, highlight=False)
  for table in report.summary_tables(summary):
    console.print(table)
  console.print()
  rights = verdicts.rights_of(summary, correctness.load(workdir))
  for line in verdicts.lines(summary, rights):
    console.print(line, width=80)
  total = sum(summary["seconds"].values())
  devices = artifacts.read_json(workdir / artifacts.RUN)["devices"]
  lines = "\n".join(line.rstrip() for line in text.getvalue().splitlines())
  return f"""
## {task}

    t5x train --gin_file=xprompt_demo.gin --gin_file=tasks/{task}.gin \\
        --gin.SEEDS=[{seeds}]

{total:.0f} s on {", ".join(devices)}; {summary["tickets_tried"]} tickets tried.

```
{lines}
```
"""


if __name__ == "__main__":
  parts = [section(pathlib.Path(name)) for name in sys.argv[1:]]
  sys.stdout.write(_HEAD + "".join(parts))
