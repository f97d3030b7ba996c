"""Registers the SuperGLUE tasks with seqio, in T5's text-to-text form.

Name this module as MIXTURE_OR_TASK_MODULE. Set SUPER_GLUE_DIR to read official
JSONL folders instead of TFDS. docs/tasks.md lists texts, targets and metrics.

| name | what |
| --- | --- |
| `boolq`, `cb`, ... | T5's text without the task's name in front |
| `super_glue_boolq_v102`, ... | with it, as T5's own |
| `boolq_fewglue`, ... | FewGLUE's 32 rows; FEWGLUE_DIR names the folder |
| `super_glue_proportional`, `..._equal`, `..._temperature_2` | mixtures |

WSC trains on its label-true rows (259), whose target is what the pronoun means,
and is evaluated on all rows: `super_glue_wsc_v102_simple` is T5's pair
`..._simple_train` and `..._simple_eval` in one task.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools
from typing import Any

import seqio

from xprompt_jax.tasks import metrics, official, postprocessors, preprocessors
from xprompt_jax.tasks.rows import Row
from xprompt_jax.tasks.schemas import SCHEMAS, Schema
from xprompt_jax.tasks.sources import RowSource, add_task

T5_VOCABULARY = "gs://t5-data/vocabs/cc_all.32000/sentencepiece.model"
T5_EXTRA_IDS = 100
# The seven of the paper; ReCoRD and the diagnostics are not mixed in.
MIXED = ("boolq", "cb", "copa", "multirc", "rte", "wic", "wsc")
TEMPERATURE = 2.0


def label_is_true(found: list[Row]) -> list[Row]:
  """Returns the rows whose label is true."""
  return [row for row in found if row["label"] == 1]


def one_for_each_answer(found: list[Row]) -> list[Row]:
  """Returns ReCoRD's rows once for each of their answers, told apart by id."""
  return [
      {**row, "answer": answer, "idx/answer": place}
      for row in found
      for place, answer in enumerate(row["answers"])
  ]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Kind:
  """What tells a task from the others.

  `text` takes the row and, as `name`, what stands in front: `t5_prefix` in the
  task called `t5_name`.
  """

  text: Callable[..., dict[str, Any]]
  postprocess_fn: Callable[..., Any]
  metric_fns: Sequence[Callable[..., Mapping[str, float]]]
  t5_name: str
  t5_prefix: str
  train_rows: official.TrainRows | None = None


def _classes(name: str, schema: Schema) -> _Kind:
  """Returns a task of `field: text` whose answer is a class."""
  return _Kind(
      text=functools.partial(
          preprocessors.classification,
          fields=schema.fields,
          labels=schema.labels,
      ),
      postprocess_fn=functools.partial(
          postprocessors.class_id, labels=schema.labels
      ),
      metric_fns=[metrics.accuracy],
      t5_name=f"super_glue_{name}_v102",
      t5_prefix=name,
  )


def _kind(name: str, schema: Schema) -> _Kind:
  kind = _classes(name, schema)
  grouped = functools.partial(
      postprocessors.grouped_class_id, labels=schema.labels
  )
  changes: dict[str, dict[str, Any]] = {
      "cb": {"metric_fns": [metrics.mean_3class_f1, metrics.accuracy]},
      "multirc": {
          "text": functools.partial(
              preprocessors.multirc, fields=schema.fields, labels=schema.labels
          ),
          "postprocess_fn": functools.partial(grouped, field="idx/question"),
          "metric_fns": [metrics.f1a, metrics.grouped_em],
      },
      "record": {
          "text": preprocessors.record,
          "postprocess_fn": postprocessors.answer_text,
          "metric_fns": [metrics.squad],
          "train_rows": one_for_each_answer,
      },
      "wsc": {
          "text": preprocessors.wsc,
          "postprocess_fn": postprocessors.referent_match,
          "t5_name": "super_glue_wsc_v102_simple",
          "train_rows": label_is_true,
      },
      # T5 asks the diagnostics as RTE, which their models are trained on.
      "axb": {
          "text": functools.partial(
              preprocessors.diagnostic, labels=schema.labels
          ),
          "metric_fns": [metrics.matthews_corrcoef],
          "t5_prefix": "rte",
      },
      "axg": {
          # Rows 2n and 2n + 1 differ in the pronoun's gender alone.
          "postprocess_fn": functools.partial(
              grouped, field="idx", rows_per_group=2
          ),
          "metric_fns": [metrics.gender_parity, metrics.grouped_accuracy],
          "t5_prefix": "rte",
      },
  }
  return dataclasses.replace(kind, **changes.get(name, {}))


def _add(
    name: str,
    kind: _Kind,
    source: RowSource,
    vocabulary: seqio.Vocabulary,
    prefix: str = "",
) -> None:
  add_task(
      name,
      source=source,
      text=functools.partial(kind.text, name=prefix),
      vocabulary=vocabulary,
      postprocess_fn=kind.postprocess_fn,
      metric_fns=kind.metric_fns,
  )


def _rate(task: seqio.Task, *, temperature: float = 1.0) -> float:
  """Returns the number of training examples to the power 1 / temperature."""
  return task.num_input_examples("train") ** (1.0 / temperature)


def _add_mixture(name: str, members: Sequence[str], rate: Any) -> None:
  if name not in seqio.MixtureRegistry.names():
    seqio.MixtureRegistry.add(name, list(members), default_rate=rate)


def _register() -> None:
  # Read when a text is tokenised; the token cache may put another in its place.
  vocabulary = seqio.SentencePieceVocabulary(T5_VOCABULARY, T5_EXTRA_IDS)
  t5_names = {}
  for name, schema in SCHEMAS.items():
    kind = _kind(name, schema)
    t5_names[name] = kind.t5_name
    source = functools.partial(
        official.super_glue_source, schema, train_rows=kind.train_rows
    )
    _add(name, kind, source(), vocabulary)
    _add(kind.t5_name, kind, source(), vocabulary, kind.t5_prefix)
    if name == "wsc":
      for part, splits in (
          ("train", ["train"]),
          ("eval", ["validation", "test"]),
      ):
        t5_part = f"{kind.t5_name}_{part}"
        _add(t5_part, kind, source(splits=splits), vocabulary, kind.t5_prefix)
    if schema.few_shot:
      few = official.fewglue_source(schema, train_rows=kind.train_rows)
      _add(f"{name}_fewglue", kind, few, vocabulary)
  for ending, rate in (
      ("proportional", _rate),
      ("equal", 1.0),
      (
          f"temperature_{TEMPERATURE:g}",
          functools.partial(_rate, temperature=TEMPERATURE),
      ),
  ):
    _add_mixture(f"super_glue_{ending}", MIXED, rate)
    # Not `super_glue_v102_...`, which in T5 has DPR and ReCoRD besides.
    named = [t5_names[name] for name in MIXED]
    _add_mixture(f"super_glue_v102_seven_{ending}", named, rate)


_register()
