"""The table ``sites``: what is known when a lens is attached, and what passes show later."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from torch import nn

from gradlens.lens.hook_state import HookState
from gradlens.lens.lens_hooks import LensHooks
from gradlens.lens.placing import Blocks
from gradlens.lens.sinks import Sink
from gradlens.lens.sites import Site, is_inside
from gradlens.lens.step_recorder import StepRecorder
from gradlens.lens.taps import NormTap, taps_of


class SiteTable:
    """Writes sites, the later row of one counts; blocks that a pass has shown are tapped from then on.

    Args:
        model: which is watched.
        sink: where rows go.
        state: shared with all hooks.
        recorder: knows all taps.
        hooks: of the lens.
        with_blocks: whether blocks are recorded.
    """

    def __init__(
        self,
        model: nn.Module,
        sink: Sink,
        state: HookState,
        recorder: StepRecorder,
        hooks: LensHooks,
        with_blocks: bool,
    ) -> None:
        self._model, self._sink, self._state, self._recorder, self._hooks = model, sink, state, recorder, hooks
        self._with_blocks = with_blocks
        state.placing.on_read = self.place

    def write(self, sites: Iterable[Site]) -> None:
        """Write the rows of sites, but of those that are not known to be norms yet."""
        rows = [site.row() for site in sites if site.kind != "norm" or site.norm is not None]
        if rows:
            self._sink.append("sites", {key: [row[key] for row in rows] for key in rows[0]})

    def add(self, site: Site) -> None:
        """Write a norm that showed itself to be one when it ran."""
        self._state.observed.found.add(site.path)
        self.write([site])

    def place(self, words: Mapping[str, str], found: Blocks) -> None:
        """Take what a pass has shown.

        Args:
            words: sites of norms to their placements; what the user said of one holds.
            found: blocks that were not known.
        """
        news = []
        for tap in self._recorder.taps():
            if isinstance(tap, NormTap):
                site, path = tap.site, tap.site.path
                block = next((number for block, (number, _) in found.items() if is_inside(path, block)), site.block)
                tap.site = replace(
                    site, block=block, placement=site.placement if site.told else words.get(path, site.placement)
                )
                news += [tap.site] if tap.site != site else []
        if self._with_blocks:
            news += self._tap_blocks(found)
        self.write(news)

    def _tap_blocks(self, found: Blocks) -> list[Site]:
        """Record blocks from the next pass on; return their sites."""
        modules = {path: (order, module) for order, (path, module) in enumerate(self._model.named_modules())}
        sites = []
        for path, (number, first) in found.items():
            order, module = modules[path]
            sites.append(Site(path=path, module=module, kind="block", order=order, block=number, first_in_stack=first))
        taps = [tap for site in sites for tap in taps_of(site, self._state)]
        self._hooks.add(taps)
        self._recorder.watch(taps)
        return sites
