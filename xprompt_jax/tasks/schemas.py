"""What the files of the SuperGLUE tasks hold: fields, labels, official counts.

Plain data. `rows.py` reads and checks files by it, `official.py` finds them.
The counts are those of the official release (v2), as TFDS's catalogue states
them for flattened rows. A `sha256` is that of the official rows in the form
that leaves `rows.py`, so line ends, a byte order mark and the order of keys or
of lines do not matter. It is stated where the official content is at hand.
"""

from collections.abc import Mapping
import dataclasses

BOOLEAN_LABELS = ("False", "True")
_ENTAILMENT = ("entailment", "not_entailment")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Split:
  """One file: its name, whether it has labels and what it must hold.

  `rows` counts answers for MultiRC and queries for ReCoRD, whose files have one
  line for each of `passages`. `examples` is how many a task makes of the rows,
  where that is another number. The ids of rows, questions and passages count
  from 0, unless the rows are `chosen` from another split and keep its ids.
  """

  file: str
  rows: int
  passages: int | None = None
  examples: int | None = None
  sha256: str | None = None
  labelled: bool = True
  chosen: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Schema:
  """What the rows of one task hold.

  `fields` are its text fields in the order of T5's text and `labels` the names
  of its classes; `json_labels` are the same as the files write them. `folder`
  and `tfds_name` are where the official data lies. `layout` is "flat", or
  "wsc", "multirc" or "record" for the nested ones.
  """

  fields: tuple[str, ...]
  labels: tuple[str, ...]
  json_labels: tuple[str | int | bool, ...]
  folder: str
  tfds_name: str
  splits: Mapping[str, Split]
  few_shot: Mapping[str, Split] = dataclasses.field(default_factory=dict)
  integers: tuple[str, ...] = ()
  layout: str = "flat"
  # AX-b's file writes its numbers between quotation marks.
  idx_is_text: bool = False


def _splits(train: Split, validation: Split, test: Split) -> dict[str, Split]:
  return {"train": train, "validation": validation, "test": test}


def _train(
    rows: int,
    sha256: str | None = None,
    *,
    passages: int | None = None,
    examples: int | None = None,
) -> Split:
  return Split(
      file="train.jsonl",
      rows=rows,
      passages=passages,
      examples=examples,
      sha256=sha256,
  )


def _val(
    rows: int, sha256: str | None = None, *, passages: int | None = None
) -> Split:
  return Split(file="val.jsonl", rows=rows, passages=passages, sha256=sha256)


def _test(
    rows: int, sha256: str | None = None, *, passages: int | None = None
) -> Split:
  return Split(
      file="test.jsonl",
      rows=rows,
      passages=passages,
      sha256=sha256,
      labelled=False,
  )


def _few_shot(
    train: str,
    dev32: str,
    *,
    rows: tuple[int, int] = (32, 32),
    passages: int | None = None,
) -> dict[str, Split]:
  return {
      split: Split(
          file=file, rows=number, passages=passages, sha256=sha256, chosen=True
      )
      for split, file, number, sha256 in (
          ("train", "train.jsonl", rows[0], train),
          ("validation", "dev32.jsonl", rows[1], dev32),
      )
  }


SCHEMAS = {
    "boolq": Schema(
        fields=("passage", "question"),
        labels=BOOLEAN_LABELS,
        json_labels=(False, True),
        folder="BoolQ",
        tfds_name="super_glue/boolq",
        splits=_splits(
            _train(9_427),
            _val(
                3_270,
                "d9f40abb218a2ff7972568888af069bdb0fd3cf66f7b62eaa6ec2131c778b1a0",
            ),
            _test(3_245),
        ),
        few_shot=_few_shot(
            "d6a0b12b96218861767650b01252d4b3fd4f636bcf9785d14f9180e15c50b4bc",
            "b7f69be24727e4e0407f39f7b9b1e5ea7d383d6695be34b19d188b3847acf8d3",
        ),
    ),
    "cb": Schema(
        fields=("hypothesis", "premise"),
        labels=("entailment", "contradiction", "neutral"),
        json_labels=("entailment", "contradiction", "neutral"),
        folder="CB",
        tfds_name="super_glue/cb",
        splits=_splits(
            _train(
                250,
                "5a635c2759ba03e268ecde3f82e9ff374d53aaa2fb871a9c4af43881376bf285",
            ),
            _val(
                56,
                "005dfed237d967289a6330461211732e82c4646186e1bef632fc38e6a191f845",
            ),
            _test(
                250,
                "95b894760796c47b2182392a856ddebe14057b207b709ac3eedcb6d1eef975bf",
            ),
        ),
        few_shot=_few_shot(
            "f9bcc630dbc55f44b367eed899e469a82b6f1ec5c554b5d7f8e1690065f8d56f",
            "ef41dcaa345b67f591b5aaa6cc98610df779512f7336a3e427133f0cb5e81c0d",
        ),
    ),
    "copa": Schema(
        fields=("choice1", "choice2", "premise", "question"),
        labels=("choice1", "choice2"),
        json_labels=(0, 1),
        folder="COPA",
        tfds_name="super_glue/copa",
        splits=_splits(
            _train(
                400,
                "7b52dae21637bbd2f47459151b69cb9ab0581d94bb8d1d34855c78303a14a82d",
            ),
            _val(
                100,
                "a941759407cdb70360bf00d7fd8d2828135f625b9ecabc96db0a0b0594aa69b3",
            ),
            _test(
                500,
                "3e06152fb149983f262ae1879dfcd131e46746f6643af92b41b72a42d6c956a8",
            ),
        ),
        few_shot=_few_shot(
            "d75a112c93e749bb1d7e4543ba8355789a4fa052214aee3c0e361a2a4e41cbf2",
            "9a2e0dcf0e97c2f382e3330231607971acd688cd85aaac26df58647da99dba7c",
        ),
    ),
    "multirc": Schema(
        fields=("question", "answer", "paragraph"),
        labels=BOOLEAN_LABELS,
        json_labels=(0, 1),
        folder="MultiRC",
        tfds_name="super_glue/multirc",
        splits=_splits(
            _train(
                27_243,
                "9b3143584e93d90af76c1502d6f73cfc9b37287b46b7d04557c6f599949e35bc",
                passages=456,
            ),
            _val(
                4_848,
                "c4432f9183280780432a971da917a131d8110039b95c817ba05fe0b3bd17192f",
                passages=83,
            ),
            _test(
                9_693,
                "1024c361dba9dcc3290a6dfbe4816e28e157a309b4fba700f48eb126b9e48f38",
                passages=166,
            ),
        ),
        few_shot=_few_shot(
            "c4e61966a9d3297c767f12d7e858f8b0478f204419b4e401cc8b99be915489bd",
            "1d9511926d86f021793e6cf800b233a606e9729b2d4e0b6716be4a000af15a34",
            rows=(154, 167),
            passages=32,
        ),
        layout="multirc",
    ),
    "record": Schema(
        fields=("query", "entities", "passage"),
        labels=(),
        json_labels=(),
        folder="ReCoRD",
        tfds_name="super_glue/record",
        splits=_splits(
            # T5 trains on one example for each answer.
            _train(100_730, examples=138_854),
            _val(10_000, passages=7_481),
            _test(10_000, passages=7_484),
        ),
        few_shot=_few_shot(
            "77926ecc08203e649abde564b9962d095955f5b08794c54f1bbc0f78839f1626",
            "a224d6ba44f4553f32ee6b2a81f6a382a74bd92299b96025a25c7b3863606462",
        ),
        layout="record",
    ),
    "rte": Schema(
        fields=("hypothesis", "premise"),
        labels=_ENTAILMENT,
        json_labels=_ENTAILMENT,
        folder="RTE",
        tfds_name="super_glue/rte",
        splits=_splits(
            _train(
                2_490,
                "53e47ad483c968746a6386400c0f30e4bae550bf57683c2efd1f1f9757857723",
            ),
            _val(
                277,
                "a47e89eeb0a95083fb2db5179891da616f8e540368efe4bc0866d9e859167545",
            ),
            _test(
                3_000,
                "2031414310423906b6710659757e8f02777900f7e0f003a434c32abe5c9c084d",
            ),
        ),
        few_shot=_few_shot(
            "fe795a44c936db41b2d4bac091c36c5635b57242f62434847d51ac2cf7a4430a",
            "12af08c1663743ac693d0cf07e8355530e6d84850cd4344f8714f8421b7c1bf0",
        ),
    ),
    "wic": Schema(
        fields=("sentence1", "sentence2", "word"),
        integers=("start1", "start2", "end1", "end2"),
        labels=BOOLEAN_LABELS,
        json_labels=(False, True),
        folder="WiC",
        tfds_name="super_glue/wic",
        splits=_splits(
            _train(5_428),
            _val(
                638,
                "33445a0656d67ec9df0485c4b3c75edf106146721b2be5a43f57835fd07d7ab6",
            ),
            _test(1_400),
        ),
        few_shot=_few_shot(
            "843d28e746aaf0d8abebb2102f1397a5f437a7aa83e4ac0abf29ec8997769065",
            "c0a56287d194445825d67daeec0f6a5ff62187a990a1515bed1f250b63c028a8",
        ),
    ),
    "wsc": Schema(
        fields=("text",),
        labels=BOOLEAN_LABELS,
        json_labels=(False, True),
        folder="WSC",
        tfds_name="super_glue/wsc.fixed",
        splits=_splits(
            # T5 trains on the rows whose label is true.
            _train(
                554,
                "b62887017c09b316004617842771a800fd6872a883be85fdf4497703421ac1f1",
                examples=259,
            ),
            _val(
                104,
                "bc1ccefe9a72d13d896b99cdc96854a8a96b7f2c111a878c349fe1d8d0c0d0fe",
            ),
            _test(
                146,
                "99b48aff6cc91a75bafa3bb477d22457bca37f806e8e95500765cc301ad0738f",
            ),
        ),
        few_shot=_few_shot(
            "ec9c20cdbaf7c7e3127c5d07dc79bcd5f7decfbd24ceabc6e332378d1cfc03a1",
            "3347d2e127b0f58335002b81abad039783aaaf6039d8377f28a41469b9c1f977",
        ),
        layout="wsc",
    ),
    "axb": Schema(
        fields=("sentence1", "sentence2"),
        labels=_ENTAILMENT,
        json_labels=_ENTAILMENT,
        folder="AX-b",
        tfds_name="super_glue/axb",
        splits={"test": Split(file="AX-b.jsonl", rows=1_104)},
        idx_is_text=True,
    ),
    "axg": Schema(
        fields=("hypothesis", "premise"),
        labels=_ENTAILMENT,
        json_labels=_ENTAILMENT,
        folder="AX-g",
        tfds_name="super_glue/axg",
        splits={"test": Split(file="AX-g.jsonl", rows=356)},
    ),
}
