"""Which faults the findings name, and whether healthy runs stay quiet. Run: ``make calibration``."""
