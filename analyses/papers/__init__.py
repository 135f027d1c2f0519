"""Papers reproduced: the questions asked of the runs that ``gradlens reproduce PAPER`` makes, a package a paper.

``gradlens`` finds them through the entry-point group ``gradlens.papers``; another package adds its own mapping in the
same way. A new paper is one package here and its line in ``PAPERS``.

What a paper says is data: its claims (``claims.Claim``) and, beside the explanation of each code, what all findings of
that code share (``findings.Code``). ``claims`` holds claims against pairs of runs and tells what became of them,
``claims_axes`` draws it. ``measured``, ``prediction``, ``profiles`` and ``panels`` are for networks at initialization:
numbers by block or depth of several arrangements, what theory says of them, and their figures. ``run_curves`` draws
runs over steps.
"""

from collections.abc import Mapping

from analyses.papers import ba2016, xiong2020, xu2019
from gradlens.analysis import Analysis

#: The paper's name in ``gradlens.lab.studies.STUDIES`` to its questions, in reading order.
PAPERS: Mapping[str, tuple[Analysis, ...]] = {
    "ba2016": ba2016.ANALYSES,
    "xu2019": xu2019.ANALYSES,
    "xiong2020": xiong2020.ANALYSES,
}

__all__ = ["PAPERS"]
