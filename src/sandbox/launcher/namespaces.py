"""Namespaces: this process leaves those of the host and loses its user."""

from __future__ import annotations

import os

from .calls import StepFailed, call

NEW_CGROUP, NEW_UTS, NEW_IPC, NEW_USER, NEW_PID, NEW_NET, NEW_MOUNT = (
    0x02000000,
    0x04000000,
    0x08000000,
    0x10000000,
    0x20000000,
    0x40000000,
    0x00020000,
)
NAMESPACES = NEW_USER | NEW_PID | NEW_MOUNT | NEW_NET | NEW_IPC | NEW_UTS | NEW_CGROUP
NOBODY = 65534
"""User and group inside; also outside if this process is root."""


def enter_namespaces() -> None:
    """Enters new namespaces; the next child is process 1 of the new PID namespace.

    In the new user namespace one user exists, `NOBODY`. Outside it is the user of this process, or `NOBODY`
    if that is root: root itself is never mapped. Call `become_nobody` after the last access to host files.

    Raises:
        StepFailed: the kernel refused a namespace or the mapping of the user.
    """
    user, group = os.geteuid(), os.getegid()
    if user == 0:
        _check_mapped("/proc/self/uid_map")
        _check_mapped("/proc/self/gid_map")
        os.setgroups([])
        user = group = NOBODY
    ready, start = os.pipe()
    writer = os.fork()
    if writer == 0:  # a process that has left the old user namespace may no longer map its users
        os.close(start)
        os._exit(_write_maps(os.getppid(), user, group) if os.read(ready, 1) else 0)
    os.close(ready)
    try:
        call("new user, PID, mount, network, IPC, UTS and cgroup namespaces", "unshare", NAMESPACES)
        os.write(start, b"1")
    finally:
        os.close(start)
        error = os.waitstatus_to_exitcode(os.waitpid(writer, 0)[1])
    if error:
        raise StepFailed(f"mapping of user {user} into the user namespace: {os.strerror(error)}")
    call("name of the host", "sethostname", b"sandbox", 7)


def become_nobody() -> None:
    """Becomes the only user of the namespace; keeps its capabilities inside the namespace."""
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)


def _check_mapped(path: str) -> None:
    """Checks that `NOBODY` exists in the user namespace of this process, which may be a container's."""
    with open(path, encoding="ascii") as file:
        ranges = [[int(number) for number in line.split()] for line in file]
    if not any(first <= NOBODY < first + count for first, _, count in ranges):
        raise StepFailed(
            f"this root is of a container without user {NOBODY} ({path}); map more users into it, or run as "
            "another user"
        )


def _write_maps(process: int, user: int, group: int) -> int:
    """Maps user and group of `process`; returns 0 or the number of the error."""
    try:
        for name, text in (
            ("setgroups", "deny"),
            ("gid_map", f"{NOBODY} {group} 1"),
            ("uid_map", f"{NOBODY} {user} 1"),
        ):
            with open(f"/proc/{process}/{name}", "w", encoding="ascii") as file:
                file.write(text)
    except OSError as error:
        return error.errno or 1
    return 0
