"""Predictions to set beside measurements: pure functions, one file a paper (numpy and scipy only)."""
