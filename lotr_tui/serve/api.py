"""OpenAI's API of one model, for other programs: completions and chats, streamed or not, one after the other."""

import asyncio
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import accumulate
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from aiohttp import web
from msgspec import Meta

from engine.data import speakers
from engine.data.scripts import Turn, encode_turns
from engine.errors import InvalidInputError, LotrError, RunError, suggest_nearest
from engine.generation.generate import Done, TextInProgress, encode_prompt, generate, top_tokens
from engine.generation.settings import SamplerSettings, check_seed, random_seed
from engine.generation.turns import MAX_HISTORY_TOKENS
from engine.models.base import AdaptedModel
from engine.models.pretrained.chat import ChatMessage
from engine.storage import files
from lotr_tui.serve.access import AccessGuard, Handler
from lotr_tui.session.cast import answering_cast, read_name
from lotr_tui.session.read_text import NextTokenContext, TextReader, read_next_token
from lotr_tui.session.reply import encode_beginning, parse_script
from lotr_tui.session.session_model import SessionModel
from lotr_tui.session.settings import read_strength

MAX_BODY_BYTES, MAX_TOP_LOGPROBS, MAX_STOPS, MAX_STOP_CHARACTERS, MAX_PROMPTS = 1 << 20, 20, 16, 200, 128
MISSPELLING, NEAREST_MODEL = 0.8, 0.85  # similarity of a wrong name to the right one
# Fields that would change an answer in a way that we do not have, and the values with which they change nothing.
NEUTRAL: dict[str, object] = dict.fromkeys(("frequency_penalty", "presence_penalty", "echo"), 0)
NEUTRAL |= {"logit_bias": {}, "n": 1, "best_of": 1, "suffix": "", "tools": [], "response_format": {"type": "text"}}
StopText = Annotated[str, Meta(min_length=1, max_length=MAX_STOP_CHARACTERS)]
NumTop = Annotated[int, Meta(ge=0, le=MAX_TOP_LOGPROBS)]


@dataclass(frozen=True)
class Message:
    role: Literal["system", "user", "assistant"]
    content: str | list[dict[Literal["type", "text"], str]] | None = None  # a text or its parts, which are no pictures
    name: str | None = None  # who says it in a script

    @property
    def text(self) -> str:
        parts = [{"text": self.content}] if isinstance(self.content, str) else self.content or []
        return "\n".join(part.get("text", "") for part in parts)


@dataclass(frozen=True)
class Asked:
    model: str
    prompt: str | Annotated[tuple[str, ...], Meta(max_length=MAX_PROMPTS)] = ""
    messages: tuple[Message, ...] = ()
    seed: int = field(default_factory=random_seed)
    stop: StopText | Annotated[tuple[StopText, ...], Meta(max_length=MAX_STOPS)] = ()
    logprobs: bool | NumTop = False  # of a completion the number of alternatives
    top_logprobs: NumTop = 0  # of a chat
    strength: float | None = None  # of all adapters
    stream: bool = False
    stream_options: dict[str, Any] = field(default_factory=dict)
    sampler: SamplerSettings = field(default_factory=SamplerSettings)  # a request has its fields


class Piece(NamedTuple):
    text: str  # that a token adds
    token: dict[str, Any] | None = None


def read_request(content: bytes, is_chat: bool, default: SamplerSettings) -> Asked:
    text_field, body = "messages" if is_chat else "prompt", files.decode(dict[str, Any], files.parse_json(content))
    given = {name: value for name, value in body.items() if value is not None}
    if name := next((name for name, neutral in NEUTRAL.items() if given.get(name, neutral) != neutral), ""):
        raise InvalidInputError(f"{name} is not supported; leave it out")
    known = [each.name for each in (*fields(Asked), *fields(default))] + ["max_completion_tokens", *NEUTRAL]
    for name in given:  # others, such as those of OpenAI for other models, change nothing
        if name not in known and (nearest := suggest_nearest(name, known, MISSPELLING)) != ".":
            raise InvalidInputError(f"unknown field {name!r}{nearest}")
    if not given.get(text_field):
        raise InvalidInputError(f"{text_field} is missing or empty; give at least one")
    given["max_tokens"] = given.get("max_completion_tokens", given.get("max_tokens", default.max_tokens))
    sampler = asdict(default) | {each.name: given[each.name] for each in fields(default) if each.name in given}
    names = {each.name for each in fields(Asked)} - {"prompt", "messages", "sampler"} | {text_field}
    asked = files.decode(Asked, {name: value for name, value in given.items() if name in names})
    check_seed(asked.seed)
    strength = None if asked.strength is None else read_strength(f"{asked.strength:g}")
    return replace(asked, strength=strength, sampler=files.decode(SamplerSettings, sampler))


def describe_choice(pieces: Sequence[Piece], reason: str, part: str, before: Sequence[Piece] = ()) -> dict[str, Any]:
    """Return the choice in the form of an endpoint: its text, its message, or the delta after the pieces `before`."""
    text, tokens = "".join(piece.text for piece in pieces), [piece.token for piece in pieces if piece.token]
    choice: dict[str, Any] = {"index": 0, "logprobs": None, "finish_reason": reason or None}
    if part != "text":
        said = ({} if before else {"role": "assistant"}) | ({"content": text} if pieces else {})
        return choice | {part: said} | ({"logprobs": {"content": tokens, "refusal": None}} if tokens else {})
    if tokens:
        offsets = accumulate([len(piece.text) for piece in (*before, *pieces)], initial=0)
        choice["logprobs"] = {
            "tokens": [token["token"] for token in tokens],
            "token_logprobs": [token["logprob"] for token in tokens],
            "top_logprobs": [{top["token"]: top["logprob"] for top in token["top_logprobs"]} for token in tokens],
            "text_offset": list(offsets)[len(before) : -1],
        }
    return choice | {"text": text}


@web.middleware
async def answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPException as error:
        status, message = 401 if error.status == 403 else error.status, error.text or error.reason
    except LotrError as error:
        status, message = 500 if isinstance(error, RunError) else 400, str(error)
    record = {"message": str(LotrError(message)).removeprefix("403 forbidden: "), "param": None, "code": None}
    record["type"] = "server_error" if status >= 500 else "invalid_request_error"
    return web.json_response({"error": record}, status=status)


class ApiServer:
    """Server of one model, which writes one text at a time while other requests wait."""

    def __init__(self, model: SessionModel, guard: AccessGuard) -> None:
        self._model, self._guard, self._started_at = model, guard, int(time.time())
        self._reader, self._turn = TextReader(), asyncio.Lock()
        names = sorted(answering_cast(model.cast, ""))
        cast = {speakers.display_name(each).lower().replace(" ", "-"): each for each in names}
        self.speakers = {model.name: "", **{f"{model.name}/{slug}": name for slug, name in cast.items()}}  # by model

    def make_application(self) -> web.Application:
        middlewares = [answer_errors, self._guard.middleware]
        application = web.Application(middlewares=middlewares, client_max_size=MAX_BODY_BYTES)
        application.router.add_get("/v1/models", self._handle_models)
        for path in ("/v1/completions", "/v1/chat/completions"):
            application.router.add_post(path, self._handle_text)
        return application

    async def _handle_models(self, request: web.Request) -> web.StreamResponse:
        facts = {"object": "model", "created": self._started_at, "owned_by": "lotr-tui"}
        return web.json_response({"object": "list", "data": [{"id": name, **facts} for name in self.speakers]})

    async def _handle_text(self, request: web.Request) -> web.StreamResponse:
        is_chat = request.path.endswith("/chat/completions")
        asked = read_request(await request.read(), is_chat, self._model.default_settings.sampler)
        if (speaker := self.speakers.get(asked.model)) is None:
            nearest = suggest_nearest(asked.model, self.speakers, NEAREST_MODEL)
            raise web.HTTPNotFound(text=f"there is no model {asked.model!r}, see /v1/models{nearest}")
        prompts = [asked.prompt] if isinstance(asked.prompt, str) else asked.prompt
        contexts = [await asyncio.to_thread(self._read, asked, prompt, speaker) for prompt in prompts]
        part = ("delta" if asked.stream else "message") if is_chat else "text"
        kind, now = "chat.completion" if is_chat else "text_completion", time.time_ns()
        record: dict[str, Any] = {"id": f"{kind}-{now}", "object": f"{kind}.chunk" if part == "delta" else kind}
        record |= {"created": now // 10**9, "model": asked.model, "seed": asked.seed}
        is_gone: Callable[[], bool] = getattr(request.transport, "is_closing", lambda: True)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})

        async def send(data: bytes) -> None:
            with suppress(ConnectionResetError):  # the client has left
                if not response.prepared:  # at the first token: errors before it have a status
                    await response.prepare(request)
                await response.write(b"data: " + data + b"\n\n")

        choices, num_read, num_written = list[dict[str, Any]](), sum(len(each.ids) for each in contexts), 0
        async with self._turn:
            for index, context in enumerate(contexts):
                steps, written, reason = self._write(asked, context, is_gone), list[Piece](), ""
                while not is_gone() and (step := await asyncio.to_thread(next, steps, None)) is not None:
                    new, reason = ([], step) if isinstance(step, str) else ([step], "")
                    if asked.stream:
                        choice = describe_choice(new, reason, part, written) | {"index": index}
                        await send(msgspec.json.encode(record | {"choices": [choice]}))
                    written += new
                choices.append(describe_choice(written, reason, part) | {"index": index})
                num_written += len(written) - is_chat
        usage = {"prompt_tokens": num_read, "completion_tokens": num_written, "total_tokens": num_read + num_written}
        if not asked.stream:
            return web.json_response(record | {"choices": choices, "usage": usage})
        if asked.stream_options.get("include_usage"):
            await send(msgspec.json.encode(record | {"choices": [], "usage": usage}))
        await send(b"[DONE]")
        return response

    def _read(self, asked: Asked, prompt: str, speaker: str) -> NextTokenContext:
        """Return the text before an answer; an InvalidInputError says why the model cannot read it."""
        model, cast, name = self._model.model, self._model.cast, self._model.name
        if asked.strength is not None:
            if not isinstance(model, AdaptedModel) or not model.strengths:
                raise InvalidInputError(f"{name} has no adapter; leave out strength")
            model = model.with_strengths(dict.fromkeys(model.strengths, asked.strength))
        if not asked.messages:
            encode_prompt(prompt, model.tokenizer)  # raises if the model knows no word of it
            ids = encode_beginning(model, prompt, predicts_eos=self._model.predicts_eos, speaker=speaker)
            context = NextTokenContext(model, ids, reopens_last_word=True)
        elif cast:
            lines = list[Turn]()
            for message in asked.messages:
                said_by = read_name("as", message.name or "anyone", cast) or speakers.STRANGER
                if message.role == "assistant" and not message.name:
                    said_by = speaker or speakers.first_to_answer(cast)
                elif message.role == "system":
                    raise InvalidInputError(f"{name} reads a script, which has no system prompt; leave it out")
                lines += parse_script(message.text, cast, said_by)
            last = lines[-1] if lines else Turn("", "")
            candidates = answering_cast(cast, last.speaker, last.text)
            ids = [*encode_turns(model.tokenizer, lines)]
            context = NextTokenContext(model, ids, candidates=candidates, speaker=speaker)
        elif self._model.chat is not None:
            messages = [ChatMessage(each.role, each.text) for each in asked.messages]
            context = NextTokenContext(model, [*self._model.chat.encode(messages)], is_chat=True)
        else:
            raise InvalidInputError(f"{name} has neither a cast nor a chat template; use /v1/completions")
        size = getattr(getattr(model, "model", model), "context_size", math.inf)
        if len(context.ids) >= size:
            raise InvalidInputError(f"{len(context.ids):,} tokens exceed the context of {size:,}; send fewer")
        return context

    def _write(self, asked: Asked, context: NextTokenContext, is_gone: Callable[[], bool]) -> Iterator[Piece | str]:
        """Yield the pieces of a text, in a chat after an empty one or the name of who answers, and why it ends."""
        begun = read_next_token(self._reader, context, is_gone)
        if begun is None:
            return
        is_line, history = bool(context.candidates), context.ids[-MAX_HISTORY_TOKENS if asked.messages else 0 :]
        ids, noise_context = [*history, *begun.ids[len(context.ids) :]], history if is_line else ()
        text = TextInProgress(context.model, ids, asked.sampler, asked.seed, begun.state, noise_context=noise_context)
        head = f"{speakers.display_name(begun.speaker)}:" if is_line and not context.speaker else ""
        yield from [Piece(head)] if asked.messages else []
        num_top = asked.top_logprobs if asked.messages else int(asked.logprobs)
        stops = [asked.stop] if isinstance(asked.stop, str) else asked.stop
        waiting: list[Piece] = []  # whose text may begin one of `stops`
        for event in generate(text, is_gone):
            if isinstance(event, Done):
                yield from (*waiting, "length" if event.reason == "length" else "stop")
                return
            is_start = event.index == 0 and is_line and not head  # the space after "Name:"
            waiting.append(Piece(event.piece.removeprefix(" ") if is_start else event.piece))
            if asked.logprobs is not False and event.log_probs is not None:
                (likeliest,), (log_probs,) = top_tokens(event.log_probs[None], max(1, num_top))
                rows = [(event.id, event.logprob), *zip(likeliest.tolist(), log_probs.tolist(), strict=True)]
                token, *top = ({"token": event.token_texts[id], "logprob": value, "bytes": None} for id, value in rows)
                waiting[-1] = waiting[-1]._replace(token={**token, "top_logprobs": top[:num_top]})
            said = "".join(piece.text for piece in waiting)
            if found := [said.index(stop) for stop in stops if stop in said]:
                rest = min(found)
                for piece in waiting:
                    yield from [piece._replace(text=piece.text[:rest])] if rest > 0 else []
                    rest -= len(piece.text)
                yield "stop"
                return
            if not any(said.endswith(stop[:length]) for stop in stops for length in range(1, len(stop))):
                yield from waiting
                waiting = []
