"""Requests to the API: their fields, in the names and forms of OpenAI, and the texts that a model reads for them."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Annotated, Any, Literal

from msgspec import Meta

from engine.analysis.tokenized_text import read_label
from engine.data import speakers
from engine.data.scripts import Turn, encode_turns
from engine.data.tokenizers import Tokenizer
from engine.errors import InvalidInputError, suggest_nearest
from engine.generation.generate import encode_prompt
from engine.generation.settings import SamplerSettings, check_seed, random_seed
from engine.models.base import AdaptedModel
from engine.models.pretrained.chat import ChatMessage
from engine.storage import files
from lotr_tui.session.cast import answering_cast, read_name
from lotr_tui.session.read_text import NextTokenContext
from lotr_tui.session.reply import encode_beginning, join_messages, parse_script
from lotr_tui.session.session_model import SessionModel
from lotr_tui.session.settings import read_strength

MAX_FIELDS = 100  # of a request; OpenAI has 40
MAX_TOP_LOGPROBS = 20
MAX_STOPS, MAX_STOP_CHARACTERS = 16, 200
MAX_PROMPTS = 128
DEFAULT_CONTEXT_SIZE = 32_768  # tokens that a model without a limit reads, such as an LSTM
MAX_TOKEN_CHARACTERS = 8  # on average, in a text that is tokenized at all
TEMPLATE_TOKENS = 32  # of a chat template before and after all messages
MESSAGE_TOKENS = 4  # of a chat template around the role and the text of a message
MISSPELLING = 0.8  # similarity of a wrong name to the right one
# Fields that would change an answer in a way that we do not have, and the values with which they change nothing.
NEUTRAL: dict[str, object] = dict.fromkeys(("frequency_penalty", "presence_penalty", "echo"), 0)
NEUTRAL |= {"logit_bias": {}, "n": 1, "best_of": 1, "suffix": "", "tools": [], "response_format": {"type": "text"}}
StopText = Annotated[str, Meta(min_length=1, max_length=MAX_STOP_CHARACTERS)]
NumTop = Annotated[int, Meta(ge=0, le=MAX_TOP_LOGPROBS)]


@dataclass(frozen=True)
class Message:
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[dict[Literal["type", "text"], str]] | None = None  # a text or its parts, which are no pictures
    name: str | None = None  # who says it in a script

    @property
    def text(self) -> str:
        if isinstance(self.content, str):
            return self.content
        return "\n".join(part.get("text", "") for part in self.content or [])

    @property
    def template_role(self) -> Literal["system", "user", "assistant"]:
        if self.role == "developer":
            return "system"
        if self.role == "tool":
            return "user"
        return self.role


@dataclass(frozen=True)
class Asked:
    model: str
    prompt: Annotated[tuple[str, ...], Meta(max_length=MAX_PROMPTS)] = ()
    messages: tuple[Message, ...] = ()
    seed: int = field(default_factory=random_seed)
    stop: Annotated[tuple[StopText, ...], Meta(max_length=MAX_STOPS)] = ()
    logprobs: bool | NumTop = False  # of a completion the number of alternatives
    top_logprobs: NumTop = 0  # of a chat
    strength: float | None = None  # of all adapters
    stream: bool = False
    stream_options: dict[str, Any] = field(default_factory=dict)
    sampler: SamplerSettings = field(default_factory=SamplerSettings)  # a request has its fields


def read_request(content: bytes, is_chat: bool, default: SamplerSettings) -> Asked:
    """Return the request in a body of JSON; a wrong or misspelled field raises an InvalidInputError."""
    body = files.decode(dict[str, Any], files.parse_json(content))
    if len(body) > MAX_FIELDS:
        raise InvalidInputError(f"the request has {len(body):,} fields; send at most {MAX_FIELDS}")
    given = {name: value for name, value in body.items() if value is not None}
    for name, neutral in NEUTRAL.items():
        if given.get(name, neutral) != neutral:
            raise InvalidInputError(f"{name} is not supported; leave it out")
    names = [each.name for each in fields(Asked)]
    known = [*names, *asdict(default), "max_completion_tokens", *NEUTRAL]
    for name in given:  # others change nothing, such as OpenAI's for other models
        nearest = suggest_nearest(name, known, MISSPELLING)
        if name not in known and nearest != ".":
            raise InvalidInputError(f"unknown field {name!r}{nearest}")
    for name in ("prompt", "stop"):
        if isinstance(given.get(name), str):
            given[name] = [given[name]]
    text_field = "messages" if is_chat else "prompt"
    if not given.get(text_field):
        raise InvalidInputError(f"{text_field} is missing or empty; give at least one")
    given.pop("prompt" if is_chat else "messages", None)
    if "max_completion_tokens" in given:
        given["max_tokens"] = given["max_completion_tokens"]
    sampler = {name: given.get(name, value) for name, value in asdict(default).items()}
    asked = files.decode(Asked, {name: given[name] for name in names if name in given})
    check_seed(asked.seed)
    strength = None if asked.strength is None else read_strength(f"{asked.strength:g}")
    return replace(asked, strength=strength, sampler=files.decode(SamplerSettings, sampler))


def read_prompts(session_model: SessionModel, asked: Asked, speaker: str) -> tuple[list[NextTokenContext], int]:
    """Return the texts to read before the answers of `speaker`, and how many old messages are left out.

    Without a speaker, the likeliest one answers. A text that the model cannot read raises an InvalidInputError.
    """
    model = session_model.model
    cast = session_model.cast
    if asked.strength is not None:
        if not isinstance(model, AdaptedModel) or not model.strengths:
            raise InvalidInputError(f"{session_model.name} has no adapter; leave out strength")
        model = model.with_strengths(dict.fromkeys(model.strengths, asked.strength))
    size: int = getattr(getattr(model, "model", model), "context_size", DEFAULT_CONTEXT_SIZE)
    contexts = list[NextTokenContext]()
    for text in asked.prompt:
        _check_size(len(text) // MAX_TOKEN_CHARACTERS, size)
        encode_prompt(text, model.tokenizer)  # raises if the model knows no word of it
        ids = encode_beginning(model, text, predicts_eos=session_model.predicts_eos, speaker=speaker)
        contexts.append(NextTokenContext(model, ids, reopens_last_word=True))
    num_dropped = 0
    if asked.messages:
        instructions = [message for message in asked.messages if message.template_role == "system"]
        said = [message for message in asked.messages if message.template_role != "system"]
        needed = "\n".join(message.text for message in (*instructions, *said[-1:]))
        num_needed = _count_tokens(needed, model.tokenizer, size)
        _check_size(num_needed, size)
        num_reserved = min(asked.sampler.max_tokens + TEMPLATE_TOKENS, size // 2)
        kept = _slide(said, size - num_needed - num_reserved, model.tokenizer)
        num_dropped = len(said) - len(kept)
        if cast:
            if instructions and not speaker:  # a name says who answers, as in the chat template of an exported model
                speaker, _ = read_label(f"{' '.join(instructions[-1].text.split())}:", cast)
            lines = list[Turn]()
            for message in kept:
                name = read_name("as", message.name or "anyone", cast) or speakers.STRANGER
                if message.role == "assistant" and not message.name:
                    name = speaker or speakers.first_to_answer(cast)
                lines += parse_script(message.text, cast, name, is_open=message is kept[-1])
            if lines and not lines[-1].text:  # "Gandalf:" says who answers
                speaker = lines.pop().speaker
            last = lines[-1] if lines else Turn("", "")
            candidates = answering_cast(cast, last.speaker, last.text)
            ids = [*encode_turns(model.tokenizer, lines)]
            contexts.append(NextTokenContext(model, ids, candidates=candidates, speaker=speaker))
        elif session_model.chat is not None:
            chat = [ChatMessage(each.template_role, each.text) for each in (*instructions, *kept)]
            ids = [*session_model.chat.encode(join_messages(chat))]
            contexts.append(NextTokenContext(model, ids, is_chat=True))
        else:
            raise InvalidInputError(f"{session_model.name} has neither a cast nor a chat template; use /v1/completions")
    for context in contexts:
        _check_size(len(context.ids), size)
    return contexts, num_dropped


def _slide(messages: Sequence[Message], room: int, tokenizer: Tokenizer) -> Sequence[Message]:
    """Return the last message, and as many before it as have room; older ones are not tokenized."""
    start = len(messages) - 1
    for message in messages[-2::-1]:
        text = f"{message.name or message.role}: {message.text}"
        room -= MESSAGE_TOKENS + _count_tokens(text, tokenizer, room)
        if room < 0:
            break
        start -= 1
    if 0 < start < len(messages) - 1 and messages[start].role == "assistant":  # templates expect a question first
        start += 1
    return messages[start:]


def _check_size(num_tokens: int, size: int) -> None:
    if num_tokens >= size:
        raise InvalidInputError(f"the text exceeds the context of {size:,} tokens; send less")


def _count_tokens(text: str, tokenizer: Tokenizer, limit: int) -> int:
    """Return the number of tokens of a text; of a much longer one, which is not tokenized, the limit."""
    if len(text) > limit * MAX_TOKEN_CHARACTERS:
        return limit
    return len(tokenizer.encode(text))
