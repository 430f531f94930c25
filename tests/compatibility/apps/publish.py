"""``python publish.py NAME [FUNCTION]``: publish an application's jobs, or what else, from a process of its own."""

import asyncio
import importlib
import sys

made = getattr(importlib.import_module(sys.argv[1]), *sys.argv[2:3] or ["publish"])()
if made is not None:
    asyncio.run(made)
