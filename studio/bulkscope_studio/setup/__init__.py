"""``bulkscope setup``: bring Elasticsearch and Kibana to what Bulkscope needs, as often as one likes.

``plan`` says what is wanted (files and settings, no server), ``merge`` what differs, ``client`` talks HTTP,
``elasticsearch`` and ``kibana`` hold one function per step, ``apply`` runs steps, ``cli`` is the command.
"""

from __future__ import annotations

from bulkscope_studio.setup.cli import command

__all__ = ["command"]
