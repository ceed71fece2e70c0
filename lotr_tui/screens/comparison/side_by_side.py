"""Side by side: one prompt, one seed, a model a column."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widget import Widget
from textual.widgets import Input, Label, OptionList, Static
from textual.widgets.option_list import Option

from engine.config import BUNDLED
from engine.errors import printable, reason_of
from engine.generation.settings import SamplerSettings
from engine.runs.store import KeptEpoch, at_epoch, kept_epochs, list_runs, load, resolve
from engine.runtime.worker import Cancellation, Worker
from lotr_tui.formatting import model_row, run_row
from lotr_tui.screens.comparison.columns import Against, ColumnText
from lotr_tui.screens.comparison.screen import ColumnsScreen, shown_temperature, step_temperature
from lotr_tui.session.column_writers import Slot
from lotr_tui.session.player import Player
from lotr_tui.textual_fixes.rows import Rows
from lotr_tui.textual_fixes.screen import Steady
from lotr_tui.widgets.number_field import NumberField

MOST = 3


@dataclass(frozen=True)
class Choice:
    """A model that can be had of a run."""

    kind: Literal["run", "kneser-ney", "mixture"]
    run: str
    """A name in the runs folder, a path, or "bundled"."""
    epoch: int | None = None
    """Of a run's models the one kept then; None: the best."""

    @property
    def name(self) -> str:
        """What it is called."""
        run = printable(Path(self.run).name)
        model = run if self.epoch is None else at_epoch(run, self.epoch)
        return {"run": model, "kneser-ney": "Kneser-Ney", "mixture": f"{run} + Kneser-Ney"}[self.kind]

    @property
    def waiting(self) -> str:
        """What is done until it is there."""
        return {
            "run": "loading …",
            "kneser-ney": "counting the n-grams of its text …",
            "mixture": "counting the n-grams of its text, then choosing the weights on validation …",
        }[self.kind]


def load_choice(choice: Choice, runs_dir: Path | None) -> Player:
    """Load a run's model, count Kneser-Ney on what it was trained on, or mix both; may take some seconds.

    Raises:
        UnusableInput: there is no such run or epoch, it is damaged, or its corpus cannot be read again.
    """
    loaded = load(resolve(choice.run, runs_dir), choice.epoch)
    if choice.kind == "run":
        return Player.of(loaded)
    # Only here: whoever compares runs alone needs no corpus.
    from engine.analysis.perplexity import evaluate
    from engine.runs.combine import Combination, Combiner

    combiner = Combiner([loaded])
    corpus = loaded.config.data.corpus
    if choice.kind == "mixture":
        combined = combiner.combine(Combination(mixture=True))
        valid = evaluate(combined.model, combiner.dataset.valid).perplexity
        return Player(choice.name, f"{combined.describe()} · valid {valid:.1f}", combined.model, corpus, loaded.path)
    model = combiner.kneser_ney
    known = loaded.kneser_ney_perplexity
    valid = evaluate(model, combiner.dataset.valid).perplexity if known is None else known
    return Player(choice.name, f"{model.order}-gram counts · valid {valid:.1f}", model, corpus, loaded.path)


class SideBySideScreen(ColumnsScreen):
    """Two or three models. Those of one vocabulary share the noise of every word as well as the seed."""

    NAME: ClassVar[str] = "side by side"
    NARROWEST: ClassVar[int] = 24  # three of them in 80 cells, and a run's name in each
    AGAINST: ClassVar[Against] = "first"  # models are in no order

    def __init__(
        self,
        player: Player,
        runs_dir: Path | None,
        prompt: str,
        settings: SamplerSettings,
        seed: int | None,
        pace: float,
    ) -> None:
        """Begin with `player`, and beside it Kneser-Ney of the same text where its run is known."""
        super().__init__(prompt, settings, seed, pace)
        self._player = player
        self._runs_dir = runs_dir
        self._loading: list[tuple[Worker[Player], Slot]] = []
        self.slots = [
            Slot(ColumnText(printable(player.name), printable(player.description)), player.model, settings.temperature)
        ]

    def fields(self) -> Iterable[Widget]:
        """One temperature for all."""
        temperature = shown_temperature(self.settings.temperature)
        yield NumberField("temperature", temperature, id="temperature", width=4, placeholder="0.8", decimal=True)

    def title_parts(self) -> tuple[str, str]:
        """The chain, since the models stand over their columns."""
        return "", self.settings.chain()

    def begin(self) -> None:
        """Something to compare with."""
        if self._player.run is not None:
            self._load(Choice("kneser-ney", self._base))
            self.show_slots(0)

    def apply_fields(self) -> None:
        """The temperature that was typed holds for every column.

        Raises:
            UnusableInput: it is out of range.
        """
        temperature = self._temperature()
        self.settings = replace(self.settings, temperature=temperature)
        for slot in self.slots:
            slot.temperature = temperature

    def action_heat(self, steps: int) -> None:
        """All columns hotter or cooler, and written anew."""

        def heat() -> None:
            value = shown_temperature(step_temperature(self._temperature(), steps))
            self.query_one("#temperature Input", Input).value = value

        if self.try_to(heat) and self.asked:
            self.action_run()

    def action_add(self) -> None:
        """Ask which model."""
        if len(self.slots) == MOST:
            self.say(f"{MOST} models are as many as can be read; f4 takes one away", problem=True)
        else:
            kept = kept_epochs(self._player.run) if self._player.run is not None else []
            self.app.push_screen(ChooseColumn(self._base, kept, self._runs_dir), self._load)

    def action_remove(self) -> None:
        """Take the chosen column away; one stays."""
        if len(self.slots) == 1:
            self.say("one column stays; f3 adds another", problem=True)
        else:
            del self.slots[self.chosen]
            self.show_slots()

    def poll(self) -> bool:
        """Take in the models that are there by now."""
        for worker, slot in list(self._loading):
            if worker.running:
                continue
            self._loading.remove((worker, slot))
            players = worker.drain()
            if slot not in self.slots:
                continue  # taken away meanwhile
            if players:
                self._loaded(slot, players[0])
            elif worker.failure is not None:
                self._failed(slot, worker.failure)
        return bool(self._loading)

    @property
    def _base(self) -> str:
        """The run whose text Kneser-Ney counts."""
        run = self._player.run
        return BUNDLED if run is None or run == resolve(BUNDLED) else str(run)

    def _temperature(self) -> float:
        typed = self.query_one("#temperature", NumberField).number()
        return SamplerSettings().temperature if typed is None else SamplerSettings(temperature=typed).temperature

    def _load(self, choice: Choice | None) -> None:
        """A column for `choice`, filled once its model is there."""
        if choice is None:
            return

        def source(_: Cancellation) -> Iterator[Player]:
            yield load_choice(choice, self._runs_dir)

        slot = Slot(ColumnText(choice.name, waiting=choice.waiting), None, self.settings.temperature)
        self.slots.append(slot)
        self._loading.append((Worker("loading", source).start(), slot))
        self.show_slots(len(self.slots) - 1)
        self.watch_workers()

    def _loaded(self, slot: Slot, player: Player) -> None:
        slot.model, slot.temperature = player.model, self.settings.temperature
        slot.text.title, slot.text.about = printable(player.name), printable(player.description)
        slot.text.waiting = ""
        self.show_slots()
        self.start_blank()

    def _failed(self, slot: Slot, failure: BaseException) -> None:
        self.slots.remove(slot)
        self.show_slots()
        self.say(f"{slot.text.title}: {reason_of(failure)}", problem=True)


class ChooseColumn(Steady, ModalScreen[Choice | None]):
    """Lists the models that can stand in a column; dismissed with one, or None."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss(None)", "cancel", id="choose-column.cancel", tooltip="Add none"),
    ]

    def __init__(self, base: str, kept: Sequence[KeptEpoch], runs_dir: Path | None) -> None:
        """Offer the runs of a folder, what can be made of the run `base`, and the epochs that it has `kept`."""
        super().__init__()
        runs = [run for run in list_runs(runs_dir) if run.valid_perplexity is not None]
        mixture = Choice("mixture", base)
        epochs = [(Choice("run", base, item.epoch), item) for item in kept]
        self._rows = [
            (Choice("kneser-ney", base), f"Kneser-Ney, counted on the text of {printable(Path(base).name)}"),
            (mixture, f"{mixture.name}, weights chosen on validation"),
            *(
                (choice, model_row(choice.name, f"epoch {item.epoch}", item.valid_perplexity))
                for choice, item in epochs
            ),
            (Choice("run", BUNDLED), "bundled"),
            *((Choice("run", str(run.path)), run_row(run)) for run in runs),
        ]

    def compose(self) -> ComposeResult:
        """What counts, what mixes, the epochs of the run at hand, then the runs, latest first."""
        with Vertical(classes="dialog"):
            yield Label("Which model stands beside?", classes="dialog-title")
            yield Rows(*(Option(text) for _, text in self._rows), id="models", markup=False)
            yield Static("enter chooses   esc cancels", classes="dialog-keys", markup=False)

    @on(OptionList.OptionSelected)
    def _chosen(self, event: OptionList.OptionSelected) -> None:
        self.dismiss(self._rows[event.option_index][0])
