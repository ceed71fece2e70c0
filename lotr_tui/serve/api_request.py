"""Requests to the API: their fields, in the names and forms of OpenAI, and the refusal of what we do not have."""

from dataclasses import asdict, dataclass, field, fields, replace
from typing import Annotated, Any, Literal

from msgspec import Meta

from engine.errors import InvalidInputError, suggest_nearest
from engine.generation.settings import SamplerSettings, check_seed, random_seed
from engine.storage import files
from lotr_tui.session.settings import read_strength

MAX_FIELDS = 100  # of a request; OpenAI has 40
MAX_TOP_LOGPROBS = 20
MAX_STOPS, MAX_STOP_CHARACTERS = 16, 200
MAX_PROMPTS = 128
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
    for name in given:  # others, such as those of OpenAI for other models, change nothing
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
    given["max_tokens"] = given.get("max_completion_tokens", given.get("max_tokens", default.max_tokens))
    sampler = {name: given.get(name, value) for name, value in asdict(default).items()}
    asked = files.decode(Asked, {name: given[name] for name in names if name in given})
    check_seed(asked.seed)
    strength = None if asked.strength is None else read_strength(f"{asked.strength:g}")
    return replace(asked, strength=strength, sampler=files.decode(SamplerSettings, sampler))
