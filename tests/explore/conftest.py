"""The browser of the report's tests."""

from tests.report.conftest import chromium

__all__ = ["chromium"]
