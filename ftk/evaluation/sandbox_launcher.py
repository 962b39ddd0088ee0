"""What runs an untrusted program within its limits: started by `sandbox` as a process of its own, by itself.

It must not import ftk: nothing but the standard library is there. Exit code 0 with `passed` in the pipe says that the
program ran to its end.
"""

import ctypes
import os
import resource
import signal
import sys

_CLONE_NEWUSER, _CLONE_NEWPID, _CLONE_NEWNET, _CLONE_NEWIPC = 0x10000000, 0x20000000, 0x40000000, 0x08000000
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38


def main(
    program: str, pipe: str, seconds: str, memory_bytes: str, file_bytes: str, num_processes: str, isolated: str
) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if int(isolated) and libc.unshare(_CLONE_NEWUSER | _CLONE_NEWPID | _CLONE_NEWNET | _CLONE_NEWIPC) != 0:
        os._exit(97)
    # The first process of the namespace: with its end the kernel ends all others in it.
    child = os.fork()
    if child:
        # The child holds the pipe alone.
        os.close(int(pipe))
        signal.signal(signal.SIGALRM, lambda *_: os.kill(child, signal.SIGKILL))
        signal.setitimer(signal.ITIMER_REAL, float(seconds))
        _, status = os.waitpid(child, 0)
        os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    with open(program, "rb") as file:
        text = file.read()
    _limit(seconds=float(seconds), memory_bytes=int(memory_bytes), file_bytes=int(file_bytes), num=int(num_processes))
    # As Python starts a program: without the words of this one, the pipe's number among them.
    sys.argv = ["program.py"]
    try:
        exec(compile(text, "program.py", "exec"), {"__name__": "__main__"})
        os.write(int(pipe), b"passed")
    except BaseException:
        os._exit(1)
    os._exit(0)


def _limit(*, seconds: float, memory_bytes: int, file_bytes: int, num: int) -> None:
    """Limits that cannot be raised again."""
    processor = int(seconds) + 1
    for what, most in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_CPU, processor),
        (resource.RLIMIT_FSIZE, file_bytes),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_NPROC, num),
    ):
        _, hardest = resource.getrlimit(what)
        most = most if hardest == resource.RLIM_INFINITY else min(most, hardest)
        resource.setrlimit(what, (most, most))


if __name__ == "__main__":
    main(*sys.argv[1:])
