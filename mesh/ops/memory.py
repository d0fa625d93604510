"""Memory that is given back to the system."""

import ctypes


def give_back() -> None:
    """What was freed goes back: glibc keeps up to 64 MB of it, for as long as it is not asked.

    Nothing happens with other C libraries. For moments at which much was freed at once.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
