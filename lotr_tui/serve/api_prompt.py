"""Texts that a model reads before its answer to a request of the API, and the removal of a chat's oldest messages."""

from collections.abc import Sequence

from engine.analysis.tokenized_text import read_label
from engine.data import speakers
from engine.data.scripts import Turn, encode_turns
from engine.data.tokenizers import Tokenizer
from engine.errors import InvalidInputError
from engine.generation.generate import encode_prompt
from engine.models.base import AdaptedModel
from engine.models.pretrained.chat import ChatMessage
from lotr_tui.serve.api_request import Asked, Message
from lotr_tui.session.cast import answering_cast, read_name
from lotr_tui.session.read_text import NextTokenContext
from lotr_tui.session.reply import encode_beginning, join_messages, parse_script
from lotr_tui.session.session_model import SessionModel

DEFAULT_CONTEXT_SIZE = 32_768  # tokens that a model without a limit reads, such as an LSTM
MAX_TOKEN_CHARACTERS = 8  # on average, in a text that is tokenized at all
TEMPLATE_TOKENS = 32  # of a chat template before and after all messages
MESSAGE_TOKENS = 4  # of a chat template around the role and the text of a message


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
        _check_size(_count_tokens(text, model.tokenizer, size), size)
        encode_prompt(text, model.tokenizer)  # raises if the model knows no word of it
        ids = encode_beginning(model, text, predicts_eos=session_model.predicts_eos, speaker=speaker)
        contexts.append(NextTokenContext(model, ids, reopens_last_word=True))
    num_dropped = 0
    if asked.messages:
        instructions = [message for message in asked.messages if message.template_role == "system"]
        said = [message for message in asked.messages if message.template_role != "system"]
        needed = "\n".join(message.text for message in (*instructions, *said[-1:]))
        room = size - _count_tokens(needed, model.tokenizer, size)
        _check_size(size - room, size)
        kept = _slide(said, room - min(asked.sampler.max_tokens + TEMPLATE_TOKENS, size // 2), model.tokenizer)
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
