"""Forward passes of a transformers model, in the form that all supported versions of transformers accept."""

import inspect
import threading
from typing import Any

import torch
from torch import Tensor, nn

CACHE_ARGUMENTS = ("cache", "past_key_values", "cache_params", "state")
"""Names of the argument and of the output that hold the cache, in the order in which they are looked for."""
LAST_LOGITS_ARGUMENTS = ("logits_to_keep", "num_logits_to_keep")
"""Names of the argument that limits the logits to the last positions."""


class CausalForward:
    """Forward pass of a causal language model of transformers. Threads may share it."""

    def __init__(self, module: nn.Module) -> None:
        """Find the arguments of the model's `forward`, and observe the input of its output layer."""
        self.module = module
        self.device = next(module.parameters()).device
        arguments = inspect.signature(module.forward).parameters
        self._cache_argument = next((name for name in CACHE_ARGUMENTS if name in arguments), None)
        self._last_logits_argument = next((name for name in LAST_LOGITS_ARGUMENTS if name in arguments), None)
        self.accepts_positions = "position_ids" in arguments
        self.output_layer: nn.Module | None = module.get_output_embeddings()  # type: ignore[operator]
        self._observed = threading.local()
        if self.output_layer is not None:
            self.output_layer.register_forward_pre_hook(self._observe_output_input)

    def _observe_output_input(self, layer: nn.Module, arguments: tuple[Any, ...]) -> None:
        self._observed.hidden = arguments[0]

    def __call__(
        self,
        ids: Tensor,
        cache: Any = None,
        *,
        last_only: bool = False,
        use_cache: bool = True,
        positions: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None, Any]:
        """Read tokens.

        Args:
            ids: Token ids `[texts, time]` of the model.
            cache: Cache of the tokens before; None at the start.
            last_only: Compute only the logits after the last token.
            use_cache: Return the cache of all tokens so far.
            positions: Position `[texts, time]` of each token; None for the positions after those in the cache.
            mask: `[texts, cached and new tokens]`: 0 for padding; None without padding.

        Returns:
            Logits `[texts, time, vocabulary]`, or `[texts, 1, vocabulary]` with `last_only`; the vectors `[texts, 1 or
            more, width]` that they were computed from, None if the model has no output layer; and the cache.
        """
        options: dict[str, Any] = {"use_cache": use_cache}
        if cache is not None and self._cache_argument is not None:
            options[self._cache_argument] = cache
        if last_only and self._last_logits_argument is not None:
            options[self._last_logits_argument] = 1
        if positions is not None and self.accepts_positions:
            options["position_ids"] = positions
        if mask is not None:
            options["attention_mask"] = mask
        self._observed.hidden = None
        output = self.module(ids, **options)
        logits: Tensor = output.logits
        if last_only and logits.shape[1] > 1:
            logits = logits[:, -1:]
        hidden, self._observed.hidden = self._observed.hidden, None
        return logits, hidden, self._output_cache(output) if use_cache else None

    def _output_cache(self, output: Any) -> Any:
        values = (getattr(output, name, None) for name in CACHE_ARGUMENTS)
        return next((value for value in values if value is not None), None)

    def to_ids(self, tokens: list[list[int]]) -> Tensor:
        """Return ids of the model `[texts][time]` as a tensor on its device."""
        return torch.tensor(tokens, dtype=torch.long, device=self.device)
