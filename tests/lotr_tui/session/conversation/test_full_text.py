"""Text of a conversation: a tokenizer finds in it exactly the tokens that the model has read and generated."""

import random
from dataclasses import replace

import pytest

from engine.data.tokenizers.base import EOS, EOS_ID, UNK
from engine.data.tokenizers.words import WordTokenizer
from engine.generation.settings import SamplerSettings
from lotr_tui.session.conversation.conversation import Conversation
from lotr_tui.session.conversation.encoding import encode_lines
from lotr_tui.session.conversation.generation import context_ids
from lotr_tui.session.conversation.reply_tree import Reply
from lotr_tui.session.conversation.restore import rebuild_conversation
from lotr_tui.session.saved_session import SavedSession
from lotr_tui.session.session_model import SessionModel
from tests.support.app import VOCABULARY, make_decoder
from tests.support.conversations import SETTINGS, Ask, branch_off, finish_reply, ids_of

PROMPTS = (
    "bilbo is",
    "Bilbo's\n\npony,\r\n  the LAMP!",
    "the xylophone of \x07frodo\x0b☺ мир",
    "it\x1bs where\u2028frodo\ttower",
    "a <eos> old <unk> friend",
)


@pytest.fixture
def session_model() -> SessionModel:
    return SessionModel("test", "", make_decoder())


def read_again(reply: Reply) -> list[int]:
    return encode_lines(reply.session_model.model.tokenizer, reply.full_text())


def test_text_of_a_conversation_has_a_line_for_each_prompt_and_each_reply(ask: Ask) -> None:
    settings = SamplerSettings(max_tokens=2, temperature=0)
    first = ask("Bilbo,\nxylophone", "reply", settings=settings)
    second = ask("the lamp?", "reply", previous=first, settings=settings)
    words = [" ".join(token.text for token in reply.tokens) for reply in (first, second)]
    assert first.full_text() == f"Bilbo, xylophone\n{words[0]}"
    assert second.full_text() == f"Bilbo, xylophone\n{words[0]}\nthe lamp?\n{words[1]}"
    assert second.text() == f"the lamp?\n{words[1]}"


def test_text_in_continue_mode_is_one_line(ask: Ask) -> None:
    reply = ask("Bilbo,\nis", settings=SamplerSettings(max_tokens=2))
    assert reply.full_text() == f"Bilbo, is {reply.tokens[0].text} {reply.tokens[1].text}"


@pytest.mark.parametrize("seed", range(12))
def test_tokenizing_the_text_of_any_reply_returns_the_ids_that_the_model_read(
    conversation: Conversation, seed: int
) -> None:
    rng = random.Random(seed)
    decoder = make_decoder()
    decoder.weights["output.bias"][EOS_ID] = 4  # lines end soon
    decoder.tokenizer = WordTokenizer(VOCABULARY.tokens, rng.choice(["words", "whitespace"]))
    session_model = SessionModel("test", "", decoder)
    other = make_decoder(1)
    other.tokenizer = WordTokenizer((UNK, EOS, *reversed(VOCABULARY.tokens[4:])), decoder.tokenizer.name)
    for number in range(25):
        replies = list(conversation.replies_by_exchange.values())
        reply = rng.choice(replies) if replies else None
        action = rng.choice(["continue", "reply", "reply", "branch", "more"]) if reply else "reply"
        settings = SamplerSettings(max_tokens=rng.randint(1, 30), temperature=rng.choice([0.8, 2.0]))
        if reply is None or action in ("continue", "reply"):
            model = rng.choice([session_model, session_model, SessionModel("other", "", other)])
            is_answer = reply is not None and reply.reply_mode == "reply" and rng.random() < 0.8
            previous = reply if is_answer and action == "reply" else None
            conversation.submit_prompt(model, rng.choice(PROMPTS), action, settings, number, previous)  # type: ignore[arg-type]
            if rng.random() < 0.3:
                conversation.stop()  # perhaps before the first token
        elif action == "branch" and reply.tokens:
            conversation.branch(reply, rng.randrange(len(reply.tokens)), [rng.randrange(2, 20)], settings, number)
        else:
            conversation.continue_reply(reply, settings, number)
        finish_reply(conversation)
    # Which replies end before they are stopped depends on the threads, so that one more is continued after its end.
    ended = next(reply for reply in conversation.replies_by_exchange.values() if reply.has_ended_line)
    conversation.continue_reply(ended, SamplerSettings(max_tokens=5), 0)
    finish_reply(conversation)
    assert any(token.text == EOS for reply in conversation.replies_by_exchange.values() for token in reply.tokens)
    for reply in conversation.replies_by_exchange.values():
        assert read_again(reply) == reply.token_ids()
    saved = tuple(reply.to_saved() for reply in conversation.replies_by_exchange.values())
    restored = rebuild_conversation(SavedSession("name", "test", 0.0, saved), session_model, 0)
    for reply in restored.replies_by_exchange.values():
        assert read_again(reply) == reply.token_ids()


def test_context_of_an_answer_has_no_second_line_end_after_a_reply_without_words(
    session_model: SessionModel, ask: Ask
) -> None:
    saved = replace(ask("bilbo is", "reply").to_saved(), tokens=(), reason="cancelled")
    restored = rebuild_conversation(SavedSession("name", "test", 0.0, (saved,)), session_model, 0)
    answer = restored.submit_prompt(session_model, "frodo", "reply", SETTINGS, 1, restored.current_reply)
    restored.close()
    assert list(answer.context_ids) == [*ids_of("bilbo is"), EOS_ID, *ids_of("frodo"), EOS_ID]
    assert answer.full_text().startswith("bilbo is\n\nfrodo\n")


def test_another_vocabulary_reads_the_words_that_were_unknown_before(ask: Ask) -> None:
    reply = ask("bilbo xylophone", "reply", settings=SamplerSettings(max_tokens=1))
    other = WordTokenizer((UNK, EOS, "xylophone", "frodo", reply.tokens[0].text))
    assert context_ids(other, "frodo", "reply", reply) == [0, 2, 1, 4, 1, 3, 1]
    assert context_ids(other, "frodo", "continue", None) == [3]


def test_branch_keeps_the_earlier_turns(conversation: Conversation, ask: Ask) -> None:
    first = ask("bilbo is", "reply")
    second = ask("frodo", "reply", previous=first)
    branch = branch_off(conversation, second, 3, ids_of("tower")[0], SETTINGS, 3)
    assert branch.full_text().startswith(f"{first.full_text()}\nfrodo\n")
    assert "tower" in branch.full_text()
    assert read_again(branch) == branch.token_ids()
