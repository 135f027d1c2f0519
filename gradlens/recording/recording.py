"""The kept object: a finished (or still growing) set of tables, read-only."""

from collections.abc import Collection, Mapping
from functools import cached_property, partial
from html import escape
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

import pandas as pd

from gradlens.errors import NothingFoundError
from gradlens.recording import derive
from gradlens.recording.schema import PUBLIC, names
from gradlens.text import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Tables of which each process writes its own rows.
_BY_RANK = ("norms", "activations", "attention", "tokens")
#: Since pandas 3 a copy is one once somebody writes to it.
_COPIES_ON_WRITE = int(pd.__version__.partition(".")[0]) >= 3


class Recording:
    """Nine tables and a metadata record. A value: its tables are copies, nothing writes through it.

    Attributes:
        meta: what was recorded, of which model, how (kind, label, variant, model, task, training, versions, ...).
        path: the run folder it was read from; None where it was never on disk.
    """

    def __init__(
        self,
        meta: Mapping[str, Any],
        stored: Mapping[str, pd.DataFrame],
        path: Path | None = None,
        *,
        public: Mapping[str, pd.DataFrame] | None = None,
        only: Mapping[str, Collection[str]] | None = None,
    ) -> None:
        self.meta: Mapping[str, Any] = MappingProxyType(dict(meta))
        self.path = path
        self._stored = dict(stored)
        self._public = dict(public or {})
        self._only = dict(only or {})

    @classmethod
    def from_tables(cls, meta: Mapping[str, Any], **tables: pd.DataFrame) -> Self:
        """Build a recording from public tables; a table that is not given is empty.

        Args:
            meta: the metadata record.
            tables: public tables by name; columns that are missing become missing values.

        Raises:
            TypeError: a table's name is not one of the nine.
        """
        unknown = set(tables) - set(PUBLIC)
        if unknown:
            raise TypeError(f"a recording has the tables {', '.join(PUBLIC)}; got {', '.join(sorted(unknown))}")
        public = {}
        for name, frame in tables.items():
            wanted = names(PUBLIC[name])
            rest = [c for c in frame.columns if c not in wanted] if name == "steps" else []
            public[name] = frame.reindex(columns=wanted + rest).reset_index(drop=True)
        return cls(meta, {}, public=public)

    def table(self, name: str) -> pd.DataFrame:
        """Return a copy of one table by its name."""
        if name not in self._public:
            stored = self._stored.get(name)
            frame = derive.empty(PUBLIC[name]) if stored is None else derive.public(name, stored, self._only.get(name))
            self._public[name] = frame
            if stored is not None and not self._has_several(name):
                self._stored.pop(name)  # nobody merges its rows any more
        return self._public[name].copy(deep=not _COPIES_ON_WRITE)

    def over_processes(self) -> Self:
        """Return the recording with the rows of all processes merged, as analyses read it; itself where one wrote it.

        Sums add. Gradients at norms are divided by the number of processes that share the data: each has them of its
        own loss, and the mean of the losses is what is trained.
        """
        data = int(self.meta.get("processes", {}).get("data", 1))
        several = {name for name in _BY_RANK if self._has_several(name)}
        if not several:
            return self
        merged = {name: derive.over_processes(name, self._stored[name], data) for name in several}
        known = {name: table for name, table in self._public.items() if name not in several}
        return type(self)(self.meta, self._stored | merged, self.path, public=known, only=self._only)

    def _has_several(self, name: str) -> bool:
        """Whether several processes wrote rows of a table."""
        rows = self._stored.get(name)
        return rows is not None and "rank" in rows and rows["rank"].nunique() > 1

    @property
    def label(self) -> str:
        """The name it goes by in tables, legends and findings."""
        return str(self.meta.get("label") or (self.path.name if self.path else "recording"))

    @property
    def sites(self) -> pd.DataFrame:
        """One row a tapped place."""
        return self.table("sites")

    @property
    def norms(self) -> pd.DataFrame:
        """One row a call of a norm in a step."""
        return self.table("norms")

    @property
    def activations(self) -> pd.DataFrame:
        """One row a tensor at a call."""
        return self.table("activations")

    @property
    def params(self) -> pd.DataFrame:
        """One row a parameter in a step."""
        return self.table("params")

    @property
    def outputs(self) -> pd.DataFrame:
        """One row a step that was looked at: what the loss asked of the model's output, and what went in."""
        return self.table("outputs")

    @property
    def attention(self) -> pd.DataFrame:
        """One row a head at a call of attention in a step; empty unless attention was watched."""
        return self.table("attention")

    @property
    def tokens(self) -> pd.DataFrame:
        """One row a call of a norm over tokens in a step, the first token against the rest; empty unless so."""
        return self.table("tokens")

    @property
    def probes(self) -> pd.DataFrame:
        """One row a number of a probe."""
        return self.table("probes")

    @property
    def steps(self) -> pd.DataFrame:
        """One row a recorded step, with whatever scalars the user passed."""
        return self.table("steps")

    @cached_property
    def last_step(self) -> int:
        """The last recorded step.

        Raises:
            NothingFoundError: no step was recorded.
        """
        steps = self.table("steps")["step"]
        if steps.empty:
            where = f" in {self.path}" if self.path else ""
            raise NothingFoundError(
                f"A recording needs at least one recorded step; {self.label!r}{where} has none. "
                "Run a training step with the lens attached, and call lens.step() (or pass optimizer=)."
            )
        return int(steps.max())

    def plot(self, analysis: str) -> "Figure":
        """Draw the figure of one analysis of this recording.

        Args:
            analysis: its name, as in ``gradlens list``, such as ``norm_decomposition``.

        Returns:
            A matplotlib figure that belongs to no window; ``figure.savefig("a.png")`` keeps it.

        Raises:
            UnknownNameError: there is none of that name.
            NothingFoundError: it draws nothing of this recording.
        """
        from gradlens import plot  # the public face: what is recorded knows no question

        figure: Figure = plot([self], analysis)
        return figure

    def __reduce__(self) -> tuple[Any, ...]:
        made = partial(type(self), public=self._public, only=self._only)
        return made, (dict(self.meta), self._stored, self.path)

    def __repr__(self) -> str:
        damaged = ", damaged" if self.meta.get("damage") else ""
        return f"Recording({self.label!r}, {len(self.steps)} steps, {len(self.sites)} sites{damaged})"

    def _repr_html_(self) -> str:
        kinds = self.sites["kind"].value_counts()
        facts = {
            "recorded": f"{len(self.steps)} {'seeds' if self.meta.get('kind') == 'init' else 'steps'}",
            "status": self.meta.get("status"),
            "norms": int(kinds.get("norm", 0)),
            "blocks": int(kinds.get("block", 0)),
            "folder": self.path,
            "damage": " ".join(map(str, self.meta.get("damage") or ())),
        }
        rows = "".join(
            f'<tr><th style="text-align:left">{name}</th><td style="text-align:left">{escape(str(fact))}</td></tr>'
            for name, fact in facts.items()
            if fact
        )
        return f"<div><p><b>{escape(printable(self.label))}</b></p><table>{rows}</table></div>"
