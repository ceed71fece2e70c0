"""Adapter of a model and a tokenizer of transformers to the models and tokenizers of the house."""

from typing import Any

from engine.models.pretrained.chat import JinjaTemplate
from engine.models.pretrained.folder_checks import format_count
from engine.models.pretrained.model import AttentionPretrainedModel, PretrainedModel
from engine.models.pretrained.reader import choose_reader
from engine.models.pretrained.special_tokens import TokenizerFiles

CONTEXT_SIZE_NAMES = ("max_position_embeddings", "n_positions", "max_seq_len", "n_ctx", "seq_length", "context_length")
"""Names of the setting for the size of the context, by family."""
UNLIMITED_CONTEXT_SIZE = 32_768  # of models without a limit, such as Mamba


def adapt(module: Any, hf_tokenizer: Any, name: str) -> PretrainedModel:
    """Return a model of transformers as a `PretrainedModel`, with attention and logit lens where they can be read.

    Args:
        module: Causal language model of transformers, in evaluation mode on its device.
        hf_tokenizer: Its tokenizer of transformers, with a fast implementation.
        name: Name of the model as the user gave it.

    Raises:
        InvalidInputError: If no token of the model ends a text.
    """
    config = module.config.get_text_config()
    num_tokens = min(len(hf_tokenizer), int(config.vocab_size))
    ends = [getattr(each, "eos_token_id", None) for each in (getattr(module, "generation_config", None), module.config)]
    end_ids = [id for end in ends for id in (end if isinstance(end, list) else [end]) if id is not None]
    files = read_tokenizer_files(hf_tokenizer)
    tokenizer = files.make_tokenizer(name, end_ids, num_tokens)
    description = type(module).__name__
    for ending in ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration"):
        description = description.removesuffix(ending)
    layers, width = getattr(config, "num_hidden_layers", None), getattr(config, "hidden_size", None)
    if layers and width:
        description += f" · {layers} layers of {width:,}"
    description += f" · {format_count(sum(part.numel() for part in module.parameters()))} parameters"
    sizes = (getattr(config, key, None) for key in CONTEXT_SIZE_NAMES)
    context_size = next((size for size in sizes if isinstance(size, int) and size > 1), UNLIMITED_CONTEXT_SIZE)
    reader, chat = choose_reader(module, num_tokens), files.make_chat_template(tokenizer)
    arguments = (reader, tokenizer, name, description, context_size, chat)
    try:
        return AttentionPretrainedModel(*arguments)
    except Exception:  # models without attention, or of unknown structure, raise anything
        return PretrainedModel(*arguments)


def read_tokenizer_files(hf_tokenizer: Any) -> TokenizerFiles:
    """Return what a tokenizer of transformers says about itself."""
    template = getattr(hf_tokenizer, "chat_template", None)
    if isinstance(template, dict):  # several named ones
        template = template.get("default")
    texts: dict[str, str | None] = {
        key: text for key, text in hf_tokenizer.special_tokens_map.items() if isinstance(text, str)
    }
    ids = hf_tokenizer("a")["input_ids"]
    return TokenizerFiles(
        hf_tokenizer.backend_tokenizer.to_str(),
        bos_id=hf_tokenizer.bos_token_id,
        eos_id=hf_tokenizer.eos_token_id,
        first_id=int(ids[0]) if len(ids) else None,
        template=JinjaTemplate(template, texts) if isinstance(template, str) else None,
    )
