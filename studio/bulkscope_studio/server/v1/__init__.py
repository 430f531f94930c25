"""``/api/v1``: every answer as JSON, from the services that reports, pages and commands use."""

from bulkscope_studio.server.v1.install import install, no_writer

__all__ = ["install", "no_writer"]
