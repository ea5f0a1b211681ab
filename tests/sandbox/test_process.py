"""What a confined program can do, and what hostile ones cannot."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from chatwheel.errors import InputError
from chatwheel.sandbox import process as module
from chatwheel.sandbox.process import Limits, Outcome, run

QUICK = Limits(seconds=20)


def attempt(*statements: str, limits: Limits = QUICK) -> Outcome:
    """Tries each statement, and prints "done" and its number for those that raise nothing."""
    lines = ["import os, sys, ctypes"]
    for number, statement in enumerate(statements):
        lines += ["try:", *(f"    {line}" for line in statement.splitlines())]
        lines += [f"    print('done', {number}, flush=True)", "except (OSError, RuntimeError, MemoryError): pass"]
    return run("\n".join([*lines, "print('end')"]), limits=limits)


def alive(name: str) -> bool:
    """Whether a process calls itself so."""
    return any(each.info["name"] == name for each in psutil.process_iter(["name"]))


def test_a_program_computes_reads_its_input_and_imports_the_library() -> None:
    program = (
        "import sys, json, math, collections, unittest, decimal\nprint(json.loads(input())['a'] + math.floor(1.5))"
    )
    outcome = run(program + "\nprint('noted', file=sys.stderr)", stdin=b'{"a": 41}\n')
    assert (outcome.ended, outcome.exit, outcome.stdout) == ("by itself", 0, b"42\n")
    assert outcome.stderr == b"noted\n"
    assert outcome.succeeded


@pytest.mark.parametrize(
    ("program", "code"), [("raise ValueError('no')", 1), ("import sys; sys.exit(7)", 7), ("import os; os.abort()", -6)]
)
def test_failures_are_told(program: str, code: int) -> None:
    outcome = run(program)
    assert (outcome.ended, outcome.exit, outcome.succeeded) == ("by itself", code, False)


@pytest.mark.parametrize(
    "program",
    [
        "while True: pass",
        "import time; time.sleep(60)",
        "import os, time; os.close(1); os.close(2); time.sleep(60)",
        "import signal\nfor number in range(1, 32):\n  try: signal.signal(number, signal.SIG_IGN)\n"
        "  except (OSError, ValueError): pass\nwhile True: pass",
    ],
)
def test_what_does_not_end_is_ended(program: str) -> None:
    began = time.monotonic()
    outcome = run(program, limits=Limits(seconds=1))
    assert (outcome.ended, outcome.exit) == ("timed out", -9)
    assert time.monotonic() - began < 10


def test_the_processors_time_is_bounded_too() -> None:
    ignoring = "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\n"
    outcome = run(f"{ignoring}while True: pass", limits=Limits(seconds=60, cpu_seconds=1))
    assert (outcome.ended, outcome.exit) == ("by itself", -9)
    assert outcome.seconds < 40


def test_one_that_prints_forever_is_ended() -> None:
    outcome = run("import os\nwhile True: os.write(1, b'x' * 4096)", limits=Limits(seconds=60, output=100_000))
    assert outcome.ended == "wrote too much"
    assert outcome.stdout == b"x" * 100_000
    assert outcome.seconds < 30


def test_memory_is_bounded() -> None:
    outcome = attempt("x = bytearray(2**30)\nfor i in range(0, 2**30, 4096): x[i] = 1", limits=Limits(memory=2**28))
    assert outcome.stdout == b"end\n"


def test_there_are_no_further_processes_and_threads() -> None:
    outcome = attempt(
        "if not os.fork(): os._exit(0)",
        "import subprocess; subprocess.run(['/bin/true'])",
        "os.posix_spawn('/bin/true', ['true'], {})",
        "os.execv('/bin/true', ['true'])",
        "if ctypes.CDLL(None).vfork() < 0: raise OSError",
        "import threading; threading.Thread(target=print).start()",
        "import multiprocessing; multiprocessing.Process(target=print).start()",
    )
    assert outcome.stdout == b"end\n"


def test_no_child_outlives_its_program() -> None:
    outcome = run(
        "import os, time, ctypes\n"
        "def daemon():\n"
        "  if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    if os.fork() == 0:\n"
        "      ctypes.CDLL(None).prctl(15, b'cw-outlives', 0, 0, 0)\n"
        "      os.closerange(0, 64); time.sleep(20)\n"
        "    os._exit(0)\n"
        "try: daemon()\n"
        "except OSError: print('refused')"
    )
    assert outcome.stdout == b"refused\n"
    time.sleep(0.2)
    assert not alive("cw-outlives")


def test_it_dies_with_the_process_that_started_it() -> None:
    program = "import threading, time; print('here', flush=True); time.sleep(60)"
    starter = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"from chatwheel.sandbox.process import Limits, run; run({program!r}, limits=Limits(seconds=60))",
        ],
    )
    children: list[psutil.Process] = []
    until = time.monotonic() + 30
    while time.monotonic() < until and not any(c.cpu_times().user > 0 and _settled(c) for c in children):
        time.sleep(0.1)
        children = psutil.Process(starter.pid).children(recursive=True)
    assert children
    starter.kill()
    starter.wait()
    _, left = psutil.wait_procs(children, timeout=10)
    assert not [each for each in left if each.status() != psutil.STATUS_ZOMBIE]


def _settled(child: psutil.Process) -> bool:
    """It has begun to sleep, so it is confined by now."""
    try:
        return child.status() == psutil.STATUS_SLEEPING and time.time() - child.create_time() > 1
    except psutil.NoSuchProcess:
        return False


def test_no_file_is_changed(tmp_path: Path) -> None:
    file, link = tmp_path / "kept.txt", tmp_path / "link"
    file.write_text("kept")
    link.symlink_to(file)
    before = file.stat()
    outcome = attempt(
        f"open({str(tmp_path / 'new')!r}, 'w')",
        f"open({str(file)!r}, 'a')",
        f"os.open({str(file)!r}, os.O_RDONLY | os.O_TRUNC)",
        f"os.open({str(tmp_path)!r}, os.O_TMPFILE | os.O_RDWR)",
        f"os.truncate({str(file)!r}, 0)",
        f"os.unlink({str(file)!r})",
        f"os.rename({str(file)!r}, {str(tmp_path / 'moved')!r})",
        f"os.link({str(file)!r}, {str(tmp_path / 'hard')!r})",
        f"os.symlink('x', {str(tmp_path / 'soft')!r})",
        f"os.mkdir({str(tmp_path / 'directory')!r})",
        f"os.mkfifo({str(tmp_path / 'pipe')!r})",
        f"os.chmod({str(file)!r}, 0o777)",
        f"os.chown({str(file)!r}, 1, 1)",
        f"os.utime({str(file)!r}, (0, 0))",
        f"os.setxattr({str(file)!r}, 'user.x', b'x')",
        "import tempfile; tempfile.TemporaryFile()",
        "os.write(os.memfd_create('x'), b'x' * 2**20)",
    )
    assert outcome.stdout == b"end\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept.txt", "link"]
    after = file.stat()
    assert file.read_text() == "kept"
    assert (after.st_mode, after.st_uid, after.st_mtime_ns) == (before.st_mode, before.st_uid, before.st_mtime_ns)


def test_what_is_read_is_not_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's library, say: root may write there, and Landlock's first version does not know of truncation."""
    (tmp_path / "library.py").write_text("kept")
    readable = [*module._readable(), str(tmp_path)]
    monkeypatch.setattr(module, "_readable", lambda: readable)
    path = str(tmp_path / "library.py")
    outcome = attempt(f"print(open({path!r}).read())", f"os.open({path!r}, os.O_RDONLY | os.O_TRUNC)")
    assert outcome.stdout == b"kept\ndone 0\nend\n"
    assert (tmp_path / "library.py").read_text() == "kept"


def test_nothing_of_the_users_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret").write_text("secret")
    monkeypatch.setenv("SECRET", "secret")
    outcome = attempt(
        f"print(open({str(tmp_path / 'secret')!r}).read())",
        f"print(os.listdir({str(tmp_path)!r}))",
        f"print(os.listdir({str(Path.home())!r}))",
        "print(open('/etc/passwd').read())",
        "print(open('/proc/self/environ').read())",
        "print(open(f'/proc/{os.getppid()}/environ').read())",
        "print(open(f'/proc/{os.getppid()}/mem', 'rb').read(1))",
        "print(os.listdir('/'))",
        "print(os.environ['SECRET']) if 'SECRET' in os.environ else os.open('/', 0)",
    )
    assert outcome.stdout == b"end\n"


def test_no_open_file_is_handed_down(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    opened = os.open(tmp_path / "secret", os.O_RDONLY)
    os.set_inheritable(opened, True)
    try:
        outcome = run(
            "import os\nfound = []\nfor number in range(3, 1024):\n"
            "  try: os.fstat(number); found.append(number)\n  except OSError: pass\nprint(found)"
        )
    finally:
        os.close(opened)
    assert outcome.stdout == b"[]\n"


def test_nobody_is_spoken_to(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as local:
        local.bind(str(tmp_path / "socket"))
        local.listen()
        port = server.getsockname()[1]
        outcome = attempt(
            f"import socket; socket.create_connection(('127.0.0.1', {port}), 2)",
            f"import socket; socket.socket(socket.AF_UNIX).connect({str(tmp_path / 'socket')!r})",
            f"import socket; socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', {port}))",
            "import socket; socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
            "import socket; socket.socketpair()",
        )
        for listening in (server, local):
            listening.settimeout(0.1)
            with pytest.raises(TimeoutError):
                listening.accept()
    assert outcome.stdout == b"end\n"


def test_nobody_gets_a_signal_or_a_limit() -> None:
    heard: list[int] = []
    before = [
        signal.signal(number, lambda number, _: heard.append(number)) for number in (signal.SIGUSR1, signal.SIGIO)
    ]
    limit = psutil.Process().rlimit(psutil.RLIMIT_CORE)
    try:
        outcome = attempt(
            f"os.kill(os.getppid(), {int(signal.SIGUSR1)})",
            f"os.killpg(os.getpgid(os.getppid()), {int(signal.SIGUSR1)})",
            f"signal_ = {int(signal.SIGUSR1)}\nlibc = ctypes.CDLL(None)\n"
            "if libc.syscall(234, os.getppid(), os.getppid(), signal_) < 0: raise OSError",  # tgkill, on x86-64
            "import signal; signal.pidfd_send_signal(os.pidfd_open(os.getppid()), signal.SIGUSR1)",
            # A pipe that sends SIGIO to its owner when something can be read.
            "import fcntl\nr, w = os.pipe()\nfcntl.fcntl(r, fcntl.F_SETOWN, os.getppid())\n"
            "fcntl.fcntl(r, fcntl.F_SETFL, os.O_ASYNC)\nos.write(w, b'x')",
            "import resource; resource.prlimit(os.getppid(), resource.RLIMIT_CORE, (0, 0))",
            "import resource; resource.setrlimit(resource.RLIMIT_AS, (2**40, 2**40))",
            "os.setpriority(os.PRIO_PROCESS, os.getppid(), 19)",
            "if ctypes.CDLL(None).ptrace(16, os.getppid(), 0, 0) < 0: raise OSError",
        )
        time.sleep(0.1)
    finally:
        for number, handler in zip((signal.SIGUSR1, signal.SIGIO), before, strict=True):
            signal.signal(number, handler)
    assert outcome.stdout == b"end\n"
    assert heard == []
    assert psutil.Process().rlimit(psutil.RLIMIT_CORE) == limit


def test_the_same_program_says_the_same_each_time() -> None:
    program = "print(list({f'{i}' for i in range(50)}))"
    assert run(program).stdout == run(program).stdout


def test_two_programs_speak_to_each_other_and_end_together() -> None:
    before = set(psutil.Process().children())  # of tests before it
    outcome = run(
        "import os; os.write(CHANNEL[1], b'ping'); print(os.read(CHANNEL[0], 9).decode())",
        partner="import os, time; os.write(CHANNEL[1], os.read(CHANNEL[0], 9).upper()); time.sleep(60)",
    )
    assert outcome.stdout == b"PING\n"
    assert outcome.seconds < 30
    assert set(psutil.Process().children()) <= before


def test_without_a_sandbox_nothing_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing() -> None:
        return None

    module.check_available.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(module, "_library", nothing)
        with pytest.raises(InputError, match="apt install libseccomp2"):
            run("print(1)")
    with monkeypatch.context() as patch:
        patch.setattr(sys, "platform", "darwin")
        with pytest.raises(InputError, match="use Linux, or Docker"):
            run("print(1)")
    with monkeypatch.context() as patch:  # a kernel without Landlock
        patch.setattr(
            module,
            "INSIDE",
            module.INSIDE.replace(
                "LANDLOCK_RESTRICT_SELF = 444, 445, 446", "LANDLOCK_RESTRICT_SELF = 9444, 9445, 9446"
            ),
        )
        with pytest.raises(InputError, match=r"does not work here \(sandbox: .*Landlock: Function not implemented"):
            run("print(1)")
