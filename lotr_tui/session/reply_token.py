"""Tokens of the replies of a session."""

from dataclasses import dataclass

from engine.generation.generate import TokenEvent


@dataclass(frozen=True)
class ReplyToken:
    """Token of a reply with the figures that the session shows and saves; see `TokenEvent`."""

    id: int
    text: str
    logprob: float
    sampling_prob: float
    rank: int
    entropy: float
    piece: str

    @classmethod
    def from_event(cls, event: TokenEvent) -> "ReplyToken":
        """Return the figures of an event without its distribution, which takes too much memory to be kept."""
        return cls(event.id, event.text, event.logprob, event.sampling_prob, event.rank, event.entropy, event.piece)
