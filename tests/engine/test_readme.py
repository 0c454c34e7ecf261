"""The README's examples, run as they stand against the shipped graph."""

import re
import subprocess
import sys

import pytest

from config.models import PROJECT_ROOT
from tests.harness import Server

README = (PROJECT_ROOT / "README.md").read_text()
EXAMPLES = re.findall(r"```(bash|python)\n(.*?)```", README, re.DOTALL)
EXPECTED = ("data: [DONE]", "Bonjour", '{"city": "Paris"}', '\\"age\\":', '"tokens":[', '"token_loss":')


@pytest.mark.parametrize(("example", "expected"), list(zip(EXAMPLES, EXPECTED, strict=True)), ids=EXPECTED)
def test_example(server: Server, example: tuple[str, str], expected: str) -> None:
    language, code = example
    code = code.replace("http://127.0.0.1:8000", server.base_url)
    command = ["bash", "-c", code] if language == "bash" else [sys.executable, "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    assert expected in result.stdout


def test_folders_and_files_that_the_readme_names_exist() -> None:
    for name in re.findall(r"`((?:config|deployments|requirements|tests)/[\w./]*)`", README):
        assert (PROJECT_ROOT / name).exists(), name
    for target in re.findall(r"\]\(([^h)][^)]*)\)", README):
        assert (PROJECT_ROOT / target.split("#")[0]).exists(), target


def test_commands_that_the_readme_names_exist() -> None:
    makefile = (PROJECT_ROOT / "Makefile").read_text()
    for target in re.findall(r"`?make (\w[\w-]*)", README):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
