"""Answers of the API: the pieces of a text, its log-probabilities, and their form in each endpoint."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from engine.data import speakers
from engine.data.tokenizers import EOS_ID, ByteTokenizer, Tokenizer
from engine.generation.generate import Done, TextInProgress, generate, top_tokens
from engine.generation.turns import MAX_HISTORY_TOKENS
from lotr_tui.serve.api_request import Asked
from lotr_tui.session.read_text import NextTokenContext, TextReader, read_next_token


class Piece(NamedTuple):
    """The text that one token adds; in a chat after a piece with who answers, and always before one with the reason."""

    text: str = ""
    offset: int = 0  # characters of the answer before it
    token: dict[str, Any] | None = None  # log-probabilities, in the form of a chat
    speaker: str | None = None  # canonical name, empty without a cast
    reason: str | None = None  # of the end


def describe_choice(index: int, pieces: Sequence[Piece], part: str) -> dict[str, Any]:
    """Return a choice in the form of an endpoint: its `text`, its `message`, or a `delta` of the message."""
    text = "".join(piece.text for piece in pieces)
    tokens = [piece.token for piece in pieces if piece.token]
    choice: dict[str, Any] = {"index": index, "logprobs": None, "finish_reason": pieces[-1].reason}
    if part == "text":
        if tokens:
            choice["logprobs"] = {
                "tokens": [token["token"] for token in tokens],
                "token_logprobs": [token["logprob"] for token in tokens],
                "top_logprobs": [{top["token"]: top["logprob"] for top in token["top_logprobs"]} for token in tokens],
                "text_offset": [piece.offset for piece in pieces if piece.token],
            }
        return choice | {part: text}
    if tokens:
        choice["logprobs"] = {"content": tokens, "refusal": None}
    said = {"content": text}
    speaker = pieces[0].speaker
    if speaker is not None:
        said["role"] = "assistant"
    if speaker:
        said["name"] = speakers.display_name(speaker)
    return choice | {part: said}


def write_pieces(
    reader: TextReader, asked: Asked, context: NextTokenContext, is_gone: Callable[[], bool]
) -> Iterator[Piece]:
    """Yield the pieces of a text; none if the client is gone at its start."""
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
    offset = 0
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
        if asked.logprobs is not False and event.log_probs is not None:
            (likeliest,), (log_probs,) = top_tokens(event.log_probs[None], max(1, num_top))
            rows = [(event.id, event.logprob), *zip(likeliest.tolist(), log_probs.tolist(), strict=True)]
            token, *top = [_describe_token(context.model.tokenizer, *row) for row in rows]
            token["top_logprobs"] = top[:num_top]
        waiting.append(Piece(piece, offset, token))
        offset += len(piece)
        said = "".join(piece.text for piece in waiting)
        found = [said.index(stop) for stop in asked.stop if stop in said]
        if found:
            end = waiting[0].offset + min(found)
            for each in waiting:
                if each.offset < end:
                    yield each._replace(text=each.text[: end - each.offset])
            yield Piece(reason="stop")
            return
        if not any(said.endswith(stop[:length]) for stop in asked.stop for length in range(1, len(stop))):
            yield from waiting
            waiting = []


def _describe_token(tokenizer: Tokenizer, id: int, logprob: float) -> dict[str, Any]:
    content = tokenizer.tokens[id].encode()
    if isinstance(tokenizer, ByteTokenizer) and id != EOS_ID:
        content = tokenizer.token_bytes[id]
    text = content.decode(errors="backslashreplace")  # a token may be a part of a character
    return {"token": text, "logprob": logprob, "bytes": list(content)}
