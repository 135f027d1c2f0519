"""An entry of the table: one class of one package, how to build and call it, and what it computes."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

import gradlens
from tests.norms_table.formula import Formula
from tests.norms_table.judge import Between, Verdict, judge, randomized
from tests.norms_table.kinds import LAYER, OF_TORCH, of_torch


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One class.

    Attributes:
        path: of the class.
        shape: of its first argument, unequal in every dimension.
        args: of its constructor.
        keywords: of its constructor.
        further: makes what its forward takes besides, a tuple or a dict.
        call: how it is called, where that is otherwise: from module, x and further.
        site: where in the module the norm is, where it is inside ("" is the module itself).
        formula: what the norm computes; None where it is none, or where no row could be right.
        inside: what other norms in it compute, by path, besides torch's own.
        norm: whether it is a normalization at all.
        plain: whether its output is scale * normalized + shift of its first argument.
        steps: passes, of which the last is compared.
        prepare: what is done to the module once it is built.
        note: what a reader must know.
    """

    path: str
    shape: tuple[int, ...]
    args: tuple[Any, ...] = ()
    keywords: dict[str, Any] = field(default_factory=dict)
    further: Callable[[], Any] | None = None
    call: Callable[[nn.Module, Tensor, Any], Any] | None = None
    site: str = ""
    formula: Formula | None = None
    inside: dict[str, Formula] = field(default_factory=dict)
    norm: bool = True
    plain: bool = True
    steps: int = 2
    prepare: Callable[[nn.Module], object] | None = None
    note: str = ""

    @property
    def name(self) -> str:
        """The class, with what tells two entries of it apart."""
        return self.path + (f" ({self.note})" if self.note else "")

    def build(self) -> nn.Module:
        """Build the module, with gains and biases drawn at random."""
        module, _, name = self.path.rpartition(".")
        torch.manual_seed(3)
        made = getattr(importlib.import_module(module), name)(*self.args, **self.keywords)
        if self.prepare is not None:
            self.prepare(made)
        return randomized(made, [made]).train()

    def model(self) -> Between:
        """Build the tiny model that it is judged in."""
        subject, x = self.build(), self.batch()
        torch.manual_seed(4)
        further = () if self.further is None else self.further()
        torch.manual_seed(5)
        return Between(subject, x, further, self.call)

    def batch(self) -> Tensor:
        """Draw the model's input: neither of mean zero nor of unit variance."""
        return 0.4 + 1.3 * torch.randn(self.shape, generator=torch.Generator().manual_seed(6))

    def loss(self, model: nn.Module) -> Tensor:
        """Run the model; a loss whose gradient is large along what a norm removes."""
        torch.manual_seed(8)
        y = model(self.batch())
        aim = torch.randn(y.shape, generator=torch.Generator().manual_seed(9))
        return ((y - 3 * aim).square() * (0.5 + 0.5 * torch.sigmoid(aim))).mean()

    def judged(self) -> Verdict:
        """Return what came of it."""
        return one(judge(self.model, self.loss, self._formulas, steps=self.steps), self)

    @property
    def registers(self) -> bool:
        """Whether ``register_norm`` has the words for what it does."""
        return self.norm and self.plain and self.formula is not None and self.formula.groups is None and not self.site

    def told(self) -> Verdict:
        """Return what came of it once it was registered, as the audit advises; that lasts as long as the process."""
        assert self.formula is not None
        gradlens.register_norm(type(self.build()), axes=self.formula.axes, centered=self.formula.centered)
        return self.judged()

    def _formulas(self, model: nn.Module) -> dict[str, Formula | None]:
        subject = model.get_submodule("subject")
        own = {path: of_torch(module) for path, module in subject.named_modules() if type(module) in OF_TORCH}
        known = {**own, **self.inside, self.site: self.formula}
        return {f"subject.{path}" if path else "subject": formula for path, formula in known.items()} | {"sure": LAYER}


def one(found: dict[str, Verdict], entry: Entry) -> Verdict:
    """Return the verdict of an entry: of its norm's site, or of whatever else of it was recorded, if that is wrong."""
    if "sure" not in found:
        return found[""]
    sites = {path: verdict for path, verdict in found.items() if path.startswith("subject")}
    wrong = [f"{path}: {verdict.said}" for path, verdict in sites.items() if verdict.outcome in ("wrong", "crash")]
    if wrong:
        return Verdict("wrong", "; ".join(wrong))
    own = sites[f"subject.{entry.site}" if entry.site else "subject"]
    if entry.norm:
        return own
    # What is no norm must be neither recorded nor called one.
    return Verdict("right") if own.outcome == "silent" else Verdict("wrong", own.said)
