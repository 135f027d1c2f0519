"""What is a norm, and what its input: one recogniser, and the proof that each norm gives of what it is taken for."""

from gradlens.recognition.kinds import NormKind
from gradlens.recognition.known import TORCH_KINDS, Taken, looks_like_norm, recognise, register_norm

__all__ = ["TORCH_KINDS", "NormKind", "Taken", "looks_like_norm", "recognise", "register_norm"]
