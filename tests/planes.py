"""Which tests run on which data planes."""

from collections.abc import Sequence

import pytest

from tests.harness import Plane


def on_planes(metafunc: pytest.Metafunc, default: Sequence[Plane]) -> None:
    """Run a test on the data planes that its module names in `planes`, else on `default`: for conftest files.

    `server` must be a fixture of the package that takes a plane; a module with a `server` of its own is left alone.
    """
    if "server" in metafunc.fixturenames and not hasattr(metafunc.module, "server"):
        planes = getattr(metafunc.module, "planes", default)
        metafunc.parametrize("server", planes, indirect=True, scope="package")
