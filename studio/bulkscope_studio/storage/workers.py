"""What people call a worker: short, the same in every answer, and one process at a time.

Where an operator's worker has a process for each job (RQ), or a pool whose children come and go (Celery), the worker is
the slot of that pool: it has the pool's process id, ``#`` and the number of the slot (``bulk.worker.slot``), and the
processes that fill it one after another are one worker. ``rules.worker_instance`` in ``views.sql`` goes by the ``#``.

A process id is unique on a host, and not among containers, which count from 1 and may all carry one host's name. There
the name has the container's id too, as far as its tools show it, or the pod's name. A container that is restarted in
place keeps its name: which of its processes it was says ``service.instance.id``.

``kibana/source/_blocks.yaml`` says the same in ES|QL.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from bulkscope import conventions as c

# As many digits of a container's id as its tools show.
_SHOWN = 12
_SLOT = re.compile(r"[0-9]{1,10}#[0-9]{1,6}")


def place(resource: Mapping[str, Any]) -> str | None:
    """Return where a process runs, within which its id is unique; None where its host is not known."""
    host, inside = _text(resource, c.HOST_NAME), (_text(resource, c.CONTAINER_ID) or "")[:_SHOWN]
    inside = inside or _text(resource, c.K8S_POD_NAME) or ""
    # Unless it is told otherwise, a container's host name is its id, or its pod's name.
    return f"{host}/{inside}" if host is not None and inside not in ("", host) else host


def slot(attributes: Mapping[str, Any]) -> str | None:
    """Return the slot that a process fills in its pool, by the attributes of its resource, or of what it is told of."""
    value = _text(attributes, c.WORKER_SLOT)
    return value if value is not None and _SLOT.fullmatch(value) else None


def name(
    where: str | None, pid: int | None, instance: str | None, service: str | None, of_slot: str | None = None
) -> str:
    """Return the name of a worker: a slot or a process of ``where`` (``place``), else by what else is known of it."""
    if where is not None and of_slot is not None:
        return f"{where}:{of_slot}"
    if where is not None and pid is not None:
        return f"{where}:{pid}"
    return next((text for text in (instance, service) if text is not None), "worker")


def _text(resource: Mapping[str, Any], key: str) -> str | None:
    value = resource.get(key)
    return value if isinstance(value, str) else None
