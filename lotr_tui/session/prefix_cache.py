"""Cache of the prefixes that a model has read."""

from collections.abc import Sequence

from engine.generation.prompt import DecoderState, prefill
from engine.models.base import LanguageModel, LogProbs


class PrefixCache:
    """Decoder states after each token of the last text, so that a common prefix is not read again."""

    def __init__(self, model: LanguageModel, initial_state: DecoderState | None = None) -> None:
        """Start from `initial_state` (None: from the beginning of a text)."""
        self.model = model
        self.initial_state = initial_state
        self._ids: list[int] = []
        self._states: list[DecoderState] = []
        """States before each of `_ids` and after the last; empty before the first text is read."""

    def cached_log_probs(self, ids: Sequence[int]) -> LogProbs | None:
        """Return the log-probabilities `[vocabulary]` of the token after `ids`, or None where the model has to run."""
        is_read = bool(self._states) and self._ids[: len(ids)] == list(ids)
        return self._states[len(ids)].log_probs if is_read else None

    def read(self, ids: Sequence[int]) -> list[DecoderState]:
        """Return the decoder states `[len(ids) + 1]` before each token of `ids` and after the last."""
        self._states = self._states or [self.initial_state or prefill(self.model, ())]
        num_shared = count_shared(ids, self._ids)
        del self._states[num_shared + 1 :]
        for id in ids[num_shared:]:
            self._states.append(prefill(self.model, [id], self._states[-1]))
        self._ids = list(ids)
        return self._states[:]


def count_shared(ids: Sequence[int], other_ids: Sequence[int]) -> int:
    """Return the number of ids that two texts begin with in common."""
    pairs = zip(ids, other_ids, strict=False)
    return next((index for index, (id, other) in enumerate(pairs) if id != other), min(len(ids), len(other_ids)))
