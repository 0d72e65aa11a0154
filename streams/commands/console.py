"""Where commands talk to people: standard error, so that standard output is for results alone.

A module of its own, because rich takes as long to import as NumPy does, and the processes of the
loop print nothing unless they fail.
"""

from rich.console import Console

console = Console(stderr=True)
