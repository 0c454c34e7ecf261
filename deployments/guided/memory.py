"""How much memory this process has."""

import ctypes
import resource
from pathlib import Path

_libc = ctypes.CDLL(None)


class _Mallinfo(ctypes.Structure):
    """glibc's `struct mallinfo2`."""

    _names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
    _fields_ = [(name, ctypes.c_size_t) for name in _names]


def held_bytes() -> int:
    """Return the bytes that are allocated and not freed; before glibc 2.33, those that are resident."""
    if not hasattr(_libc, "mallinfo2"):
        return _pages(1) * resource.getpagesize()
    _libc.mallinfo2.restype = _Mallinfo
    info = _libc.mallinfo2()
    return int(info.uordblks + info.hblkhd)


def give_back() -> None:
    """Return to the system what is allocated no more, which glibc keeps."""
    if hasattr(_libc, "malloc_trim"):
        _libc.malloc_trim(0)


def address_space_bytes() -> int:
    """Return the bytes that RLIMIT_AS counts."""
    return _pages(0) * resource.getpagesize()


def _pages(column: int) -> int:
    return int(Path("/proc/self/statm").read_text().split()[column])
