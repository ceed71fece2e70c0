"""Figure of a chapter that needs no model, for tests of the screen around it."""

from textual import on
from textual.widgets import Static

from lotr_tui.screens.learn.figure import ChapterFigure
from lotr_tui.widgets.slider import Slider


class SliderFigure(ChapterFigure[int]):
    def compose_figure(self):
        yield Slider("value", [str(value) for value in range(10)], help_line="A value of the test", id="value")
        yield Static(id="shown")

    def load(self, cancelled):
        yield "loading the test …"
        return 7

    def show_data(self, data):
        self.query_one("#shown", Static).update(f"loaded {data}")

    @on(Slider.Changed)
    def _finish_part(self):
        value = self.query_one(Slider).index
        self.query_one("#shown", Static).update(f"value {value}")
        if value:
            self.finish_part(value - 1)


class FailingFigure(SliderFigure):
    def load(self, cancelled):
        yield "loading the test …"
        raise ValueError("the model\nis broken")
