"""Export of a Transformer run as a folder that the library transformers loads without code of this project."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.config import ModelConfig
from engine.data.arrays import Float32Array
from engine.data.speakers import display_name, first_to_answer
from engine.data.tokenizers.base import EOS, EOS_ID, UNK, Tokenizer
from engine.errors import RunError
from engine.models.pretrained.base import VOCABULARY_TENSORS
from engine.models.pretrained.chat import script_chat_template
from engine.models.transformer_layout import (
    LLAMA3_HIGH_FACTOR,
    LLAMA3_LOW_FACTOR,
    head_size,
    inner_size,
    num_kv_heads,
)
from engine.runs.adapter_files import read_reference
from engine.runs.directory import CONFIG_FILE, MODEL_FILE, read_config
from engine.runs.loading import LoadedModel, LoadedRun, load_model
from engine.storage.files import check_is_new, write_folder


@dataclass(frozen=True)
class ExportedVocabulary:
    """Vocabulary of an export. Ids are of the pre-trained model, or else of `Tokenizer.encode`."""

    tokenizer_json: str
    start_id: int
    start_text: str
    end_ids: tuple[int, ...]
    end_text: str
    """Tokens that end a text, and the name of the first one."""
    special_ids: tuple[int, ...]
    line_end_ids: tuple[int, ...]
    """Tokens with a line feed, the line feed itself first; a line of a script ends with one of them."""
    rows: npt.NDArray[np.intp]


def load_transformer(run_dir: Path, option: str, program: str) -> LoadedRun:
    """Load the best model of a run in single precision, its adapter merged, for `option`, the export to `program`."""
    architecture = read_config(run_dir).model.architecture
    if architecture != "transformer":
        raise RunError(
            f"run {run_dir.name!r} has architecture={architecture}, which {program} does not have; "
            f"{option} exports runs with architecture=transformer, such as those of `lotr-tui train --preset gpt-tiny`"
        )
    return load_model(run_dir, int8_adapted=False)


def export_vocabulary(tokenizer: Tokenizer) -> ExportedVocabulary:
    from engine.data.tokenizers.bpe import to_hugging_face
    from engine.models.pretrained.tokenizer import PretrainedTokenizer

    line_ends: list[int] = []
    if tokenizer.is_open:  # some put a space before a text
        line_ends = [*tokenizer.encode("\n").tolist()[-1:], *tokenizer.line_end_ids.tolist()]
    if isinstance(tokenizer, PretrainedTokenizer):
        specials, texts = tokenizer.specials, tokenizer.special_texts
        content, rows = tokenizer.to_json(), tokenizer.swapped_ids.astype(np.intp)
        start_id, end_ids, special_ids = specials.start_id, specials.end_ids, specials.special_ids
        start_text, end_text = texts[start_id], texts[specials.end_id]
        line_ends = tokenizer.swapped_ids[line_ends].tolist()
    else:
        content, rows = to_hugging_face(tokenizer).to_str(pretty=True), np.arange(len(tokenizer))
        start_id, end_ids, special_ids, start_text, end_text = EOS_ID, (EOS_ID,), (EOS_ID,), EOS, EOS
    line_end_ids = tuple(id for id in dict.fromkeys(line_ends) if id not in end_ids)
    return ExportedVocabulary(content, start_id, start_text, end_ids, end_text, special_ids, line_end_ids, rows)


def answering_name(loaded: LoadedModel) -> str | None:
    """Return who answers until someone is named, as displayed; None without a cast."""
    return display_name(first_to_answer(loaded.cast)) if loaded.cast else None


def export_hugging_face(run_dir: Path, folder: Path) -> None:
    """Write the best model of a run in the layout of Hugging Face's transformers.

    `AutoModelForCausalLM` and `AutoTokenizer` load the folder without remote code. The logits equal those of the run
    for texts of at most `context_size` tokens; transformers has no counterpart of the sliding window. An adapter is
    merged into its base. Token ids are those of the base, or else equal those of `Tokenizer.encode`, with `<eos>`
    before them, which starts a text. The folder must be new, and appears once it is complete.
    """
    check_is_new(folder)
    loaded = load_transformer(run_dir, "--hf", "transformers")
    tokenizer, weights = loaded.decoder.tokenizer, loaded.decoder.weights
    template = script_chat_template(loaded.cast) if loaded.cast else None
    contents = hugging_face_files(loaded.config.model, tokenizer, weights, template)
    contents["README.md"] = _model_card(loaded, sum(weight.size for weight in weights.values())).encode()
    write_folder(folder, contents)


def hugging_face_files(
    config: ModelConfig, tokenizer: Tokenizer, weights: Mapping[str, Float32Array], chat_template: str | None = None
) -> dict[str, bytes]:
    """Return name and content of the files that transformers needs; with a chat template, line feeds end replies."""
    from safetensors.numpy import save

    vocabulary = export_vocabulary(tokenizer)
    weights = {name: each[vocabulary.rows] if name in VOCABULARY_TENSORS else each for name, each in weights.items()}
    tokens = {"bos_token": vocabulary.start_text, "eos_token": vocabulary.end_text}
    tokens |= {} if tokenizer.name == "pretrained" else {"pad_token": EOS}
    tokens |= {} if tokenizer.unk_id is None else {"unk_token": UNK}
    start_id, end_ids = vocabulary.start_id, list(vocabulary.end_ids)
    end_id = end_ids[0] if len(end_ids) == 1 else end_ids
    reply_ends = end_id if chat_template is None else [*end_ids, *vocabulary.line_end_ids]
    # A text starts and ends with special tokens, and has no `<unk>`.
    suppressed = {} if tokenizer.unk_id is None else {"suppress_tokens": [tokenizer.unk_id]}
    generation = {"bos_token_id": start_id, "eos_token_id": reply_ends, "pad_token_id": end_ids[0], **suppressed}
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": config.context_size,
        "model_input_names": ["input_ids", "attention_mask"],
        **tokens,
        # A text that contains the name of a special token is read as a text, but a chat template writes such names.
        "split_special_tokens": chat_template is None,
        "clean_up_tokenization_spaces": False,
        **({} if chat_template is None else {"chat_template": chat_template}),
    }
    settings = {
        CONFIG_FILE: _model_config(config, len(tokenizer)) | {"bos_token_id": start_id, "eos_token_id": end_id},
        "generation_config.json": generation,
        "tokenizer_config.json": tokenizer_config,
    }
    return {
        **{name: json.dumps(content, indent=2).encode() + b"\n" for name, content in settings.items()},
        "tokenizer.json": vocabulary.tokenizer_json.encode(),
        MODEL_FILE: save(dict(weights), metadata={"format": "pt"}),
    }


def _model_config(config: ModelConfig, vocabulary_size: int) -> dict[str, Any]:
    """Return the settings for transformers 4.50 or later: a Llama, or with biases a Qwen2."""
    scaling: dict[str, Any] = {"rope_type": "default"}
    if config.rope_scaling != "none":
        scaling = {"rope_type": config.rope_scaling, "factor": config.rope_factor}
    if config.rope_scaling == "llama3":
        scaling |= {
            "low_freq_factor": LLAMA3_LOW_FACTOR,
            "high_freq_factor": LLAMA3_HIGH_FACTOR,
            "original_max_position_embeddings": config.rope_original_context,
        }
    return {
        "architectures": ["Qwen2ForCausalLM" if config.qkv_bias else "LlamaForCausalLM"],
        "model_type": "qwen2" if config.qkv_bias else "llama",
        "vocab_size": vocabulary_size,
        "hidden_size": config.embedding_size,
        "intermediate_size": inner_size(config),
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": num_kv_heads(config),
        "head_dim": head_size(config),
        "max_position_embeddings": config.context_size,
        "hidden_act": "silu",
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_base,  # read by version 4, as is rope_scaling
        **({} if config.rope_scaling == "none" else {"rope_scaling": scaling}),
        "rope_parameters": {**scaling, "rope_theta": config.rope_base},  # read by version 5
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": config.tie_weights,
        "pad_token_id": None,
        "dtype": "float32",
    }


def _model_card(loaded: LoadedModel, num_parameters: int) -> str:
    facts = [f"It has {num_parameters:,} parameters and needs no remote code."]
    if loaded.decoder.tokenizer.name == "pretrained":
        facts.append(f"It is {read_reference(loaded.path).name}, which was trained on other text, trained further.")
    if loaded.bits_per_character:
        facts.append(f"On its validation text it has {loaded.bits_per_character:.3f} bits per character.")
    text = '"Where is"'
    if (answering := answering_name(loaded)) is not None:
        text = '[{"role": "user", "content": "Where is the Ring?"}]'
        facts.append(
            f"A stranger speaks and {answering} answers, one message a line. A system message that is a name says who "
            "answers instead, and the field `name` of a message who says it."
        )
    return _MODEL_CARD.format(name=loaded.name, facts="\n".join(f"- {fact}" for fact in facts), text=text)


_MODEL_CARD = """\
---
library_name: transformers
pipeline_tag: text-generation
---

# {name}, trained with lotr-tui

{facts}

```python
from transformers import pipeline

generate = pipeline("text-generation", ".")
print(generate({text}, do_sample=True, temperature=0.7, min_p=0.05, max_new_tokens=100))
```
"""
