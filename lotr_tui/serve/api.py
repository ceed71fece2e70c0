"""OpenAI's API of one model, for other programs: completions and chats, streamed or not, one after the other."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import msgspec
from aiohttp import web

from engine.data import speakers
from engine.errors import InvalidInputError, LotrError, RunError, suggest_nearest
from lotr_tui.serve.access import AccessGuard, Handler
from lotr_tui.serve.api_answer import Piece, describe_choice, write_pieces
from lotr_tui.serve.api_request import read_prompts, read_request
from lotr_tui.session.cast import answering_cast
from lotr_tui.session.read_text import TextReader
from lotr_tui.session.session_model import SessionModel

MAX_BODY_BYTES = 1 << 20
MAX_UNREAD_BYTES = 8 << 20  # of a stream, which wait for the client; one that reads even more slowly is disconnected
NEAREST_MODEL = 0.85  # similarity of a wrong name to the right one


class UnknownModelError(InvalidInputError):
    """Error for a model that this server does not have."""


@web.middleware
async def answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer with an error in OpenAI's form."""
    code = None
    try:
        return await handler(request)
    except web.HTTPForbidden as error:
        status = 401
        code = "invalid_api_key"
        message = str(error.text).removeprefix("403 forbidden: ")
    except web.HTTPException as error:
        status = error.status
        message = f"{request.method} {request.path}: {error.reason}"
    except UnknownModelError as error:
        status = 404
        code = "model_not_found"
        message = str(error)
    except LotrError as error:
        status = 500 if isinstance(error, RunError) else 400
        message = str(error)
    kind = "server_error" if status >= 500 else "invalid_request_error"
    record = {"message": str(LotrError(message)), "type": kind, "param": None, "code": code}
    return web.json_response({"error": record}, status=status)


async def send(request: web.Request, stream: web.StreamResponse, event: object) -> None:
    """Send a part of an answer, and do not wait for a client that reads slowly: others wait for the model."""
    transport = request.transport
    if transport is None:
        return
    if transport.get_write_buffer_size() > MAX_UNREAD_BYTES:
        transport.abort()
    with suppress(ConnectionResetError):  # the client has left
        if not stream.prepared:  # at the first token: errors before it have a status
            transport.set_write_buffer_limits(2 * MAX_UNREAD_BYTES)
            await stream.prepare(request)
        await stream.write(b"data: " + msgspec.json.encode(event) + b"\n\n")


class ApiServer:
    """Server of one model, which writes one text at a time while other requests wait."""

    def __init__(self, model: SessionModel, guard: AccessGuard, origins: Sequence[str] = ()) -> None:
        """Serve a model, also to the pages of `origins`, such as `http://localhost:3000`."""
        self._model = model
        self._guard = guard
        self._origins = origins
        self._started_at = int(time.time())
        self._reader = TextReader()
        self._reading = asyncio.Lock()  # of one request
        self._turn = asyncio.Lock()  # to write one text
        names = sorted(answering_cast(model.cast, ""))
        cast = {speakers.display_name(each).lower().replace(" ", "-"): each for each in names}
        self.speakers = {model.name: "", **{f"{model.name}/{slug}": name for slug, name in cast.items()}}  # by model

    def make_application(self) -> web.Application:
        middlewares = [answer_errors, self._answer_preflight, self._guard.middleware]
        application = web.Application(middlewares=middlewares, client_max_size=MAX_BODY_BYTES)
        application.on_response_prepare.append(self._allow_origin)
        application.router.add_get("/v1/models", self._handle_models)
        application.router.add_get("/v1/models/{id:.+}", self._handle_model)
        for path in ("/v1/completions", "/v1/chat/completions"):
            application.router.add_post(path, self._handle_text)
        return application

    @web.middleware
    async def _answer_preflight(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        # A browser asks without the token whether a page may send it.
        if request.method == "OPTIONS" and request.headers.get("Origin") in self._origins:
            return web.Response(status=204)
        return await handler(request)

    async def _allow_origin(self, request: web.Request, response: web.StreamResponse) -> None:
        origin = request.headers.get("Origin", "")
        if origin in self._origins:
            allowed = {"Access-Control-Allow-Origin": origin, "Access-Control-Allow-Headers": "authorization, *"}
            response.headers.update(allowed)

    async def _handle_models(self, request: web.Request) -> web.StreamResponse:
        return web.json_response({"object": "list", "data": [self._describe_model(name) for name in self.speakers]})

    async def _handle_model(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["id"]
        self._find_speaker(name)
        return web.json_response(self._describe_model(name))

    def _describe_model(self, name: str) -> dict[str, object]:
        return {"id": name, "object": "model", "created": self._started_at, "owned_by": "lotr-tui"}

    def _find_speaker(self, name: str) -> str:
        if name not in self.speakers:
            nearest = suggest_nearest(name, self.speakers, NEAREST_MODEL)
            raise UnknownModelError(f"there is no model {name!r}, see /v1/models{nearest}")
        return self.speakers[name]

    async def _handle_text(self, request: web.Request) -> web.StreamResponse:
        is_chat = request.path.endswith("/chat/completions")
        asked = read_request(await request.read(), is_chat, self._model.default_settings.sampler)
        speaker = self._find_speaker(asked.model)
        async with self._reading:
            contexts, num_dropped = await asyncio.to_thread(read_prompts, self._model, asked, speaker)
        part = "text"
        if is_chat:
            part = "delta" if asked.stream else "message"
        kind = "chat.completion" if is_chat else "text_completion"
        now = time.time_ns()
        record: dict[str, Any] = {"id": f"{kind}-{now}", "object": f"{kind}.chunk" if part == "delta" else kind}
        record |= {"created": now // 10**9, "model": asked.model, "seed": asked.seed}
        if num_dropped:
            record["lotr_tui"] = {"dropped_messages": num_dropped}
        stream = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
        is_gone = getattr(request.transport, "is_closing", lambda: True)
        choices = list[dict[str, Any]]()
        num_read = sum(len(context.ids) for context in contexts)
        num_written = 0
        for index, context in enumerate(contexts):
            written = list[Piece]()
            async with self._turn:
                steps = write_pieces(self._reader, asked, context, is_gone)
                while (piece := await asyncio.to_thread(next, steps, None)) is not None:
                    written.append(piece)
                    if asked.stream:
                        await send(request, stream, record | {"choices": [describe_choice(index, [piece], part)]})
            if not written:  # the client has left
                break
            choices.append(describe_choice(index, written, part))
            num_written += len(written) - 1 - is_chat  # without the pieces that are no tokens
        usage = {"prompt_tokens": num_read, "completion_tokens": num_written, "total_tokens": num_read + num_written}
        if not asked.stream:
            return web.json_response(record | {"choices": choices, "usage": usage})
        if asked.stream_options.get("include_usage"):
            await send(request, stream, record | {"choices": [], "usage": usage})
        await send(request, stream, msgspec.Raw(b"[DONE]"))
        return stream
