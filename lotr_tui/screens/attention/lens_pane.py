"""Pane with the prediction of each layer for the token under the cursor (logit lens), computed in a thread."""

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content

from engine.analysis.activations import LayerPrediction, logit_lens
from engine.data.tokenizers.base import Tokenizer
from engine.errors import describe_error
from engine.models.attention import AttentionModel
from lotr_tui.background_task import BackgroundTask
from lotr_tui.screens.attention.layer_predictions import HEADER, LayerPredictions
from lotr_tui.screens.attention.reading import AttentionReading
from lotr_tui.theme import MUTED
from lotr_tui.widgets.status_bar import StatusBar

NUM_PREDICTIONS = 10
"""Number of likely tokens of each layer."""
POLL_INTERVAL = 0.02
"""Seconds between two looks for computed predictions."""


class LogitLensPane(Vertical):
    """Headings and the list of the layers. The predictions for each visited token are kept."""

    def __init__(self, model: AttentionModel | None, tokenizer: Tokenizer, *, id: str | None = None) -> None:
        """Start without predictions; `model` makes them, with tokens of `tokenizer`."""
        super().__init__(id=id)
        self._model = model
        self._tokenizer = tokenizer
        self._reading: AttentionReading | None = None
        self._token = 0
        self._predictions: dict[int, tuple[LayerPrediction, ...]] = {}  # of the layers, by token
        self._prediction_task: BackgroundTask[tuple[int, tuple[LayerPrediction, ...]]] = BackgroundTask(
            self, "logit-lens", self._store, self._show_failure, interval=POLL_INTERVAL
        )

    @property
    def is_computing(self) -> bool:
        """True while predictions are computed."""
        return self._prediction_task.is_running

    def compose(self) -> ComposeResult:
        """Yield the headings and the list."""
        yield StatusBar(id="lens-heading")
        yield StatusBar(id="lens-columns")
        yield LayerPredictions(ends_text=self._tokenizer.reads_line_ends, id="lens")

    def on_unmount(self) -> None:
        """Stop the thread."""
        self._prediction_task.cancel()

    def clear(self) -> None:
        """Show nothing, and drop the predictions."""
        self._prediction_task.cancel()
        self._reading, self._predictions = None, {}
        self._show_heading("")
        self.query_one("#lens-columns", StatusBar).show(Content(""))
        self.query_one(LayerPredictions).clear()

    def show(self, reading: AttentionReading, token: int, layer: int) -> None:
        """Show the predictions for a token of a text, with the cursor on a layer; compute them first if necessary."""
        self._reading, self._token = reading, token
        lens = self.query_one(LayerPredictions)
        lens.show_layer(layer)
        self._show_heading(f'prediction of each layer for "{reading.token_name(token)}"')
        self.query_one("#lens-columns", StatusBar).show(Content.styled(HEADER, MUTED))
        if token in self._predictions:
            target = self._tokenizer.tokens[int(reading.page.tokens.ids[token])]
            lens.show(self._predictions[token], target)
            return
        lens.show_stale()
        if not self._prediction_task.is_running:  # otherwise `_store` asks for the token under the cursor then
            self._prediction_task.start(lambda _: iter([(token, self._predict(reading, token))]))

    def _predict(self, reading: AttentionReading, token: int) -> tuple[LayerPrediction, ...]:
        """Return the prediction of each layer for a token; called in a thread."""
        assert self._model is not None, "there is attention"
        target = int(reading.page.tokens.ids[token])
        return logit_lens(self._model, reading.record, reading.query_position(token), target, NUM_PREDICTIONS)

    def _store(self, results: list[tuple[int, tuple[LayerPrediction, ...]]]) -> None:
        self._predictions.update(results)
        self._prediction_task.cancel()  # it has delivered its only item
        if self._reading is not None:
            self.show(self._reading, self._token, max(0, self.query_one(LayerPredictions).cursor - 1))

    def _show_failure(self, error: BaseException) -> None:
        self.query_one(LayerPredictions).clear()
        self._show_heading(f"failed: {describe_error(error)}")

    def _show_heading(self, text: str) -> None:
        heading = Content.assemble(("logit lens", "bold"), (f" · {text}", MUTED)) if text else Content("")
        self.query_one("#lens-heading", StatusBar).show(heading)
