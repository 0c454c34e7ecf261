"""Serve's log files, which vLLM takes from it."""

import contextlib
import logging
from collections.abc import Iterator
from logging.handlers import MemoryHandler


@contextlib.contextmanager
def serves_log_kept() -> Iterator[None]:
    """Give Serve's log its files back after the block.

    vLLM calls `logging.config.dictConfig`, which closes everybody's handlers; those that buffer then have nowhere to
    write to, and nothing that a replica logs any more would reach its file.
    """
    handlers = [handler for handler in logging.getLogger("ray.serve").handlers if isinstance(handler, MemoryHandler)]
    targets = [handler.target for handler in handlers]
    try:
        yield
    finally:
        for handler, target in zip(handlers, targets, strict=True):
            handler.setTarget(target)
