"""Serve writes a line for each request, into a file of its own and once more to stderr, which Ray then reads."""

import logging


def keep_off_stderr() -> None:
    """Have this replica's requests in Serve's log files only; to be called in a replica."""
    for handler in logging.getLogger("ray.serve").handlers:
        if type(handler) is logging.StreamHandler:
            handler.addFilter(is_no_request)


def is_no_request(record: logging.LogRecord) -> bool:
    # The mark that Serve's own `enable_access_log: false` goes by.
    return not getattr(record, "serve_access_log", False)
