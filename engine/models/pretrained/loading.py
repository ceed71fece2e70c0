"""Models by others that transformers computes, which is imported when one is loaded. None of their code is run."""

import importlib.util
import inspect
import logging
import re
import threading
import warnings
from collections.abc import Sequence
from copy import copy
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np

from engine.data.arrays import Float32Array
from engine.data.tokenizers import EOS_ID, TokenIds
from engine.errors import InvalidInputError, install_command, printable
from engine.models import numpy_transformer, weights
from engine.models.base import HiddenVector, LogProbs
from engine.models.pretrained import base, folders, names
from engine.runtime import process
from engine.runtime.sandbox import Sandbox

# Transformers first reads the settings of a model here.
SANDBOX = Sandbox(
    "torch", "transformers.modeling_utils", "transformers.models.auto.modeling_auto", __name__, max_cpu_seconds=15
)
OPTIONS: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True, "use_safetensors": True}
MEMORY_FACTOR = 1.2  # peak memory of loading a folder, relative to the weights as they are kept in memory
MAX_CHUNK_TOKENS = 512  # in one forward pass; more need more memory and are not faster
CONTEXT_SIZE_NAMES = ("max_position_embeddings", "n_positions", "max_seq_len", "n_ctx", "seq_length", "context_length")
# Kinds of layers that can forget the last tokens; "linear_attention" is recurrent.
CROPPED_LAYERS = frozenset(["full_attention", "sliding_attention", "chunked_attention"])
UNLIMITED_CONTEXT_SIZE = 32_768  # of models without a limit, such as Mamba


def load_pretrained(name: str, on_progress: base.ProgressCallback | None = None) -> "PretrainedModel":
    """Load the model of a folder or of the Hub in seconds; an InvalidInputError names the model and the remedy."""
    report = on_progress or (lambda progress: None)
    source = names.parse_pretrained_name(name)
    if missing := [module for module in ("torch", "transformers") if importlib.util.find_spec(module) is None]:
        raise InvalidInputError(f"{name} needs {' and '.join(missing)}; {install_command('hf')}")
    with base.refuse_in_one_line(name, "cannot be loaded with transformers"):
        report(base.LoadingProgress("importing torch and transformers"))
        SANDBOX.start()
        silence_libraries()
        process.silence_descriptors()
        folder = folders.find_folder(source, report)
        report(base.LoadingProgress("checking the files"))
        folders.read_model_config(folder)
        folders.read_json(folder / "generation_config.json")  # transformers reads it as a whole
        stored = sum(file.stat().st_size for file in folders.find_weight_files(folder))
        read_tokenizer = folders.read_tokenizer_files(folder, [0])
        required = SANDBOX.call(try_config, str(folder.absolute()))
        SANDBOX.stop()  # its imports need memory
        import torch
        import transformers

        device, dtype = torch.device("cpu"), "float32"
        if torch.cuda.is_available() and MEMORY_FACTOR * stored < torch.cuda.mem_get_info()[0]:
            device, dtype, required = torch.device("cuda"), "auto", stored
        required = int(MEMORY_FACTOR * required)
        base.check_memory(required)
        report(base.LoadingProgress(f"reading {stored / 1e6:,.0f} MB of weights", required))
        auto: Any = transformers.AutoModelForCausalLM
        module, info = auto.from_pretrained(folder, dtype=dtype, output_loading_info=True, **OPTIONS)
        if absent := sorted(info.get("missing_keys") or []):
            shown = f"{len(absent)} of its tensors, such as {printable(absent[0])}"
            raise InvalidInputError(f"it lacks {shown}; it is another kind of model, or damaged")
        return PretrainedModel(module.eval().requires_grad_(False).to(device), read_tokenizer, name)


def silence_libraries() -> None:
    import huggingface_hub.utils
    import transformers

    libraries: list[Any] = [transformers.logging, huggingface_hub.utils]
    libraries[0].set_verbosity(logging.CRITICAL)
    libraries[0].disable_progress_bar()
    libraries[1].disable_progress_bars()
    for library in ("huggingface_hub", "httpx", "urllib3"):
        logging.getLogger(library).setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", module=r"(transformers|huggingface_hub|torch)(\..*)?")


def try_config(path: str) -> int:
    # Called in the sandbox; returns the bytes of the model in single precision.
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.models.auto import modeling_auto

    silence_libraries()
    auto: Any = AutoModelForCausalLM
    config = AutoConfig.from_pretrained(Path(path), trust_remote_code=False, local_files_only=True)
    classes = config.architectures if isinstance(config.architectures, list) else []
    is_decoder = any(str(name).endswith(("CausalLM", "LMHeadModel")) for name in classes)
    is_masked = config.model_type in modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES and not is_decoder
    is_causal = config.model_type in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and not is_masked
    if not is_causal or getattr(config, "is_encoder_decoder", False):
        raise InvalidInputError("it is no causal language model, which predicts the next token; choose another one")
    with torch.device("meta"):
        module: torch.nn.Module = auto.from_config(config)
    return 4 * sum(part.numel() for part in module.parameters()) + sum(part.nbytes for part in module.buffers())


class ReadTexts:
    # Texts of one length that were read together, one row per text, and their cache. Their states share this.
    def __init__(self, tokens: TokenIds, cache: Any) -> None:
        self.tokens, self.cache = tokens, cache  # `[texts, positions]`

    def crop(self, num_positions: int) -> Any:
        # It shares memory until a pass appends to it, which makes new tensors.
        cropped = copy(self.cache)
        cropped.layers = [copy(layer) for layer in self.cache.layers]
        cropped.crop(num_positions - self.cache.get_seq_length())
        return cropped


class PretrainedState(NamedTuple):
    texts: ReadTexts
    row: int = 0
    num_positions: int = 0
    hidden: HiddenVector = np.empty(0, np.float32)  # the next token is predicted from it
    has_slid: bool = False  # True if the start of the text has left the context

    @property
    def tokens(self) -> TokenIds:  # the model's ids
        return self.texts.tokens[self.row, : self.num_positions]


class PretrainedModel:
    """A causal language model of transformers as a `BatchModel` and `HiddenVectorModel`. Threads may share it.

    A text that fills the context slides: its last half is read again from position 0. Models whose cache cannot be
    cropped predict each token from the whole text.
    """

    is_slow = True  # reading a token takes long enough to delay the keyboard, so screens call the model in a thread

    def __init__(self, module: Any, read_tokenizer: base.TokenizerReader, name: str) -> None:
        """Adapt a model in evaluation mode; a tokenizer that cannot be used raises an InvalidInputError."""
        self.module, self.name, self._lock = module, name, threading.Lock()
        config = module.config.get_text_config()
        ends = [each.eos_token_id for each in (module.generation_config, module.config)]
        end_ids = [id for end in ends for id in (end if isinstance(end, list) else [end]) if id is not None]
        self.tokenizer, self.chat = read_tokenizer(end_ids, int(config.vocab_size))
        sizes = [getattr(config, key, None) for key in CONTEXT_SIZE_NAMES]
        self.context_size = next((s for s in sizes if isinstance(s, int) and s > 1), UNLIMITED_CONTEXT_SIZE)
        family = re.sub("(ForCausalLM|LMHeadModel|ForConditionalGeneration)$", "", type(module).__name__)
        layers, width = getattr(config, "num_hidden_layers", None), getattr(config, "hidden_size", None)
        num_parameters = sum(part.numel() for part in module.parameters())
        self.description = base.describe_model(family, layers, width, num_parameters)
        arguments = inspect.signature(module.forward).parameters
        self._can_limit_logits = "logits_to_keep" in arguments
        self._cache_name = "cache" if "cache" in arguments else "past_key_values"  # in newer and older versions
        has_attention = CROPPED_LAYERS.issuperset(getattr(config, "layer_types", None) or ())
        is_standard = module._supports_default_dynamic_cache() and not module._is_stateful
        self.has_cache = self._cache_name in arguments and has_attention and is_standard

    def with_context_size(self, context_size: int) -> Self:
        model = copy(self)
        model.context_size = context_size
        return model

    def start(self) -> PretrainedState:
        from transformers import DynamicCache

        return PretrainedState(ReadTexts(np.empty((1, 0), np.int32), DynamicCache()))

    def advance(self, state: PretrainedState, token: int) -> tuple[LogProbs, PretrainedState]:
        rows, state = self.predict_tokens(state, (token,), last_only=True)
        return rows[0], state

    def advance_batch(
        self, states: Sequence[PretrainedState], tokens: Sequence[int]
    ) -> list[tuple[LogProbs, PretrainedState]]:
        # In one pass if the texts have one length.
        lengths = {state.num_positions for state in states}
        if len(lengths) > 1 or not 0 < min(lengths) < self.context_size:
            return [self.advance(state, token) for state, token in zip(states, tokens, strict=True)]
        rows, new_states = self._read(states, self.tokenizer.swapped_ids[list(tokens)][:, None], last_only=True)
        return list(zip(rows[:, 0], new_states, strict=True))

    def predict_tokens(
        self, state: PretrainedState, tokens: Sequence[int], *, last_only: bool = False
    ) -> tuple[Float32Array, PretrainedState]:
        ids = self.tokenizer.swapped_ids[list(tokens)]
        if not state.num_positions and tokens[0] == EOS_ID:
            ids[0] = self.tokenizer.specials.start_id
        parts = list[Float32Array]()
        while len(ids):
            reread = ids[:0]
            if state.num_positions >= self.context_size:
                reread = state.tokens[-weights.num_kept_tokens(self.context_size) :]
                state = self.start()._replace(has_slid=True)
            num_new = min(self.context_size - state.num_positions - len(reread), MAX_CHUNK_TOKENS)
            new, ids = ids[:num_new], ids[num_new:]
            rows, (state,) = self._read([state], np.append(reread, new)[None], last_only=last_only)
            parts = [rows[0]] if last_only else [*parts, rows[0, -len(new) :]]
        return np.concatenate(parts), state

    def hidden_vector(self, state: PretrainedState) -> HiddenVector:
        return state.hidden

    def has_slid(self, state: PretrainedState) -> bool:
        return state.has_slid

    def _read(
        self, states: Sequence[PretrainedState], new: TokenIds, *, last_only: bool
    ) -> tuple[Float32Array, list[PretrainedState]]:
        # Log-probabilities `[texts, time, vocabulary]` after the model's ids `[texts, time]` that follow texts of one
        # length, and the new states.
        import torch

        texts, num_read = states[0].texts, states[0].num_positions
        if [(state.texts, state.row) for state in states] != [(texts, row) for row in range(len(texts.tokens))]:
            caches = [state.texts.crop(num_read) for state in states]
            for layers in zip(*(cache.layers for cache in caches), strict=True):
                parts = [
                    (layer.keys[state.row], layer.values[state.row])
                    for layer, state in zip(layers, states, strict=True)
                ]
                layers[0].keys, layers[0].values = map(torch.stack, zip(*parts, strict=True))
            texts = ReadTexts(np.stack([state.tokens for state in states]), caches[0])
        read, cache = np.concatenate([texts.tokens[:, :num_read], new], 1), texts.cache
        inputs = read
        options: dict[str, Any] = {"output_hidden_states": True, "return_dict": True, "use_cache": self.has_cache}
        if last_only and self._can_limit_logits:
            options["logits_to_keep"] = 1
        if self.has_cache:
            inputs, options[self._cache_name] = new, (cache := texts.crop(num_read))
        with torch.inference_mode():
            output = self.module(torch.from_numpy(inputs).to(self.module.device, torch.long), **options)
            logits = output.logits[:, -1 if last_only else -new.shape[1] :, : len(self.tokenizer)]
            log_probs = torch.log_softmax(logits.float(), -1).cpu().numpy()
            vectors = output.hidden_states[-1][:, -1].float().cpu().numpy()
        swapped = [EOS_ID, self.tokenizer.specials.end_id]
        log_probs[..., swapped] = log_probs[..., swapped[::-1]]
        numpy_transformer.merge_ends(log_probs.reshape(-1, log_probs.shape[-1]), self.tokenizer)
        with self._lock:
            if texts.tokens.shape[1] == num_read:
                texts.tokens, texts.cache = read, cache
            else:
                texts = ReadTexts(read, cache)
        slid = [state.has_slid for state in states]
        return log_probs, [
            PretrainedState(texts, row, read.shape[1], vectors[row], slid[row]) for row in range(len(slid))
        ]
