"""A record of a finished run with as many steps as wanted."""

import json

from engine import events
from engine.runs.directory import METRICS_FILE, SAMPLES_FILE


def write_long_run(path, num_steps):
    """Write the metrics and samples of a run with `num_steps` steps, an evaluation at every third, and a sample."""
    path.mkdir(parents=True)
    rows = [events.Started(path.name, "tiny", 752_239, 879, 19_022, 2_227, num_steps, "cpu", "", 150.9, 90.8)]
    for number in range(1, num_steps + 1):
        rows.append(events.Step(number, number, 60 + number * 7919 % 1009 / 100, 0.006, 0.2, 9000.0, number, 0.0))
        if number % 3 == 0:
            valid = 70 + 80 * (1 - number / num_steps) ** 2
            rows.append(events.Evaluated(number, number, valid, is_best=True, seconds=number))
    rows.append(events.Finished("done", path.name, num_steps, 70.0, 72.3, num_steps))
    sample = events.Sampled(num_steps, num_steps, "bilbo baggins is", "a friend of mine", seed=0, temperature=0.7)
    for name, written in ((METRICS_FILE, rows), (SAMPLES_FILE, [sample])):
        (path / name).write_text("".join(json.dumps(events.event_to_dict(event)) + "\n" for event in written))
