"""English and Python text that is on every machine with CPython: documentation strings, manual topics, source files."""

import ast
import inspect
import random
import sysconfig
from pathlib import Path

SKIPPED_FOLDERS = {"test", "tests", "site-packages", "dist-packages", "idlelib", "lib2to3", "encodings", "turtledemo"}
MIN_DOC_CHARACTERS = 80
MAX_SOURCE_CHARACTERS = 20_000


def stdlib_files() -> list[Path]:
    """List the standard library's source files, without tests and generated tables, in a stable order."""
    root = Path(sysconfig.get_paths()["stdlib"])
    return [
        path
        for path in sorted(root.rglob("*.py"))
        if not SKIPPED_FOLDERS.intersection(part for part in path.relative_to(root).parts[:-1])
    ]


def docstrings(source: str) -> list[str]:
    """Return every documentation string of a module's source, cleaned of indentation."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return []
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found = (ast.get_docstring(node, clean=False) for node in ast.walk(tree) if isinstance(node, documented))
    return [inspect.cleandoc(text) for text in found if text]


def manual_topics() -> list[str]:
    """Return the sections of the Python language manual that `help()` ships."""
    from pydoc_data.topics import topics

    return [text.strip() for text in topics.values()]


def corpus(seed: int) -> tuple[list[str], list[str]]:
    """Return (prose, code): documentation texts, and the beginnings of source files."""
    prose, code = manual_topics() * 2, []
    for path in stdlib_files():
        try:
            source = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        code.append(source[:MAX_SOURCE_CHARACTERS])
        prose.extend(text for text in docstrings(source) if len(text) >= MIN_DOC_CHARACTERS)
    random.Random(seed).shuffle(prose)
    return prose, code
