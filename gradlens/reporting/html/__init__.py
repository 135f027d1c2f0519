"""The report as one page for a browser."""

from gradlens.reporting.html.page import page

__all__ = ["page"]
