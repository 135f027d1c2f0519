"""Compiles the native core into the wheel where there is a C compiler; without one the wheel is pure Python."""

import runpy
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class NativeCore(BuildHookInterface):
    """The hook that ``pyproject.toml`` names."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and say what kind of wheel it is."""
        building = runpy.run_path(str(Path(self.root, "gradlens", "native", "building.py")))
        why_not = building["build"]()
        if why_not:
            self.app.display_warning(f"gradlens without its native core: {why_not}. It measures with torch alone.")
            return
        build_data["artifacts"].append("gradlens/native/core-*.so")
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"
