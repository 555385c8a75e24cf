"""Confines subprocesses that decode uploads (seccomp, capabilities, rlimits), and hides the parent's memory from them.

A vulnerable decoder may run an upload's code as the worker's user. Therefore a subprocess gets a short list of
environment variables, and before it imports a decoder it gives up what decoding does not need: root's capabilities, new
programs and processes, sockets, signals to other processes, their memory, and files of unbounded size. The parent's
memory and environment are made unreadable. All of this is enforced by the Linux kernel, needs no privilege, and works
in containers, where namespaces usually cannot be created. What remains: such a subprocess can read, and write within
its limit, the files that the user can.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import resource
import struct
import sys

#: Environment variables that a subprocess gets, if they are set: paths, locale, numbers of threads.
PASSED = (
    "HOME",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "LD_LIBRARY_PATH",
    "PATH",
    "PYTHONHOME",
    "PYTHONPATH",
    "TMPDIR",
    "TZ",
    "CT2_FORCE_CPU_ISA",
    "CT2_USE_MKL",
    "CUDA_DEVICE_ORDER",
    "CUDA_VISIBLE_DEVICES",
    "MKL_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
)
#: Environment variables that every subprocess gets: no model is fetched from a hub.
_FIXED = {"HF_HUB_OFFLINE": "1"}
#: Those that it gets unless they are set: threads of numpy wait for each other by spinning, on few processors for long.
_DEFAULTS = {"OPENBLAS_NUM_THREADS": "1"}
#: Files that a subprocess may have open: pipes, a recording, a result, and modules while they are imported.
OPEN_FILES = 64

# From linux/prctl.h, linux/seccomp.h, linux/capability.h, linux/filter.h, linux/audit.h and linux/sched.h.
_PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 4, 38
_SECCOMP_SET_MODE_FILTER = 1
_CAPABILITY_VERSION_3 = 0x2008_0522
_CAP_DAC_READ_SEARCH = 2
_CLONE_THREAD = 0x1_0000
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _ERROR, _KILL = 0x7FFF_0000, 0x0005_0000, 0x8000_0000
#: Offsets in `struct seccomp_data`: the call's number, the architecture, the lower half of the first argument.
_NUMBER, _ARCHITECTURE, _ARGUMENT = 0, 4, 16

#: By machine: the number of its architecture; the numbers of the calls seccomp, capset, clone and clone3; of calls that
#: are allowed only if their first argument is this process (or 0, which means the same); and of calls that are refused.
_MACHINES: dict[str, tuple[int, dict[str, int], tuple[int, ...], tuple[int, ...]]] = {
    "x86_64": (
        0xC000_003E,
        {"seccomp": 317, "capset": 126, "clone": 56, "clone3": 435},
        # kill tkill tgkill rt_sigqueueinfo rt_tgsigqueueinfo prlimit64
        (62, 200, 234, 129, 297, 302),
        # socket socketpair fork vfork execve execveat ptrace process_vm_readv process_vm_writev kcmp unshare setns bpf
        # perf_event_open userfaultfd add_key request_key keyctl io_uring_setup pidfd_open pidfd_getfd pidfd_send_signal
        # mount umount2 chroot open_tree fsopen
        (
            *(41, 53, 57, 58, 59, 322, 101, 310, 311, 312, 272, 308, 321),
            *(298, 323, 248, 249, 250, 425, 434, 438, 424),
            *(165, 166, 161, 428, 430),
        ),
    ),
    "aarch64": (
        0xC000_00B7,
        {"seccomp": 277, "capset": 91, "clone": 220, "clone3": 435},
        (129, 130, 131, 138, 240, 261),
        # The same; there is no fork and no vfork.
        (
            *(198, 199, 221, 281, 117, 270, 271, 272, 97, 268, 280),
            *(241, 282, 217, 218, 219, 425, 434, 438, 424),
            *(40, 39, 51, 428, 430),
        ),
    ),
}


def environment() -> dict[str, str]:
    """The complete environment of a subprocess. It contains no keys, addresses or passwords of the parent."""
    return _DEFAULTS | {name: os.environ[name] for name in PASSED if name in os.environ} | _FIXED


def keep_private() -> None:
    """Set the umask to 077, and make this process's memory and environment unreadable to others of the same user.

    Subprocesses inherit the umask. Afterwards debuggers and profilers need root.
    """
    os.umask(0o077)
    _prctl(_PR_SET_DUMPABLE, 0)


def confine(memory: int, file_size: int, most_files: int = OPEN_FILES) -> list[str]:
    """Give up what a decoder does not need; see the module. Must be called before there are threads.

    `memory` is bytes of address space (`RLIM_INFINITY`: any), `file_size` the bytes that a written file may have,
    `most_files` how many may be open. Returns the names of the abilities that could not be given up: none on Linux on
    x86_64 and aarch64.
    """
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    open_files = most_files if hard == resource.RLIM_INFINITY else min(hard, most_files)
    resource.setrlimit(resource.RLIMIT_NOFILE, (open_files, open_files))
    machine = _MACHINES.get(platform.machine()) if sys.platform == "linux" else None
    if machine is None:
        return ["programs", "processes", "sockets"]
    _prctl(_PR_SET_DUMPABLE, 0)
    return [
        *([] if _prctl(_PR_SET_NO_NEW_PRIVS, 1) else ["new privileges"]),
        *([] if _drop_capabilities(machine[1]["capset"]) else ["capabilities"]),
        *([] if _filter_calls(machine[1]["seccomp"], _program(*machine)) else ["programs", "processes", "sockets"]),
    ]


def _prctl(option: int, value: int) -> bool:
    return sys.platform == "linux" and bool(ctypes.CDLL(None).prctl(option, value, 0, 0, 0) == 0)


def _drop_capabilities(capset: int) -> bool:
    """Drop all capabilities but the one by which root reads files of other users; ordinary users have none anyway.

    A process that has fewer capabilities than its parent cannot read the parent's memory and environment, even as root.
    """
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    keep = 1 << _CAP_DAC_READ_SEARCH if os.geteuid() == 0 else 0
    for kept in (keep, 0):  # keeping it fails if root does not have it
        data = struct.pack("=6I", kept, kept, 0, 0, 0, 0)
        if ctypes.CDLL(None).syscall(capset, header, data) == 0:
            return True
    return False


def _program(architecture: int, calls: dict[str, int], own: tuple[int, ...], refused: tuple[int, ...]) -> bytes:
    """The seccomp filter. An instruction is its code, the jumps if true and if false, and an operand."""
    no, pid = _ERROR | errno.EPERM, os.getpid()
    program = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
        (_AT_LEAST, 0, 1, 0x4000_0000),  # numbers of the x32 ABI
        (_RETURN, 0, 0, no),
        (_EQUAL, 0, 1, calls["clone3"]),  # a filter cannot read its flags; after ENOSYS the C library calls clone
        (_RETURN, 0, 0, _ERROR | errno.ENOSYS),
        (_EQUAL, 0, 4, calls["clone"]),
        (_LOAD, 0, 0, _ARGUMENT),
        (_ANY_BIT, 1, 0, _CLONE_THREAD),
        (_RETURN, 0, 0, no),
        (_RETURN, 0, 0, _ALLOW),
    ]
    for call in own:
        program += [
            (_EQUAL, 0, 5, call),
            (_LOAD, 0, 0, _ARGUMENT),
            (_EQUAL, 2, 0, 0),
            (_EQUAL, 1, 0, pid),
            (_RETURN, 0, 0, no),
            (_RETURN, 0, 0, _ALLOW),
        ]
    for call in refused:
        program += [(_EQUAL, 0, 1, call), (_RETURN, 0, 0, no)]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in [*program, (_RETURN, 0, 0, _ALLOW)])


def _filter_calls(seccomp: int, program: bytes) -> bool:
    instructions = ctypes.create_string_buffer(program, len(program))
    head = struct.pack("@HP", len(program) // 8, ctypes.addressof(instructions))
    return bool(ctypes.CDLL(None).syscall(seccomp, _SECCOMP_SET_MODE_FILTER, 0, head) == 0)
