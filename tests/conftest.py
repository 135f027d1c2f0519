"""Tests side by side (``-n auto``) share the cores: one thread of torch in each process."""

import os

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported; the processes that tests start take it over
