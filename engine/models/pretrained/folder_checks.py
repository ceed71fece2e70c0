"""Checks of a folder with a model by others, before anything large is read."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.errors import InvalidInputError, RunError
from engine.storage.files import open_regular_file, read_limited
from engine.storage.tensor_file import TensorFile

CONFIG_FILE, TOKENIZER_CONFIG_FILE = "config.json", "tokenizer_config.json"
ADAPTER_CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE, WEIGHTS_INDEX_FILE = "model.safetensors", "model.safetensors.index.json"
LAYER_KEYS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
"""Settings of transformers that state the number of layers."""
MAX_JSON_BYTES = 50_000_000
PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
LOADING_FACTOR = 1.2
"""Peak memory of loading a folder, relative to the weights as they are kept in memory."""


def read_model_config(folder: Path, name: str) -> dict[str, Any]:
    """Return the content of `config.json`, after checking that the model brings no code.

    Raises:
        InvalidInputError: If the file is missing or damaged, or names remote code.
    """
    path = folder / CONFIG_FILE
    if (folder / ADAPTER_CONFIG_FILE).exists():  # transformers would load the base that the file names
        raise InvalidInputError(f"{name} is an adapter (LoRA), so merge it with its base model first")
    if not path.is_file():
        hint = ""
        if gguf_files := sorted(folder.glob("*.gguf")):
            hint = f"; it has a GGUF file: write gguf:{gguf_files[0]}"
        raise InvalidInputError(f"{name} has no {CONFIG_FILE}, so it is no model of transformers{hint}")
    config = _read_json(path, name)
    for content, file in ((config, CONFIG_FILE), (read_optional_json(folder / TOKENIZER_CONFIG_FILE, name), "")):
        if content.get("auto_map"):
            raise InvalidInputError(
                f"{name} needs code of its own (auto_map in {file or TOKENIZER_CONFIG_FILE}), which is never run; "
                "choose a model whose architecture is part of transformers"
            )
    for key in ("attn_implementation", "_attn_implementation"):
        if "/" in str(config.get(key)):  # transformers would download a program of this name
            raise InvalidInputError(
                f"{name} needs code of its own ({key} in {CONFIG_FILE}), which is never run; choose another model"
            )
    return config


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


def check_is_causal(config: Mapping[str, Any], name: str) -> None:
    """Raise an InvalidInputError unless a configuration describes a model that predicts the next token."""
    from transformers import CONFIG_MAPPING
    from transformers.models.auto import modeling_auto

    model_type = config.get("model_type")
    if not isinstance(model_type, str) or model_type not in CONFIG_MAPPING:
        from transformers import __version__

        raise InvalidInputError(
            f"{name} has the model type {str(model_type)[:60]!r}, which transformers {__version__} does not know; "
            "update transformers, or choose another model"
        )
    listed = config.get("architectures")
    architectures = [str(item) for item in listed] if isinstance(listed, list) else []
    is_masked = model_type in modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    if config.get("is_encoder_decoder"):
        kind = "an encoder-decoder model"
    elif is_masked and not config.get("is_decoder") and not any(_is_causal_class(item) for item in architectures):
        kind = "an encoder-only model, which does not predict the next token"
    elif model_type not in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        kind = "no language model"
    else:
        return
    described = f" ({architectures[0][:60]})" if architectures else ""
    raise InvalidInputError(f"{name} is {kind}{described}; choose a causal language model, such as Llama or GPT-2")


def _is_causal_class(class_name: str) -> bool:
    return class_name.endswith(("CausalLM", "LMHeadModel"))


def find_weight_files(folder: Path, name: str) -> list[Path]:
    """Return the safetensors files of a model.

    Raises:
        InvalidInputError: If there are none, only pickles, or a part is missing.
    """
    if (folder / WEIGHTS_FILE).is_file():
        return [folder / WEIGHTS_FILE]
    if (folder / WEIGHTS_INDEX_FILE).is_file():
        weight_map = _read_json(folder / WEIGHTS_INDEX_FILE, name).get("weight_map")
        file_names = sorted({str(file) for file in weight_map.values()}) if isinstance(weight_map, dict) else []
        if not file_names or any(Path(file).name != file for file in file_names):
            raise InvalidInputError(f"{name}: {WEIGHTS_INDEX_FILE} is damaged; fetch the model again")
        if missing := [file for file in file_names if not (folder / file).is_file()]:
            raise InvalidInputError(f"{name} lacks {missing[0]} and {len(missing) - 1} more; fetch the model again")
        return [folder / file for file in file_names]
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLE_SUFFIXES)
    if pickles:
        raise InvalidInputError(
            f"{name} has its weights only as a pickle ({pickles[0]}), which can run code and is never loaded; "
            "choose a model with safetensors"
        )
    raise InvalidInputError(f"{name} has no weights: {WEIGHTS_FILE} is missing; fetch the model again")


def open_weights(path: Path, name: str) -> TensorFile:
    """Return a safetensors file; a damaged one raises an InvalidInputError."""
    try:
        return TensorFile(path)
    except (RunError, OSError) as error:
        raise InvalidInputError(f"{name} has damaged weights: {error}; fetch the model again") from error


def count_parameters(files: list[Path], name: str) -> tuple[int, int]:
    """Return the number of parameters in safetensors files and their bytes there.

    Raises:
        InvalidInputError: If a file is damaged.
    """
    headers = [open_weights(file, name).header for file in files]
    num_parameters = sum(math.prod(shape) for header in headers for _, shape in header.tensors.values())
    return num_parameters, sum(header.tensor_bytes for header in headers)


def check_layers(config: Mapping[str, Any], num_tensors: int, name: str) -> None:
    """Raise an InvalidInputError if the settings of a model state more layers than its files have tensors.

    transformers would build all of them before it reads the files.
    """
    stated = max((config[key] for key in LAYER_KEYS if isinstance(config.get(key), int)), default=0)
    if stated > num_tensors:
        raise InvalidInputError(
            f"{name} states {stated:,} layers, but the weights have {num_tensors:,} tensors; fetch the model again"
        )


def check_memory(name: str, required: int, free: int | None = None) -> None:
    """Raise an InvalidInputError if loading a model takes more memory than is free (by default, on this machine)."""
    import psutil

    free = psutil.virtual_memory().available if free is None else free
    if required > free:
        raise InvalidInputError(
            f"{name} needs {format_bytes(required)} of memory, and {format_bytes(free)} are free; "
            "choose a smaller model, or close other programs"
        )


def format_bytes(size: int) -> str:
    """Return a size in MB or GB."""
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.0f} MB"


def format_count(number: int) -> str:
    """Return a number of parameters, such as "135 M"."""
    if number >= 1e9:
        return f"{number / 1e9:.1f} B"
    return f"{number / 1e6:.0f} M" if number >= 1e7 else f"{number / 1e6:.1f} M" if number >= 1e5 else f"{number:,}"


def read_optional_json(path: Path, name: str) -> dict[str, Any]:
    """Return the content of a JSON object, or an empty one if there is no file; damage raises an InvalidInputError."""
    return _read_json(path, name) if path.is_file() else {}


def read_text(path: Path, name: str) -> str:
    """Return a text of at most `MAX_JSON_BYTES`, or raise an InvalidInputError."""
    try:
        return read_limited(path, MAX_JSON_BYTES).decode()
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"{name}: {path.name} cannot be read or is not text; fetch the model again") from error


def _read_json(path: Path, name: str) -> dict[str, Any]:
    try:
        content = json.loads(read_text(path, name))
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"{name}: {path.name} is not JSON; fetch the model again") from error
    if not isinstance(content, dict):
        raise InvalidInputError(f"{name}: {path.name} is no JSON object; fetch the model again")
    return content
