"""Numbers, units and Markdown as text, once for pages, terminal and files. Imports nothing of ours."""
