"""``-m key=value``: texts become the keyword arguments of a user's function, typed by its signature."""

import ast
import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gradlens.errors import GradlensError, UnknownNameError

_TRUTH = {
    "true": True,
    "yes": True,
    "on": True,
    "1": True,
    "false": False,
    "no": False,
    "off": False,
    "0": False,
}
#: How a collection is typed so that a shell leaves it alone.
_WRITTEN = {list: "[1,2]", tuple: "'(1,2)'", dict: "\"{'a':1}\"", set: "'{1,2}'"}


def keywords(function: Callable[..., Any], name: str, pairs: Sequence[str]) -> dict[str, Any]:
    """Turn ``key=value`` texts into keyword arguments.

    A value takes the type of the parameter's annotation, else of its default; where there is neither it is a
    Python literal if it reads as one, and a text if not.

    Args:
        function: what they are for.
        name: of the function, as the user gave it.
        pairs: the texts.

    Raises:
        GradlensError: a text is not ``key=value``, the function takes no such keyword, or a value does not
            convert.
    """
    accepted = parameters(function)
    found = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise GradlensError(f"-m takes key=value, such as -m width=64; got {pair!r}.")
        parameter = accepted.get(key)
        if parameter is None and not _takes_any(function):
            if not accepted:
                raise GradlensError(f"{name} takes no keywords; got -m {pair}. Leave it out.")
            raise UnknownNameError(f"keyword of {name}", key, accepted)
        found[key] = _convert(text, parameter, f"-m {pair}")
    return found


def parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Return the parameters that can be given by keyword; none where Python cannot tell."""
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {name: p for name, p in _signature(function).items() if p.kind in kinds}


def missing(function: Callable[..., Any], given: Mapping[str, Any]) -> list[str]:
    """Return the parameters that have no default and are not given."""
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needed = [p for p in _signature(function).values() if p.default is p.empty and p.kind not in variadic]
    return [p.name for p in needed if p.name not in given]


def _signature(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(function, eval_str=True).parameters
    except (NameError, AttributeError, SyntaxError):  # an annotation that only a type checker can read
        return inspect.signature(function).parameters
    except (ValueError, TypeError):  # written in C, without a signature
        return {}


def _takes_any(function: Callable[..., Any]) -> bool:
    return any(p.kind is p.VAR_KEYWORD for p in _signature(function).values())


def _convert(text: str, parameter: inspect.Parameter | None, given: str) -> Any:
    kind: Any = inspect.Parameter.empty if parameter is None else parameter.annotation
    if parameter is not None and (kind is parameter.empty or isinstance(kind, str)):
        kind = parameter.empty if parameter.default in (None, parameter.empty) else type(parameter.default)
    for choice in _choices(kind):
        try:
            return _as(choice, text)
        except (ValueError, SyntaxError, KeyError):
            continue
    raise GradlensError(f"{given} must be {_named(kind)}; {text!r} is not.")


def _choices(kind: Any) -> list[Any]:
    """Return the members of a union, text last for it takes anything; else the type alone."""
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return sorted(typing.get_args(kind), key=lambda member: member is str)
    return [kind]


def _as(kind: Any, text: str) -> Any:
    """Convert a text; raises ValueError, SyntaxError or KeyError where it does not convert."""
    if kind is bool:
        return _TRUTH[text.lower()]
    if kind in (int, float, str, Path):
        return kind(text)
    if kind in (None, type(None)):
        return {"none": None}[text.lower()]
    if typing.get_origin(kind) is typing.Literal:
        return {str(member): member for member in typing.get_args(kind)}[text]
    wanted = typing.get_origin(kind) or kind
    if wanted in (list, tuple, dict, set):
        value = ast.literal_eval(text)
        if not isinstance(value, wanted):
            raise ValueError(text)
        return value
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _named(kind: Any) -> str:
    if typing.get_origin(kind) is typing.Literal:
        return f"one of {', '.join(map(str, typing.get_args(kind)))}"
    if kind is bool:
        return "true or false"
    written = _WRITTEN.get(typing.get_origin(kind) or kind)
    example = "" if written is None else f", written as in Python without spaces, such as {written}"
    return f"of type {kind.__name__ if isinstance(kind, type) else kind}{example}"
