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
    """The text that one token adds; the speaker before the first token, or the reason of the end after the last."""

    text: str = ""
    token: dict[str, Any] | None = None  # log-probabilities, in the form of a chat
    speaker: str = ""  # canonical name
    reason: str = ""


def describe_choice(pieces: Sequence[Piece], part: str, offset: int = 0, *, is_first: bool = True) -> dict[str, Any]:
    """Return a choice in the form of an endpoint: its text, its message, or a delta, of which the first has the role.

    `offset` is the number of characters before the pieces.
    """
    text = "".join(piece.text for piece in pieces)
    tokens = [piece.token for piece in pieces if piece.token]
    reason = "".join(piece.reason for piece in pieces)
    choice: dict[str, Any] = {"index": 0, "logprobs": None, "finish_reason": reason or None}
    if part != "text":
        said = {"role": "assistant"} if is_first else {}
        if name := speakers.display_name("".join(piece.speaker for piece in pieces)):
            said["name"] = name
        if tokens:
            choice["logprobs"] = {"content": tokens, "refusal": None}
        return choice | {part: said | {"content": text}}
    if tokens:
        offsets = accumulate((len(piece.text) for piece in pieces if piece.token), initial=offset)
        choice["logprobs"] = {
            "tokens": [token["token"] for token in tokens],
            "token_logprobs": [token["logprob"] for token in tokens],
            "top_logprobs": [{top["token"]: top["logprob"] for top in token["top_logprobs"]} for token in tokens],
            "text_offset": list(offsets)[:-1],
        }
    return choice | {"text": text}


def _describe_token(tokenizer: Tokenizer, id: int, logprob: float) -> dict[str, Any]:
    text = tokenizer.tokens[id]
    content = text.encode()
    if isinstance(tokenizer, ByteTokenizer) and id != EOS_ID:
        content = tokenizer.token_bytes[id]
        try:
            text = content.decode()
        except UnicodeDecodeError:  # a part of a character, in the form of OpenAI
            text = "bytes:" + "".join(f"\\x{byte:02x}" for byte in content)
    return {"token": text, "logprob": logprob, "bytes": list(content)}


def write_pieces(
    reader: TextReader, asked: Asked, context: NextTokenContext, is_gone: Callable[[], bool]
) -> Iterator[Piece]:
    """Yield the pieces of a text, in a chat after one with who answers."""
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
            yield Piece(reason="length" if event.reason == "length" else "stop")
            return
        piece = event.piece
        if event.index == 0 and is_line:  # the space after "Name:"
            piece = piece.removeprefix(" ")
        token = None
        if asked.logprobs is not False:
            token = _describe_event(context.model.tokenizer, event, num_top)
        waiting.append(Piece(piece, token))
        said = "".join(piece.text for piece in waiting)
        if found := [said.index(stop) for stop in asked.stop if stop in said]:
            rest = min(found)
            for each in waiting:
                if rest > 0:
                    yield each._replace(text=each.text[:rest])
                rest -= len(each.text)
            yield Piece(reason="stop")
            return
        if not any(said.endswith(stop[:length]) for stop in asked.stop for length in range(1, len(stop))):
            yield from waiting
            waiting = []


def _describe_event(tokenizer: Tokenizer, event: TokenEvent, num_top: int) -> dict[str, Any]:
    assert event.log_probs is not None, "the distribution of a new token is there"
    (likeliest,), (log_probs,) = top_tokens(event.log_probs[None], max(1, num_top))
    rows = zip(likeliest.tolist(), log_probs.tolist(), strict=True)
    top = [_describe_token(tokenizer, id, value) for id, value in rows]
    return _describe_token(tokenizer, event.id, event.logprob) | {"top_logprobs": top[:num_top]}
