"""Faults by name: `python -m tests.faults hostile_models --mutations 1000`; without a name, what names there are."""

import runpy
import sys

FORMS = ("hostile_files", "hostile_models", "interruptions")

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in FORMS:
        sys.exit(f"usage: python -m tests.faults {{{','.join(FORMS)}}} [options]")
    runpy.run_module(f"tests.faults.{sys.argv.pop(1)}", run_name="__main__")
