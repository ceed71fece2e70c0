"""Figure of the last chapter: attention on a typed line, and the same line in models from counts to a real one."""

from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.widget import Widget
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from engine.analysis.activations import find_attention_model
from engine.analysis.tokenized_text import tokenize_with_offsets
from engine.data.arrays import Float32Array, Int32Array
from engine.data.tokenizers import WordTokenizer
from engine.generation.generate import prefill_prompt
from engine.generation.settings import SamplerSettings
from engine.models.numpy_transformer import NumpyTransformer
from engine.runtime.process import Cancellation
from lotr_tui.formatting import MISSING, fit_cells, format_lone_token, format_percent, truncate
from lotr_tui.learn.compared_models import Comparison, ScoredModel, load_comparison
from lotr_tui.learn.material import ClassModel, Material, continue_text, encode_line, find_example
from lotr_tui.screens.inspect.heat_strip import SHADES, THRESHOLDS, HeatStrips, StripRow
from lotr_tui.screens.learn.figure import ChapterFigure, Drawing, LineBar
from lotr_tui.session.session_model import find_cast, is_slow
from lotr_tui.textual_fixes.app import RobustOptionList
from lotr_tui.theme import MUTED
from lotr_tui.widgets.keys import binding_table

EXAMPLE = "Frodo has the Ring, and Sam has the"
GOAL = 0.5  # weight that the head which a student looks for exceeds
MAX_CHARACTERS, MAX_POSITIONS = 400, 64  # attention is computed within the time between two keys
LABEL_WIDTH = 12
NO_STORY = "This head looks at something else from each word"
MODEL_NAME_WIDTH, BITS_WIDTH = 22, 10
MAX_NEXT_TOKENS = 12
TYPING_PAUSE = 0.15  # seconds without a key before the models continue the line, so that they do not delay the next key


@dataclass(frozen=True, eq=False)
class LineAttention:
    """Weights `[layers, heads, positions, positions]` on a line, whose position 0 is the start of the text."""

    names: tuple[str, ...]
    starts: Int32Array  # first character of each position in the line; -1 for positions that are not in it
    weights: Float32Array


class AttentionData(NamedTuple):
    transformer: ClassModel
    attention_model: NumpyTransformer
    eos_per_line: bool
    comparison: Comparison
    example: str

    def read_line(self, line: str) -> LineAttention | None:
        """Compute the attention on the end of a line that fits the model; None if the line has no token."""
        tokenizer, cast = self.transformer.model.tokenizer, find_cast(self.transformer.model)
        tokens = tokenize_with_offsets(line, tokenizer, eos_per_line=self.eos_per_line, cast=cast)
        if not len(tokens):
            return None
        read_ids, positions = tokens.read_ids()
        starts = np.full(len(read_ids) + 1, -1, np.int32)
        starts[np.array(positions) + 1] = tokens.start_offsets
        first = max(0, len(read_ids) + 1 - min(MAX_POSITIONS, self.attention_model.context_size))
        ids = np.array(read_ids[first:], np.int32)
        written = {place: tokens[index] for index, place in enumerate(positions)}
        names = [
            written.get(place, "").strip() if id == tokenizer.unk_id else format_lone_token(tokenizer.tokens[id])
            for place, id in enumerate(read_ids[first:], first)
        ]
        weights = self.attention_model.record_attention(ids).weights
        return LineAttention(("start", *names), np.array([-1, *starts[first + 1 :]], np.int32), weights)


class AttentionFigure(ChapterFigure[AttentionData]):
    """The heads of a Transformer on a typed line, and the compared models; in a low terminal they take turns."""

    DEFAULT_CSS = """
    AttentionFigure #heads, AttentionFigure HeatStrips { height: 1fr; }
    AttentionFigure #models { height: 1fr; display: none; }
    AttentionFigure #header { color: $muted; text-style: $muted-style; }
    AttentionFigure #details { height: 2; }
    AttentionFigure OptionList, AttentionFigure OptionList:focus {
        height: 1fr; padding: 0; border: none; background: $background;
    }
    AttentionFigure.-models #heads { display: none; }
    AttentionFigure.-models #models { display: block; }
    AttentionFigure.-both #heads { display: block; height: auto; max-height: 60%; margin: 1 0; }
    AttentionFigure.-both HeatStrips { height: auto; }
    AttentionFigure.-both #models { display: block; }
    """
    LAYOUTS: ClassVar = {"-both": (0, 26)}
    BINDING_GROUP_TITLE = "Attention"
    HELP_LINE = "↑ ↓ choose a model; enter loads a large one"  # while the list of models has the focus
    BINDINGS: ClassVar[list[BindingType]] = binding_table(
        "learn-attention",
        """
        layer-below | [ | step_layer(-1) | layer before | The same head of the layer before
        layer-above | ] | step_layer(1)  | next layer   | The same head of the next layer
        """,
    )
    attention: LineAttention | None = None
    _line = "\n"  # that is read; none has a line feed
    _shown: tuple[LineAttention, int, int] | None = None  # attention, position and head
    _is_model_chosen = False

    def __init__(self, material: Material) -> None:
        super().__init__(material)
        # By model: the line and its continuation, or a line feed and the progress of its loading.
        self._continuations: dict[int, tuple[str, str]] = {}

    def compose_figure(self) -> ComposeResult:
        yield LineBar(
            EXAMPLE, "Type; ctrl+← ctrl+→ choose the word that looks, ↑ ↓ the head", max_length=MAX_CHARACTERS
        )
        with Vertical(id="heads"):
            yield Drawing(id="story")
            help_line = "↑ ↓ head, [ ] layer, ← → word that it looks at; the models are in the next pane (tab)"
            label = "start of the line"
            yield HeatStrips(LABEL_WIDTH, lambda: help_line, self._name_of, first_label=label, is_zoomed=True)
        with Vertical(id="models"):
            yield Drawing(id="header")
            yield RobustOptionList(id="list")
            yield Drawing(id="details")

    def load(self, cancelled: Cancellation) -> Generator[str, None, AttentionData]:
        transformer, own = (yield from self.material.model_with("transformer", cancelled)), self.material.session_model
        comparison = yield from load_comparison(self.material)
        model = find_attention_model(transformer.model)
        assert model is not None, "the material returns a model with attention"
        eos_per_line = own.predicts_eos if own is not None and own.model is transformer.model else True
        example = find_example(EXAMPLE, comparison.lines, transformer.model.tokenizer)
        return AttentionData(transformer, model, eos_per_line, comparison, example)

    def set_up(self) -> None:
        self.show_note(self.data.transformer.note)
        self.line.set_example(self.data.example)
        models = self.query_one(OptionList)
        models.add_options([Option(Content(each.name)) for each in self.data.comparison.models])
        models.highlighted = 0
        self.call_after_refresh(setattr, self, "_is_model_chosen", False)
        heading = f" {'model':<{MODEL_NAME_WIDTH}}{'bits/char':>{BITS_WIDTH}}  goes on with"
        self.query_one("#header", Drawing).show(lambda width, _: Content(truncate(heading, width)))

    def _name_of(self, position: int) -> str:
        return "" if self.attention is None else self.attention.names[position]

    def reveal(self, pane: Widget) -> None:
        if isinstance(pane, OptionList | HeatStrips):
            self.set_class(isinstance(pane, OptionList), "-models")

    def show_view(self) -> None:
        line = self.line.text.rpartition("\n")[2]
        if line != self._line:
            self._read(line)
        self._show_heads()
        self._show_models()

    def _read(self, line: str) -> None:
        self._line, data, known = line, self.data, self._continuations

        def read(cancelled: Cancellation) -> Iterator[LineAttention | tuple[int, tuple[str, str]] | None]:
            if is_slow(data.transformer.model) and cancelled.wait(TYPING_PAUSE):
                return
            yield data.read_line(line)
            if cancelled.wait(TYPING_PAUSE):
                return
            settings = SamplerSettings(temperature=0, max_tokens=MAX_NEXT_TOKENS)
            # Those with scores first, so that they follow the line at once.
            for index in sorted(data.comparison.wanted, key=lambda index: index not in data.comparison.outcomes):
                for status in data.comparison.score(index, cancelled):
                    yield index, ("\n", status)
                outcome = data.comparison.outcomes.get(index)
                if isinstance(outcome, ScoredModel) and known.get(index, ("\n",))[0] != line and not cancelled():
                    ids = encode_line(outcome.model, line)
                    state = prefill_prompt(outcome.model, ids)
                    text = continue_text(outcome.model, state, ids, settings, 0, cancelled, to_line_end=True)
                    yield index, (line, text)

        self.work.start(read)

    def receive(self, items: list[Any]) -> None:
        for item in items:
            if isinstance(item, tuple):
                self._continuations[item[0]] = item[1]
            else:
                self._take_attention(item)
        self._show_heads()
        self._show_models()

    # Heads

    @property
    def position(self) -> int:
        assert self.attention is not None
        starts, cursor = self.attention.starts, self.line.input.cursor_position
        place = int(np.searchsorted(np.maximum.accumulate(starts), max(1, cursor), side="left")) - 1
        return max(1, min(place, len(starts) - 1))

    def _take_attention(self, attention: LineAttention | None) -> None:
        is_first, self.attention = self._shown is None, attention
        if attention is not None and is_first:
            heads = attention.weights.reshape(-1, *attention.weights.shape[2:])
            stories = [tell_head(attention.names, weights) != NO_STORY for weights in heads]
            strongest = heads[:, -1, 1:-1].max(axis=1, initial=0).tolist()
            best = max(range(len(heads)), key=lambda head: (stories[head], strongest[head]))
            self.query_one(HeatStrips).row = best

    @on(HeatStrips.CursorMoved)
    def _show_heads(self) -> None:
        strips, story = self.query_one(HeatStrips), self.query_one("#story", Drawing)
        if (attention := self.attention) is None:
            strips.show_message("Type a word; each head looks back from it.")
            story.show(Content("\n"))
            return
        num_layers, num_heads, *_ = attention.weights.shape
        names, position = attention.names, self.position
        heads = attention.weights.reshape(num_layers * num_heads, len(names), len(names))
        rows = [
            StripRow(f"L{index // num_heads + 1} head {index % num_heads + 1}", weights[position, : position + 1])
            for index, weights in enumerate(heads)
        ]
        strips.row = min(strips.row, len(rows) - 1)
        name, weights = rows[strips.row].label.replace("L", "Layer ").replace(" head", ", head"), heads[strips.row]
        strongest, shown = strongest_earlier(rows[strips.row].values), (attention, position, strips.row)
        if shown != self._shown:
            self._shown, strips.item = shown, strongest[0] if strongest is not None else 0
        sentence, habit = describe_head(name, names, rows[strips.row].values), tell_head(names, weights)
        story.show(lambda width, _: Content.assemble(truncate(sentence, width), "\n", (truncate(habit, width), MUTED)))
        legend = "  ".join(f"{shade} {100 * least:.0f} %" for shade, least in zip(SHADES[1:], THRESHOLDS, strict=True))
        strips.show(rows, [f"{len(rows)} heads", legend], names)
        if self.line.is_edited and strongest is not None and strongest[1] > GOAL:
            self.finish_part(0)

    def action_step_control(self, steps: int) -> None:
        self.query_one(HeatStrips).action_step(-steps, 0)

    def action_step_layer(self, offset: int) -> None:
        if self.attention is not None:
            num_heads, strips = self.attention.weights.shape[1], self.query_one(HeatStrips)
            if 0 <= strips.row + offset * num_heads < len(strips.rows):
                strips.action_step(offset * num_heads, 0)

    # Models

    @on(OptionList.OptionSelected)
    def _load_selected(self, event: OptionList.OptionSelected) -> None:
        if event.option_index not in self.data.comparison.wanted:
            self.data.comparison.requested.add(event.option_index)
            self._read(self._line)
        self._select_model()

    @on(OptionList.OptionHighlighted)
    def _select_model(self) -> None:
        self._is_model_chosen = True
        self._show_models()

    def _show_models(self) -> None:
        comparison, models = self.data.comparison, self.query_one(OptionList)
        room = max(0, models.size.width - MODEL_NAME_WIDTH - BITS_WIDTH - 4)
        for index, model in enumerate(comparison.models):
            outcome, (read, text) = comparison.outcomes.get(index), self._continuations.get(index, ("", ""))
            bits = f"{outcome.bits.bits_per_character:.2f}" if isinstance(outcome, ScoredModel) else MISSING
            if outcome is None and index in comparison.wanted:
                bits = "…"
            elif not isinstance(outcome, ScoredModel):
                text = outcome or "enter loads it: 135 M weights"
            style = "" if isinstance(outcome, ScoredModel) and read == self._line else MUTED
            name = f" {fit_cells(model.name, MODEL_NAME_WIDTH)}{bits:>{BITS_WIDTH}}  "
            models.replace_option_prompt_at_index(index, Content.assemble(name, (truncate(text, room), style)))
        index = models.highlighted or 0
        lines = [Content(comparison.models[index].description)]
        if isinstance(outcome := comparison.outcomes.get(index), ScoredModel):
            lines.append(describe_bits(outcome, len(comparison.lines)))
        self.query_one("#details", Drawing).show(Content("\n").join(lines))
        if self._is_model_chosen and index == comparison.best and self._line.strip():
            self.finish_part(1)


def strongest_earlier(weights: Float32Array) -> tuple[int, float] | None:
    """Return the earlier word with the largest weight `[positions]`, and the weight; None for the first word.

    The start of the text is not a word, and the word itself, which is the last, is not an earlier one.
    """
    earlier = weights[1:-1]
    position = 1 + int(np.argmax(earlier)) if len(earlier) else 0
    return (position, float(weights[position])) if position else None


def describe_head(name: str, words: Sequence[str], weights: Float32Array) -> str:
    """Return a sentence about the weights `[positions]` of a head from the start of a line to the word that looks."""
    text = f'{name}: "{words[len(weights) - 1]}"'
    if (strongest := strongest_earlier(weights)) is None:
        return f"{text} is the first word, so it can look only at the start and at itself"
    (position, weight), itself = strongest, float(weights[-1])
    return f'{text} looks {format_percent(weight)} at "{words[position]}", {format_percent(itself)} at itself'


def tell_head(words: Sequence[str], weights: Float32Array) -> str:
    """Return what a head, with weights `[positions, positions]`, does on most words of a line."""
    habits: Counter[str] = Counter()
    for place in range(2, len(words)):
        at = int(np.argmax(weights[place, : place + 1]))
        if at == 0:
            habits["rests: most words look at the start, and pass nothing on"] += 1
        elif at == place:
            habits["keeps each word as it is"] += 1
        elif words[at] == words[place]:
            habits["finds the same word earlier in the line"] += 1
        elif at > 1 and words[at - 1] == words[place]:
            habits["remembers what followed the same word before: it can repeat that"] += 1
        elif at == place - 1:
            habits["reads pairs: most words look at the word before them"] += 1
        else:
            habits[f'collects: most words look back at "{words[at]}"'] += 1
    story, count = habits.most_common(1)[0] if habits else ("", 0)
    return f"This head {story}" if count and 2 * count >= len(words) - 2 else NO_STORY


def describe_bits(scored: ScoredModel, num_lines: int) -> Content:
    bits = scored.bits
    text = f" bits per character of {num_lines} held-out lines as written"
    if isinstance(scored.model.tokenizer, WordTokenizer):
        words, writing = bits.token_bits / bits.num_characters, bits.orthography_bits / bits.num_characters
        text = f" = {words:.2f} words + {writing:.2f} capitals, punctuation · {num_lines} held-out lines"
    return Content.assemble((f"{bits.bits_per_character:.2f}", "bold"), text)
