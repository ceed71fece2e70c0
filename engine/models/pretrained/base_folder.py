"""Folders of Llama, Mistral, Qwen2 and SmolLM2 in Hugging Face's format as bases, read without transformers."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from engine.config import ModelConfig
from engine.errors import InvalidInputError, printable
from engine.models.pretrained import folder_checks
from engine.models.pretrained.base import (
    VOCABULARY_TENSORS,
    Base,
    LazyTensors,
    UnsupportedModelError,
    check_shapes,
    new_config,
    vocabulary_rows,
)
from engine.models.pretrained.chat import SANDBOX, JinjaTemplate
from engine.models.pretrained.special_tokens import TokenizerFiles, try_tokenizer
from engine.models.transformer_layout import LLAMA3_HIGH_FACTOR, LLAMA3_LOW_FACTOR
from engine.runtime.sandbox import SandboxError

FAMILIES = {"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2"}
"""Values of `model_type` that are read, with the names of the models."""
FLOAT_DTYPES = ("float32", "float16", "bfloat16")
TOKENIZER_FILE, TEMPLATE_FILE, GENERATION_FILE = "tokenizer.json", "chat_template.jinja", "generation_config.json"
MAX_NUMBER = 1e18
"""Maximum of the numbers in a configuration."""
IGNORED_TENSORS = "rotary_emb.inv_freq"
"""End of the names of tensors that old files have and that follow from the settings."""


def read_folder_base(folder: Path, name: str) -> Base:
    """Return the model of a folder; its weights are read when they are needed.

    Raises:
        UnsupportedModelError: If only transformers can load the model.
        InvalidInputError: If a file is missing or damaged, or would run code.
    """
    settings = folder_checks.read_model_config(folder, name)
    config = _read_config(settings, name)
    end_ids = _end_ids(folder, settings, name)
    tokenizer_files = _read_tokenizer_files(folder, name, end_ids)
    paths = folder_checks.find_weight_files(folder, name)
    tensors = {
        tensor: file
        for path in paths
        for file in [folder_checks.open_weights(path, name)]
        for tensor in file.header.tensors
        if not tensor.endswith(IGNORED_TENSORS) and not (config.tie_weights and tensor == "lm_head.weight")
    }
    for tensor, file in tensors.items():
        if (dtype := file.header.tensors[tensor][0]) not in FLOAT_DTYPES:
            raise UnsupportedModelError(f"{name}: {printable(tensor[:100])} is {dtype}, not {', '.join(FLOAT_DTYPES)}")
    shapes = {tensor: file.header.tensors[tensor][1] for tensor, file in tensors.items()}
    num_rows = shapes.get(VOCABULARY_TENSORS[0], (0,))[0]
    num_tokens = min(num_rows, tokenizer_files.num_tokens)
    check_shapes(name, shapes, config, num_tokens)
    if num_rows != settings.get("vocab_size", num_rows):
        raise InvalidInputError(
            f"{name}: config.json states {settings['vocab_size']} tokens, but the weights have {num_rows:,}; "
            "fetch the model again"
        )
    tokenizer = tokenizer_files.make_tokenizer(name, end_ids, num_tokens)
    rows = vocabulary_rows(tokenizer)
    readers = {
        tensor: partial(file.read_float32, tensor, rows if tensor in VOCABULARY_TENSORS else None)
        for tensor, file in tensors.items()
    }
    chat = tokenizer_files.make_chat_template(tokenizer)
    return Base(name, FAMILIES[settings["model_type"]], tuple(paths), config, tokenizer, LazyTensors(readers), chat)


def _read_config(settings: Mapping[str, Any], name: str) -> ModelConfig:
    model_type = settings.get("model_type")
    if model_type not in FAMILIES:
        raise UnsupportedModelError(f"{name} is a model of the kind {printable(str(model_type)[:60])!r}")

    number = partial(_number, settings, name)
    unusual = [
        key
        for key, usual in (("hidden_act", "silu"), ("mlp_bias", False), ("attention_bias", False))
        if settings.get(key, usual) != usual
    ]
    if unusual:
        raise UnsupportedModelError(f"{name} has another {unusual[0]} than most models")
    heads = number("num_attention_heads")
    context_size = number("max_position_embeddings")
    # Up to the size of a sliding window, attention to the window is attention to all tokens.
    if settings.get("sliding_window") and (model_type == "mistral" or settings.get("use_sliding_window")):
        context_size = min(context_size, number("sliding_window"))
    values = {
        "embedding_size": number("hidden_size"),
        "num_layers": number("num_hidden_layers"),
        "num_heads": heads,
        "num_kv_heads": number("num_key_value_heads", heads),
        "head_size": number("head_dim", number("hidden_size") // heads),
        "feed_forward_size": number("intermediate_size"),
        "norm_eps": float(number("rms_norm_eps", 1e-6)),
        "qkv_bias": model_type == "qwen2",
        "tie_weights": settings.get("tie_word_embeddings", False),
        **_rope_settings(settings, name),
    }
    return new_config(name, context_size, values)


def _number(settings: Mapping[str, Any], name: str, key: str, default: float | None = None) -> Any:
    value = settings.get(key)
    value = default if value is None else value
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= MAX_NUMBER:
        raise InvalidInputError(f"{name}: config.json has no usable {key}; fetch the model again")
    return value


def _rope_settings(settings: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the settings of rotary positions, which transformers 5 writes together and earlier versions apart."""
    rope = settings.get("rope_parameters") or settings.get("rope_scaling") or {}
    if not isinstance(rope, dict):
        raise InvalidInputError(f"{name}: config.json has no usable rope_parameters; fetch the model again")
    kind = rope.get("rope_type", rope.get("type", "default"))
    factors = (rope.get("low_freq_factor", LLAMA3_LOW_FACTOR), rope.get("high_freq_factor", LLAMA3_HIGH_FACTOR))
    is_known = kind in ("default", "linear", "llama3") and factors == (LLAMA3_LOW_FACTOR, LLAMA3_HIGH_FACTOR)
    if not is_known or rope.get("partial_rotary_factor", 1.0) != 1.0:
        raise UnsupportedModelError(f"{name} has rotary positions of another kind ({printable(str(kind)[:60])})")
    values = {
        "rope_base": float(_number({**settings, **rope}, name, "rope_theta", 10_000.0)),
        "rope_scaling": "none" if kind == "default" else kind,
    }
    if kind != "default":
        values["rope_factor"] = float(_number(rope, name, "factor"))
    if kind == "llama3":
        values["rope_original_context"] = _number(rope, name, "original_max_position_embeddings")
    return values


def _read_tokenizer_files(folder: Path, name: str, end_ids: list[int]) -> TokenizerFiles:
    path = folder / TOKENIZER_FILE
    if not path.is_file():
        raise UnsupportedModelError(f"{name} has no {TOKENIZER_FILE}")
    content = folder_checks.read_text(path, name)
    settings = folder_checks.read_optional_json(folder / folder_checks.TOKENIZER_CONFIG_FILE, name)
    texts = {key: _token_text(settings.get(key)) for key in ("bos_token", "eos_token", "unk_token", "pad_token")}
    try:
        ids = SANDBOX.call(try_tokenizer, str(path.absolute()), name, texts, end_ids)
    except SandboxError as error:
        raise InvalidInputError(
            f"{name} has a damaged tokenizer: {TOKENIZER_FILE}: {error}; fetch the model again"
        ) from error
    template = settings.get("chat_template")
    if isinstance(template, list):  # several named ones
        named = {item.get("name"): item.get("template") for item in template if isinstance(item, dict)}
        template = named.get("default")
    if (folder / TEMPLATE_FILE).is_file():
        template = folder_checks.read_text(folder / TEMPLATE_FILE, name)
    return TokenizerFiles(
        content,
        bos_id=ids["bos_token"],
        eos_id=ids["eos_token"],
        first_id=ids["first"],
        template=JinjaTemplate(template, texts) if isinstance(template, str) else None,
    )


def _token_text(token: object) -> str | None:
    """Return the text of a special token, which a file states alone or with other facts."""
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) else None


def _end_ids(folder: Path, settings: Mapping[str, Any], name: str) -> list[int]:
    """Return the end tokens in the settings of a model."""
    ids: list[int] = []
    for content in (folder_checks.read_optional_json(folder / GENERATION_FILE, name), settings):
        value = content.get("eos_token_id")
        ids += [id for id in (value if isinstance(value, list) else [value]) if isinstance(id, int)]
    return ids
