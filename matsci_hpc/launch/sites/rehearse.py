"""What a batch job does before its ranks start, tried on the login node: setup lines, variables, interpreter."""

import shlex
import sys
from dataclasses import dataclass, field

from matsci_hpc.launch.schedulers import SCHEDULERS
from matsci_hpc.launch.sites.model import Site
from matsci_hpc.launch.sites.program import Reply, ask

TIMEOUT_S = 120.0
"""Modules and a cold Python on a busy file system take their time."""
_MARK = "@matsci-hpc@"


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """How it went.

    Attributes:
        failed_line: setup line in which it stopped; None if all ran.
        complaint: what was printed last, if something failed.
        launcher: path of the launcher after setup; empty if it is not on PATH.
        python: nothing if `import matsci_hpc` works, otherwise what it said.
        container: whether the program that starts containers is on PATH; None without a container.
        folders: what `scratch` and `node_local` expand to, and whether all their variables are set.
    """

    failed_line: str | None = None
    complaint: str = ""
    launcher: str = ""
    python: str = ""
    container: bool | None = None
    folders: dict[str, tuple[str, bool]] = field(default_factory=dict)


def rehearse(site: Site, *, timeout_s: float = TIMEOUT_S) -> Rehearsal:
    """Run the setup lines in a shell as a batch job has it, and look around afterwards.

    Args:
        site: whose lines.
        timeout_s: for all of it.
    """
    reply = ask(["bash", "-c", _script(site)], timeout_s=timeout_s)
    told: dict[str, str] = {}
    for part in reply.output.split(_MARK)[1:]:
        key, _, value = part.partition("=")
        told[key] = value.partition("\0")[0]
    if "set_up" not in told:
        started = int(told.get("line", -1))
        line = site.setup[started] if 0 <= started < len(site.setup) else ""
        said = "it ends the shell" if reply.code == 0 else Reply(reply.code, "", reply.error).complaint
        return Rehearsal(failed_line=line, complaint=said)
    python = "" if told.get("python") == "0" else reply.complaint
    return Rehearsal(
        launcher=told.get("launcher", ""),
        python=python,
        container=told.get("container") == "0" if site.container else None,
        folders={
            name: (told[name], told.get(f"{name}_set") == "0") for name in ("scratch", "node_local") if name in told
        },
    )


def launcher_program(site: Site) -> str:
    """The program that starts the ranks."""
    if site.launcher is None and site.scheduler == "local":
        return "mpirun"
    scheduler = SCHEDULERS.get(site.scheduler)
    return shlex.split(site.launcher or (scheduler.launcher if scheduler else "mpirun"))[0]


def _script(site: Site) -> str:
    """Answers are `MARK key=value NUL`, so that what setup lines print cannot be taken for one."""
    lines = ["set -eo pipefail"]
    for number, line in enumerate(site.setup):
        lines += [_say("line", f"'{number}'"), line]
    lines += [_say("set_up", "0"), "set +e"]
    lines += [f"export {name}={shlex.quote(value)}" for name, value in site.environment.items()]
    for name, path in (("scratch", site.scratch), ("node_local", site.node_local)):
        if path:
            # In a shell of its own, which an unset variable ends.
            lines += [
                _say(name, f'"{path}"'),
                f'(set -u; : "{path}") 2>/dev/null',
                _say(f"{name}_set", '"$?"'),
            ]
    lines.append(_say("launcher", f'"$(command -v -- {shlex.quote(launcher_program(site))})"'))
    if site.container:
        lines += [
            f"command -v -- {shlex.quote(site.container.command[0])} >/dev/null",
            _say("container", '"$?"'),
        ]
    else:
        lines += [f"{shlex.quote(sys.executable)} -c 'import matsci_hpc.cli'", _say("python", '"$?"')]
    return "\n".join(lines) + "\n"


def _say(key: str, value: str) -> str:
    return f"printf '%s\\0' {_MARK}{key}={value}"
