"""Scenes of the session, of comparisons and of the lens with a model that knows speakers."""

from engine.generation.settings import SamplerSettings
from lotr_tui.screens.inspect.comparison import SideBySideScreen
from lotr_tui.screens.inspect.lens import LensScreen
from lotr_tui.screens.session.conversation_view import ConversationView
from lotr_tui.session.cast import Roles
from lotr_tui.session.read_text import PromptContext
from lotr_tui.session.reply import AnswerScore, Token
from lotr_tui.session.session_model import SessionModel
from lotr_tui.widgets.prompt import PromptInput
from tests.support.analysis import open_inspector
from tests.support.dialogues import dialogue_model, dialogue_session_model
from tests.support.open_models import bpe_tokenizer
from tests.support.pilot import until
from tests.support.scenes import after, open_columns, reply_of, show_ended_training, write_session

SCRIPT = "GANDALF: where is the ranger?\nFRODO: he walked with our friend\nwe walked all night to the high tower"


def save_conversation():
    """Write a session of three turns, the last one with two answers that were drawn together, and return its file."""

    def turn(id, text, speaker, prompt, **changes):
        ids, tokenizer = bpe_tokenizer().encode(f" {text}").tolist(), bpe_tokenizer()
        pieces = zip(ids, tokenizer.pieces(ids), strict=True)
        tokens = [Token(id, tokenizer.tokens[id], -2.0, 0.14, 3, 5.2, piece) for id, piece in pieces]
        parent = {"parent_id": id - 1} if id else {}
        roles = {"reply_mode": "conversation", "speaker": speaker, "tokenizer": "bpe", "tokens": tokens}
        return reply_of(id, "", prompt=prompt, **{**roles, **parent, **changes})

    first = turn(0, "he kept his promise and walked with our friend", "GANDALF", "Where is the ranger?")
    second = turn(1, "i think he walked all night", "GOLLUM", "", parent_offset=len(first.tokens), speaker_prob=0.31)
    asked = {"speaking_as": "FRODO", "parent_id": 1, "parent_offset": len(second.tokens)}
    prompt = "Where is the lamp, wizard?"
    text = "the lamp was lit before winter came down from the north and we asked for bread in the high tower"
    third = turn(2, text, "GANDALF", prompt, score=AnswerScore(1, 2, -30.0, -38.0, 20), **asked)
    other = turn(3, "nothing", "GOLLUM", prompt, score=AnswerScore(2, 2, -4.0, -4.0, 2), **asked)
    return write_session("scenes", first, second, third, other, current=2)


async def first_conversation(pilot):
    await until(pilot, lambda: pilot.app.screen.query("#training"))
    pilot.app.screen.set_session_model(dialogue_session_model())
    await pilot.pause()


async def conversation(pilot):
    """A conversation of three turns, a chosen speaker, and a line that is being typed."""
    await first_conversation(pilot)
    screen = pilot.app.screen
    assert screen.query_one(ConversationView).open_session(save_conversation())
    screen.slot.set_roles(screen.slot.roles._replace(speaker="GOLLUM", speaking_as="FRODO"))
    screen.query_one("#prompt", PromptInput).value = "we walked"
    show_ended_training(pilot.app)
    await pilot.pause()


# The second of two answers, and the cursor on a word
answers = after("answers", conversation, "ctrl+g", "left")


async def cast_dialog(pilot):
    """The dialog for the cast, in which a part of a name was typed."""
    await conversation(pilot)
    pilot.app.screen.slot.choose_roles()
    await pilot.pause()
    await pilot.press("g")
    await pilot.pause()


async def who_lens(pilot):
    """The lens for a model with low entropy, whose speakers differ much."""
    session_model = SessionModel("scenes", "a small dialogue model", dialogue_model(scale=1.5), predicts_eos=False)
    await open_inspector(pilot, LensScreen(session_model, SCRIPT), "w")
    pilot.app.clear_notifications()  # that the model has no run
    await pilot.pause(0.1)


async def speakers_side_by_side(pilot):
    settings = SamplerSettings(top_k=20, max_tokens=20)
    context = PromptContext("conversation", roles=Roles("", "GOLLUM"))
    screen = SideBySideScreen(dialogue_session_model(), "where is the ranger", settings, 3, 0, context)
    await open_columns(pilot, screen)
