"""One question to a program of the cluster: bounded in time, and no failure of it is ours."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reply:
    """What a program said.

    Attributes:
        code: exit code; None if it is not on PATH or did not answer in time.
        output, error: what it printed.
    """

    code: int | None
    output: str
    error: str

    @property
    def good(self) -> bool:
        """It ran and was content."""
        return self.code == 0

    @property
    def complaint(self) -> str:
        """The last line of what it printed, which is where programs say what is wrong."""
        said = (self.error.strip() or self.output.strip()).splitlines()
        return said[-1] if said else f"exit code {self.code}"


def ask(words: Sequence[str], *, text: str = "", timeout_s: float = 30) -> Reply:
    """Run a program to its end, or to the end of its time, and never raise.

    Args:
        words: program and arguments.
        text: its standard input.
        timeout_s: after which it is ended, with all that it started.
    """
    try:
        process = subprocess.Popen(  # noqa: S603 - the words are the caller's, no shell is between
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except OSError as failure:
        return Reply(None, "", f"{words[0]} cannot be run: {failure.strerror}")
    with process:
        try:
            output, error = process.communicate(text, timeout=timeout_s)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            output, error = process.communicate()
            return Reply(None, output, f"{words[0]} did not answer in {timeout_s:g} s")
        return Reply(process.returncode, output, error)
