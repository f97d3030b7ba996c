"""Registers the tasks of the packaged model with seqio: no download needed.

`mini_boolq`, `mini_rte`, `mini_cb` and `mini_wsc` have the rows, texts and
metrics of their SuperGLUE namesakes, in the language the packaged model was
pre-trained on (`mini_language.py`). The variants `..._32shot` train on 32 rows
and are evaluated on the same validation and test splits.
"""

from collections.abc import Callable
import functools
from importlib import resources
import pathlib
from typing import Any

import seqio

from xprompt_jax.tasks import (
    metrics,
    mini_language,
    postprocessors,
    preprocessors,
    rows,
    sources,
)
from xprompt_jax.tasks.rows import Row
from xprompt_jax.tasks.schemas import SCHEMAS, Schema

_VOCABULARY = resources.files("xprompt_jax") / "bundled/sentencepiece.model"
_EXTRA_IDS = 32
# The rows are a function of this file: another file, another token cache.
_LANGUAGE = pathlib.Path(mini_language.__file__)
_METRICS: dict[str, list[Callable[..., Any]]] = {
    "mini_boolq": [metrics.accuracy],
    "mini_rte": [metrics.accuracy],
    "mini_cb": [metrics.mean_3class_f1, metrics.accuracy],
    "mini_wsc": [metrics.accuracy],
}


def read(task: str, split: str, *, few_shot: bool = False) -> list[Row]:
  """Returns the rows of a split, in the form SuperGLUE's rows have.

  Args:
    task: such as "mini_rte".
    split: "train", "validation" or "test".
    few_shot: train on 32 rows.
  """
  drawn = f"train_{mini_language.SHOTS}" if few_shot else "train"
  found = mini_language.rows(task, drawn if split == "train" else split)
  checked = rows.check_rows(
      ((f"{task}, {split}, row {i}", row) for i, row in enumerate(found)),
      SCHEMAS[task.removeprefix("mini_")],
      labelled=True,
  )
  if task == "mini_wsc" and split == "train":
    return [row for row in checked if row["label"] == 1]
  return checked


def _functions(
    schema: Schema,
) -> tuple[Callable[..., dict[str, Any]], Callable[..., int]]:
  """Returns what makes text of a row and what reads the model's answer."""
  if schema.layout == "wsc":
    return preprocessors.wsc, postprocessors.referent_match
  return (
      functools.partial(
          preprocessors.classification,
          fields=schema.fields,
          labels=schema.labels,
      ),
      functools.partial(postprocessors.class_id, labels=schema.labels),
  )


def _register() -> None:
  vocabulary = seqio.SentencePieceVocabulary(str(_VOCABULARY), _EXTRA_IDS)
  for task, metric_fns in _METRICS.items():
    text, postprocess_fn = _functions(SCHEMAS[task.removeprefix("mini_")])
    for few_shot in (False, True):
      sources.add_task(
          f"{task}_{mini_language.SHOTS}shot" if few_shot else task,
          source=sources.RowSource(
              functools.partial(read, task, few_shot=few_shot),
              splits=("train", "validation", "test"),
              files=lambda split: [_LANGUAGE],
          ),
          text=text,
          vocabulary=vocabulary,
          postprocess_fn=postprocess_fn,
          metric_fns=metric_fns,
      )


_register()
