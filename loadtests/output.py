"""What the programs write, and where."""

import json
from collections.abc import Sequence
from typing import Any

from config.models import PROJECT_ROOT

RESULTS = PROJECT_ROOT / "loadtests" / "results"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) + " |" for line in lines
    )


def save(name: str, figures: Any, text: str) -> None:
    """Print a report, and keep it with its figures."""
    print(text, flush=True)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(figures, indent=1) + "\n")
    (RESULTS / f"{name}.md").write_text(text)
