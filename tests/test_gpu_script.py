"""Runner of `tests/gpu.sh` with other steps, and the script on a machine without a GPU."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.support.files import CHECKOUT
from tests.support.gpu import __main__ as runner
from tests.support.gpu.steps import STEPS, Step

PROGRAMS = {
    "good": "from pathlib import Path; Path('{folder}/good.result').write_text('one\\ntwo')",
    "bad": "print('lotr-tui: no such run'); raise SystemExit(3)",
    "slow": "import time; time.sleep(60)",
    "last": "from pathlib import Path; Path('{folder}/last.result').write_text('three')",
}


def test_a_step_that_fails_or_hangs_does_not_end_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        runner,
        "step_command",
        lambda step, folder, *_: [sys.executable, "-c", PROGRAMS[step.name].format(folder=folder)],
    )
    steps = [Step(name, lambda _: [], 1 if name == "slow" else 20) for name in PROGRAMS]
    results = runner.run_steps(steps, tmp_path, "cuda")
    assert [result.passed for result in results] == [True, False, False, True]
    assert [result.lines[0] for result in results] == [
        "one", "lotr-tui: no such run (see bad.log)", "not done after 1 s; see slow.log", "three"
    ]  # fmt: skip
    assert (tmp_path / "table.md").read_text().count("**failed**") == 2
    assert capsys.readouterr().out.count("FAILED") == 2
    monkeypatch.setattr(runner, "TOTAL_SECONDS", 0.0)
    (late,) = runner.run_steps(steps[:1], tmp_path, "cuda")
    assert (late.passed, late.lines) == (False, ("no time left",))


def test_time_limits_fit_into_ten_minutes() -> None:
    fixed = sum(step.seconds for step in STEPS)
    shares = [step.limit(runner.TOTAL_SECONDS - fixed, "cuda") for step in STEPS if not step.seconds]
    assert fixed < runner.TOTAL_SECONDS < 600
    assert shares[0] + STEPS[-1].limit(runner.TOTAL_SECONDS - fixed - shares[0], "cuda") <= runner.TOTAL_SECONDS - fixed


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_the_script_says_so_in_one_line(tmp_path: Path) -> None:
    process = subprocess.run([CHECKOUT / "tests" / "gpu.sh", tmp_path / "results"], capture_output=True, text=True)
    assert process.returncode == 2
    assert process.stdout == ""
    (line,) = process.stderr.splitlines()
    assert "finds no GPU" in line
