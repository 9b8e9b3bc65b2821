"""Removes keys and passwords from the environment after they were read."""

import ctypes
import os

from app.settings import PREFIX

# The keys, and the URLs that may hold a password.
FIELDS = ("read_key", "admin_key", "ledger_key", "embedding_key", "model_key", "index", "ledger")


def wipe_environment() -> None:
    """Remove secrets from this process's environment, also from ``/proc/PID/environ``.

    Deleting from ``os.environ`` alone would leave the text there for whoever can make this process
    read a file. Child processes do not inherit it either.
    """
    names = {f"{PREFIX}{field}".upper() for field in FIELDS}
    getenv = ctypes.CDLL(None).getenv
    getenv.argtypes, getenv.restype = [ctypes.c_char_p], ctypes.c_void_p
    for name in [name for name in os.environ if name.upper() in names]:  # as the settings read them
        if address := getenv(os.fsencode(name)):
            ctypes.memset(address, 0, len(ctypes.string_at(address)))
        del os.environ[name]
