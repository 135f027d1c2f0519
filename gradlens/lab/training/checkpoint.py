"""A run's checkpoint: one file that is either whole or absent, gone once the run is complete."""

from functools import partial
from pathlib import Path
from typing import Any

import torch

from gradlens.errors import RecordingError
from gradlens.recording.whole import write_then_rename


def checkpoint_path(out: Path) -> Path:
    """Return where the checkpoint of the run folder ``out`` lies."""
    return out / "checkpoint.pt"


def save_checkpoint(state: dict[str, Any], out: Path) -> None:
    """Replace the run's checkpoint in one move: a kill leaves the old one or the new one.

    Raises:
        RecordingError: it cannot be written (a full disk); the old one is still there.
    """
    path = checkpoint_path(out)
    try:
        write_then_rename(path, partial(torch.save, state))
    except (OSError, RuntimeError) as error:  # torch's own writer raises RuntimeError on a full disk
        raise RecordingError(
            f"The checkpoint {path} must be writable: {error}. Make room or change the folder's rights, then "
            f"run the same command again: it goes on from the last checkpoint."
        ) from error


def load_checkpoint(out: Path, device: torch.device) -> dict[str, Any] | None:
    """Return the run's checkpoint with its tensors on ``device``; None where there is none.

    Raises:
        RecordingError: the file is damaged, or is no checkpoint.
    """
    path = checkpoint_path(out)
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # torch.load raises anything at all on bytes that are not its own
        raise _foreign(path) from error
    if not isinstance(state, dict) or not {"step", "model", "optimizer", "high_losses"} <= state.keys():
        raise _foreign(path)
    return state


def remove_checkpoint(out: Path) -> None:
    """Remove the run's checkpoint, if there is one."""
    checkpoint_path(out).unlink(missing_ok=True)


def _foreign(path: Path) -> RecordingError:
    return RecordingError(
        f"{path} must be a checkpoint of gradlens and is damaged or something else. Delete it: the run then "
        f"starts from its first step."
    )
