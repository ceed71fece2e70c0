"""The prompt in an app of its own: what is typed, marked and sent."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st
from textual import events
from textual.app import App
from textual.binding import Binding
from textual.containers import Vertical
from textual.widgets import Static, TextArea

from engine.data.vocabulary import EOS, UNK, Vocabulary, spans
from lotr_tui.widgets import prompt as module
from lotr_tui.widgets.prompt import Prompt

WORDS = ("bilbo", "baggins", "is", "a", "friend", "the", "lamp", "don't")

VOCABULARY = Vocabulary((UNK, EOS, *WORDS))

SPACED = Vocabulary((UNK, EOS, "Bilbo", "is", "3.5", "the"), "spaces")

SESSION_KEYS = [f"ctrl+{letter}" for letter in "ctolprefnsgyb"] + [f"f{n}" for n in range(1, 13)]


class PromptApp(App):
    CSS = "#rest { height: 1fr; } Prompt { height: auto; }"
    BINDINGS = [  # noqa: RUF012
        Binding(",".join([*SESSION_KEYS, "escape", "pageup", "pagedown"]), "pressed", id="pressed"),
    ]

    def __init__(self, prompts=None, vocabulary=VOCABULARY):
        super().__init__()
        self.prompts = prompts
        self.vocabulary = vocabulary
        self.sent, self.notices, self.pressed, self.changes = [], [], 0, 0

    def compose(self):
        with Vertical():
            yield Static(id="rest")
            yield Prompt(self.vocabulary, self.prompts, id="prompt")

    def on_prompt_submitted(self, message):
        self.sent.append(message.value)
        message.prompt.clear()

    def on_prompt_notice(self, message):
        self.notices.append(message.text)

    def on_text_area_changed(self):
        self.changes += 1

    def action_pressed(self):
        self.pressed += 1

    @property
    def prompt(self):
        return self.query_one("#prompt", Prompt)


class Pilots:
    """Opens the app at a size, and closes it."""

    def __init__(self, **options):
        self._app = PromptApp(**options)

    async def __aenter__(self):
        self._context = self._app.run_test(size=(60, 20))
        pilot = await self._context.__aenter__()
        await pilot.pause()
        return pilot, self._app.prompt

    async def __aexit__(self, *failure):
        await self._context.__aexit__(*failure)


async def type_text(pilot, text):
    await pilot.press(*({" ": "space", "\n": "ctrl+j"}.get(c, c) for c in text))


async def paste(pilot, text):
    pilot.app.post_message(events.Paste(text))
    await pilot.pause()


def underlined(prompt):
    """The runs of characters that are drawn underlined, in order."""
    found = []
    for y in range(prompt.size.height):
        before = False
        for segment in prompt.render_line(y):
            now = bool(segment.style and segment.style.underline)
            if now and before:
                found[-1] += segment.text
            elif now:
                found.append(segment.text)
            before = now
    return found


def shown(prompt):
    return ["".join(s.text for s in prompt.render_line(y)).rstrip() for y in range(prompt.size.height)]


def cursor_cells(prompt):
    """Cells drawn as the cursor."""
    return sum(
        segment.cell_length
        for y in range(prompt.size.height)
        for segment in prompt.render_line(y)
        if segment.style and segment.style.reverse
    )


async def test_enter_sends_and_the_screen_clears():
    async with Pilots() as (pilot, prompt):
        app = pilot.app
        await type_text(pilot, "Bilbo is")
        assert prompt.value == "Bilbo is"
        await pilot.press("enter")
        assert app.sent == ["Bilbo is"]
        assert prompt.value == ""
        await pilot.press("ctrl+z")
        assert prompt.value == "Bilbo is"


async def test_ctrl_j_adds_a_line_in_the_middle_too():
    async with Pilots() as (pilot, _):
        app = pilot.app
        await type_text(pilot, "one\ntwo")
        await pilot.press("left", "left", "ctrl+j", "enter")
        assert app.sent == ["one\nt\nwo"]


async def test_keys_that_come_in_one_piece_act_in_order():
    async with Pilots() as (pilot, prompt):
        app = pilot.app
        for key in ("a", "b", "backspace", "c", "ctrl+j", "d", "left", "e", "enter", "f"):
            app.post_message(events.Key(key, key if len(key) == 1 else None))
        await pilot.pause()
        assert app.sent == ["ac\ned"]
        assert prompt.value in ("f", "")  # the screen clears when it has taken note


async def test_it_grows_with_its_lines_to_five_and_shrinks():
    async with Pilots() as (pilot, prompt):
        heights = [prompt.size.height]
        for _ in range(6):
            await pilot.press("x", "ctrl+j")
            await pilot.pause()
            heights.append(prompt.size.height)
            assert prompt.size.width == 60
            assert cursor_cells(prompt) == 1
        assert heights == [1, 2, 3, 4, 5, 5, 5]
        assert shown(prompt) == ["x", "x", "x", "x", ""]
        await pilot.press(*["backspace"] * 6)
        assert shown(prompt) == ["x", "x", "x", ""]
        await paste(pilot, "\n".join("abcdefgh"))
        assert shown(prompt) == list("defgh")
        await pilot.press("enter")
        await pilot.pause()
        assert prompt.size.height == 1
        prompt.value = "x" * 150  # wraps
        await pilot.pause()
        assert prompt.size.height == 3


async def test_it_leaves_room_on_a_small_terminal():
    async with Pilots() as (pilot, prompt):
        for size, height in [((80, 24), 5), ((60, 20), 5), ((40, 12), 3), ((20, 5), 1)]:
            prompt.value = ""
            await pilot.resize_terminal(*size)
            prompt.value = "\n".join("abcdefgh")
            await pilot.pause()
            assert prompt.size.height == height
            assert shown(prompt)[-1] == "h"


async def test_the_session_keeps_its_keys():
    async with Pilots() as (pilot, prompt):
        app = pilot.app
        await type_text(pilot, "bilbo")
        keys = [*SESSION_KEYS, "escape", "pageup", "pagedown"]
        for key in keys:
            if key not in ("ctrl+p", "ctrl+q"):  # the palette is the app's own
                await pilot.press(key)
        assert app.pressed == len(keys) - 1
        assert prompt.value == "bilbo"
        assert not {"ctrl+c", "ctrl+p", "ctrl+x"} & {key for key, _ in prompt._bindings}


async def test_every_binding_has_an_id_and_a_tooltip_and_can_be_remapped():
    bindings = [b for b in Prompt.BINDINGS if isinstance(b, Binding)]
    assert all(b.id and b.id.startswith("prompt.") and b.tooltip for b in bindings)
    assert len({b.id for b in bindings}) == len(bindings)
    async with Pilots() as (pilot, _):
        app = pilot.app
        app.set_keymap({"prompt.send": "ctrl+s", "prompt.new_line": "enter"})
        await pilot.press("a", "enter", "b", "ctrl+s")
        assert app.sent == ["a\nb"]


async def test_editing_keys():
    async with Pilots() as (pilot, prompt):
        await type_text(pilot, "one two three")
        for keys, value in [
            (["ctrl+w"], "one two "),
            (["ctrl+left", "ctrl+k"], "one "),
            (["ctrl+z"], "one two "),
            (["home", "delete"], "ne two "),
            (["end", "ctrl+u"], ""),
            (["ctrl+z", "home", "shift+right", "shift+right", "x"], "x two "),
            (["end", "shift+home", "backspace"], ""),
        ]:
            await pilot.press(*keys)
            assert prompt.value == value, keys


async def test_the_cursor_is_seen_and_does_not_blink():
    async with Pilots() as (pilot, prompt):
        app = pilot.app
        assert cursor_cells(prompt) == 1  # on the placeholder
        assert shown(prompt) == ["type a prompt"]
        await type_text(pilot, "is")
        assert cursor_cells(prompt) == 1
        assert not prompt.blink_timer._active.is_set()
        assert not prompt.cursor_blink
        app.set_focus(None)
        await pilot.pause()
        assert cursor_cells(prompt) == 0
        prompt.focus()
        await pilot.pause()
        assert cursor_cells(prompt) == 1


async def test_nothing_is_painted_when_nothing_happens(monkeypatch):
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0.05)
    async with Pilots() as (pilot, prompt):
        app = pilot.app
        await type_text(pilot, "bilbo xyz")
        await asyncio.sleep(0.3)
        assert underlined(prompt) == ["xyz"]
        painted = []
        monkeypatch.setattr(app._driver, "write", painted.append)
        monkeypatch.setattr(app, "_display", lambda *arguments: painted.append(arguments))
        await asyncio.sleep(0.7)
        assert painted == []


# Words outside the vocabulary


async def test_unknown_words_are_marked_and_no_others():
    async with Pilots() as (pilot, prompt):
        await type_text(pilot, "Bilbo smiled, don't smile a bilbos")
        await pilot.press("space")
        assert underlined(prompt) == ["smiled", "smile", "bilbos"]
        assert prompt.unknown == ("smiled", "smile", "bilbos")


async def test_a_word_is_not_marked_while_it_is_typed(monkeypatch):
    monkeypatch.setattr(module, "PAUSE_SECONDS", 3600)
    async with Pilots() as (pilot, prompt):
        await type_text(pilot, "bilb")
        assert underlined(prompt) == []
        await pilot.press("x")
        assert underlined(prompt) == []
        await pilot.press("space")
        assert underlined(prompt) == ["bilbx"]
        await pilot.press("backspace")
        assert underlined(prompt) == []
        prompt._paused()
        assert underlined(prompt) == ["bilbx"]


async def test_after_a_pause_it_is_marked(monkeypatch):
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0.02)
    async with Pilots() as (pilot, prompt):
        await type_text(pilot, "bilbx")
        for _ in range(500):
            if underlined(prompt):
                break
            await asyncio.sleep(0.01)
        assert underlined(prompt) == ["bilbx"]


async def test_leaving_the_word_marks_it_and_coming_back_does_not_unmark():
    async with Pilots() as (pilot, prompt):
        await type_text(pilot, "bilbx")
        await pilot.press("left")
        assert underlined(prompt) == ["bilbx"]


async def test_another_vocabulary_marks_anew():
    async with Pilots() as (pilot, prompt):
        prompt.value = "Bilbo is the lamp"
        await pilot.pause()
        assert underlined(prompt) == []
        prompt.vocabulary = SPACED
        assert underlined(prompt) == ["lamp"]
        prompt.vocabulary = None
        assert underlined(prompt) == []
        assert prompt.unknown == ()


async def test_marks_stand_on_wrapped_lines_and_behind_wide_and_combining_characters():
    async with Pilots() as (pilot, prompt):
        prompt.value = "中文 e\u0301 bilbo zzz שלום " + "a " * 20 + "yyy is"
        await pilot.pause()
        assert underlined(prompt) == ["e", "zzz", "yyy"]


async def test_an_unknown_word_has_a_cue_that_is_no_colour():
    async with Pilots() as (pilot, prompt):
        app = pilot.app
        for theme in ("textual-light", "textual-dark", "ansi-light", "ansi-dark"):
            app.theme = theme
            prompt.value = "bilbo zzz"
            await pilot.pause()
            assert underlined(prompt) == ["zzz"], theme
            assert prompt.get_component_rich_style("prompt--unknown", partial=True).underline


@given(st.text(st.characters() | st.sampled_from("abcABC'İKßΣ9 -\n\t\x00"), max_size=60))
def test_spans_are_the_words_of_the_tokenizer(text):
    for vocabulary in (VOCABULARY, SPACED):
        found = list(spans(text, vocabulary.tokenizer))
        assert [word for _, _, word in found] == vocabulary.tokenize(text)
        end = 0
        for start, stop, word in found:
            assert end <= start < stop <= len(text) or (start == end - 1)  # "İ" may end one word and begin none
            end = stop
            assert vocabulary.tokenize(text[start:stop])[0].startswith(word[:1])
        if text.isascii():
            assert [text[start:stop].lower() for start, stop, _ in found] == [w.lower() for _, _, w in found]


# As an Input


async def test_value_is_set_with_the_cursor_behind_it_and_told():
    async with Pilots() as (pilot, prompt):
        app = pilot.app
        before = app.changes
        prompt.value = "bilbo\nis"
        await pilot.pause()
        assert app.changes == before + 1
        assert prompt.cursor_location == (1, 2)
        await pilot.press("x")
        assert prompt.value == "bilbo\nisx"
        assert prompt.text == prompt.value
        assert isinstance(prompt, TextArea)


async def test_a_click_moves_the_cursor():
    async with Pilots() as (pilot, prompt):
        prompt.value = "bilbo is"
        await pilot.pause()
        await pilot.click(prompt, offset=(2, 0))
        await pilot.press("x")
        assert prompt.value == "bixlbo is"
