"""Score of an answer among several answers to the same line."""

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from engine.generation.best_of import MAX_ANSWERS, Answer, answer_score

LogProb = Annotated[float, Meta(gt=-(2**63), lt=2**63)]


@dataclass(frozen=True)
class AnswerScore:
    """Rank of an answer among the answers drawn together, and its probabilities with the context and without."""

    rank: Annotated[int, Meta(ge=1, le=MAX_ANSWERS)]
    """Place among the answers; 1 is the answer that was shown first."""
    num_answers: Annotated[int, Meta(ge=1, le=MAX_ANSWERS)]
    log_prob: LogProb
    """Natural-log probability of the answer after its context."""
    log_prob_alone: LogProb
    """Natural-log probability of the same answer at the start of a scene, by the same speaker."""
    num_tokens: Annotated[int, Meta(ge=0, le=2**31)]
    """Number of tokens that were scored, with `<eos>`."""

    @classmethod
    def from_answer(cls, answer: Answer, rank: int, num_answers: int) -> "AnswerScore":
        """Return the score of an answer with its place among `num_answers`."""
        return cls(rank, num_answers, answer.log_prob, answer.log_prob_alone, answer.num_tokens)

    @property
    def score(self) -> float:
        """Score by which the answers were ranked."""
        return answer_score(self.log_prob - self.log_prob_alone, self.num_tokens)

    def describe(self) -> str:
        """Return the score as a part of the line of figures, such as "best of 8 (+4.2)"."""
        place = f"best of {self.num_answers}" if self.rank == 1 else f"answer {self.rank} of {self.num_answers}"
        return f"{place} ({self.score:+.1f})"
