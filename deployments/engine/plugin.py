"""What we add to the engine core's process, through vLLM's plugin entry point `vllm.general_plugins`."""

import multiprocessing
import os
import threading
from multiprocessing.process import BaseProcess

from deployments.guided import plugin as guided


def register() -> None:
    """Called by vLLM in each of its processes; does something only in those that a replica spawned."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        guided.install()
        threading.Thread(target=_end_with, args=(parent,), name="end-with-parent", daemon=True).start()


def _end_with(parent: BaseProcess) -> None:
    # An engine core does not notice that its replica was killed: it would keep its memory and its GPU for ever.
    parent.join()
    os._exit(1)
