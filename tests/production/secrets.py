"""Which names of the stack are secrets: not to be shown, and not to be on a command line."""

from __future__ import annotations

from stack import passwords

SECRETS = frozenset(passwords.MEANINGS)
