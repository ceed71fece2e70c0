"""How fast it is on this machine: figures in groups, beside the limits they are held to."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from engine.errors import UnusableInput, nearest
from lotr_tui.bench.figures import Figure, Skipped

Group = Callable[[int], Iterator[Figure | Skipped]]
"""The figures of a group, each of so many runs."""


def measure(
    repeat: int, only: Sequence[str] = (), ptb: Path | None = None, csv: Path | None = None
) -> Iterator[Figure | Skipped]:
    """All figures of the groups `only` (none: of all), one after the other.

    Args:
        repeat: runs of each measurement.
        only: names of groups.
        ptb: the training text of the Penn Treebank; None: where `LOTR_TUI_SHARED` has it.
        csv: the dialogues that are trained on; None: the bundled ones.

    Raises:
        UnusableInput: there is no such group or file, or pyte, which reads the screen from outside, is not installed.
        BenchError: what is measured does not get where it should.
    """
    groups = _groups(ptb, csv)
    for name in only:
        if name not in groups:
            raise UnusableInput(
                f"no group of figures is called {name!r}{nearest(name, groups)} There are: {_listed(groups)}"
            )
    try:
        import pyte  # noqa: F401
    except ImportError as error:
        raise UnusableInput("bench needs pyte to read the screen; pip install 'lotr-tui[dev]'") from error
    for name, group in groups.items():
        if not only or name in only:
            yield from group(repeat)


def _groups(ptb: Path | None, csv: Path | None) -> Mapping[str, Group]:
    from lotr_tui.bench.interface import attach, idle, keys, memory, slider, start_up, stream, transcript
    from lotr_tui.bench.playing import branch, generation, memorization
    from lotr_tui.bench.training import dashboard, distributed, growth, speed

    return {
        "train": lambda repeat: speed.train(repeat, csv),
        "quality": lambda repeat: speed.quality(repeat, csv),
        "start": start_up.start,
        "memory": memory.memory,
        "generate": generation.generation,
        "stream": stream.stream,
        "bytes": stream.bytes_a_word,
        "keys": keys.keys,
        "slider": slider.slider,
        "idle": idle.idle,
        "transcript": transcript.transcript,
        "branch": branch.branch,
        "dashboard": dashboard.dashboard,
        "attach": attach.attach,
        "scale-out": distributed.scale_out,
        "memorised": lambda repeat: memorization.memorised(repeat, ptb),
        "growth": growth.growth,
    }


def _listed(names: Mapping[str, Group]) -> str:
    return ", ".join(names)
