"""Diagnoses of a training: detectors that read its events and report each problem once, with a remedy."""
