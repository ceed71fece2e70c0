"""Diagnoses of a training that are still valid."""

from collections.abc import Sequence

from engine.events import Diagnosed, Evaluated

UNIGRAM_FRACTION = 0.9
"""Fraction of the unigram perplexity from which a model clearly uses the context."""


def current_diagnoses(
    diagnoses: Sequence[Diagnosed],
    evaluations: Sequence[Evaluated],
    checkpoint_step: int | None,
    unigram_perplexity: float,
) -> list[Diagnosed]:
    """Return the diagnoses that later events have not made invalid, oldest first.

    A new best model ends a diagnosis about learning, and a written checkpoint one about the disk.
    """

    def is_outdated(diagnosis: Diagnosed) -> bool:
        if diagnosis.kind == "idle_gpu":
            return False
        if diagnosis.kind == "disk_space":
            return checkpoint_step is not None and checkpoint_step > diagnosis.step
        later = [event for event in evaluations if event.step > diagnosis.step]
        if diagnosis.kind == "unigram_model":
            return any(event.valid_perplexity < UNIGRAM_FRACTION * unigram_perplexity for event in later)
        return any(event.is_best for event in later)

    return [diagnosis for diagnosis in diagnoses if not is_outdated(diagnosis)]
