"""Process that isolates itself and runs one program; `main.main`, standard library only.

The main process starts a fresh small interpreter for it, because a process with threads and a GPU cannot
be forked safely.
"""
