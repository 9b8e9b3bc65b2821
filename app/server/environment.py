"""Keys and passwords in the environment: used once, then gone from the process."""

import ctypes
import os

from app.settings import PREFIX, Settings

# The keys, and the URLs that may hold a password.
FIELDS = ("read_key", "admin_key", "ledger_key", "index", "ledger")


def wipe_environment() -> None:
    """Take what is secret out of this process's environment, as other programs see it too.

    ``os.environ`` alone would leave the text where ``/proc/PID/environ`` shows it, to whoever can
    make this process read a file. Children started later inherit nothing of it either.
    """
    names = {f"{PREFIX}{field}".upper() for field in FIELDS if field in Settings.model_fields}
    getenv = ctypes.CDLL(None).getenv
    getenv.argtypes, getenv.restype = [ctypes.c_char_p], ctypes.c_void_p
    for name in [name for name in os.environ if name.upper() in names]:  # as the settings read them
        if address := getenv(os.fsencode(name)):
            ctypes.memset(address, 0, len(ctypes.string_at(address)))
        del os.environ[name]
