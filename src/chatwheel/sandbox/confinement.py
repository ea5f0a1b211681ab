"""What runs inside, first: the process gives up all that it will not need, for good, and then runs the program.

This file's text is what `python -c` is given, so it imports the standard library alone. What it takes away:

- files: Landlock lets it read Python's own library and nothing else; the list of calls has none that writes, makes,
  renames or removes a file;
- processes, threads, signals to others, sockets, mounts, tracing: seccomp answers "no such call" to all but CALLS;
- memory and time: limits that cannot be raised again; capabilities, root's too, are dropped.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import stat
import struct
import sys
from typing import Any

# Linux's numbers, the same on all its architectures.
PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS = 1, 38
LANDLOCK_CREATE_RULESET, LANDLOCK_ADD_RULE, LANDLOCK_RESTRICT_SELF = 444, 445, 446
READ_FILE, READ_DIR = 1 << 2, 1 << 3
HANDLED = (1 << 13) - 1
"""All of Landlock's first version: whatever is not allowed is forbidden."""
ALLOW, NO_SUCH_CALL = 0x7FFF0000, 0x00050000 | 38
EQUAL, MASKED_EQUAL = 4, 7

CALLS = """
access arch_prctl brk clock_getres clock_gettime clock_nanosleep close dup dup2 dup3 epoll_create1 epoll_ctl epoll_pwait
epoll_wait eventfd2 exit exit_group faccessat faccessat2 fstat fstatfs futex getcwd getdents64 getegid geteuid getgid
getpgrp getpid getppid getrandom getrlimit getrusage gettid gettimeofday getuid lseek lstat madvise membarrier mmap
mprotect mremap munmap nanosleep newfstatat pipe pipe2 poll ppoll pread64 pselect6 read readlink readlinkat readv
restart_syscall rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigreturn sched_getaffinity sched_yield select
set_robust_list set_tid_address sigaltstack stat statfs statx sysinfo time times uname write writev
"""
WRITES = os.O_ACCMODE | os.O_CREAT | os.O_TRUNC | os.O_APPEND
ALLOWED_WITH: dict[str, tuple[tuple[int, int, int, int], ...]] = {
    # by call: (argument, comparison, value or mask, masked value)
    "open": ((1, MASKED_EQUAL, WRITES, 0),),
    "openat": ((2, MASKED_EQUAL, WRITES, 0),),
    # F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_DUPFD_CLOEXEC: F_SETOWN would send signals to others
    "fcntl": tuple((1, EQUAL, command, 0) for command in (0, 1, 2, 3, 1030)),
    "ioctl": tuple((1, EQUAL, command, 0) for command in (0x5401, 0x5451)),  # TCGETS (isatty), FIOCLEX
    "prlimit64": ((2, EQUAL, 0, 0),),  # reads limits, sets none
}


class _Comparison(ctypes.Structure):
    _fields_ = (("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64))


def confine(limits: dict[str, int], readable: list[str], library: str) -> None:
    """limits: bytes and seconds by name, see `process.Limits`. readable: files and directories. library: libseccomp.
    Raises OSError if the system refuses any of it."""
    libc = ctypes.CDLL(None, use_errno=True)
    seccomp = ctypes.CDLL(library, use_errno=True)  # opened while files can be
    seccomp.seccomp_init.restype = ctypes.c_void_p
    for name, value in (
        (resource.RLIMIT_CPU, limits["cpu_seconds"]),
        (resource.RLIMIT_AS, limits["memory"]),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_NPROC, 0),  # seccomp forbids processes to root too, whom this limit does not bind
    ):
        resource.setrlimit(name, (value, value))
    _must(libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "PR_SET_PDEATHSIG")
    _must(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "PR_SET_NO_NEW_PRIVS")
    _drop_capabilities(libc)
    _landlock(libc, readable)
    _seccomp(seccomp)


def _drop_capabilities(libc: Any) -> None:
    header, none = struct.pack("Ii", 0x20080522, 0), bytes(24)  # version 3; two sets of three words
    _must(libc.capset(header, none), "capset")


def _landlock(libc: Any, readable: list[str]) -> None:
    handled = ctypes.c_uint64(HANDLED)
    ruleset = _must(libc.syscall(LANDLOCK_CREATE_RULESET, ctypes.byref(handled), 8, 0), "Landlock")
    for path in readable:
        try:
            opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        rights = READ_FILE | READ_DIR if stat.S_ISDIR(os.fstat(opened).st_mode) else READ_FILE
        rule = struct.pack("=Qi", rights, opened)
        _must(libc.syscall(LANDLOCK_ADD_RULE, ruleset, 1, rule, 0), "Landlock")
        os.close(opened)
    _must(libc.syscall(LANDLOCK_RESTRICT_SELF, ruleset, 0), "Landlock")
    os.close(ruleset)


def _seccomp(library: Any) -> None:
    filter_ = ctypes.c_void_p(library.seccomp_init(NO_SUCH_CALL))
    # abort() and pthread_kill() to oneself
    conditions = {**ALLOWED_WITH, "tgkill": ((0, EQUAL, os.getpid(), 0),)}
    for name in [*CALLS.split(), *conditions]:
        number = library.seccomp_syscall_resolve_name(name.encode())
        if number < 0:  # not on this architecture
            continue
        for comparison in conditions.get(name, (None,)):
            array = (_Comparison * 1)(_Comparison(*comparison)) if comparison else None
            count = 1 if comparison else 0
            _must(library.seccomp_rule_add_array(filter_, ALLOW, number, count, array), f"seccomp of {name}")
    _must(library.seccomp_load(filter_), "seccomp")


def _must(result: int, what: str) -> int:
    if result < 0:
        error = ctypes.get_errno() or -result
        raise OSError(error, f"{what}: {os.strerror(error)}")
    return result


def main(given: int) -> None:
    """given: a file descriptor with what to run and how, as JSON. Exits with 125 if the process cannot be confined."""
    with os.fdopen(given, "rb") as file:
        job = json.loads(file.read())
    try:
        confine(job["limits"], job["readable"], job["library"])
        if os.getppid() != job["parent"]:  # it died before it could take this process with it
            os._exit(125)
    except (OSError, ValueError) as error:
        os.write(2, f"sandbox: {error}\n".encode())
        os._exit(125)
    sys.path[:] = [path for path in sys.path if path]
    module = sys.modules["__main__"] = type(sys)("__main__")  # this text's names stay out of the program's way
    module.__dict__["CHANNEL"] = job["channel"]
    exec(compile(job["source"], "<program>", "exec"), module.__dict__)
