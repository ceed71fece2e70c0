"""What all steps need to know."""

import os
from dataclasses import dataclass
from pathlib import Path

from tests.support.files import CHECKOUT, sentences, write_csv


@dataclass(frozen=True)
class StepOptions:
    """Options of one step."""

    folder: Path
    """Folder of results; `home` in it is `LOTR_TUI_HOME`."""
    device: str
    """`cuda`, or `cpu` to try the steps with tiny budgets."""
    seconds: float
    """Time limit, including the start of the process."""

    @property
    def is_gpu(self) -> bool:
        """True for the real checks, False for a trial without a GPU."""
        return self.device == "cuda"

    @property
    def data(self) -> Path:
        """Folder with the texts `ptb` and `tales`."""
        return Path(os.environ.get("LOTR_TUI_SHARED") or CHECKOUT.parent / "shared").resolve() / "data"

    def corpus_values(self) -> dict[str, str]:
        """Return the settings of the corpus: none on a GPU, for the bundled dialogues; otherwise a few lines."""
        if self.is_gpu:
            return {}
        path = self.folder / "lines.csv"
        if not path.exists():
            write_csv(path, sentences(200))
        return {"corpus": str(path)}
