"""The two kinds of failure a user can do something about; anything else is a bug and shows a traceback."""

import signal
import socket


class MatsciError(Exception):
    """A failure with one clear line for the user and a fixed exit code."""

    exit_code = 1


class UserInputError(MatsciError):
    """The user's input is wrong: a config, a path, a data file."""

    exit_code = 2


class MachineError(MatsciError):
    """The machine is not as needed: a package, the MPI launch, a full disk, lost ranks."""

    exit_code = 3


class RankError(MachineError):
    """What befell one of several ranks. The others do not know it, so that rank says it itself and ends at once."""

    def __init__(self, rank: int, reason: str) -> None:
        super().__init__(f"rank {rank} on {socket.gethostname()} {reason}")

    def __reduce__(self) -> tuple[type[MachineError], tuple[object, ...]]:
        """What other ranks are told: the words, of this rank and its host."""
        return MachineError, self.args


class JobError(MachineError):
    """What befell the job and every rank knows of, so that it is said once."""


class StoppedError(MatsciError):
    """A signal has asked for the end. The exit code is the one that shells give to it: 128 and its number."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(number)
        self.exit_code = 128 + number

    def __str__(self) -> str:
        return f"stopped by {self.args[0].name}; what is finished is kept, and the same command goes on from there"
