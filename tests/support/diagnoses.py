"""Hand-made observations of a training, and what the detectors say about them."""

from engine.config import Config
from engine.events import Evaluated, Started, Step
from engine.training.diagnostics.detector import Finding, TrainingSetup
from engine.training.diagnostics.diagnose import Diagnostician

STARTED = Started("r", "tiny", 1_000_000, 879, 19_022, 2_227, 10, "cpu", "", 150.0, 90.0)


def setup(**values):
    """Return the setup of a run called "r" with some settings."""
    return TrainingSetup(Config().with_values(epochs=100, **values), "r")


def step(number, train_perplexity=80.0, gradient_norm=0.3, lr=0.01):
    """Return the report of a step; a hundred steps are an epoch."""
    return Step(number, number / 100, train_perplexity, lr, gradient_norm, 900.0, number / 4, 5.0)


def steps(*perplexities):
    """Return reports with these training perplexities."""
    return [step(number, perplexity) for number, perplexity in enumerate(perplexities, 1)]


def norms(*gradient_norms):
    """Return reports with these gradient norms."""
    return [step(number, gradient_norm=norm) for number, norm in enumerate(gradient_norms, 1)]


def evaluations(*perplexities):
    """Return evaluations before the first step and after each epoch."""
    return [
        Evaluated(epoch * 100, float(epoch), perplexity, perplexity <= min(perplexities[: epoch + 1]), epoch * 2.0)
        for epoch, perplexity in enumerate(perplexities)
    ]


def first_finding(detector, observations, **values):
    """Return the index of the first observation with a finding, and the finding; None if there is none."""
    training = setup(**values)
    for index, observation in enumerate(observations):
        detector, outcome = detector.observe(observation, training)
        if isinstance(outcome, Finding):
            return index, outcome
    return None


def diagnoses(observations, **values):
    """Return what all detectors report."""
    diagnostician = Diagnostician(setup(**values))
    return [diagnosis for observation in observations for diagnosis in diagnostician.observe(observation)]
