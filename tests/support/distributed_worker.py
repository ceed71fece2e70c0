"""What `test_distributed.py` has several processes do: each configuration of a file trained whole, then interrupted.

    torchrun --nproc-per-node 2 -m tests.support.distributed_worker FOLDER

`FOLDER/configurations.json` lists them; `FOLDER/told.json` says what came of it.
"""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import engine.training.trainer
from engine.config import Config
from engine.data.dataset import Dataset, prepare
from engine.events import Evaluated, Finished, Snapshot, Step
from engine.runtime.distributed import World, join
from engine.training.checkpoint import Saved
from engine.training.run import train

Told = dict[str, Any]
"""What a training tells: `steps`, `evaluated` and `test`, numbers that do not depend on the clock, and its `bits`."""


@patch.object(engine.training.trainer, "REPORT_SECONDS", 0.0)
def tell(config: Config, dataset: Dataset, world: World, stop: float = float("inf"), saved: Path | None = None) -> Told:
    """Train, until update `stop` at most; what is saved then is `told["snapshot"]`."""
    told: Told = {"steps": [], "evaluated": []}
    done = 0

    def cancelled() -> bool:
        return done >= stop

    start = None if saved is None else Saved(saved)
    for event in train(config, dataset, "a-run", cancelled, saved=start, world=world):
        if isinstance(event, Step):
            done = event.step
            told["steps"].append([event.step, event.train_perplexity, event.gradient_norm, event.lr])
        elif isinstance(event, Evaluated):
            told["evaluated"].append([event.step, event.valid_perplexity, event.best])
        elif isinstance(event, Snapshot):
            told["snapshot"] = event.content
        elif isinstance(event, Finished):
            told["test"] = event.test_perplexity
            weights = sorted(event.model.weights.items())  # type: ignore[attr-defined]
            told["bits"] = hashlib.sha256(b"".join(value.tobytes() for _, value in weights)).hexdigest()
    return told


def main(folder: Path) -> None:
    configs = [Config.from_json(text, "") for text in json.loads((folder / "configurations.json").read_text())]
    dataset = prepare(configs[0].data)
    results = []
    with join() as world:
        for config in configs:
            whole = tell(config, dataset, world)
            half = world.share(lambda whole=whole: len(whole["steps"]) // 2)  # type: ignore[misc]
            first = tell(config, dataset, world, stop=half)
            if world.place.first:
                (folder / "resume").write_bytes(first.pop("snapshot"))
            world.share(lambda: "it is written")
            rest = tell(config, dataset, world, saved=folder / "resume")
            results.append({"whole": whole, "first": first, "rest": rest, "heard": len(whole["steps"])})
        if world.place.first:
            (folder / "told.json").write_text(json.dumps(results))
        else:
            (folder / f"heard-{world.place.rank}.json").write_text(json.dumps([each["heard"] for each in results]))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
