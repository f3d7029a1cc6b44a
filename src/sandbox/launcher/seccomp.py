"""Filter of system calls (seccomp): a second barrier, should a capability or a namespace have a hole."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from typing import NamedTuple

from .calls import PR_SET_DUMPABLE, PR_SET_SECCOMP, StepFailed, prctl

ALLOW, KILL, ERROR = 0x7FFF0000, 0x80000000, 0x00050000
"""Results of the filter; `ERROR` plus an error number makes the call fail with it."""

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # classic BPF
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16  # offsets in `struct seccomp_data`
_FILTER_MODE = 2
_NEW_NAMESPACES = 0x7E020080  # all CLONE_NEW… flags
_AF_UNIX = 1
_X32 = 0x40000000  # system calls of 32-bit programs on x86_64
_FIRST_COMMON_NUMBER = 424  # from here on numbers are the same on all architectures
_ALLOWED_COMMON = {
    "close_range": 436,
    "openat2": 437,
    "faccessat2": 439,
    "epoll_pwait2": 441,
    "futex_waitv": 449,
}

FORBIDDEN: dict[str, tuple[int | None, int | None]] = {
    # name: (number on x86_64, on aarch64; None where it does not exist)
    "execve": (59, 221),
    "execveat": (322, 281),
    # namespaces and file systems
    "unshare": (272, 97),
    "setns": (308, 268),
    "chroot": (161, 51),
    "pivot_root": (155, 41),
    "mount": (165, 40),
    "umount2": (166, 39),
    "quotactl": (179, 60),
    "fanotify_init": (300, 262),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    # other processes
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    # memory that no limit counts
    "memfd_create": (319, 279),
    "shmget": (29, 194),
    "shmat": (30, 196),
    "semget": (64, 190),
    "msgget": (68, 186),
    "mq_open": (240, 180),
    # keys of the host's users
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    # parts of the kernel that programs attack
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_setup": (206, 0),
    "personality": (135, 92),
    "modify_ldt": (154, None),
    "lookup_dcookie": (212, 18),
    "mbind": (237, 235),
    "set_mempolicy": (238, 237),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
    # the machine
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "acct": (163, 89),
    "syslog": (103, 116),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "adjtimex": (159, 171),
    "clock_adjtime": (305, 266),
    "vhangup": (153, 58),
    "iopl": (172, None),
    "ioperm": (173, None),
}


class Architecture(NamedTuple):
    """Column in `FORBIDDEN`, number in the kernel's audit, and system calls whose argument is checked."""

    column: int
    audit: int
    socket: int
    socketpair: int
    clone: int
    prctl: int
    prlimit: int


ARCHITECTURES = {
    "x86_64": Architecture(
        column=0, audit=0xC000003E, socket=41, socketpair=53, clone=56, prctl=157, prlimit=302
    ),
    "aarch64": Architecture(
        column=1, audit=0xC00000B7, socket=198, socketpair=199, clone=220, prctl=167, prlimit=261
    ),
}

Instruction = tuple[int, int, int, int]
"""Operation, instructions to skip if true, instructions to skip if false, constant."""


def instructions(architecture: Architecture) -> list[Instruction]:
    """Returns the filter of an architecture, as instructions of classic BPF."""
    no_permission = _return(ERROR | errno.EPERM)
    found = [(_LOAD, 0, 0, _ARCHITECTURE), (_EQUAL, 1, 0, architecture.audit), _return(KILL)]
    found += [(_LOAD, 0, 0, _NUMBER), (_AT_LEAST, 0, 1, _X32), _return(KILL)]
    for number in _ALLOWED_COMMON.values():
        found += [(_EQUAL, 0, 1, number), _return(ALLOW)]
    # clone3 is among these: the C library then uses clone, whose flags a filter can read.
    found += [(_AT_LEAST, 0, 1, _FIRST_COMMON_NUMBER), _return(ERROR | errno.ENOSYS)]
    for numbers in FORBIDDEN.values():
        forbidden = numbers[architecture.column]
        if forbidden is not None:
            found += [(_EQUAL, 0, 1, forbidden), no_permission]
    # Sockets of a virtual machine (AF_VSOCK) and others belong to no network namespace.
    no_family = _return(ERROR | errno.EAFNOSUPPORT)
    for call in (architecture.socket, architecture.socketpair):
        found += _if_first_argument(call, (_EQUAL, 1, 0, _AF_UNIX), no_family)
    found += _if_first_argument(architecture.clone, (_ANY_BIT, 0, 1, _NEW_NAMESPACES), no_permission)
    found += _if_first_argument(architecture.prctl, (_EQUAL, 0, 1, PR_SET_DUMPABLE), no_permission)
    found += _if_first_argument(
        architecture.prlimit, (_EQUAL, 1, 0, 0), no_permission
    )  # of this process only
    return [*found, _return(ALLOW)]


def install(found: list[Instruction] | None = None) -> None:
    """Installs the filter of this machine, or the given one, for this process and its future children.

    Needs no new privileges (PR_SET_NO_NEW_PRIVS) to be set.

    Raises:
        StepFailed: there is no filter for this processor, or the kernel has no seccomp.
    """
    if found is None:
        if os.uname().machine not in ARCHITECTURES:
            raise StepFailed(
                f"system call filter: none for {os.uname().machine}, only {', '.join(ARCHITECTURES)}"
            )
        found = instructions(ARCHITECTURES[os.uname().machine])
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in found))
    program = ctypes.create_string_buffer(struct.pack("@HP", len(found), ctypes.addressof(code)))
    prctl("system call filter", PR_SET_SECCOMP, _FILTER_MODE, second=ctypes.addressof(program))


def _return(result: int) -> Instruction:
    return _RETURN, 0, 0, result


def _if_first_argument(number: int, condition: Instruction, otherwise: Instruction) -> list[Instruction]:
    """For one system call: returns `otherwise` where the condition does not skip it, else allows the call."""
    block = [(_LOAD, 0, 0, _FIRST_ARGUMENT), condition, otherwise, _return(ALLOW)]
    return [(_EQUAL, 0, len(block), number), *block]
