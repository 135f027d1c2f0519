"""What a manifest holds: types and ranges, said once; the seal that tells an edited one.

Keys that are not named here are the user's, or another version's: any JSON value.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

#: Status of a run that nothing is added to.
FINISHED = ("complete", "diverged")
_STATUS = (*FINISHED, "running", "interrupted")

#: The key of the seal; readers do not see it.
SEAL = "seal"

#: Returns what must hold of a value, with where in it; empty where it does.
Check = Callable[[Any], str]


def _is(types: type | tuple[type, ...], must: str, holds: Callable[[Any], bool] = lambda value: True) -> Check:
    def check(value: Any) -> str:
        right = isinstance(value, types) and not (isinstance(value, bool) and bool not in _tuple(types))
        return "" if right and holds(value) else f" must be {must}"

    return check


def _tuple(types: type | tuple[type, ...]) -> tuple[type, ...]:
    return types if isinstance(types, tuple) else (types,)


def _whole(least: int) -> Check:
    return _is(int, f"a whole number, {least} or more", lambda value: least <= value < 2**53)


def _maybe(check: Check) -> Check:
    return lambda value: "" if value is None else check(value)


def _each(check: Check) -> Check:
    """Check the members of a list."""

    def checked(value: Any) -> str:
        if not isinstance(value, list):
            return " must be a list"
        return next((f"[{index}]{said}" for index, member in enumerate(value) if (said := check(member))), "")

    return checked


def _values(check: Check) -> Check:
    """Check the values of an object."""

    def checked(value: Any) -> str:
        if not isinstance(value, dict):
            return " must be an object"
        return next((f".{key}{said}" for key, member in value.items() if (said := check(member))), "")

    return checked


def _fields(**checks: Check) -> Check:
    """Check those keys of an object that it has."""

    def checked(value: Any) -> str:
        if not isinstance(value, dict):
            return " must be an object"
        return next((f".{k}{said}" for k, check in checks.items() if k in value and (said := check(value[k]))), "")

    return checked


_text = _is(str, "text")
_texts = _each(_text)
_flag = _is(bool, "true or false")
_number = _is((int, float), "a number")
#: What ``model`` says of arrangement and norm besides their names; recordings of before do not, and are the same runs.
SAID_OF_BLOCKS = ("skip_is_sound", "theory", "norm_theory")

_digest = _is(str, "a SHA-256 in hexadecimal", lambda value: re.fullmatch(r"[0-9a-f]{64}", value) is not None)
_object = _fields()


def _tables(value: Any) -> str:
    """Check the tables a run was closed with: their files' digests; only their names before there were digests."""
    return _texts(value) if isinstance(value, list) else _values(_digest)(value)


def _processes(value: Any) -> str:
    said = _fields(world=_whole(1), data=_whole(1), recorded=_whole(0))(value)
    if not said and not value.get("data", 1) <= value.get("world", value.get("data", 1)):
        return ".data must be world or less"
    return said


_setting = _fields(
    every=_whole(0), micro_batches=_whole(0), world=_whole(1), data=_whole(1), compiled=_texts, checkpointed=_texts,
    input_dtypes=_values(_whole(0)), graphs_dropped=_flag, functional=_flag, loss_scale=_flag, cadence=_text,
)  # fmt: skip

_AUDIT = _fields(
    norms=_texts, fired=_texts, without_grad_output=_texts, without_grad_input=_texts, silent=_texts, steps=_whole(0),
    without_graph=_texts, transformed=_texts, functions_recorded=_flag, strangers=_texts, unsupported=_values(_text),
    functional=_values(_whole(0)), impossible=_texts, tied=_values(_texts), hooked=_texts, nonfinite=_text,
    gradient=_text, calls=_fields(most=_whole(0), sites=_values(_whole(0))), notes=_texts, problems=_texts,
    setting=_setting,
)  # fmt: skip

_MANIFEST = _fields(
    schema=_whole(1),
    kind=_text,
    label=_maybe(_text),
    status=_is(str, f"one of {', '.join(_STATUS)}", lambda value: value in _STATUS),
    attempts=_whole(0),
    run=_text,
    tables=_tables,
    runs=_texts,
    every=lambda value: "" if value == "auto" else _whole(1)(value),
    watch=_texts,
    keep=_text,
    thinned=_fields(before=_whole(0), span=_whole(1)),
    seeds=_each(_whole(0)),
    processes=_processes,
    model=_fields(
        family=_text, parameters=_whole(0), arrangement=_maybe(_text), norm=_maybe(_text), skip_is_sound=_flag,
        theory=_maybe(_text), norm_theory=_maybe(_text),
    ),
    variant=_maybe(_text),
    schedule=_maybe(_text),
    task=_maybe(_fields(name=_text, unit=_text)),
    training=_maybe(_fields(steps=_whole(0), warmup=_maybe(_number))),
    limit=_maybe(_fields(factor=_number, predicted=_number, by=_text)),
    no_limit=_text,
    frozen=_texts,
    structure=_values(_is(list, "a list")),
    diverged_at=_maybe(_whole(0)),
    samples=_maybe(_each(_object)),
    tokens=_maybe(_each(_object)),
    versions=_object,
    audit=_AUDIT,
)  # fmt: skip


def fault(manifest: Any) -> str:
    """Return what must hold of a manifest and does not, such as ``every must be a whole number, 1 or more``."""
    if not isinstance(manifest, dict) or "schema" not in manifest:
        return "it must be an object with a schema"
    return _MANIFEST(manifest).removeprefix(".")


def sealed(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return it with its seal: a digest of all the rest, however that is laid out."""
    rest = {key: value for key, value in manifest.items() if key != SEAL}
    return {**rest, SEAL: _digest_of(rest)}


def is_whole(manifest: Mapping[str, Any]) -> bool:
    """Whether nothing was changed since it was sealed; one of before there were seals has none."""
    return SEAL not in manifest or sealed(manifest)[SEAL] == manifest[SEAL]


def _digest_of(value: Mapping[str, Any]) -> str:
    # As it reads back from JSON: keys are text, tuples are lists.
    plain = json.loads(json.dumps(value, default=str))
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
