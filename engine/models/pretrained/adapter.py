"""Adapter of a model and a tokenizer of transformers to the models and tokenizers of the house."""

from typing import Any

from torch import nn

from engine.models.pretrained.chat import JinjaTemplate
from engine.models.pretrained.folder_checks import format_count
from engine.models.pretrained.model import AttentionPretrainedModel, PretrainedModel
from engine.models.pretrained.reader import choose_reader
from engine.models.pretrained.special_tokens import TokenizerFiles

CONTEXT_SIZE_NAMES = ("max_position_embeddings", "n_positions", "max_seq_len", "n_ctx", "seq_length", "context_length")
"""Names of the setting for the size of the context, by family."""
UNLIMITED_CONTEXT_SIZE = 32_768
"""Size of the context of models without a limit, such as Mamba."""


def adapt(module: nn.Module, hf_tokenizer: Any, name: str) -> PretrainedModel:
    """Return a model of transformers as a `PretrainedModel`, with attention and logit lens where they can be read.

    Args:
        module: Causal language model of transformers, in evaluation mode on its device.
        hf_tokenizer: Its tokenizer of transformers, with a fast implementation.
        name: Name of the model as the user gave it.

    Raises:
        InvalidInputError: If no token of the model ends a text.
    """
    config: Any = module.config
    text_config: Any = config.get_text_config()
    size = min(len(hf_tokenizer), int(text_config.vocab_size))
    files = read_tokenizer_files(hf_tokenizer)
    tokenizer = files.make_tokenizer(name, _model_end_ids(module), size)
    chat = files.make_chat_template(tokenizer)
    arguments = (choose_reader(module, size), tokenizer, name, describe_model(module), _context_size(text_config), chat)
    try:
        return AttentionPretrainedModel(*arguments)
    except Exception:  # models without attention, or of unknown structure, raise anything
        return PretrainedModel(*arguments)


def read_tokenizer_files(hf_tokenizer: Any) -> TokenizerFiles:
    """Return what a tokenizer of transformers says about itself."""
    template = getattr(hf_tokenizer, "chat_template", None)
    if isinstance(template, dict):  # several named ones
        template = template.get("default")
    specials: dict[str, Any] = hf_tokenizer.special_tokens_map
    variables: dict[str, str | None] = {key: text for key, text in specials.items() if isinstance(text, str)}
    ids = hf_tokenizer("a")["input_ids"]
    return TokenizerFiles(
        hf_tokenizer.backend_tokenizer.to_str(),
        bos_id=hf_tokenizer.bos_token_id,
        eos_id=hf_tokenizer.eos_token_id,
        first_id=int(ids[0]) if len(ids) else None,
        template=JinjaTemplate(template, variables) if isinstance(template, str) else None,
    )


def describe_model(module: nn.Module) -> str:
    """Return architecture and size of a model, such as "Llama · 30 layers of 576 · 135 M parameters"."""
    name = type(module).__name__
    for ending in ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration"):
        name = name.removesuffix(ending)
    config: Any = module.config
    text_config: Any = config.get_text_config()
    parts = [name]
    layers, width = getattr(text_config, "num_hidden_layers", None), getattr(text_config, "hidden_size", None)
    if layers and width:
        parts.append(f"{layers} layers of {width:,}")
    parts.append(f"{format_count(sum(parameter.numel() for parameter in module.parameters()))} parameters")
    return " · ".join(parts)


def _context_size(config: Any) -> int:
    sizes = (getattr(config, name, None) for name in CONTEXT_SIZE_NAMES)
    return next((size for size in sizes if isinstance(size, int) and size > 1), UNLIMITED_CONTEXT_SIZE)


def _model_end_ids(module: nn.Module) -> list[int]:
    """Return the end tokens in the settings of a model."""
    ids: list[int] = []
    for config in (getattr(module, "generation_config", None), module.config):
        value = getattr(config, "eos_token_id", None)
        ids += value if isinstance(value, list) else [] if value is None else [value]
    return ids
