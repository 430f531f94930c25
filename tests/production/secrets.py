"""Which variables of the stack are secrets: not to be shown, and not to be on a command line."""

from __future__ import annotations

import re

from stack import envfile

SECRETS = frozenset(name for name in envfile.VARIABLES if re.search("PASSWORD|KEY", name))
