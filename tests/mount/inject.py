"""Makes a process do a system call: to see from inside what it may do. x86-64, as root."""

import ctypes
import os
import signal

PTRACE_POKEDATA, PTRACE_SINGLESTEP, PTRACE_GETREGS, PTRACE_SETREGS, PTRACE_ATTACH, PTRACE_DETACH = 5, 9, 12, 13, 16, 17
REGISTERS = (
    "r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp ss fs_base gs_base ds es fs gs"
).split()
ARGUMENTS = ("rdi", "rsi", "rdx", "r10", "r8", "r9")
OPENAT, SOCKET, CLOSE = 257, 41, 3


class Registers(ctypes.Structure):
    _fields_ = [(name, ctypes.c_ulonglong) for name in REGISTERS]


def can_inject():
    return os.geteuid() == 0 and os.uname().machine == "x86_64"


def inject(pid, number, *arguments):
    """Has the main thread of `pid`, which waits in a system call, do another one first; gives its result (-errno for a
    failure), or minus 1000 and the signal by which the process ended. A bytes argument becomes a pointer to it."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    libc.ptrace.restype = ctypes.c_long

    def ptrace(request, address=None, data=None):
        if libc.ptrace(request, pid, address, data) < 0:
            raise OSError(ctypes.get_errno(), "ptrace %d" % request)

    ptrace(PTRACE_ATTACH)
    os.waitpid(pid, 0)
    before, now = Registers(), Registers()
    ptrace(PTRACE_GETREGS, None, ctypes.addressof(before))
    ctypes.pointer(now)[0] = before
    room = before.rsp - 65536  # far below what the stack holds
    for register, argument in zip(ARGUMENTS, arguments):
        if isinstance(argument, bytes):
            text = argument + b"\0" * (8 - len(argument) % 8)
            for at in range(0, len(text), 8):
                ptrace(PTRACE_POKEDATA, room + at, int.from_bytes(text[at : at + 8], "little"))
            argument, room = room, room - 4096
        setattr(now, register, argument & (1 << 64) - 1)
    now.rip -= 2  # the instruction by which it got there
    now.rax, now.orig_rax = number, (1 << 64) - 1  # and no call to begin again
    ptrace(PTRACE_SETREGS, None, ctypes.addressof(now))
    ptrace(PTRACE_SINGLESTEP)
    status = os.waitpid(pid, 0)[1]
    if os.WIFSIGNALED(status):
        return -1000 - os.WTERMSIG(status)
    if os.WSTOPSIG(status) != signal.SIGTRAP:
        ptrace(PTRACE_DETACH, None, os.WSTOPSIG(status))
        raise RuntimeError("stopped by signal %d" % os.WSTOPSIG(status))
    ptrace(PTRACE_GETREGS, None, ctypes.addressof(now))
    ptrace(PTRACE_SETREGS, None, ctypes.addressof(before))
    ptrace(PTRACE_DETACH)
    return ctypes.c_longlong(now.rax).value
