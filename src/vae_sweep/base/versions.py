"""Versions of the numbers: raised by hand when they change; tests/test_versions.py says when they must be."""

TRAINING_VERSION = 1  # raise it when a configuration would train, or test, to other numbers than before
METRICS_VERSION = 1  # raise it when the same weights would measure other numbers than before
