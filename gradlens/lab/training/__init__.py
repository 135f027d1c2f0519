"""Training a model while the lens watches: one trainer, and the sweep over variants, schedules and seeds."""
