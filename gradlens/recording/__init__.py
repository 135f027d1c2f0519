"""What is kept: the schema, the read-only ``Recording``, and the run folder on disk."""

from gradlens.recording.reading import load
from gradlens.recording.recording import Recording
from gradlens.recording.schema import SCHEMA_VERSION, TABLES
from gradlens.recording.store import RunWriter

__all__ = ["SCHEMA_VERSION", "TABLES", "Recording", "RunWriter", "load"]
