"""The runs of the reproduction as a table: which task, which norm, which seed, and how each ended."""

from collections.abc import Sequence

import pandas as pd

from gradlens.recording import Recording

#: Norms of the paper in the order of its table, by their names in ``gradlens.norms.NORMS``, and what it calls them.
NORMS = {
    "none": "w/o Norm",
    "detachnorm": "DetachNorm",
    "detachnorm-mean": "Detach mean only",
    "detachnorm-variance": "Detach variance only",
    "layernorm": "LayerNorm",
    "layernorm-simple": "LayerNorm-simple",
    "adanorm": "AdaNorm",
}
#: Columns of ``runs``.
COLUMNS = ("label", "task", "norm", "seed", "blocks", "steps", "status", "diverged_at")


def runs(recordings: Sequence[Recording]) -> pd.DataFrame:
    """Return one row a recording, in the given order.

    Args:
        recordings: of training on a task.

    Returns:
        ``label``; ``task``; ``norm``, a name in ``NORMS``; ``seed``; ``blocks``, of the model or of its stack;
        ``steps``, as planned; ``status``, complete or diverged; ``diverged_at``, the step, missing where it did not.
    """
    rows = []
    for recording in recordings:
        meta, model = recording.meta, recording.meta.get("model") or {}
        rows.append(
            {
                "label": recording.label,
                "task": str((meta.get("task") or {}).get("name", "")),
                "norm": str(model.get("norm", "")),
                "seed": int(meta["seeds"][0]),
                "blocks": int(model.get("blocks") or model.get("layers") or 0),
                "steps": int(meta["training"]["steps"]),
                "status": str(meta.get("status")),
                "diverged_at": meta.get("diverged_at"),
            }
        )
    return pd.DataFrame(rows, columns=list(COLUMNS))
