"""Answers of the API: the pieces of a text, its log-probabilities, and their form in each endpoint."""

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

from engine.data import speakers
from engine.data.tokenizers import EOS_ID, ByteTokenizer, Tokenizer
from engine.generation.generate import Done, TextInProgress, TokenEvent, generate, top_tokens
from engine.generation.turns import MAX_HISTORY_TOKENS
from lotr_tui.serve.api_request import Asked
from lotr_tui.session.read_text import NextTokenContext, TextReader, read_next_token


class Piece(NamedTuple):
    """What one token adds to a text, or who says the text, before its first token."""

    text: str = ""
    token: dict[str, Any] | None = None  # log-probabilities, in the form of a chat
    speaker: str = ""  # canonical name


def describe_choice(
    pieces: Sequence[Piece], reason: str, part: str, *, offset: int = 0, is_first: bool = True
) -> dict[str, Any]:
    """Return a choice in the form of an endpoint: its text, its message, or a delta, of which the first has the role.

    `offset` is the number of characters before the pieces.
    """
    tokens = [piece.token for piece in pieces if piece.token]
    text = "".join(piece.text for piece in pieces)
    choice: dict[str, Any] = {"index": 0, "logprobs": None, "finish_reason": reason or None}
    if part == "text":
        if tokens:
            choice["logprobs"] = _completion_logprobs(pieces, tokens, offset)
        return choice | {"text": text}
    said = {"role": "assistant"} if is_first else {}
    for piece in pieces:
        if piece.speaker:
            said["name"] = speakers.display_name(piece.speaker)
    if pieces:
        said["content"] = text
    if tokens:
        choice["logprobs"] = {"content": tokens, "refusal": None}
    return choice | {part: said}


def _completion_logprobs(pieces: Sequence[Piece], tokens: Sequence[dict[str, Any]], offset: int) -> dict[str, Any]:
    offsets = accumulate((len(piece.text) for piece in pieces), initial=offset)
    return {
        "tokens": [_name_in_completion(token) for token in tokens],
        "token_logprobs": [token["logprob"] for token in tokens],
        "top_logprobs": [
            {_name_in_completion(top): top["logprob"] for top in token["top_logprobs"]} for token in tokens
        ],
        "text_offset": list(offsets)[:-1],
    }


def _name_in_completion(token: dict[str, Any]) -> str:
    # A completion has no field for bytes, so tokens that are no characters are named as OpenAI does it.
    content = token["bytes"]
    name: str = token["token"]
    return f"bytes:{name}" if content is not None and bytes(content) != name.encode() else name


def describe_token(tokenizer: Tokenizer, id: int, logprob: float) -> dict[str, Any]:
    """Return a token in the form of a chat; a part of a character has its bytes in hexadecimal digits as its text."""
    if id == EOS_ID:
        return {"token": tokenizer.tokens[id], "logprob": logprob, "bytes": None}
    content = f" {tokenizer.tokens[id]}".encode()
    if isinstance(tokenizer, ByteTokenizer):
        content = tokenizer.token_bytes[id]
    try:
        text = content.decode()
    except UnicodeDecodeError:
        text = "".join(f"\\x{byte:02x}" for byte in content)
    return {"token": text, "logprob": logprob, "bytes": list(content)}


def write_pieces(
    reader: TextReader, asked: Asked, context: NextTokenContext, is_gone: Callable[[], bool]
) -> Iterator[Piece | str]:
    """Yield the pieces of a text, in a chat after one with who answers, and at last why the text ends."""
    begun = read_next_token(reader, context, is_gone)
    if begun is None:
        return
    is_line = bool(context.candidates)
    history = context.ids[-MAX_HISTORY_TOKENS if asked.messages else 0 :]
    text = TextInProgress(
        context.model,
        [*history, *begun.ids[len(context.ids) :]],
        asked.sampler,
        asked.seed,
        begun.state,
        noise_context=history if is_line else (),
    )
    if asked.messages:
        yield Piece(speaker=begun.speaker)
    num_top = asked.top_logprobs if asked.messages else int(asked.logprobs)
    waiting: list[Piece] = []  # whose text may begin one of the stops
    for event in generate(text, is_gone):
        if isinstance(event, Done):
            yield from waiting
            yield "length" if event.reason == "length" else "stop"
            return
        is_start = event.index == 0 and is_line  # the space after "Name:"
        piece = event.piece.removeprefix(" ") if is_start else event.piece
        token = None if asked.logprobs is False else _describe_event(context.model.tokenizer, event, num_top)
        waiting.append(Piece(piece, token))
        said = "".join(piece.text for piece in waiting)
        if found := [said.index(stop) for stop in asked.stops if stop in said]:
            yield from _cut(waiting, min(found))
            yield "stop"
            return
        if not any(said.endswith(stop[:length]) for stop in asked.stops for length in range(1, len(stop))):
            yield from waiting
            waiting = []


def _describe_event(tokenizer: Tokenizer, event: TokenEvent, num_top: int) -> dict[str, Any]:
    assert event.log_probs is not None, "the distribution of a new token is there"
    (likeliest,), (log_probs,) = top_tokens(event.log_probs[None], max(1, num_top))
    top = zip(likeliest.tolist(), log_probs.tolist(), strict=True)
    described = [describe_token(tokenizer, id, value) for id, value in top]
    return {**describe_token(tokenizer, event.id, event.logprob), "top_logprobs": described[:num_top]}


def _cut(pieces: Sequence[Piece], length: int) -> Iterator[Piece]:
    for piece in pieces:
        if length > 0:
            yield piece._replace(text=piece.text[:length])
        length -= len(piece.text)
