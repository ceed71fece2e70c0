"""Text of the training dashboard."""

from lotr_tui.screens.dashboard.panes import MetricTiles, TrainingMetrics
from lotr_tui.widgets.charts import PerplexityChart
from tests.support.pilot import text_of


def dashboard_text(app):
    """Return the status line and the first lines of the metrics, the tiles and the chart."""
    widgets = [app.screen.query_one(kind) for kind in (TrainingMetrics, MetricTiles, PerplexityChart)]
    lines = [widget.render_line(row).text for widget in widgets for row in range(3)]
    return "\n".join([text_of(app.screen.query_one("#status")), *lines])
