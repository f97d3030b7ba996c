"""Summaries of runs as `result.json` has them, and tables as text."""

import io

import rich.console


def rows_of(
    validation, test, tokens, pieces, parameters, metrics=("accuracy",)
):
  rows = []
  for seed, scores in enumerate(zip(validation, test, strict=True)):
    row = {
        "seed": seed,
        "kept_tokens": tokens[seed],
        "kept_pieces": pieces[seed],
        "tunable_parameters": parameters[seed],
    }
    for split, score in zip(("validation", "test"), scores, strict=True):
      if score is not None:
        row[split] = {**dict.fromkeys(metrics, score), "score": score}
    rows.append(row)
  return rows


def summary(tuned, xprompt, *, tests=True, metrics=("accuracy",)):
  """A summary of three seeds or fewer, validation being half of test."""
  half = [score / 2 for score in tuned], [score / 2 for score in xprompt]
  if not tests:
    tuned = xprompt = (None,) * len(tuned)
  n = len(tuned)
  no_prompt = rows_of([0.0], tuned[:1], [0], [0], [0], metrics)
  no_prompt[0]["seed"] = None
  kept = [14, 8, 14][:n], [157, 64, 157][:n], [1256, 512, 1256][:n]
  methods = {
      "no_prompt": no_prompt,
      "prompt_tuning": rows_of(
          half[0], tuned, [20] * n, [320] * n, [2560] * n, metrics
      ),
      "xprompt": rows_of(half[1], xprompt, *kept, metrics),
  }
  counts = {"train": 2000, "validation": 200, "test": 400}
  if not tests:
    del counts["test"]
  return {
      "task": "mini_boolq",
      "config": {
          "search": {
              "granularities": ["token", "piece"],
              "token_ratios": [0.2] * 9,
              "piece_ratios": [0.2] * 9,
          }
      },
      "num_examples": counts,
      "methods": [{"method": k, "rows": v} for k, v in methods.items()],
      "tickets_tried": 54,
      "seconds": {"evaluate": 8.4, "tune": 95.7},
  }


def with_sizes(made, sizes):
  """The same summary as of a run that says of how many metrics are shares."""
  for method in made["methods"]:
    for row in method["rows"]:
      row["metric_sizes"] = sizes
  return made


def text_of(tables):
  console = rich.console.Console(width=80, record=True, file=io.StringIO())
  for table in tables:
    console.print(table)
  return [line.rstrip() for line in console.export_text().splitlines()]
