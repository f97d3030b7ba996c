"""Registers the SuperGLUE tasks with seqio, in T5's text-to-text form.

Name this module as MIXTURE_OR_TASK_MODULE. Set SUPER_GLUE_DIR to read official
JSONL folders instead of TFDS.

| task | text |
| --- | --- |
| `rte`, `wsc` | T5's, without the task's name in front |
| `super_glue_rte_v102`, `super_glue_wsc_v102_simple` | with it, as T5's own |

WSC trains on its label-true rows (259), whose target is what the pronoun means,
and is evaluated on all rows: T5's pair `super_glue_wsc_v102_simple_train` and
`..._eval` in one task.
"""

import functools

import seqio

from xprompt_jax.tasks import metrics, postprocessors, preprocessors, sources
from xprompt_jax.tasks.rows import SCHEMAS, Row

T5_VOCABULARY = "gs://t5-data/vocabs/cc_all.32000/sentencepiece.model"
T5_EXTRA_IDS = 100


def _label_is_true(row: Row) -> bool:
  return row["label"] == 1


def _register() -> None:
  # Read when a text is tokenised; the token cache may put another in its place.
  vocabulary = seqio.SentencePieceVocabulary(T5_VOCABULARY, T5_EXTRA_IDS)
  rte = SCHEMAS["rte"]
  for name, prefix in (("rte", ""), ("super_glue_rte_v102", "rte")):
    sources.add_task(
        name,
        source=sources.super_glue_source(rte, keep={}),
        text=functools.partial(
            preprocessors.classification,
            fields=rte.fields,
            labels=rte.labels,
            name=prefix,
        ),
        vocabulary=vocabulary,
        postprocess_fn=functools.partial(
            postprocessors.class_id, labels=rte.labels
        ),
        metric_fns=[metrics.accuracy],
    )
  for name, prefix in (("wsc", ""), ("super_glue_wsc_v102_simple", "wsc")):
    sources.add_task(
        name,
        source=sources.super_glue_source(
            SCHEMAS["wsc"], keep={"train": _label_is_true}
        ),
        text=functools.partial(preprocessors.wsc, name=prefix),
        vocabulary=vocabulary,
        postprocess_fn=postprocessors.referent_match,
        metric_fns=[metrics.accuracy],
    )


_register()
