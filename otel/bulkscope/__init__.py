"""Bulkscope: see where a bulk of prompts spends its time, without touching the code that runs it."""

from __future__ import annotations

__all__ = ["__version__"]

__version__ = "0.1.0"
