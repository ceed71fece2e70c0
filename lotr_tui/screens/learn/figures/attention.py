"""Figure of the last chapter: attention on a typed line, and the same line in models from counts to a real one."""

from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from rich.cells import cell_len, set_cell_size
from textual import events, on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Input, OptionList
from textual.widgets.option_list import Option

from engine.analysis.activations import find_attention_model
from engine.analysis.tokenized_text import tokenize_with_offsets
from engine.data.arrays import Float32Array, Int32Array
from engine.data.tokenizers import WordTokenizer
from engine.generation.generate import prefill_prompt, top_tokens
from engine.generation.settings import SamplerSettings
from engine.models.base import LanguageModel
from engine.models.numpy_transformer import NumpyTransformer
from engine.runtime.process import Cancellation
from lotr_tui.background_task import BackgroundTask
from lotr_tui.formatting import MISSING, SELECTED_MARK, fit_cells, format_lone_token, format_percent, truncate
from lotr_tui.learn.compared_models import Comparison, ScoredModel, load_comparison
from lotr_tui.learn.lines import continue_text, encode_line, find_example
from lotr_tui.learn.material import ClassModel, Material
from lotr_tui.screens.inspect.heat_strip import SHADES, THRESHOLDS, StripColumns, named_columns, shade_levels
from lotr_tui.screens.learn.figure import ChapterFigure, Drawing, LineBar
from lotr_tui.session.session_model import find_cast, is_slow, reads_line_ends
from lotr_tui.textual_fixes.app import RobustOptionList
from lotr_tui.theme import MUTED
from lotr_tui.widgets.keys import binding_table

EXAMPLE = "Frodo has the Ring, and Sam has the"
GOAL = 0.5  # weight that the head which a student looks for exceeds
MAX_CHARACTERS, MAX_POSITIONS = 400, 64  # attention is computed within the time between two keys
BOTH_HEIGHT = 26  # rows for attention and models at the same time
LABEL_WIDTH, STRONGEST_WIDTH, MIN_COLUMN_WIDTH = 12, 7, 4
NO_STORY = "This head looks at something else from each word"
NUM_HEADING_LINES = 4  # two sentences, the words, and the weights of the selected head
MODEL_NAME_WIDTH, BITS_WIDTH = 22, 10
MAX_NEXT_TOKENS, NUM_LIKELY = 12, 5
TYPING_PAUSE = 0.15  # seconds without a key before the models continue the line, so that they do not delay the next key


@dataclass(frozen=True)
class LineAttention:
    """Weights `[layers, heads, positions, positions]` on a line, whose position 0 is the start of the text."""

    names: tuple[str, ...]
    starts: Int32Array  # first character of each position in the line; -1 for positions that are not in it
    weights: Float32Array


@dataclass(frozen=True)
class AttentionData:
    """The Transformer whose heads are shown, and the models that are compared."""

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
        written = dict(zip(positions, map(tokens.__getitem__, range(len(tokens))), strict=True))
        names = [
            written.get(place, "").strip() if id == tokenizer.unk_id else format_lone_token(tokenizer.tokens[id])
            for place, id in enumerate(read_ids[first:], first)
        ]
        weights = self.attention_model.record_attention(ids).weights
        return LineAttention(("start", *names), np.array([-1, *starts[first + 1 :]], np.int32), weights)


class AttentionFigure(ChapterFigure[AttentionData]):
    """The heads of a Transformer on a typed line, and the compared models; in a low terminal they take turns."""

    DEFAULT_CSS = """
    AttentionFigure #heads { height: 1fr; }
    AttentionFigure #models { height: 1fr; display: none; }
    AttentionFigure #header { color: $muted; text-style: $muted-style; }
    AttentionFigure #details { height: 3; }
    AttentionFigure OptionList { height: 1fr; padding: 0; border: none; background: $background; }
    AttentionFigure.-models #heads { display: none; }
    AttentionFigure.-models #models { display: block; }
    AttentionFigure.-both #heads { display: block; height: auto; max-height: 60%; margin: 1 0; }
    AttentionFigure.-both #models { display: block; }
    """
    BINDING_GROUP_TITLE = "Attention"
    BINDINGS: ClassVar[list[BindingType]] = binding_table(
        "learn-attention",
        """
        up          | up   | step_head(-1)  | head above   | The head above
        down        | down | step_head(1)   | head below   | The head below
        layer-below | [    | step_layer(-1) | layer before | The same head of the layer before
        layer-above | ]    | step_layer(1)  | next layer   | The same head of the next layer
        """,
    )

    def __init__(self, material: Material) -> None:
        super().__init__(material)
        self.attention: LineAttention | None = None
        self.head = -1  # index through all layers; -1 before the first line
        self._columns: StripColumns | None = None
        self._visible_heads = range(0)
        self._is_model_chosen = False
        self._statuses: dict[int, str] = {}  # of models that are being loaded
        self._continuations: dict[int, tuple[str, str, str]] = {}  # by model: line, its continuation, likely tokens
        self.scoring: BackgroundTask[tuple[int, str]] = BackgroundTask(
            self, "learn-models", self._receive_scores, self.show_failure, self._end_scoring
        )

    def compose_figure(self) -> ComposeResult:
        yield LineBar(
            EXAMPLE, "Type; ctrl+← ctrl+→ choose the word that looks, ↑ ↓ the head", max_length=MAX_CHARACTERS
        )
        yield Drawing("heads", "← → word, ↑ ↓ head, [ ] layer; the models are in the next pane (tab)", can_focus=True)
        with Vertical(id="models"):
            yield Drawing("header")
            yield RobustOptionList(id="list")
            yield Drawing("details")

    def load(self, cancelled: Cancellation) -> Generator[str, None, AttentionData]:
        """Load the Transformer and the held-out lines; the compared models are loaded later."""
        transformer, own = (yield from self.material.transformer(cancelled)), self.material.session_model
        comparison = yield from load_comparison(self.material)
        model = find_attention_model(transformer.model)
        assert model is not None, "the material returns a model with attention"
        eos_per_line = own.predicts_eos if own is not None and own.model is transformer.model else True
        example = find_example(EXAMPLE, comparison.lines, transformer.model.tokenizer)
        return AttentionData(transformer, model, eos_per_line, comparison, example)

    def show_data(self, data: AttentionData) -> None:
        self.show_note(data.transformer.note)
        self.line.set_example(data.example)
        models = self.query_one(OptionList)
        models.add_options([Option(Content(each.name)) for each in data.comparison.models])
        models.highlighted = 0
        self.call_after_refresh(setattr, self, "_is_model_chosen", False)
        heading = f" {'model':<{MODEL_NAME_WIDTH}}{'bits/char':>{BITS_WIDTH}}  goes on with"
        self.query_one("#header", Drawing).show(lambda width, _: Content(truncate(heading, width)))
        self.follow_cursor(self._show_heads)
        self._read_line()
        self.scoring.start(data.comparison.iter_progress)

    def on_resize(self, event: events.Resize) -> None:
        self.set_class(event.size.height >= BOTH_HEIGHT, "-both")
        self._show_models()

    def on_unmount(self) -> None:
        self.scoring.cancel()

    @property
    def is_idle(self) -> bool:
        return super().is_idle and not self.scoring.is_running

    def reveal(self, pane: Widget) -> None:
        if isinstance(pane, OptionList) or pane.id == "heads":
            self.set_class(isinstance(pane, OptionList), "-models")

    @on(Input.Changed)
    def _read_line(self) -> None:
        if self.data is None:
            return
        data, line = self.data, self.line.text.rpartition("\n")[2]
        slow = is_slow(data.transformer.model)
        if not slow:
            self._show_attention(data.read_line(line))
        scored = {
            index: each.model
            for index, each in data.comparison.scored.items()
            if self._continuations.get(index, ("\n",))[0] != line
        }

        def read(cancelled: Cancellation) -> Iterator[LineAttention | tuple[int, tuple[str, str, str]] | None]:
            cancelled.wait(TYPING_PAUSE)
            if slow and not cancelled():
                yield data.read_line(line)
            for index, model in scored.items():
                if cancelled():
                    return
                yield index, (line, *continue_line(model, line, MAX_NEXT_TOKENS, cancelled))

        self.work.start(read)

    def receive(self, items: list[Any]) -> None:
        for item in items:
            if isinstance(item, tuple):
                self._continuations[item[0]] = item[1]
            else:
                self._show_attention(item)
        self._show_models()

    # Heads

    def _show_attention(self, attention: LineAttention | None) -> None:
        self.attention = attention
        if attention is not None and self.head < 0:
            heads = attention.weights.reshape(-1, *attention.weights.shape[2:])
            stories = [tell_head(attention.names, weights) != NO_STORY for weights in heads]
            strongest = heads[:, -1, 1:-1].max(axis=1, initial=0).tolist()
            self.head = max(range(len(heads)), key=lambda head: (stories[head], strongest[head]))
        self._show_heads()

    @property
    def position(self) -> int:
        """Position of the word that looks back: the one at the text cursor."""
        assert self.attention is not None
        starts, cursor = self.attention.starts, self.line.input.cursor_position
        place = int(np.searchsorted(np.maximum.accumulate(starts), max(1, cursor), side="left")) - 1
        return max(1, min(place, len(starts) - 1))

    def head_weights(self, head: int) -> Float32Array:
        """Return the weights `[positions]` of a head, from the start of the text to the word that looks."""
        assert self.attention is not None
        layer, index = divmod(head, self.attention.weights.shape[1])
        weights: Float32Array = self.attention.weights[layer, index, self.position, : self.position + 1]
        return weights

    def _show_heads(self) -> None:
        if self.attention is None:
            hint = Content.styled("Type a word; each head looks back from it.", MUTED)
            self.query_one("#heads", Drawing).show(lambda *_: hint)
            return
        self.query_one("#heads", Drawing).show(self._paint_heads)
        strongest = strongest_earlier(self.head_weights(self.head))
        if self.line.is_edited and strongest is not None and strongest[1] > GOAL:
            self.finish_part(0)

    def _paint_heads(self, width: int, height: int) -> Content:
        assert self.attention is not None
        names, position, weights = self.attention.names, self.position, self.head_weights(self.head)
        num_layers, num_heads, *_ = self.attention.weights.shape
        layer, index = divmod(self.head, num_heads)
        num_cells = max(1, width - LABEL_WIDTH - 1 - STRONGEST_WIDTH)
        padded = [set_cell_size(name, max(MIN_COLUMN_WIDTH, cell_len(name))) for name in names]
        self._columns = columns = named_columns(padded, num_cells, 0, position)
        total = num_layers * num_heads
        count = max(1, min(total, height - NUM_HEADING_LINES - 1)) if height else total
        first = max(0, min(self.head - count // 2, total - count))
        self._visible_heads = range(first, first + count)
        shown = columns.first_positions.tolist()
        end = " " * max(0, min(num_cells, 58) + 1 - sum(columns.widths) - len(shown))
        words: list[tuple[str, str]] = []
        numbers: list[tuple[str, str]] = []
        for name, cells, place in zip(columns.names, columns.widths, shown, strict=True):
            style = "bold underline" if place == position else MUTED if place == 0 or place > position else ""
            words += [(name, style), (" ", "")]
            weight = format_weight(float(weights[place])) if place <= position else ""
            numbers.append((weight.ljust(cells + 1), "bold" if weight and weights[place] >= THRESHOLDS[-2] else ""))
        rows = [
            Content(truncate(describe_head(f"Layer {layer + 1}, head {index + 1}", names, weights), width)),
            Content.styled(truncate(tell_head(names, self.attention.weights[layer, index]), width), MUTED),
            Content.assemble(("‹ " if shown[0] else "").rjust(LABEL_WIDTH), *words, (f"{end}most at", MUTED)),
            Content.assemble((" weight".ljust(LABEL_WIDTH), MUTED), *numbers, (f"{end}earlier", MUTED)),
        ]
        for head in self._visible_heads:
            of_head = self.head_weights(head)
            name, is_selected = f"L{head // num_heads + 1} head {head % num_heads + 1}", head == self.head
            levels = shade_levels(columns.reduce(of_head)).tolist()
            shades = "".join(f"{SHADES[level] * cells} " for level, cells in zip(levels, columns.widths, strict=True))
            strongest = strongest_earlier(of_head)
            text = "" if strongest is None else format_weight(strongest[1])
            style = "bold $accent" if is_selected else ""
            label = f"{SELECTED_MARK if is_selected else ' '}{name:<{LABEL_WIDTH - 1}}"
            rows.append(Content.assemble((label, style), (f"{shades}{end}", "$accent"), (f"{text:>7}", style)))
        legend = "  ".join(f"{shade} {100 * least:.0f} %" for shade, least in zip(SHADES[1:], THRESHOLDS, strict=True))
        if count < total:
            legend += f" · heads {first + 1}-{first + count} of {total}"
        return Content("\n").join([*rows, Content.styled(truncate(legend, width), MUTED)])

    def action_step_head(self, offset: int) -> None:
        if self.attention is not None:
            num_layers, num_heads, *_ = self.attention.weights.shape
            self.head = max(0, min(self.head + offset, num_layers * num_heads - 1))
            self._show_heads()

    def action_step_layer(self, offset: int) -> None:
        if self.attention is not None:
            num_layers, num_heads, *_ = self.attention.weights.shape
            if 0 <= self.head + offset * num_heads < num_layers * num_heads:
                self.action_step_head(offset * num_heads)

    @on(Drawing.Clicked, "#heads")
    def _select(self, event: Drawing.Clicked) -> None:
        line = event.y - NUM_HEADING_LINES
        if self.attention is None or self._columns is None:
            return
        if 0 <= line < len(self._visible_heads):
            self.action_step_head(self._visible_heads[line] - self.head)
        elif (column := self._columns.column_at(event.x - LABEL_WIDTH)) is not None and line >= -2:
            position = int(self._columns.first_positions[column])
            self.line.input.cursor_position = max(0, int(self.attention.starts[position]) + 1)

    # Models

    def _receive_scores(self, items: list[tuple[int, str]]) -> None:
        self._statuses.update(items)
        if any(not text for _, text in items):
            self._read_line()
        self._show_models()

    def _end_scoring(self) -> None:
        if self.data is not None and self.data.comparison.missing:
            self.scoring.start(self.data.comparison.iter_progress)
        self._check_best()

    @on(OptionList.OptionSelected)
    def _load_selected(self, event: OptionList.OptionSelected) -> None:
        self._is_model_chosen = True
        self._check_best()
        if self.data is not None and not self.data.comparison.is_wanted(event.option_index):
            self.data.comparison.requested |= {event.option_index}
            if not self.scoring.is_running:
                self.scoring.start(self.data.comparison.iter_progress)
            self._show_models()

    @on(OptionList.OptionHighlighted)
    def _select_model(self) -> None:
        self._is_model_chosen = True
        self._show_models()
        self._check_best()

    def _check_best(self) -> None:
        best = None if self.data is None else self.data.comparison.best
        is_best = best is not None and self.query_one(OptionList).highlighted == best
        if self._is_model_chosen and is_best and self.line.text.strip():
            self.finish_part(1)

    def _show_models(self) -> None:
        if self.data is None:
            return
        comparison, models, line = self.data.comparison, self.query_one(OptionList), self.line.text.rpartition("\n")[2]
        room = max(0, models.size.width - MODEL_NAME_WIDTH - BITS_WIDTH - 4)
        for index, model in enumerate(comparison.models):
            outcome, (read, text, _) = comparison.outcomes.get(index), self._continuations.get(index, ("", "", ""))
            bits = f"{outcome.bits.bits_per_character:.2f}" if isinstance(outcome, ScoredModel) else MISSING
            if outcome is None and comparison.is_wanted(index):
                bits, text = "…", self._statuses.get(index, "")
            elif not isinstance(outcome, ScoredModel):
                text = outcome or "enter loads it: 135 M weights"
            style = "" if isinstance(outcome, ScoredModel) and read == line else MUTED
            name = f" {fit_cells(model.name, MODEL_NAME_WIDTH)}{bits:>{BITS_WIDTH}}  "
            models.replace_option_prompt_at_index(index, Content.assemble(name, (truncate(text, room), style)))
        index = models.highlighted or 0
        lines = [Content(comparison.models[index].description)]
        if isinstance(outcome := comparison.outcomes.get(index), ScoredModel):
            lines.append(describe_bits(outcome, len(comparison.lines)))
        if index in self._continuations:
            lines.append(Content.assemble(("most likely next  ", MUTED), self._continuations[index][2]))
        self.query_one("#details", Drawing).show(lambda *_: Content("\n").join(lines))


def strongest_earlier(weights: Float32Array) -> tuple[int, float] | None:
    """Return the earlier word with the largest weight `[positions]`, and the weight; None for the first word.

    The start of the text is not a word, and the word itself, which is the last, is not an earlier one.
    """
    earlier = weights[1:-1]
    position = 1 + int(np.argmax(earlier)) if len(earlier) else 0
    return (position, float(weights[position])) if position else None


def format_weight(weight: float) -> str:
    """Return a weight as a percentage of at most four cells."""
    return "100%" if weight >= 0.995 else f"{100 * weight:.0f} %"


def describe_head(name: str, words: Sequence[str], weights: Float32Array) -> str:
    """Return a sentence about the weights `[positions]` of a head from the start of a line to the word that looks."""
    text = f'{name}: "{words[len(weights) - 1]}"'
    if (strongest := strongest_earlier(weights)) is None:
        return f"{text} is the first word, so it can look only at the start and at itself"
    position, weight = strongest
    return f'{text} looks {format_weight(weight)} at "{words[position]}", {format_weight(float(weights[-1]))} at itself'


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


def continue_line(model: LanguageModel, line: str, max_tokens: int, cancelled: Cancellation) -> tuple[str, str]:
    """Return the most likely token each time up to the end of the line, and the most likely next tokens."""
    ids = encode_line(model, line)
    state = prefill_prompt(model, ids)
    [top_ids], [top_log_probs] = top_tokens(state.log_probs[None], NUM_LIKELY)
    likely = "  ".join(
        f"{format_lone_token(model.tokenizer.tokens[id], ends_text=reads_line_ends(model))} {format_percent(prob)}"
        for id, prob in zip(top_ids.tolist(), np.exp(top_log_probs).tolist(), strict=True)
    )
    settings = SamplerSettings(temperature=0, max_tokens=max_tokens)
    return continue_text(model, state, ids, settings, 0, cancelled, to_line_end=True), likely


def describe_bits(scored: ScoredModel, num_lines: int) -> Content:
    """Return how the bits per character of a model are made up."""
    bits = scored.bits
    text = f" bits per character of {num_lines} held-out lines as written"
    if isinstance(scored.model.tokenizer, WordTokenizer):
        words, writing = bits.token_bits / bits.num_characters, bits.orthography_bits / bits.num_characters
        text = f" = {words:.2f} words + {writing:.2f} capitals, punctuation · {num_lines} held-out lines"
    return Content.assemble((f"{bits.bits_per_character:.2f}", "bold"), text)
