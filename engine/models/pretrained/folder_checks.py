"""Checks of a folder with a model by others, before anything large is read. None of its code is ever run."""

import os
from pathlib import Path
from typing import Any

from engine.errors import InvalidInputError
from engine.storage.files import open_regular_file, read_limited
from engine.storage.schema import parse_json

CONFIG_FILE, TOKENIZER_CONFIG_FILE = "config.json", "tokenizer_config.json"
WEIGHTS_FILE, WEIGHTS_INDEX_FILE = "model.safetensors", "model.safetensors.index.json"
MAX_JSON_BYTES = 50_000_000
PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
CODE_SETTINGS = (
    (CONFIG_FILE, "auto_map", bool),
    (TOKENIZER_CONFIG_FILE, "auto_map", bool),
    (CONFIG_FILE, "attn_implementation", lambda value: "/" in str(value)),  # transformers would download this program
    (CONFIG_FILE, "_attn_implementation", lambda value: "/" in str(value)),
)
"""Settings that name code, and whether a value does."""


def read_model_config(folder: Path, name: str) -> dict[str, Any]:
    """Return the content of `config.json`, or raise an InvalidInputError if it is damaged or the model brings code."""
    if (folder / "adapter_config.json").exists():  # transformers would load the base that the file names
        raise InvalidInputError(f"{name} is an adapter (LoRA), so merge it with its base model first")
    if not (folder / CONFIG_FILE).is_file():
        gguf_files = sorted(folder.glob("*.gguf"))
        hint = f"; it has a GGUF file: write gguf:{gguf_files[0]}" if gguf_files else ""
        raise InvalidInputError(f"{name} has no {CONFIG_FILE}, so it is no model of transformers{hint}")
    contents = {file: read_json(folder / file, name) for file in (CONFIG_FILE, TOKENIZER_CONFIG_FILE)}
    for file, key, is_code in CODE_SETTINGS:
        if is_code(contents[file].get(key)):
            raise InvalidInputError(
                f"{name} needs code of its own ({key} in {file}), which is never run; "
                "choose a model whose architecture is part of transformers"
            )
    return contents[CONFIG_FILE]


def check_file_sizes(folder: Path, name: str) -> None:
    """Raise an InvalidInputError if a file that transformers may read as a whole is large, or no regular file."""
    for path in folder.iterdir():
        if path.suffix not in (".safetensors", ".gguf", *PICKLE_SUFFIXES) and not path.is_dir():
            try:
                os.close(open_regular_file(path))
                if path.stat().st_size > MAX_JSON_BYTES:
                    raise InvalidInputError(f"{name}: {path.name} is larger than {format_bytes(MAX_JSON_BYTES)}")
            except OSError as error:
                raise InvalidInputError(f"{name}: {path.name} cannot be read: {error.strerror}") from error


def find_weight_files(folder: Path, name: str) -> list[Path]:
    """Return the safetensors files of a model, or raise an InvalidInputError if one is missing, or it has a pickle."""
    if (folder / WEIGHTS_FILE).is_file():
        return [folder / WEIGHTS_FILE]
    if (folder / WEIGHTS_INDEX_FILE).is_file():
        weight_map = read_json(folder / WEIGHTS_INDEX_FILE, name).get("weight_map")
        files = sorted({str(file) for file in weight_map.values()}) if isinstance(weight_map, dict) else []
        if not files or any(Path(file).name != file for file in files):
            raise InvalidInputError(f"{name}: {WEIGHTS_INDEX_FILE} is damaged; fetch the model again")
        if missing := [file for file in files if not (folder / file).is_file()]:
            raise InvalidInputError(f"{name} lacks {missing[0]} and {len(missing) - 1} more; fetch the model again")
        return [folder / file for file in files]
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLE_SUFFIXES)
    hint = f", only a pickle ({pickles[0]}), which can run code and is never loaded" if pickles else ""
    raise InvalidInputError(f"{name} has no {WEIGHTS_FILE}{hint}; choose a model with safetensors")


def check_memory(name: str, required: int) -> None:
    """Raise an InvalidInputError if loading a model takes more memory than is free on this machine."""
    import psutil

    if required > (free := psutil.virtual_memory().available):
        raise InvalidInputError(
            f"{name} needs {format_bytes(required)} of memory, and {format_bytes(free)} are free; "
            "choose a smaller model, or close other programs"
        )


def format_bytes(size: int) -> str:
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.0f} MB"


def format_count(number: int) -> str:
    """Return a number of parameters, such as "135 M"."""
    if number >= 1e9:
        return f"{number / 1e9:.1f} B"
    return f"{number / 1e6:.0f} M" if number >= 1e7 else f"{number / 1e6:.1f} M" if number >= 1e5 else f"{number:,}"


def read_text(path: Path, name: str) -> str:
    """Return a text of at most `MAX_JSON_BYTES`, or raise an InvalidInputError."""
    try:
        return read_limited(path, MAX_JSON_BYTES).decode()
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"{name}: {path.name} cannot be read or is not text; fetch the model again") from error


def read_json(path: Path, name: str) -> dict[str, Any]:
    """Return the content of a JSON object, empty if there is no file; damage raises an InvalidInputError."""
    try:
        content = parse_json(read_text(path, name)) if path.is_file() else {}
    except InvalidInputError as error:
        raise InvalidInputError(f"{name}: {path.name} is not JSON; fetch the model again") from error
    if not isinstance(content, dict):
        raise InvalidInputError(f"{name}: {path.name} is no JSON object; fetch the model again")
    return content
