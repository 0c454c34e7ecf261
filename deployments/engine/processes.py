"""The processes that an engine made."""

import psutil

TRACKER = "multiprocessing.resource_tracker"


def kill_children() -> None:
    """Kill the processes under this one, theirs too: what hangs does not end with its parent by itself.

    Python's resource trackers are left: they free the shared memory of the killed, and then end.
    """
    for process in psutil.Process().children(recursive=True):
        try:
            if TRACKER not in " ".join(process.cmdline()):
                process.kill()
        except psutil.NoSuchProcess:
            continue
