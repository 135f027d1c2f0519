"""The laboratory: models, tasks and trainings that the instrument is tried on. The instrument needs none of it."""
