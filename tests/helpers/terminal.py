"""Programs that look whether they talk to a person."""

import os
import pty
import subprocess
import termios
from collections.abc import Mapping, Sequence
from pathlib import Path


def talk(words: Sequence[str | Path], lines: Sequence[str], environment: Mapping[str, str]) -> str:
    """Run a command on a terminal, type the lines, and return what was on the screen."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (40, 120))
    with subprocess.Popen(words, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        os.write(ours, "".join(f"{line}\n" for line in lines).encode())
        said = b""
        while True:
            try:
                piece = os.read(ours, 4096)
            except OSError:  # the last process that had the terminal open is gone
                break
            if not piece:
                break
            said += piece
        process.wait(timeout=60)
    os.close(ours)
    return said.decode()
