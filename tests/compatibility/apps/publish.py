"""``python publish.py NAME_app``: publish that application's jobs from a process of its own."""

import asyncio
import importlib
import sys

made = importlib.import_module(sys.argv[1]).publish()
if made is not None:
    asyncio.run(made)
