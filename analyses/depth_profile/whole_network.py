"""The theory of whole Transformers for a recording at initialization: its metadata in, curves over depth out."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from gradlens.recording import Recording
from gradlens.theory.arrangements import ARRANGEMENTS
from gradlens.theory.network import Network, OutsideTheoryError
from gradlens.theory.stack import Predicted
from gradlens.theory.transformer import predict

#: Of recordings from before models said which norm's theory covers theirs (``norm_theory``): what is known by name.
_BY_NAME = dict.fromkeys(
    ("layernorm", "layernorm-simple", "detachnorm", "detachnorm-mean", "detachnorm-variance", "adanorm"), "layernorm"
) | {"rmsnorm": "rmsnorm"}
_NORMLESS = frozenset(name for name, arrangement in ARRANGEMENTS.items() if not arrangement.normalized_output)
#: Tasks whose labels are the tokens themselves, each the one after its input.
_NEXT_TOKEN = ("lm", "translation", "translation-de-en", "translation-en-vi")


def norm_theory(model: Mapping[str, Any]) -> str | None:
    """Return which norm's theory covers a model's norm, ``layernorm`` or ``rmsnorm``; None where none does.

    Args:
        model: the ``model`` entry of a recording's metadata.
    """
    covered: str | None = model.get("norm_theory", _BY_NAME.get(str(model.get("norm"))))
    return covered


def network(recording: Recording) -> Network:
    """Return what the theory needs to know of a recording.

    Args:
        recording: at initialization, of a Transformer of the zoo on one of the tasks of next tokens.

    Raises:
        OutsideTheoryError: the theory says nothing about it; the message says why.
    """
    model, task = dict(recording.meta.get("model") or {}), dict(recording.meta.get("task") or {})
    tokens = list(recording.meta.get("tokens") or ())
    _require(recording.meta.get("kind") == "init", "a recording at initialization")
    _require(model.get("family") == "transformer", "a Transformer of the zoo")
    _require(model.get("init") == "xavier", "Xavier's initialization")
    norm, arrangement = norm_theory(model), model.get("theory", model.get("arrangement"))
    if not arrangement:
        raise OutsideTheoryError(f"Theory does not cover this arrangement, {model.get('arrangement')!r}.")
    unit = bool(norm) or arrangement in _NORMLESS
    _require(unit, f"a norm whose output is known to have unit second moment, not {model.get('norm')!r}")
    _require(task.get("name") in _NEXT_TOKEN and bool(tokens), f"a task of next tokens: {', '.join(_NEXT_TOKEN)}")
    target = tokens[-1]
    return Network(
        arrangement=arrangement,
        **{name: model[name] for name in ("kind", "blocks", "width", "ffn", "activation", "dropout")},
        outputs=model["vocab"],
        sequences=round(target["sequences"]),
        length=max(1, round(target["length"]) - 1),  # the last token has no label
        source_length=round(tokens[0]["length"]),
        coincidence=(target["same_within"], target["same_across"]),
        label_coincidence=(target["next_same_within"], target["next_same_across"]),
        source_coincidence=(tokens[0]["same_within"], tokens[0]["same_across"]),
        smoothing=float(task.get("label_smoothing") or 0.0),
        centered=norm != "rmsnorm",
    )


def predicted(recording: Recording) -> Mapping[str, Predicted]:
    """Return path of the stack, as in ``analyses.depth``, to what is predicted.

    Raises:
        OutsideTheoryError: as ``network``.
    """
    return {f"{path}.blocks".lstrip("."): stack for path, stack in _predicted(network(recording)).items()}


@lru_cache(maxsize=256)
def _predicted(known: Network) -> Mapping[str, Predicted]:
    """Predict a network once, however many analyses ask."""
    return predict(known)


def _require(holds: Any, what: str) -> None:
    if not holds:
        raise OutsideTheoryError(f"The theory of whole Transformers needs {what}.")
