"""Export of a Transformer run as a folder that the library transformers loads without code of this project."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.config import ModelConfig
from engine.data.arrays import Float32Array
from engine.data.tokenizers.base import EOS, EOS_ID, UNK, UNK_ID, Tokenizer
from engine.errors import RunError
from engine.models.transformer_layout import RMS_NORM_EPS, ROPE_BASE, head_size, inner_size
from engine.runs.directory import CONFIG_FILE, MODEL_FILE, read_config
from engine.runs.loading import LoadedModel, load_model
from engine.runs.new_folder import check_is_new, create_folder

GENERATION_CONFIG_FILE = "generation_config.json"
TOKENIZER_FILE, TOKENIZER_CONFIG_FILE = "tokenizer.json", "tokenizer_config.json"
MODEL_CARD_FILE = "README.md"


def export_hugging_face(run_dir: Path, folder: Path) -> None:
    """Write the best model of a run in the layout of Hugging Face's transformers.

    `AutoModelForCausalLM` and `AutoTokenizer` load the folder without remote code. The logits equal those of the run
    for texts of at most `context_size` tokens; transformers has no counterpart of the sliding window. The token ids
    equal those of `Tokenizer.encode`, with `<eos>` before them, which starts a text; see `to_hugging_face`.

    Args:
        run_dir: The run.
        folder: Folder to create, in an existing folder. It appears once it is complete.

    Raises:
        RunError: If the run is damaged or not a Transformer, or `folder` exists or cannot be written.
        ConfigError: If the configuration is damaged.
    """
    check_is_new(folder)
    architecture = read_config(run_dir).model.architecture
    if architecture != "transformer":
        raise RunError(
            f"run {run_dir.name!r} has architecture={architecture}, which transformers does not have; "
            "--hf exports runs with architecture=transformer, such as those of `lotr-tui train --preset gpt-tiny`"
        )
    loaded = load_model(run_dir)
    tokenizer, weights = loaded.decoder.tokenizer, loaded.decoder.weights
    contents = hugging_face_files(loaded.config.model, tokenizer, weights)
    contents[MODEL_CARD_FILE] = _model_card(loaded, weights).encode()
    with create_folder(folder) as partial:
        for name, content in contents.items():
            (partial / name).write_bytes(content)


def hugging_face_files(
    config: ModelConfig, tokenizer: Tokenizer, weights: Mapping[str, Float32Array]
) -> dict[str, bytes]:
    """Return name and content of the files that transformers needs of a Transformer.

    `weights` are the tensors of `transformer_weight_shapes`, which have the names of transformers.
    """
    from safetensors.numpy import save

    from engine.data.tokenizers.hugging_face import to_hugging_face

    return {
        CONFIG_FILE: _to_json(llama_config(config, len(tokenizer))),
        GENERATION_CONFIG_FILE: _to_json(_generation_config(tokenizer)),
        TOKENIZER_FILE: to_hugging_face(tokenizer).to_str(pretty=True).encode(),
        TOKENIZER_CONFIG_FILE: _to_json(_tokenizer_config(tokenizer, config.context_size)),
        MODEL_FILE: save(dict(weights), metadata={"format": "pt"}),
    }


def llama_config(config: ModelConfig, vocabulary_size: int) -> dict[str, Any]:
    """Return the content of `config.json` for a `LlamaForCausalLM` of transformers 4.50 or later."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": vocabulary_size,
        "hidden_size": config.embedding_size,
        "intermediate_size": inner_size(config),
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_heads,
        "head_dim": head_size(config),
        "max_position_embeddings": config.context_size,
        "hidden_act": "silu",
        "rms_norm_eps": RMS_NORM_EPS,
        "rope_theta": ROPE_BASE,  # read by version 4
        "rope_parameters": {"rope_type": "default", "rope_theta": ROPE_BASE},  # read by version 5
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "bos_token_id": EOS_ID,
        "eos_token_id": EOS_ID,
        "pad_token_id": None,
        "dtype": "float32",
    }


def _generation_config(tokenizer: Tokenizer) -> dict[str, Any]:
    """Return the content of `generation_config.json`: a text starts and ends with `<eos>`, and has no `<unk>`."""
    suppressed = {} if tokenizer.unk_id is None else {"suppress_tokens": [tokenizer.unk_id]}
    return {"bos_token_id": EOS_ID, "eos_token_id": EOS_ID, "pad_token_id": EOS_ID, **suppressed}


def _tokenizer_config(tokenizer: Tokenizer, context_size: int) -> dict[str, Any]:
    """Return the content of `tokenizer_config.json`."""
    unknown = {} if tokenizer.unk_id is None else {"unk_token": UNK}
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": context_size,
        "model_input_names": ["input_ids", "attention_mask"],
        "bos_token": EOS,
        "eos_token": EOS,
        "pad_token": EOS,
        **unknown,
        "split_special_tokens": True,  # a text that contains the name of a special token is read as a text
        "clean_up_tokenization_spaces": False,
    }


def _model_card(loaded: LoadedModel, weights: Mapping[str, Float32Array]) -> str:
    """Return the content of `README.md`: the size of the model, how to use it, and what to know."""
    config, tokenizer = loaded.config, loaded.decoder.tokenizer
    model = config.model
    num_parameters = sum(weight.size for weight in weights.values())
    quality = f"{loaded.bits_per_character:.3f} bits per character" if loaded.bits_per_character else ""
    if not quality and loaded.valid_perplexity is not None:
        quality = f"a perplexity of {loaded.valid_perplexity:.2f} per token"
    line_ends = {
        "line": f"`{EOS}` ends every line.",
        "stream": f"`{EOS}` ends the whole text.",
        "dialogue": "The text is a script: `Name: text` on each line, and an empty line between scenes.",
    }[config.data.mode]
    if tokenizer.is_open:
        reading = "reads any text as it is written"
    else:
        reading = f"knows {len(tokenizer) - UNK_ID - 2:,} words and reads all others as `{UNK}`"
    facts = [
        f"{num_parameters:,} parameters: {model.num_layers} layers of {model.embedding_size} units with "
        f"{model.num_heads} heads.",
        f"The tokenizer ({tokenizer.name}) {reading}.",
        f"`{EOS}` (id {EOS_ID}) starts a text; the tokenizer inserts it. {line_ends}",
        f"The context has {model.context_size} tokens. lotr-tui forgets the older half of a full context; "
        "transformers does not.",
        *([f"On its validation text it has {quality}."] if quality else []),
    ]
    return _MODEL_CARD.format(facts="\n".join(f"- {fact}" for fact in facts))


def _to_json(content: dict[str, Any]) -> bytes:
    return json.dumps(content, indent=2).encode() + b"\n"


_MODEL_CARD = """\
---
library_name: transformers
pipeline_tag: text-generation
---

# A small Transformer, trained with lotr-tui

It has the architecture of Llama and needs no remote code.

{facts}

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(".")
model = AutoModelForCausalLM.from_pretrained(".")
prompt = tokenizer("Where is", return_tensors="pt")
print(tokenizer.decode(model.generate(**prompt, do_sample=True, temperature=0.8, max_new_tokens=30)[0]))
```
"""
