"""Run groups of measurements: `python -m tests.bench GROUP... [--repeat N] [--csv FILE] [--json]`."""

import argparse
import importlib
import json
import sys
from dataclasses import asdict
from pathlib import Path

from tests.bench.measuring import Figure, Skip

MODULES = {
    "training": ("train", "adapter", "quality", "dashboard", "trackers", "scale-out", "growth", "byte-pairs"),
    "playing": ("generate", "transformer-generate", "pretrained", "adapters"),
    "interface": ("start", "memory", "keys", "pretrained-session", "completion", "serve", "api"),
    "comparison": ("comparison",),
    "dialogue": ("dialogue",),
    "steering": ("steering",),
    "gpu": ("gpu",),
}
GROUPS = {name: module for module, names in MODULES.items() for name in names}


def find_group(name):
    """Return the function `measure_NAME`: from options to figures and lines of text, which it yields."""
    return getattr(importlib.import_module(f"tests.bench.{GROUPS[name]}"), f"measure_{name.replace('-', '_')}")


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Measures speed, memory and quality.")
    parser.add_argument("groups", nargs="*", metavar="GROUP")
    parser.add_argument("--list", action="store_true", help="print the groups")
    parser.add_argument("--json", action="store_true", help="print one JSON object per figure")
    parser.add_argument("--repeat", type=int, default=5, help="runs of each measurement (5)")
    parser.add_argument("--csv", type=Path, help="dialogues to train on (the bundled ones)")
    parser.add_argument("--tales", type=Path, help="text to pre-train on, for comparison")
    parser.add_argument("--seconds", type=float, default=180, help="training time of a model there (180)")
    parser.add_argument("--only", default="", help="part of the names of the models to train there")
    parser.add_argument("--run", action="append", default=[], help="runs, for dialogue")
    parser.add_argument("--split", choices=("valid", "test"), default="test", help="split, for dialogue (test)")
    parser.add_argument("--runs-dir", type=Path, default=Path("bench-runs"), help="folder of trained models")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="settings of their trainings")
    options = parser.parse_args()
    if unknown := [name for name in options.groups if name not in GROUPS]:
        parser.error(f"there is no group {unknown[0]!r}; the groups are {', '.join(GROUPS)}")
    if options.list or not options.groups:
        for name in GROUPS:
            print(f"{name:21} {find_group(name).__doc__.splitlines()[0]}")
    for name in options.groups:
        try:
            for result in find_group(name)(options):
                if options.json and isinstance(result, Figure):
                    result = json.dumps({"group": name, "value": result.value, **asdict(result)})
                print(result, flush=True)
        except Skip as reason:
            print(f"{name}: skipped, {reason}", file=sys.stderr)


if __name__ == "__main__":
    main()
