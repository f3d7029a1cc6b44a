"""Programs that try to reach files, the network, the environment and privileges of the host."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from llamita.sandbox import programs

from ..helpers.repository import REPOSITORY
from ..helpers.sandboxed import HOSTILE, AsThisUser, Runner, readable_by_all


def succeeds(sandbox: Runner, program: str, **limits: float) -> None:
    """The program checks by itself that its attacks fail."""
    outcome = sandbox(HOSTILE + program, **limits)
    assert outcome.passed, outcome.detail


def test_no_file_of_the_host_is_visible(sandbox: Runner, tmp_path: Path) -> None:
    secret = readable_by_all(tmp_path / "secret", "secret")
    paths = [
        *(
            "/etc/passwd",
            "/etc/shadow",
            "/etc/hostname",
            "/proc",
            "/proc/self/exe",
            "/proc/1/root",
            "/sys",
            "/run",
        ),
        *(
            "/var",
            "/home",
            "/boot",
            "/opt",
            "/bin/sh",
            "/usr/bin",
            "/dev/shm",
            "/dev/tty",
            "/dev/kmsg",
            "/dev/mem",
        ),
        *map(str, (secret, REPOSITORY, Path.home() / ".ssh", Path.home() / ".bashrc", Path.cwd())),
    ]
    succeeds(
        sandbox,
        f"""
for path in {paths!r}:
    assert raises(os.stat, path) == "ENOENT", path
    assert raises(os.open, path, os.O_RDONLY) == "ENOENT", path
assert set(os.listdir("/dev")) == {{"null", "urandom"}}
assert os.listdir("/tmp") == [] and os.getcwd() == "/tmp"
found = [os.path.join(folder, name) for folder, _, names in os.walk("/") for name in names]
own = tuple(sorted(set(sys.path) | {{"/dev/", "/etc/ld.so.cache"}}))
others = [path for path in found if not path.startswith(own) and ".so" not in path]
assert not others, others
for folder, names, _ in os.walk("/"):
    if folder.endswith("-packages"):
        assert os.listdir(folder) == []
""",
    )


def test_nothing_outside_tmp_can_be_written(sandbox: Runner) -> None:
    succeeds(
        sandbox,
        """
for folder, _, files in os.walk("/"):
    if folder.startswith("/tmp"):
        continue
    assert raises(os.open, folder + "/new", os.O_CREAT | os.O_WRONLY) in ("EROFS", "EACCES"), folder
    assert raises(os.mkdir, folder + "/folder") in ("EROFS", "EACCES"), folder
for path in [os.__file__, "/etc/ld.so.cache", *(f"{f}/{n}" for f, _, ns in os.walk("/lib64") for n in ns)]:
    if os.path.exists(path):
        assert raises(os.open, path, os.O_WRONLY) in ("EROFS", "EACCES"), path
        assert raises(os.chmod, path, 0o777) in ("EROFS", "EPERM"), path
        assert raises(os.unlink, path) in ("EROFS", "EACCES", "EBUSY"), path
""",
    )


def test_files_of_this_user_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where an ordinary user installed the interpreter."""
    sandbox = AsThisUser()
    owned = readable_by_all(tmp_path / "owned", "x")
    for path in (owned, tmp_path):
        path.chmod(0o777)
    files = (*programs.needed_files(), str(tmp_path))
    monkeypatch.setattr(programs, "needed_files", lambda: files)
    program = f"""
assert open({str(owned)!r}).read() == "x"
assert raises(os.open, {str(owned)!r}, os.O_WRONLY) == "EROFS"
assert raises(os.open, {str(tmp_path / "new")!r}, os.O_CREAT | os.O_WRONLY) == "EROFS"
"""
    succeeds(sandbox, program)


def test_nothing_written_survives(sandbox: Runner) -> None:
    program = "import os\nassert not os.path.exists('/tmp/kept')\nopen('/tmp/kept', 'w').write('x')"
    assert sandbox(program).passed
    assert sandbox(program).passed
    assert not Path("/tmp/kept").exists()


def test_files_are_limited(sandbox: Runner) -> None:
    succeeds(
        sandbox,
        """
def fill(name):
    file = os.open(name, os.O_CREAT | os.O_WRONLY)
    written = 0
    while True:
        try:
            written += os.write(file, bytes(1 << 16))
        except OSError as error:
            return written, errno.errorcode[error.errno]

size, error = fill("one")
assert size <= 1 << 20 and error in ("ENOSPC", "EFBIG"), (size, error)
os.unlink("one")
sizes = [fill(str(i))[0] for i in range(5)]
assert sum(sizes) <= 1 << 20, sizes
for i in range(5):
    os.unlink(str(i))
count = 0
try:
    while True:
        os.close(os.open(f"empty{count}", os.O_CREAT | os.O_WRONLY))
        count += 1
except OSError as found:
    assert found.errno == errno.ENOSPC
assert count <= 40, count
opened = []
try:
    while True:
        opened.append(os.open("/dev/null", os.O_RDONLY))
except OSError as found:
    assert found.errno == errno.EMFILE
assert len(opened) < 30
""",
        disk=1 << 20,
        files=40,
        open_files=30,
    )


def test_environment_and_descriptors_hold_nothing(sandbox: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "a-secret")
    program = """
import stat
assert not os.environ, os.environ
assert not ctypes.c_void_p.in_dll(libc, "environ").value or not any(
    ctypes.POINTER(ctypes.c_char_p).in_dll(libc, "environ")[0:1])
libc.getenv.restype = ctypes.c_char_p
assert libc.getenv(b"SECRET_TOKEN") is None and libc.getenv(b"HOME") is None
libc.getauxval.restype = ctypes.c_ulong
strings = ctypes.string_at(libc.getauxval(31) - 500, 500)  # AT_EXECFN: above the first environment's strings
assert b"PYTHONHASHSEED=0" in strings and b"HOME=" not in strings and b"SECRET" not in strings, strings
kinds = {}
for descriptor in range(4096):
    try:
        kinds[descriptor] = os.fstat(descriptor)
    except OSError:
        pass
pipes = [d for d, found in kinds.items() if stat.S_ISFIFO(found.st_mode)]
null = os.stat("/dev/null").st_rdev
assert len(pipes) == 3 and all(found.st_rdev == null for d, found in kinds.items() if d not in pipes), kinds
"""
    succeeds(sandbox, program, open_files=64)


def test_the_network_is_unreachable(sandbox: Runner) -> None:
    with socket.socket() as server, socket.socket(socket.AF_UNIX) as abstract:
        server.bind(("127.0.0.1", 0))
        server.listen()
        abstract.bind(f"\0llamita-test-{os.getpid()}")
        abstract.listen()
        succeeds(
            sandbox,
            f"""
import socket
assert raises(socket.socket(socket.AF_UNIX).connect, "\\0llamita-test-{os.getpid()}") == "ECONNREFUSED"
assert raises(socket.create_connection, ("127.0.0.1", {server.getsockname()[1]})) == "EAFNOSUPPORT"
for family in (2, 10, 16, 17, 38, 40):  # IPv4, IPv6, netlink, packets, crypto, virtual machines
    assert fails("socket", family, 1, 0) == "EAFNOSUPPORT"
    assert fails("socketpair", family, 1, 0, (ctypes.c_int * 2)()) == "EAFNOSUPPORT"
a, b = socket.socketpair()
a.send(b"x")
assert b.recv(1) == b"x"
assert os.uname().nodename == "sandbox"
try:
    socket.getaddrinfo("localhost", 80)
except OSError:
    pass
else:
    raise AssertionError("names are resolved")
""",
        )


def test_no_privilege_is_left_and_none_can_be_got(sandbox: Runner) -> None:
    succeeds(
        sandbox,
        """
assert os.getresuid() == (65534,) * 3 and os.getresgid() == (65534,) * 3
assert set(os.getgroups()) <= {65534}
header, caps = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
assert libc.capget(header, caps) == 0 and not any(caps)
assert all(libc.prctl(23, capability, 0, 0, 0) <= 0 for capability in range(41))  # PR_CAPBSET_READ
assert libc.prctl(39, 0, 0, 0, 0) == 1  # PR_GET_NO_NEW_PRIVS
assert libc.prctl(21, 0, 0, 0, 0) == 2  # PR_GET_SECCOMP: filter
assert libc.prctl(3, 0, 0, 0, 0) == 0  # PR_GET_DUMPABLE
assert fails("prctl", 4, 1, 0, 0, 0) == "EPERM"  # PR_SET_DUMPABLE
caps[0] = caps[1] = 1 << 21
assert fails("capset", header, caps) == "EPERM"
assert raises(os.setuid, 0) in ("EPERM", "EINVAL") and raises(os.setgid, 0) in ("EPERM", "EINVAL")
assert raises(os.mknod, "device", 0o60666, os.makedev(8, 0)) == "EPERM"
assert raises(os.nice, -1) in ("EPERM", "EACCES")
import resource
for kind in (resource.RLIMIT_AS, resource.RLIMIT_NPROC, resource.RLIMIT_CPU, resource.RLIMIT_NOFILE):
    hard = resource.getrlimit(kind)[1]
    try:
        resource.setrlimit(kind, (hard + 1, hard + 1))
    except ValueError:
        pass
    else:
        raise AssertionError("a limit was raised")
""",
    )


def test_forbidden_system_calls(sandbox: Runner) -> None:
    succeeds(
        sandbox,
        """
arguments = {
    "mount": (b"none", b"/tmp", b"tmpfs", 0, None), "umount2": (b"/tmp", 2), "pivot_root": (b".", b"."),
    "chroot": (b"/tmp",), "ptrace": (0, 0, 0, 0), "setns": (0, 0), "sethostname": (b"x", 1),
    "reboot": (0,), "swapon": (b"/tmp/x", 0), "acct": (None,), "personality": (0x0040000,),
    "memfd_create": (b"x", 0), "shmget": (0, 4096, 0o1600), "semget": (0, 1, 0o1600), "msgget": (0, 0o1600),
    "fanotify_init": (0, 0), "klogctl": (3, None, 0), "init_module": (None, 0, b""),
    "process_vm_readv": (1, None, 0, None, 0, 0), "open_by_handle_at": (-100, None, 0),
}
for name, given in arguments.items():
    assert fails(name, *given) == "EPERM", name
for flag in (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000):
    assert fails("unshare", flag) == "EPERM"
numbers = {  # keys, bpf, perf_event_open, userfaultfd, kexec_load, kcmp
    "x86_64": (248, 249, 250, 321, 298, 323, 246, 312),
    "aarch64": (217, 218, 219, 280, 241, 282, 104, 272),
}
for number in numbers[os.uname().machine]:
    assert fails("syscall", number, 0, 0, 0, 0, 0) == "EPERM", number
# io_uring, clone3, pidfds, and ways to mount
for number in (424, 425, 426, 427, 428, 429, 430, 432, 434, 435, 438, 440, 442, 447):
    assert fails("syscall", number, 0, 0, 0, 0, 0) == "ENOSYS", number
clone = {"x86_64": 56, "aarch64": 220}[os.uname().machine]
for flag in (0x20000, 0x10000000, 0x40000000):
    assert fails("syscall", clone, flag | 17, 0, 0, 0, 0) == "EPERM"
""",
        processes=2,
    )


def test_no_program_can_be_started(sandbox: Runner) -> None:
    """So no program can gain privileges (setuid), or run without the filter (32 bit)."""
    succeeds(
        sandbox,
        """
loader = next(f"{f}/{n}" for f, _, names in os.walk("/") for n in names if n.startswith("ld-linux"))
assert raises(os.execv, loader, [loader]) == "EPERM"
assert raises(os.execv, "/bin/sh", ["sh"]) == "EPERM"
with open("script", "w") as file:
    file.write("#!" + loader)
os.chmod("script", 0o4755)
assert raises(os.execv, "/tmp/script", ["script"]) == "EPERM"
import mmap
file = os.open("code", os.O_CREAT | os.O_RDWR)
os.write(file, bytes(4096))
assert raises(lambda: mmap.mmap(file, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC)) == "EPERM"  # noexec
""",
        processes=2,
    )


def test_leaving_the_root(sandbox: Runner) -> None:
    succeeds(
        sandbox,
        """
os.chdir("/")
assert os.listdir("../../../..") == os.listdir("/")
os.symlink("/../../../etc/passwd", "/tmp/link")
assert raises(os.open, "/tmp/link", os.O_RDONLY) == "ENOENT"
for descriptor in range(64):
    try:
        os.fchdir(descriptor)
    except OSError:
        continue
    raise AssertionError("a folder of the host is open")
""",
    )
