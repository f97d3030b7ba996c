"""Flags, gin files and wrong types end with status 2 and one line."""

import pytest

from tests.command_line import RECIPES, refused

pytestmark = pytest.mark.usefixtures("unchecked")

DEMO = "--gin_file=xprompt_demo.gin"
VALUES = "NAME=VALUE with 10, 0.5, 'text', (1, 2), True or None"


FLAGS = [
    (
        [],
        "found no command, expected one of train, eval, infer, score, export,"
        " import, similarity, report, cache; see `t5x --help`",
    ),
    (
        ["trian"],
        "argument COMMAND: invalid choice: 'trian' (choose from 'train',"
        " 'eval', 'infer', 'score', 'export', 'import', 'similarity', 'report',"
        " 'cache'); see `t5x --help`",
    ),
    (
        ["train"],
        "--gin_file: found none, expected a gin file; see `t5x --help`",
    ),
    (
        ["train", "--gin_file"],
        "argument --gin_file: expected one argument; see `t5x --help`",
    ),
    (
        ["train", "--gin_fil=xprompt_demo.gin"],
        "--gin_fil=xprompt_demo.gin: found no such flag, expected one such as"
        " --gin_file; see `t5x --help`",
    ),
    (
        ["train", DEMO, "--gin.PROMPT_LENGTH", "3"],
        "--gin.PROMPT_LENGTH: found no value, expected"
        " --gin.PROMPT_LENGTH=VALUE; see `t5x --help`",
    ),
    (
        ["train", "--gin_file=nope.gin"],
        "--gin_file=nope.gin: found no file nope.gin, expected a path, a file"
        f" in --gin_search_paths, or one of {RECIPES}",
    ),
    (
        ["train", "--gin_file=xprompt.gin"],
        "CHECKPOINT, INPUTS_LENGTH, MIXTURE_OR_TASK_MODULE,"
        " MIXTURE_OR_TASK_NAME, TARGETS_LENGTH, VOCABULARY: found no value,"
        " expected a gin file that sets it, or --gin.NAME=VALUE",
    ),
    (
        ["train", "--gin_file=models/bundled.gin"],
        "--gin_file=models/bundled.gin: found no whole configuration, expected"
        " a recipe that includes xprompt.gin, a file of models/ and one of"
        " tasks/",
    ),
]


_IMPORT = ["import", "--checkpoint=a", "--output=b", "--format=t5x"]
_EXPORT = ["export", DEMO, "--output=b"]
FLAGS += [
    (
        ["export", *_EXPORT[1:], "--format=pt"],
        "argument --format: invalid choice: 'pt' (choose from 'peft', 'npy',"
        " 'safetensors', 'openprompt', 'compact'); see `t5x --help`",
    ),
    (
        _EXPORT,
        "the following arguments are required: --format; see `t5x --help`",
    ),
    (
        ["import", "--format=hf"],
        "argument --format: invalid choice: 'hf' (choose from 't5x',"
        " 'huggingface'); see `t5x --help`",
    ),
    (
        ["import", "--format=t5x"],
        "the following arguments are required: --checkpoint, --output; see"
        " `t5x --help`",
    ),
    (
        [*_IMPORT, "--gin.T5Config.mlp_dim=3"],
        "--gin.T5Config.mlp_dim=3: found no gin file, expected one; see `t5x"
        " --help`",
    ),
    (
        [*_IMPORT, "--workdir=w"],
        "--workdir=w: found no such flag; see `t5x --help`",
    ),
    (
        [*_IMPORT, "--gin_file=tasks/mini_boolq.gin"],
        "--gin_file=tasks/mini_boolq.gin: found no whole configuration,"
        " expected the sizes of a T5, as a file of models/ has them",
    ),
    (
        [*_IMPORT, "--gin_file=models/t5_1_1.gin"],
        "--gin_file=models/t5_1_1.gin: found no whole configuration, expected"
        " the sizes of a T5, as a file of models/ has them",
    ),
]


@pytest.mark.parametrize(("arguments", "line"), FLAGS)
def test_flags_and_files(capsys, arguments, line):
  assert refused(capsys, *arguments) == line


BINDINGS = [
    (
        "PROMT_LENGTH=3",
        "--gin.PROMT_LENGTH: found no such macro in the gin files, expected"
        " one of theirs such as PROMPT_LENGTH, or CLASS.PARAMETER",
    ),
    (
        "PROMPT_LENGTH=",
        f"--gin.PROMPT_LENGTH=: found no Python value, expected {VALUES}",
    ),
    (
        "PROMPT_LENGTH=abc",
        f"--gin.PROMPT_LENGTH=abc: found no Python value, expected {VALUES}",
    ),
    (
        "TOKEN_RATIOS=(0.1,",
        "--gin.TOKEN_RATIOS=(0.1,: found a bracket that is not closed,"
        " expected NAME=VALUE",
    ),
    (
        "PromptConfig.lenght=3",
        "--gin.PromptConfig.lenght=3: found no parameter 'lenght' of"
        " PromptConfig, expected one of length, num_pieces, init, init_text,"
        " init_file, pruned_tokens",
    ),
    (
        "PrompConfig.length=3",
        "--gin.PrompConfig.length=3: found no class 'PrompConfig', expected"
        " one of ExperimentConfig, T5Config, TaskConfig, PromptConfig,"
        " OptimizerConfig, TrainConfig, SearchConfig, MethodConfig",
    ),
    (
        "PROMPT_LENGTH=0",
        "PromptConfig.length: found 0, expected an integer >= 1",
    ),
    (
        "PROMPT_LENGTH=2.5",
        "PromptConfig.length: found 2.5, expected an integer >= 1",
    ),
    (
        "PROMPT_LENGTH=True",
        "PromptConfig.length: found True, expected an integer >= 1",
    ),
    (
        "NUM_PIECES=0",
        "PromptConfig.num_pieces: found 0, expected an integer >= 1",
    ),
    (
        "NUM_PIECES=7",
        "PromptConfig.num_pieces: found 7, expected a divisor of the model's"
        " emb_dim 128",
    ),
    (
        "PROMPT_INIT='words'",
        "PromptConfig.init: found 'words', expected one of sampled_vocab,"
        " random_uniform, class_labels, text, first_rows, from_file",
    ),
    (
        "PROMPT_INIT='text'",
        "PromptConfig.init_text: found (), expected words for init='text'",
    ),
    (
        "PROMPT_INIT_TEXT=3",
        "PromptConfig.init_text: found 3, expected a text, or a list of texts",
    ),
    (
        "PROMPT_INIT_FILE=3",
        "PromptConfig.init_file: found 3, expected a path, or None",
    ),
    (
        "TOKEN_RATIOS=0.5",
        "SearchConfig.token_ratios: found 0.5, expected a list that is not"
        " empty",
    ),
    (
        "TOKEN_RATIOS=(0.5, 1.0)",
        "SearchConfig.token_ratios: found 1.0, expected a compression ratio in"
        " [0, 1)",
    ),
    (
        "PIECE_RATIOS=(-0.1,)",
        "SearchConfig.piece_ratios: found -0.1, expected a compression ratio"
        " in [0, 1)",
    ),
    (
        "PIECE_RATIOS=(0.3, 0.3)",
        "SearchConfig.piece_ratios: found (0.3, 0.3), expected each value once",
    ),
    (
        "SEARCH_STRATEGY='best'",
        "SearchConfig.strategy: found 'best', expected one of linear, grid,"
        " levels",
    ),
    (
        "MIXTURE_OR_TASK_NAME=3",
        "TaskConfig.name: found 3, expected a name",
    ),
    (
        "VALIDATION_SPLIT=None",
        "TaskConfig.validation_split: found None, expected a name",
    ),
    (
        "TEST_SPLIT=3",
        "TaskConfig.test_split: found 3, expected a name, or None",
    ),
    ("BUCKETS=8", "TaskConfig.buckets: found 8, expected a list of lengths"),
    (
        "EXTRA_IDS='a'",
        "TaskConfig.extra_ids: found 'a', expected an integer >= 0",
    ),
    (
        "TaskConfig.max_examples=0",
        "TaskConfig.max_examples: found 0, expected an integer >= 1",
    ),
    (
        "CHECKPOINT=None",
        "ExperimentConfig.checkpoint: found None, expected a path, a hub id,"
        " 'bundled' or 'random:SEED'",
    ),
    (
        "SEEDS=(0, -1)",
        "ExperimentConfig.seeds: found (0, -1), expected a list of different"
        " integers in [0, 2**32)",
    ),
    (
        "ExperimentConfig.optimizer=None",
        "ExperimentConfig.optimizer: found None, expected a OptimizerConfig",
    ),
    (
        "BATCH_SIZE=0",
        "TrainConfig.batch_size: found 0, expected an integer >= 1",
    ),
    (
        "NUM_EPOCHS=3",
        "TrainConfig.num_epochs and num_steps: found (3, 100), expected one of"
        " the two, and None for the other",
    ),
    (
        "LEARNING_RATE='fast'",
        "OptimizerConfig.learning_rate: found 'fast', expected a number > 0.0",
    ),
    (
        "LEARNING_RATE=1e999",
        "OptimizerConfig.learning_rate: found inf, expected a number > 0.0",
    ),
    (
        "T5Config.emb_dim=0",
        "T5Config.emb_dim: found 0, expected an integer >= 1",
    ),
    (
        "T5Config.dtype='float16'",
        "T5Config.dtype: found 'float16', expected one of float32, bfloat16",
    ),
]


@pytest.mark.parametrize(("binding", "line"), BINDINGS)
def test_bindings(capsys, binding, line):
  assert refused(capsys, "train", DEMO, f"--gin.{binding}") == line


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "PROMPT_LENGTH = = 3",
            "FILE, line 2: 'PROMPT_LENGTH = = 3': found no Python value,"
            f" expected {VALUES}",
        ),
        (
            "PromptConfig.lenght = 3",
            "FILE, line 2: found no parameter 'lenght' of PromptConfig,"
            " expected one of length, num_pieces, init, init_text, init_file,"
            " pruned_tokens",
        ),
        (
            "include 'no.gin'",
            "FILE, line 2: found no file no.gin, expected a path, a file in"
            f" --gin_search_paths, or one of {RECIPES}",
        ),
        (
            "import no_such_module",
            "FILE, line 2: found no Python module 'no_such_module', expected"
            " one that is installed",
        ),
        (
            "prompts.PromptConfig.length = %MISSING",
            "--gin_file=FILE: found no macro 'MISSING', expected the gin files"
            " to set %MISSING",
        ),
    ],
)
def test_gin_files(capsys, tmp_path, text, line):
  file = tmp_path / "own.gin"
  file.write_text(f"include 'xprompt_demo.gin'\n{text}\n")
  found = refused(capsys, "train", f"--gin_file={file}")
  assert found == line.replace("FILE", str(file))
