"""Texts, ids, answers and metrics are those of T5's own package, on real rows.

`make test-interop` installs `t5`. Rows go through T5's
preprocessors and, beside them, through the tasks registered here under T5's
names; random answers go through both sides' postprocessors and metrics.
"""

import importlib.util
import random
import warnings

import numpy as np
import pytest
import sentencepiece

from tests import shared_data
from xprompt_jax.tasks import rows, schemas

pytestmark = [
    pytest.mark.interop,
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("t5") is None,
        reason="needs t5: make test-interop",
    ),
]
LENGTHS = {"inputs": 512, "targets": 62}
FILES = [
    (name, folder, split)
    for name, schema in schemas.SCHEMAS.items()
    for folder, splits in (
        ("super_glue", schema.splits),
        ("fewglue", schema.few_shot),
    )
    for split in splits
]
# T5's names of the metrics, where ours are others.
NAMES = {"multirc": {"f1": "f1a", "exact_match": "em"}}


@pytest.fixture(scope="module")
def ours():
  """The registry with this package's tasks; T5's own would take the names."""
  shared_data.quiet_import("xprompt_jax.tasks.super_glue")
  return shared_data.quiet_import("seqio").TaskRegistry


@pytest.fixture(scope="module")
def t5(ours):
  """T5's modules by name."""
  return {
      name: shared_data.quiet_import(f"t5.{name}")
      for name in (
          "data.glue_utils",
          "data.postprocessors",
          "data.preprocessors",
          "evaluation.metrics",
      )
  }


@pytest.fixture(scope="module")
def vocabulary():
  return sentencepiece.SentencePieceProcessor(
      model_file=shared_data.t5_vocabulary()
  )


def config_of(name):
  tfds = shared_data.quiet_import("tensorflow_datasets")
  known = tfds.text.super_glue.SuperGlue.builder_configs
  return known["wsc.fixed" if name == "wsc" else name]


def real_rows(name, folder, split):
  schema = schemas.SCHEMAS[name]
  known = schema.splits if folder == "super_glue" else schema.few_shot
  path = shared_data.path(f"{folder}/{schema.folder}/{known[split].file}")
  found = rows.read_jsonl(path, schema, labelled=known[split].labelled)
  return rows.check_split(found, known[split], str(path))


def tfds_form(row):
  """A row with TFDS's nested `idx`."""
  nested = {k[4:]: v for k, v in row.items() if k.startswith("idx/")}
  flat = {k: v for k, v in row.items() if not k.startswith("idx/")}
  return flat | ({"idx": nested} if nested else {})


def t5_examples(t5, name, found, *, train):
  """T5's examples of rows, made by its own preprocessors."""
  tf = shared_data.quiet_import("tensorflow")
  nested = [tfds_form(row) for row in found]

  def spec(name, value):
    if isinstance(value, dict):
      return {k: spec(k, v) for k, v in value.items()}
    if isinstance(value, int):
      return tf.TensorSpec((), tf.int64 if name == "label" else tf.int32)
    return tf.TensorSpec((None,) * isinstance(value, list), tf.string)

  signature = spec("row", nested[0])
  dataset = tf.data.Dataset.from_generator(
      lambda: iter(nested), output_signature=signature
  )
  preprocessors = t5["data.preprocessors"]
  if name == "wsc":
    made = preprocessors.wsc_simple(dataset, correct_referent_only=train)
  else:
    if name == "axb":
      names = {"premise": "sentence1", "hypothesis": "sentence2"}
      names |= {"label": "label", "idx": "idx"}
      dataset = preprocessors.rekey(dataset, key_map=names)
    make = t5["data.glue_utils"].get_glue_text_preprocessor(config_of(name))
    made = make(dataset)
  examples = list(made.as_numpy_iterator())
  if name == "record" and not train:  # Its metric counts the first of each.
    queries = [example["idx/query"] for example in examples]
    examples = [
        examples[queries.index(query)] for query in dict.fromkeys(queries)
    ]
  return examples


def our_examples(ours, name, found, *, train, path):
  """Our examples of rows, tokenised as seqio does."""
  seqio = shared_data.quiet_import("seqio")
  sources = shared_data.quiet_import("xprompt_jax.tasks.sources")
  module = shared_data.quiet_import("xprompt_jax.tasks.super_glue")
  kind = module._kind(name, schemas.SCHEMAS[name])
  if train and kind.train_rows:
    found = kind.train_rows(found)
  feature = seqio.Feature(seqio.SentencePieceVocabulary(path))
  task = seqio.Task(
      "compared",
      source=sources.RowSource(lambda split: found, splits=["it"]),
      preprocessors=ours.get(kind.t5_name).preprocessors,
      output_features={"inputs": feature, "targets": feature},
  )
  dataset = task.get_dataset(LENGTHS, split="it", shuffle=False)
  return list(dataset.as_numpy_iterator())


@pytest.mark.parametrize(("name", "folder", "split"), FILES)
def test_every_real_row(t5, ours, vocabulary, name, folder, split):
  found = real_rows(name, folder, split)
  train = split == "train"
  number, ties = compare(t5, ours, vocabulary, name, found, train=train)
  # BoolQ's validation split has three.
  assert ties <= 3
  print(f"{name} {folder} {split}: {number} examples, {ties} ties")


PAIR = {"idx": 0, "label": 1}
MADE_UP = {
    "axb": [{"sentence1": "P", "sentence2": "H", **PAIR}],
    "axg": [{"hypothesis": "H", "premise": "P", **PAIR}],
    "multirc": [
        {
            "question": "Who <b>sang</b><br>?",
            "answer": "<i>Ann</i><br><br>Ben",
            "paragraph": "<b>Sent 1: </b>Ann sang.<br>< b>Ben</b>.",
            "idx/paragraph": 0,
            "idx/question": 0,
            "idx/answer": 0,
            "label": -1,
        }
    ],
    "record": [
        {
            "query": "@placeholder?",
            "passage": "\n@highlight\n".join(
                ["one.", "two!", "three?", 'four"', "five'", "six)", "", " x "]
            ),
            "entities": ["Bonn", "Rome"],
            "answers": answers,
            "idx/passage": 0,
            "idx/query": number,
        }
        for number, answers in enumerate((["Bonn", "Rome"], ["Rome"], []))
    ],
}


@pytest.mark.parametrize("name", MADE_UP)
def test_made_up_rows(t5, ours, vocabulary, name):
  """Oddities of which the real rows at hand have few or none."""
  found = MADE_UP[name]
  assert compare(t5, ours, vocabulary, name, found, train=False)[1] == 0


def compare(t5, ours, vocabulary, name, found, *, train):
  """Compares all of two lists of examples; returns their length and ties."""
  expected = t5_examples(t5, name, found, train=train)
  examples = our_examples(
      ours, name, found, train=train, path=shared_data.t5_vocabulary()
  )
  assert len(examples) == len(expected)
  ties = 0
  for one, other in zip(examples, expected, strict=True):
    for field in ("inputs", "targets"):
      text = other.pop(field)
      assert one[f"{field}_pretokenized"] == text
      ids = vocabulary.encode(text.decode())[: LENGTHS[field] - 1]
      assert one[field][-1] == 1
      ties += same_pieces(vocabulary, one[field][:-1].tolist(), ids)
    for field, value in other.items():
      np.testing.assert_array_equal(one[field], value, err_msg=field)
    own = {"label", "candidates"} | {
        f"{field}{ending}"
        for field in ("inputs", "targets")
        for ending in ("", "_pretokenized")
    }
    # `idx/answer` alone is added, to ReCoRD's train split.
    assert one.keys() - other.keys() - own <= {"idx/answer"}
  return len(examples), ties


def same_pieces(vocabulary, found, expected):
  """Whether two cuts of a text are equally likely, and not the same.

  TensorFlow's SentencePiece, which T5 and the token cache use, and the package
  of that name part `BBB` in two ways of one score: `BB` `B` and `B` `BB`.
  """
  if found == expected:
    return False
  scores = [sum(map(vocabulary.get_score, ids)) for ids in (found, expected)]
  assert scores[0] == pytest.approx(scores[1], rel=1e-9)
  assert vocabulary.decode(found) == vocabulary.decode(expected)
  return True


def answers(name, example, rng):
  """A text as a model might say it: often right, sometimes malformed."""
  labels = schemas.SCHEMAS[name].labels
  target = example["targets"].decode()
  if name == "wsc":
    words = target.split()
    others = ["", " ", "the", "the a  his", "his " + target, target.upper()]
    others += [target + "'s hat", rng.choice(words), "Bob's", target + " and"]
    return rng.choice([target, *others])
  if name == "record":
    others = [" ".join(target.split()[:1]), "the " + target.lower() + ".", ""]
    return rng.choice([target, *others, *map(bytes.decode, example["answers"])])
  return rng.choice([target, *labels, *labels, "", labels[0].upper()])


@pytest.mark.parametrize(
    ("name", "folder", "split"),
    [row for row in FILES if row[2] == "validation"],
)
def test_metrics(t5, ours, name, folder, split):
  rng = random.Random(f"{name} {folder}")
  config = config_of(name)
  if name == "wsc":
    postprocess = t5["data.postprocessors"].wsc_simple
    metric_fns = [t5["evaluation.metrics"].accuracy]
  else:
    postprocess = t5["data.glue_utils"].get_glue_postprocess_fn(config)
    metric_fns = t5["data.glue_utils"].get_super_glue_metric(name)
  found = real_rows(name, folder, split)
  examples = t5_examples(t5, name, found, train=False)
  for example in examples:
    example["targets_pretokenized"] = example["targets"]
  task = ours.get(name)
  for _ in range(10):
    said = [answers(name, example, rng) for example in examples]
    expected, ours_found = {}, {}
    targets, predictions = zip(
        *(
            (
                postprocess(e["targets"].decode(), example=e, is_target=True),
                postprocess(text, example=e, is_target=False),
            )
            for e, text in zip(examples, said, strict=True)
        ),
        strict=True,
    )
    with warnings.catch_warnings():
      warnings.simplefilter("ignore")  # sklearn's, of classes that miss.
      for metric in metric_fns:
        expected |= metric(list(targets), list(predictions))
    our_targets = [
        task.postprocess_fn(e["targets"].decode(), example=e, is_target=True)
        for e in examples
    ]
    our_predictions = [
        task.postprocess_fn(text, example=e, is_target=False)
        for e, text in zip(examples, said, strict=True)
    ]
    for metric in task.metric_fns:
      ours_found |= metric(our_targets, our_predictions)
    names = NAMES.get(name, {})
    expected = {names.get(k, k): float(v) for k, v in expected.items()}
    assert ours_found == pytest.approx(expected, rel=1e-12)
    assert any(0.0 < value < 100.0 for value in expected.values())


@pytest.mark.parametrize("num_classes", [1, 2, 3])
def test_metrics_of_random_classes(t5, ours, num_classes):
  """Small samples, where classes are missing on either side."""
  metrics = t5["evaluation.metrics"]
  matthews = metrics.sklearn_metrics_wrapper(
      "matthews_corrcoef", metric_post_process_fn=lambda value: 100 * value
  )
  pairs = [
      (ours.get("axb").metric_fns[0], matthews),
      (ours.get("cb").metric_fns[0], metrics.mean_multiclass_f1(3)),
      (ours.get("cb").metric_fns[1], metrics.accuracy),
  ]
  grouped = [
      (ours.get("multirc").metric_fns[0], metrics.multirc_f1_over_all_answers),
      (
          ours.get("multirc").metric_fns[1],
          metrics.mean_group_metric(metrics.all_match),
      ),
  ]
  rng = np.random.default_rng(num_classes)
  for _ in range(300):
    size = rng.integers(1, 9)
    targets = rng.integers(0, num_classes, size).tolist()
    said = rng.integers(-1, num_classes, size).tolist()
    groups = rng.integers(0, 3, size).tolist()
    wrapped = [
        [
            {"group": group, "value": value}
            for group, value in zip(groups, values, strict=True)
        ]
        for values in (targets, said)
    ]
    with warnings.catch_warnings():
      warnings.simplefilter("ignore")
      for own, theirs in pairs:
        (value,) = own(targets, said).values()
        (expected,) = theirs(targets, said).values()
        assert value == pytest.approx(float(expected), abs=1e-9)
      if num_classes < 3:
        for own, theirs in grouped:
          (value,) = own(*wrapped).values()
          (expected,) = theirs(*wrapped).values()
          assert value == pytest.approx(float(expected), abs=1e-9)
