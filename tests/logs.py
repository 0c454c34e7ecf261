"""What is logged, whether or not Serve has taken its logger out of the tree, where pytest would see it."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager


class Messages(logging.Handler):
    """Keeps each record's message."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


@contextmanager
def of_serve() -> Iterator[list[str]]:
    """Collect what is logged by Serve's logger until the block ends."""
    logger, handler = logging.getLogger("ray.serve"), Messages()
    logger.addHandler(handler)
    yield handler.messages
    logger.removeHandler(handler)
