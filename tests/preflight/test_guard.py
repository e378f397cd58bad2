import pytest

from matsci_hpc.errors import MachineError, UserInputError
from matsci_hpc.preflight.finding import Finding
from matsci_hpc.preflight.guard import guarded


def failing(error):
    def check():
        yield Finding("ok", "first", "was found")
        raise error

    return check


@pytest.mark.parametrize(
    ("error", "level", "text"),
    [
        (UserInputError("no such target"), "error", "no such target"),
        (MachineError("shard gone"), "error", "shard gone"),
        (RuntimeError("a\nb"), "note", "could not be looked at: RuntimeError: a b"),
        (PermissionError(13, "Permission denied"), "note", "could not be looked at: PermissionError"),
    ],
)
def test_a_failing_check_is_a_finding(error, level, text):
    first, last = guarded("topic", failing(error))
    assert first.text == "was found"
    assert (last.level, last.topic) == (level, "topic")
    assert text in last.text


def test_an_interrupt_is_none():
    with pytest.raises(KeyboardInterrupt):
        guarded("topic", failing(KeyboardInterrupt()))
