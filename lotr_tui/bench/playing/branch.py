"""From an alternative that is chosen to the words of its branch, behind 500 words."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

from engine.data.vocabulary import EOS_ID
from engine.generation.generate import ALTERNATIVES
from lotr_tui.bench.figures import Figure, median
from lotr_tui.bench.subjects import PROMPT, never_end

WORDS = 500
TIMES = 10
"""Branches a run."""


def branch(repeat: int, words: int = WORDS) -> Iterator[Figure]:
    """In a process of its own, without a screen; the median of a run's branches is the run's figure."""
    runs = []
    for _ in range(repeat):
        with tempfile.TemporaryDirectory() as home:
            command = [sys.executable, "-m", "lotr_tui.bench.playing.branch", str(words)]
            output = subprocess.run(command, env=os.environ | {"LOTR_TUI_HOME": home}, capture_output=True, check=True)
        runs.append(1000 * float(output.stdout))
    yield median(f"branch after {words:,} words, to the first word drawn there", "ms", runs, 10)


def branch_seconds(words: int) -> list[float]:
    """Have the bundled model say so many words, and branch at the last of them, to one alternative after another."""
    from engine.generation.settings import SamplerSettings
    from lotr_tui.session.conversation import Conversation, Reply
    from lotr_tui.session.player import open_player

    never_end()
    conversation = Conversation(0)
    player = open_player([], None)

    def wait(reply: Reply, number: int) -> None:
        while len(reply.words) < number and reply.done is None:
            time.sleep(0.0001)
            conversation.poll()

    def ended() -> None:
        while conversation.writing is not None:
            time.sleep(0.001)
            conversation.poll()

    said = conversation.prompt(player, PROMPT, "continue", SamplerSettings(max_tokens=words), 0, None)
    ended()
    reading = said.reading(words - 1)
    assert reading is not None
    likely = reading.log_probs.argsort()[::-1].tolist()
    others = [id for id in likely if id not in (said.words[-1].id, EOS_ID)][:ALTERNATIVES]
    seconds = []
    for number in range(TIMES):
        started = time.perf_counter()
        new = conversation.branch(said, words - 1, others[number % len(others)], SamplerSettings(max_tokens=1), number)
        wait(new, words + 1)  # the alternative, and the first word that is drawn behind it
        seconds.append(time.perf_counter() - started)
        ended()
    conversation.close()
    return seconds


if __name__ == "__main__":
    import statistics

    print(statistics.median(branch_seconds(int(sys.argv[1]))))
