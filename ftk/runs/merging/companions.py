"""Files beside a merged model's weights that are copied byte for byte."""

import shutil
from collections.abc import Sequence
from pathlib import Path

TOKENIZER_CONFIG, GENERATION_CONFIG = "tokenizer_config.json", "generation_config.json"
TOKENIZER_FILES = (
    "tokenizer.json",
    TOKENIZER_CONFIG,
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
    "additional_chat_templates/*.jinja",
    "*.model",
    "*.tiktoken",
)
MODEL_FILES = ("*processor_config.json", "*.py", "LICENSE*", "NOTICE*")


def copy_companions(model: Path, out: Path, *, tokenizer: Path, generation: Path) -> None:
    """Copy what goes with the weights.

    Args:
        model: folder of the model, whose code, processors and licence are copied.
        out: folder of the merged model.
        tokenizer: folder of the tokenizer and its chat template.
        generation: folder of the generation settings, which may have none.
    """
    for folder, patterns in ((model, MODEL_FILES), (tokenizer, TOKENIZER_FILES), (generation, (GENERATION_CONFIG,))):
        for file in (file for pattern in patterns for file in sorted(folder.glob(pattern)) if file.is_file()):
            target = out / file.relative_to(folder)
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(file, target)


def first_with(file: str, folders: Sequence[Path]) -> Path:
    """The first folder that has a file; the last one where none has."""
    return next((folder for folder in folders if (folder / file).exists()), folders[-1])
