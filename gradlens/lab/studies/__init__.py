"""Papers' experiments as grids of jobs, under the names of ``STUDIES``; the questions to them are analyses.

A new study is one file here and one line in ``STUDIES``. Torch is imported when an entry is used.
"""

from gradlens.registry import Registry

STUDIES = Registry(
    "study",
    {
        "ba2016": (
            "gradlens.lab.studies.ba2016:STUDY",
            "Ba et al. 2016, Layer Normalization: what it does not depend on, recurrent networks, batches of four",
        ),
        "xu2019": (
            "gradlens.lab.studies.xu2019:STUDY",
            "Xu et al. 2019, Understanding and Improving Layer Normalization: seven norms on five kinds of task",
        ),
        "xiong2020": (
            "gradlens.lab.studies.xiong2020:STUDY",
            "Xiong et al. 2020, On Layer Normalization in the Transformer Architecture: Post-LN, Pre-LN, warm-up",
        ),
    },
)

__all__ = ["STUDIES"]
