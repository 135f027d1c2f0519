"""The report as one page for a browser: no other file, no network, and nothing of a recording that could run."""

import base64
import hashlib
import json
import re
import zlib
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup, escape

from gradlens.analysis.comparison import Comparison
from gradlens.reporting.findings import to_csv
from gradlens.reporting.html.figures import drawing
from gradlens.reporting.html.sites import maps

#: What the page runs, in this order.
_SCRIPTS = ("scales.js", "marks.js", "panel.js", "values.js", "hands.js", "figures.js", "sites.js", "page.js")
#: Findings of one check that the table of checks names; all are in its section.
_MOST = 6
#: Places of one check that its section names; all are in the document.
_MOST_SITES = 12
#: Letters of the tables that a page holds; packed, a letter takes about a third of a byte.
_MOST_LETTERS = 2_500_000
_TEXTS = ("recording", "measured", "status")
_RECORDED = ("recording", "kind", "steps", "norms seen", "blocks", "parameters", "not finite")


def page(comparison: Comparison, content: dict[str, Any]) -> bytes:
    """Return the page of a document that is there already.

    Args:
        comparison: its figures, and the recordings of the map of places and steps.
        content: the ``document`` of it.

    Returns:
        The file: the same bytes for the same comparison, document and versions.
    """
    script, (shown, left_out) = "\n".join(map(_own, _SCRIPTS)), maps(comparison.recordings)
    figures = {name: drawing(figure) for name, figure in comparison.figures.items()}
    if content["strip"] and comparison.strip is not None:
        figures["strip"] = drawing(comparison.strip)
    tables = _tables(comparison)
    text = _template().render(
        doc=content,
        policy=_policy(script),
        style=Markup(_own("page.css")),
        script=Markup(script),
        document=Markup(_as_json(content)),
        drawings=Markup(_packed({"figures": figures, "maps": shown, "tables": tables})),
        tables=tables,
        maps=shown,
        left_out=left_out,
        thinned=any(first != last for one in shown for first, last in one["steps"]),
        most=_MOST,
        most_sites=_MOST_SITES,
        order={status: place for place, status in enumerate(content["statuses"])},
        **_of_checks(content),
        **_of_tables(content),
    )
    return text.encode()


def _tables(comparison: Comparison) -> dict[str, str]:
    """Return the tables behind the figures as CSV by the names of their files; of very long ones the shortest."""
    written = {f"{name}.csv": to_csv(table).decode() for name, table in comparison.tables.items() if not table.empty}
    room, kept = _MOST_LETTERS, dict[str, str]()
    for name, text in sorted(written.items(), key=lambda one: len(one[1])):
        room -= len(text)
        kept |= {name: text} if room >= 0 else {}
    return kept


def _own(name: str) -> str:
    return files("gradlens.reporting.html").joinpath(name).read_text("utf-8")


def _template() -> Template:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters |= {"ticks": _with_code, "pair": lambda head: (head, "")}
    return environment.from_string(_own("template.html"))


def _policy(script: str) -> str:
    """Return what the browser lets the page do: run our script and no other, and load nothing from anywhere."""
    own = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    allowed = ("default-src 'none'", f"script-src 'sha256-{own}'", "style-src 'unsafe-inline'", "img-src data:")
    return "; ".join((*allowed, "base-uri 'none'", "form-action 'none'"))


def _with_code(text: str) -> Markup:
    """Set what stands between backticks as code; all else is text as it is."""
    parts = re.split(r"`([^`\n]+)`", str(text))
    return Markup().join(Markup("<code>{}</code>").format(p) if i % 2 else escape(p) for i, p in enumerate(parts))


def _as_json(content: Any) -> str:
    """Return JSON that ends no script element."""
    return json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _packed(value: Any) -> str:
    """Return a value of JSON as the page unpacks it: zlib, then base64."""
    return base64.b64encode(zlib.compress(_as_json(value).encode())).decode()


def _of_checks(content: dict[str, Any]) -> dict[str, Any]:
    """Return the checks in order of cause, those that are flagged, and the others by status."""
    every = [
        check | {"section": section["name"], "passed": sum(f["status"] == "pass" for f in check["findings"])}
        for section in content["sections"]
        for check in section["checks"]
    ]
    worst = list(content["statuses"])
    every.sort(key=lambda check: (check["place"], worst.index(check["status"])))
    quiet = [(s, [c for c in every if not c["flagged"] and c["status"] == s]) for s in worst]
    return {
        "checks": every,
        "flagged": [check for check in every if check["flagged"]],
        "quiet": [(status, members) for status, members in quiet if members],
    }


def _of_tables(content: dict[str, Any]) -> dict[str, Any]:
    """Return the rows of what is printed as tables at the end, and which columns of them hold numbers."""
    recorded = [
        {**r, "norms seen": f"{r['norms_seen']} of {r['norms']}", "recording": r["label"], "not finite": r["nonfinite"]}
        for r in content["recorded"]
    ]
    return {
        "summary_numeric": [head[0] not in _TEXTS and i > 0 for i, head in enumerate(content["summary"]["heads"])],
        "recorded": {
            "heads": _RECORDED,
            "rows": [[row[head] for head in _RECORDED] for row in recorded],
            "numeric": [head not in _RECORDED[:2] for head in _RECORDED],
        },
        "settings": [(s["group"], s["name"], _values(s["values"])) for s in content["settings"]],
    }


def _values(values: Sequence[dict[str, Any]]) -> str:
    said = (f"{v['value']} ({'; '.join(v['labels'])})" if v["labels"] else v["value"] for v in values)
    return "; ".join(map(str, said))
