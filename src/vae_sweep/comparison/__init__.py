"""Rows in, verdicts out. Pure: no torch, no MLflow."""
