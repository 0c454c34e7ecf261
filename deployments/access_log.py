"""Serve writes a line for each request, into a file of its own and once more to stderr, which Ray then reads.

To be called in a replica. Both are filters of the logger: Serve makes its handlers anew when `logging_config` changes.
"""

import logging

LOGGER = logging.getLogger("ray.serve")


def keep_off_stderr() -> None:
    """Have this replica's requests in Serve's log files only."""
    LOGGER.addFilter(for_files)


def leave_out() -> None:
    """Have no line for each request of this replica. By `logging_config` it would not follow the user's."""
    LOGGER.addFilter(is_no_request)


def for_files(record: logging.LogRecord) -> bool:
    if not is_no_request(record):
        record.log_to_stderr = False
    return True


def is_no_request(record: logging.LogRecord) -> bool:
    # The mark that Serve's own `enable_access_log: false` goes by.
    return not getattr(record, "serve_access_log", False)
