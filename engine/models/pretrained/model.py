"""A causal language model of transformers as a `LanguageModel`. This module imports transformers."""

import inspect
import re
import threading
from collections.abc import Sequence
from copy import copy
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers import DynamicCache

from engine.data.arrays import Float32Array
from engine.data.tokenizers import EOS_ID, TokenIds
from engine.models.base import HiddenVector, LogProbs
from engine.models.numpy_transformer import merge_ends
from engine.models.pretrained.base import describe_model
from engine.models.pretrained.tokenizer import TokenizerFiles
from engine.models.transformer_layout import num_kept_tokens

MAX_CHUNK_TOKENS = 512  # in one forward pass; more need more memory and are not faster
CONTEXT_SIZE_NAMES = ("max_position_embeddings", "n_positions", "max_seq_len", "n_ctx", "seq_length", "context_length")
UNLIMITED_CONTEXT_SIZE = 32_768  # of models without a limit, such as Mamba


class ReadTexts:
    # Texts of one length that were read together, one row per text, and their cache. Their states share this.
    def __init__(self, tokens: TokenIds, cache: DynamicCache) -> None:
        self.tokens, self.cache = tokens, cache  # `[texts, positions]`

    def first(self, num_positions: int) -> DynamicCache:
        # It shares memory until a pass appends to it, which makes new tensors.
        cropped = copy(self.cache)
        cropped.layers = [copy(layer) for layer in self.cache.layers]
        cropped.crop(min(0, num_positions - self.cache.get_seq_length()))
        return cropped


class PretrainedState(NamedTuple):
    texts: ReadTexts
    row: int = 0
    num_positions: int = 0
    hidden: HiddenVector = np.empty(0, np.float32)  # the next token is predicted from it
    has_slid: bool = False  # True if the start of the text has left the context

    @property
    def tokens(self) -> TokenIds:
        # The model's ids of the tokens in the context.
        return self.texts.tokens[self.row, : self.num_positions]


class PretrainedModel:
    """A causal language model of transformers as a `BatchModel` and `HiddenVectorModel`. Threads may share it.

    A text that fills the context slides: its last half is read again from position 0. Recurrent models have no cache
    that can be cropped: each token is predicted from the whole text.
    """

    is_slow = True  # reading a token takes long enough to delay the keyboard, so screens call the model in a thread

    def __init__(self, module: Any, tokenizer_files: TokenizerFiles, name: str) -> None:
        """Adapt a model in evaluation mode; a tokenizer that cannot be used raises an InvalidInputError."""
        self.module, self.name, self._lock = module, name, threading.Lock()
        config = module.config.get_text_config()
        ends = [getattr(each, "eos_token_id", None) for each in (module.generation_config, module.config)]
        end_ids = [id for end in ends for id in (end if isinstance(end, list) else [end]) if id is not None]
        num_tokens = min(tokenizer_files.num_tokens, int(config.vocab_size))
        self.tokenizer, self.chat = tokenizer_files.read(name, end_ids, num_tokens)
        sizes = [getattr(config, key, None) for key in CONTEXT_SIZE_NAMES]
        self.context_size = next((s for s in sizes if isinstance(s, int) and s > 1), UNLIMITED_CONTEXT_SIZE)
        family = re.sub("(ForCausalLM|LMHeadModel|ForConditionalGeneration)$", "", type(module).__name__)
        layers, width = getattr(config, "num_hidden_layers", None), getattr(config, "hidden_size", None)
        self.description = describe_model(family, layers, width, sum(part.numel() for part in module.parameters()))
        arguments = inspect.signature(module.forward).parameters
        self._can_limit_logits = "logits_to_keep" in arguments
        self._cache_name = "cache" if "cache" in arguments else "past_key_values"  # in newer and older versions
        kinds = getattr(config, "layer_types", None) or ["full_attention"]  # others have layers without attention
        self.has_cache = self._cache_name in arguments and all(kind.endswith("_attention") for kind in kinds)
        if module._is_stateful or not module._supports_default_dynamic_cache():
            self.has_cache = False

    def start(self) -> PretrainedState:
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
                reread = state.tokens[-num_kept_tokens(self.context_size) :]
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
        texts, num_read = states[0].texts, states[0].num_positions
        if [(state.texts, state.row) for state in states] != [(texts, row) for row in range(len(texts.tokens))]:
            caches = [state.texts.first(num_read) for state in states]
            for layers in zip(*(cache.layers for cache in caches), strict=True):
                for part in ("keys", "values"):
                    rows = [getattr(layer, part)[state.row] for layer, state in zip(layers, states, strict=True)]
                    setattr(layers[0], part, torch.stack(rows))
            texts = ReadTexts(np.stack([state.tokens for state in states]), caches[0])
        read, cache = np.concatenate([texts.tokens[:, :num_read], new], 1), texts.cache
        options, inputs = dict[str, Any](output_hidden_states=True, return_dict=True, use_cache=self.has_cache), read
        if last_only and self._can_limit_logits:
            options["logits_to_keep"] = 1
        if self.has_cache:
            options[self._cache_name], inputs = (cache := texts.first(num_read)), new
        with torch.inference_mode():
            output = self.module(torch.from_numpy(inputs).to(self.module.device, torch.long), **options)
            logits = output.logits[:, -1 if last_only else -new.shape[1] :, : len(self.tokenizer)]
            log_probs = torch.log_softmax(logits.float(), -1).cpu().numpy()
            vectors = output.hidden_states[-1][:, -1].float().cpu().numpy()
        swapped = [EOS_ID, self.tokenizer.specials.end_id]
        log_probs[..., swapped] = log_probs[..., swapped[::-1]]
        merge_ends(log_probs.reshape(-1, log_probs.shape[-1]), self.tokenizer)
        with self._lock:
            if texts.tokens.shape[1] == num_read:
                texts.tokens, texts.cache = read, cache
            else:
                texts = ReadTexts(read, cache)
        slid = [state.has_slid for state in states]
        return log_probs, [
            PretrainedState(texts, row, read.shape[1], vector, slid[row]) for row, vector in enumerate(vectors)
        ]
