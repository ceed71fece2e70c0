"""Latency from the choice of an alternative to the first word of its branch, after 500 words.

`python -m lotr_tui.bench.playing.branch NUM_TOKENS` prints the median in seconds.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Iterator

from engine.data.tokenizers.base import EOS_ID
from engine.generation.generate import NUM_TOP_TOKENS
from engine.generation.settings import SamplerSettings
from lotr_tui.bench.endless_session import disable_eos
from lotr_tui.bench.measurement import Measurement, median_of_runs
from lotr_tui.bench.processes import run_module
from lotr_tui.bench.programs import PROMPT
from lotr_tui.session.conversation.conversation import Conversation
from lotr_tui.session.session_model import load_session_model

NUM_TOKENS = 500
"""Words before the branch."""
BRANCHES_PER_RUN = 10


def measure_branch(repeat: int) -> Iterator[Measurement]:
    """Measure branches without a screen, in a new process for each run; the value of a run is its median."""
    runs = []
    for _ in range(repeat):
        with tempfile.TemporaryDirectory() as home:
            seconds = run_module("lotr_tui.bench.playing.branch", NUM_TOKENS, env={"LOTR_TUI_HOME": home})
        runs.append(1000 * float(seconds))
    yield median_of_runs(f"branch after {NUM_TOKENS} words, to its first sampled word", "ms", runs, 10)


def time_branches(num_tokens: int) -> list[float]:
    """Generate `num_tokens` words, then branch at the last one to different alternatives; return seconds per branch."""
    conversation = Conversation(0)

    def wait_until_idle() -> None:
        while conversation.active_reply is not None:
            time.sleep(0.001)
            conversation.poll()

    settings = SamplerSettings(max_tokens=num_tokens)
    reply = conversation.submit_prompt(load_session_model([], None), PROMPT, "continue", settings, 0, None)
    wait_until_idle()
    state = reply.decoder_state(num_tokens - 1)
    assert state is not None
    likely_ids = state.log_probs.argsort()[::-1].tolist()
    alternatives = [id for id in likely_ids if id not in (reply.tokens[-1].id, EOS_ID)][:NUM_TOP_TOKENS]
    seconds = []
    for number in range(BRANCHES_PER_RUN):
        alternative = alternatives[number % len(alternatives)]
        started = time.perf_counter()
        branch = conversation.branch(reply, num_tokens - 1, [alternative], SamplerSettings(max_tokens=1), number)
        # The branch has the alternative and one sampled word after it.
        while len(branch.tokens) <= num_tokens and branch.done is None:
            time.sleep(0.0001)
            conversation.poll()
        seconds.append(time.perf_counter() - started)
        wait_until_idle()
    conversation.close()
    return seconds


if __name__ == "__main__":
    disable_eos()
    print(statistics.median(time_branches(int(sys.argv[1]))))
