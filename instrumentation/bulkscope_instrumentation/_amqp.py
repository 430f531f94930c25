"""What RabbitMQ says of a message, whichever library reads it: where it was sent, how often it was delivered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

# Reasons of a dead letter for which a worker had it before.
_BY_A_WORKER = ("rejected", "delivery_limit")


def place(exchange: str, routing_key: str) -> str:
    """Return where a message is sent, as its receiver finds it on the message again."""
    return f"{exchange}/{routing_key}"


def _deaths(headers: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    found = headers.get("x-death")
    return [each for each in found if isinstance(each, Mapping)] if isinstance(found, list | tuple) else []


def came_from(
    exchange: str | None, routing_key: str | None, queue: str, headers: Mapping[str, Any]
) -> Callable[[str], bool]:
    """Return whether the message in ``queue`` was sent there, by where that was.

    A dead letter is, when it has come back to the queue that it left, or has left one in which it only waited for its
    time to be up. One that lies in a queue for dead letters is no job of whoever looks at it there.
    """

    def was_sent(to: str) -> bool:
        deaths = _deaths(headers)
        if not deaths:
            return to == place(exchange or "", routing_key or "")
        first = deaths[-1]
        return queue in [each.get("queue") for each in deaths] or first.get("reason") == "expired"

    return was_sent


def again(headers: Mapping[str, Any]) -> int:
    """Return how often the message was worked on before and refused, as far as the broker says.

    That it was delivered before says little: so is what a consumer had fetched in advance and gave back.
    """
    return sum(int(each.get("count") or 0) for each in _deaths(headers) if each.get("reason") in _BY_A_WORKER)


def delay(headers: Any) -> float:
    """Return the scheduled delay in seconds that a message asks the exchange of the delay plugin for."""
    wanted = headers.get("x-delay") if isinstance(headers, Mapping) else None
    return max(0, wanted) / 1e3 if isinstance(wanted, int | float) else 0.0


def expires(expiration: object) -> float | None:
    """Return in how many seconds a queue drops the message, of AMQP's text in milliseconds; None where it says none."""
    try:
        return float(expiration) / 1e3  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
