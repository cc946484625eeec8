"""Where multiprocessing's sockets lie: the address of a Unix socket has room for 107 bytes."""

import os
import tempfile
from multiprocessing import util

_ROOM = 107 - len("/pymp-12345678/listener-12345678")
_SHORT = ("/tmp", "/var/tmp", "/dev/shm")


def keep_socket_paths_short() -> None:
    """To be called before processes are started that send tensors or share a manager; their children inherit it.

    They put their sockets below TMPDIR, however long its path is, and one whose socket fails lets the others wait for
    ever. Only the sockets move: other temporary files stay in TMPDIR. Raises ValueError where no folder will do.
    """
    chosen = tempfile.gettempdir()
    if len(os.fsencode(chosen)) <= _ROOM:
        return
    short = next((folder for folder in _SHORT if os.access(folder, os.W_OK | os.X_OK)), None)
    if short is None:
        raise ValueError(f"TMPDIR={chosen}: its path is too long for sockets; allowed are paths of {_ROOM} bytes")
    before, tempfile.tempdir = tempfile.tempdir, short
    try:
        util.get_temp_dir()  # made once a process, and remembered
    finally:
        tempfile.tempdir = before
