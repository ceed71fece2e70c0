"""Replies of a conversation: their tokens, their place in the tree, and their text."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, NamedTuple, Self

import msgspec
from msgspec import Meta

from engine.analysis.tokenized_text import read_label, tokenize_with_offsets
from engine.config import TokenizerName
from engine.data import scripts, speakers
from engine.data.tokenizers import OPEN_VOCABULARIES, Tokenizer
from engine.errors import PromptError
from engine.generation.generate import END_OF_TEXT, FinishReason, TokenEvent
from engine.generation.settings import MAX_SEED, SamplerSettings
from engine.generation.turns import ANSWERING_TEMPERATURE, MAX_ANSWERS, SpeakerProb
from engine.models.base import LanguageModel
from engine.models.pretrained.chat import ChatMessage
from lotr_tui.session.session_model import SessionModel, answers_by_template, find_cast, reads_line_ends
from lotr_tui.session.settings import MAX_SYSTEM_PROMPT_CHARACTERS, ReplyMode, Strength

Index = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Figure = Annotated[float, Meta(gt=-(2**63), lt=2**63)]
SpeakerName = Annotated[str, Meta(max_length=speakers.MAX_NAME_CHARACTERS)]


class Token(NamedTuple):
    """Generated token, as it is shown and saved; a figure that is not finite is None."""

    id: Index  # in the vocabulary of the model that generated it, or of the one that continues a restored reply
    text: str
    logprob: Annotated[float, Meta(gt=-(2**63), le=1)] | None
    prob: Figure | None  # after the sampler chain
    rank: Index
    entropy: Figure | None
    piece: str  # text that it adds to the text before it, with its space

    @classmethod
    def from_event(cls, event: TokenEvent) -> Self:
        figures = (event.logprob, event.sampling_prob, event.entropy)
        logprob, prob, entropy = (figure if math.isfinite(figure) else None for figure in figures)
        return cls(event.id, event.text, logprob, prob, event.rank, entropy, event.piece)


@dataclass(frozen=True)
class AnswerScore:
    """Rank of an answer among the answers drawn together, and its natural-log probabilities."""

    rank: Annotated[int, Meta(ge=1, le=MAX_ANSWERS)]  # 1 is the answer that was shown first
    num_answers: Annotated[int, Meta(ge=1, le=MAX_ANSWERS)]
    log_prob: Figure
    log_prob_alone: Figure  # at the start of a scene, by the same speaker
    num_tokens: Annotated[int, Meta(ge=0, le=2**31)]  # that were scored, with `<eos>`


@dataclass(eq=False)
class Turn:
    """Alternative replies at the same place of the conversation, one of them selected."""

    previous_reply: "Reply | None"  # that the prompt of this turn answers; None begins a text
    replies: list["Reply"] = field(default_factory=list)
    selected_reply: "Reply" = field(init=False)


@dataclass(eq=False, kw_only=True)
class Reply:
    """Tokens that a model generated after a prompt: a node of the tree, whose fields are saved."""

    id: Index  # in the order of generation, from 0 on
    parent_id: int | None = None  # the reply of the previous turn, or the reply that this branch leaves
    parent_offset: Index = 0  # number of the parent's own tokens before this reply
    edited_id: int | None = None  # reply that begins a text, whose turn this one joins with another prompt
    prompt: str | None  # of the turn; in a file None for a branch
    reply_mode: ReplyMode
    tokens: list[Token] = field(default_factory=list)  # in a file without the ones that a branch shares
    seed: Annotated[int, Meta(ge=0, le=MAX_SEED)]
    settings: SamplerSettings
    reason: FinishReason = "error"  # why it ended
    tokens_per_second: Figure = 0.0
    model: str  # name of the one that generated it
    unknown_tokens: tuple[str, ...] = ()  # of the prompt, outside the vocabulary
    tokenizer: TokenizerName = "words"
    num_reread_tokens: Index = 0  # last tokens of the prompt whose characters the first token repeats
    speaking_as: SpeakerName = ""  # who says the prompt of a conversation; empty for a stranger
    speaker: SpeakerName = ""  # who says the reply; empty without a cast, and while the model has chosen none
    speaker_prob: Annotated[float, Meta(ge=0, le=1)] | None = None  # None if the user has chosen the speaker
    score: AnswerScore | None = None  # None if only one answer was drawn
    system_prompt: Annotated[str, Meta(max_length=MAX_SYSTEM_PROMPT_CHARACTERS)] = ""
    strengths: dict[str, Strength] = field(default_factory=dict)  # of the changes of the model, such as adapters

    def __post_init__(self) -> None:
        self.parent: Reply | None = None
        self.turn = Turn(None)
        self.next_turn: Turn | None = None  # that answers this reply
        self.num_shared_tokens = 0  # leading tokens that belong to the parent or its ancestors in the same turn
        self.is_continuation = False  # True if it shares all tokens of its parent, which it replaces
        self.session_model: SessionModel  # that a branch of this reply uses
        self.prompt_ids: list[int] = []  # of the text before the reply, or before the name of its speaker
        self.read_only_reason = ""  # why `session_model` cannot continue this reply; empty if it can
        self.is_generating = False
        self.failure = ""
        self.speaker_probs: Sequence[SpeakerProb] = ()  # that the speaker was drawn from, while the session lasts

    def attach(self, parent: "Reply | None", edited: "Reply | None" = None) -> None:
        """Join the tree: the turn that answers `parent`, or without a prompt the turn of `parent` as a branch.

        Without a parent it begins a text, in the turn of `edited` if that is given.
        """
        self.parent, self.parent_id = parent, None if parent is None else parent.id
        if parent is None:
            self.prompt = self.prompt or ""
            if edited is not None:
                self.turn, self.edited_id = edited.turn, edited.id
        elif self.prompt is not None:
            self.turn = parent.next_turn = parent.next_turn or Turn(parent)
        else:
            self.turn, self.prompt, self.unknown_tokens = parent.turn, parent.prompt, parent.unknown_tokens
            self.speaking_as, self.system_prompt = parent.speaking_as, parent.system_prompt
            self.num_shared_tokens = parent.num_shared_tokens + self.parent_offset
            self.tokens[:0] = parent.tokens[: self.num_shared_tokens]
            self.is_continuation = 0 < self.num_shared_tokens == len(parent.tokens) and parent in self.turn.replies
            if self.is_continuation and parent.next_turn is None:
                self.turn.replies.remove(parent)
        self.turn.replies.append(self)
        if self.score is None or self.score.rank == 1:  # else a better answer was drawn with it
            self.turn.selected_reply = self

    def record(self) -> dict[str, Any]:
        """Return the reply as an object for JSON."""
        record: dict[str, Any] = msgspec.to_builtins(self) | {"tokens": self.own_tokens}
        return record if self.starts_turn else record | {"prompt": None, "unknown_tokens": ()}

    @property
    def is_chat(self) -> bool:
        """True for an answer in a conversation with a model that knows no speakers but has a chat template."""
        return not self.speaker and answers_by_template(self.session_model.model, self.reply_mode)

    @property
    def answering_temperature(self) -> float | None:
        """Temperature of the choice of who says the reply, see `turns.answerer_probs`."""
        return answering_temperature(self.prompt or "", self.turn.previous_reply)

    @property
    def starts_turn(self) -> bool:
        """True if the reply follows a prompt; False if it branches off from a reply of the same turn."""
        return self.parent is None or self.parent.turn is not self.turn

    @property
    def own_tokens(self) -> list[Token]:
        return self.tokens[self.num_shared_tokens :]

    @property
    def has_ended_line(self) -> bool:
        return self.reason == "eos"

    @property
    def noun(self) -> str:
        return "token" if self.tokenizer in OPEN_VOCABULARIES else "word"

    # Token ids

    @property
    def context_ids(self) -> list[int]:
        """Ids of the tokens that the model has read before the first token, with the name of the speaker."""
        ids, model = self.prompt_ids[: len(self.prompt_ids) - self.num_reread_tokens], self.session_model
        has_name = self.speaker and self.reply_mode == "conversation" and model.cast
        return [*ids, *scripts.encode_speaker(model.model.tokenizer, self.speaker)] if has_name else ids

    def token_ids(self, end: int | None = None) -> list[int]:
        """Return the ids that the model has read and written before the token `end`, which spell the whole text."""
        if not self.read_only_reason:
            context, ids = self.context_ids, [token.id for token in self.tokens[:end]]
            return [*context, *(ids or self.prompt_ids[len(self.prompt_ids) - self.num_reread_tokens :])]
        model = self.session_model.model  # whose vocabulary is not the one of the tokens
        if self.session_model.cast or self.reply_mode == "conversation":
            return encode_said(model, self.spoken_lines(end))[:-1]  # without the last line end
        return encode_lines(model.tokenizer, self.full_text(end))

    def starts_line(self, index: int) -> bool:
        """Return True if the token at `index` is the first of the reply or of a later line, so that it ends neither."""
        end_ids = getattr(self.session_model.model, "end_ids", END_OF_TEXT)
        return index == 0 or self.tokens[index - 1].id in end_ids

    # Text

    def text(self, end: int | None = None) -> str:
        """Return the prompt and the tokens before index `end`, a line break for each `<eos>`, and names of speakers."""
        prompt, reply = self.prompt or "", self.reply_text(end)
        if self.reply_mode == "continue":
            name = speakers.display_name(self.speaker or speakers.SOMEONE)
            return (f"{name}: " if self.session_model.cast else "") + prompt + reply
        if self.reply_mode == "reply" or self.is_chat:
            return (f"{prompt}\n" if prompt or not self.is_chat else "") + reply
        said = scripts.turn_text(scripts.Turn(self.speaking_as or speakers.STRANGER, prompt)) if prompt else ""
        return said + (f"{speakers.display_name(self.speaker)}:" if self.speaker else "") + reply

    def reply_text(self, end: int | None = None) -> str:
        """Return the text of the tokens before index `end` (None: of all tokens)."""
        return "".join([token.piece for token in self.tokens[:end]])

    def said(self, end: int | None = None) -> tuple[str, str]:
        """Return the prompt, and the text before the token `end`, of which a prompt that it continues is a part."""
        prompt, text = self.prompt or "", self.reply_text(end)
        return ("", prompt + text) if self.reply_mode == "continue" else (prompt, text)

    def full_text(self, end: int | None = None) -> str:
        """Return the text that the model has read and written before the token `end`, from the first turn on.

        Of a chat template, it has the messages after their roles, with the system prompt.
        """
        if self.is_chat:
            messages = chat_messages(self.prompt or "", self.turn.previous_reply, self.system_prompt)
            said = "".join(f"{message.role}\n{message.text}\n" for message in messages)
            return f"{said}assistant\n{self.reply_text(end)}"
        return "".join(f"{reply.text()}\n" for reply in self.path()[:-1]) + self.text(end)

    def spoken_lines(self, end: int | None = None) -> list[scripts.Turn]:
        """Return the lines of all turns up to this reply, of which the tokens before index `end` count (None: all)."""
        lines = []
        for reply in self.path():
            prompt, text = reply.said(end if reply is self else None)
            if reads_line_ends(reply.session_model.model):
                text = text.replace("\n", " ")
            lines += [scripts.Turn(reply.speaking_as or speakers.STRANGER, prompt)] if prompt else []
            lines.append(scripts.Turn(reply.speaker or speakers.SOMEONE, text))
        return lines

    # Tree

    def path(self) -> list["Reply"]:
        """Return the replies that this one follows, from the first turn on, and this one."""
        path, reply = [self], self.turn.previous_reply
        while reply is not None:
            path.append(reply)
            reply = reply.turn.previous_reply
        return path[::-1]

    def selected_path(self) -> list["Reply"]:
        """Return this reply and the selected replies of the turns that follow."""
        path = [self]
        while (turn := path[-1].next_turn) is not None:
            path.append(turn.selected_reply)
        return path


def answering_temperature(line: str, previous: Reply | None) -> float | None:
    """Return the temperature of the choice of who answers a line, or without one goes on; None where no user talks."""
    if line:
        return ANSWERING_TEMPERATURE
    is_talk = previous is not None and any(reply.prompt for reply in previous.path())
    return 1.0 if is_talk else None


def encode_lines(tokenizer: Tokenizer, text: str) -> list[int]:
    ids: list[int] = tokenize_with_offsets(text, tokenizer, eos_per_line=True).ids.tolist()
    return ids


def encode_said(model: LanguageModel, lines: Sequence[scripts.Turn]) -> list[int]:
    """Return the token ids of complete lines: a script, or for a model without a cast the texts without their names."""
    if find_cast(model):
        return list(scripts.encode_turns(model.tokenizer, lines))
    return encode_lines(model.tokenizer, "".join(f"{line.text}\n" for line in lines))


def parse_script(
    text: str, cast: Sequence[str], speaker: str = speakers.SOMEONE, *, is_open: bool = False
) -> list[scripts.Turn]:
    """Return the turns of a script, whose lines have the form "NAME: text"; a name without a text is a PromptError.

    A name is of `cast`, in any case, or any name in capitals. A line without a name continues the line before it;
    `speaker` says the first line if it has no name. Empty lines are left out. If the script is open, its last line
    may be a name alone, whose text comes next.
    """
    turns: list[scripts.Turn] = []
    for line in (" ".join(line.split()) for line in text.splitlines()):
        name, length = read_label(line, cast)
        if name:
            turns.append(scripts.Turn(name, line[length:].strip()))
        elif turns:
            turns[-1] = scripts.Turn(turns[-1].speaker, f"{turns[-1].text} {line}".strip())
        elif line:
            turns.append(scripts.Turn(speaker, line))
    for turn in turns[:-1] if is_open else turns:
        if not turn.text:
            raise PromptError(f"the line of {turn.speaker} is empty; write a text after {turn.speaker}:")
    return turns


def encode_beginning(model: LanguageModel, text: str, *, predicts_eos: bool, speaker: str = "") -> list[int]:
    """Return the token ids of a text to continue; of a script, `speaker` says a first line without a name."""
    tokenizer, text = model.tokenizer, text.rstrip("\r\n")  # a file ends with a line feed
    if cast := find_cast(model):
        *before, last = parse_script(text, cast, speaker or speakers.SOMEONE, is_open=True)
        head = scripts.encode_speaker(tokenizer, last.speaker)
        rest = tokenizer.encode(f" {last.text}").tolist() if last.text else []
        return [*scripts.encode_turns(tokenizer, before), *head, *rest]
    return encode_lines(tokenizer, text) if predicts_eos and tokenizer.is_open else [*tokenizer.encode(text).tolist()]


def chat_messages(prompt: str, previous_reply: Reply | None, system_prompt: str = "") -> list[ChatMessage]:
    """Return the messages before an answer."""
    said = [ChatMessage("system", system_prompt)]
    for reply in [] if previous_reply is None else previous_reply.path():
        user, answer = reply.said()
        said += [ChatMessage("user", user), ChatMessage("assistant", answer)]
    return join_messages([*said, ChatMessage("user", prompt)])


def join_messages(said: Sequence[ChatMessage]) -> list[ChatMessage]:
    """Return messages without empty ones, and with one for two of the same role: templates expect roles in turn."""
    messages: list[ChatMessage] = []
    for message in said:
        text = message.text.strip()
        if text and messages and messages[-1].role == message.role:
            messages[-1] = ChatMessage(message.role, f"{messages[-1].text}\n{text}")
        elif text:
            messages.append(ChatMessage(message.role, text))
    return messages
