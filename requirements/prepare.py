"""Make `.venv` hold exactly what `requirements/` pins. Does nothing, at once, when it already does.

Usage: python3 requirements/prepare.py [--dev | --loadtest | --rayllm | --guidellm]     (make calls it)

The pinned sets are complete and installed without dependency resolution: on CPU the registry's torchvision, torchaudio
and torchcodec, which vLLM asks for, are CUDA builds that break CPU torch.
"""

import argparse
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "requirements"
VENV = ROOT / ".venv"
LOADTEST_VENV = ROOT / ".venv.loadtest"
"""Locust replaces parts of Python's library (gevent) and brings a plugin for pytest: away from everything else."""
GUIDELLM_VENV = ROOT / ".venv.guidellm"
"""GuideLLM brings versions of its own of what vLLM pins."""
RAYLLM_VENV = ROOT / ".venv.rayllm"
"""What only ray.serve.llm needs; `.venv`'s Python finds it through PYTHONPATH, so that vLLM is installed once."""
SUPPORTED = ((3, 11),)
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dev", action="store_true", help="also install what tests and linters need")
    parser.add_argument("--loadtest", action="store_true", help="prepare what locust runs in, and nothing else")
    parser.add_argument("--rayllm", action="store_true", help="prepare what ray.serve.llm needs, and nothing else")
    parser.add_argument("--guidellm", action="store_true", help="prepare what GuideLLM runs in, and nothing else")
    options = parser.parse_args()
    if sys.version_info[:2] not in SUPPORTED:
        names = " or ".join(".".join(map(str, version)) for version in SUPPORTED)
        sys.exit(f"Python {names} is needed, this is {sys.version.split()[0]}; try: make PYTHON=python3.11 ...")
    if options.loadtest:
        create(LOADTEST_VENV)
        install_set(REQUIREMENTS / "loadtest.txt", "some seconds", environment=LOADTEST_VENV)
        return
    if options.guidellm:
        create(GUIDELLM_VENV)
        install_set(REQUIREMENTS / "guidellm.txt", "about two minutes", environment=GUIDELLM_VENV)
        return
    if options.rayllm:
        create(RAYLLM_VENV)
        install_set(REQUIREMENTS / "rayllm.txt", "some seconds", then=drop_setuptools, environment=RAYLLM_VENV)
        return
    platform = "gpu" if has_gpu() else "cpu"
    if platform == "cpu" and shutil.which("g++") is None:
        sys.exit("A C++ compiler is needed on CPU, where vLLM compiles its kernels; try: apt-get install g++")
    require_environment(platform)
    install_set(REQUIREMENTS / f"{platform}.txt", "about two minutes", [ROOT / "pyproject.toml"], install_project)
    if options.dev:
        install_set(REQUIREMENTS / "dev.txt", "some seconds")


def has_gpu() -> bool:
    """Say whether an NVIDIA driver lists a GPU; VLLM_GRAPH_DEVICE=cpu or gpu overrides."""
    if forced := os.environ.get("VLLM_GRAPH_DEVICE"):
        return forced == "gpu"
    if shutil.which("nvidia-smi") is None:
        return False
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True)
    return listed.returncode == 0 and b"GPU " in listed.stdout


def require_environment(platform: str) -> None:
    """Create `.venv` when there is none, or when it holds the other platform's packages; some files are in both."""
    other = "cpu" if platform == "gpu" else "gpu"
    if (VENV / f".installed-{other}").exists():
        say(f"{VENV.name} is for {other}: starting anew")
        shutil.rmtree(VENV)
    create(VENV)


def create(environment: Path) -> None:
    """Create an environment unless it is there."""
    if (environment / "bin" / "python").exists():
        return
    if importlib.util.find_spec("ensurepip") is None:
        sys.exit("This Python cannot create environments; try: apt-get install python3-venv")
    say(f"creating {environment.name} with Python {sys.version.split()[0]}")
    try:
        venv.create(environment, with_pip=True)
    except BaseException:
        shutil.rmtree(environment, ignore_errors=True)
        raise


def install_set(
    pinned: Path,
    duration: str,
    also: Sequence[Path] = (),
    then: Callable[[], None] = lambda: None,
    environment: Path = VENV,
) -> None:
    """Install one file of pins, unless the environment's stamp says that its content is there already."""
    stamp = environment / f".installed-{pinned.stem}"
    content = hashlib.sha256(b"".join(path.read_bytes() for path in (pinned, *also))).hexdigest()
    if stamp.exists() and stamp.read_text() == content:
        return
    lines = [line for line in pinned.read_text().splitlines() if line and not line.startswith("#")]
    cpu_torch = [line for line in lines if line.startswith("torch==") and line.endswith("+cpu")]
    begin = time.monotonic()
    say(f"installing {len(lines)} packages from requirements/{pinned.name} ({duration})")
    for line in cpu_torch:
        install_cpu_torch(line, environment)
    others = environment / "requirements.txt"
    others.write_text("\n".join(line for line in lines if line not in cpu_torch))
    run_pip(["install", "--no-deps", "-r", str(others)], total=len(lines) - len(cpu_torch), environment=environment)
    then()
    stamp.write_text(content)
    say(f"installed in {time.monotonic() - begin:.0f} s")


def install_cpu_torch(requirement: str, environment: Path) -> None:
    """Take the CPU build from pip's configured links or index, else from PyTorch's index, for this package alone."""
    say(f"installing {requirement}")
    if run_pip(["install", "--no-deps", requirement], check=False, environment=environment):
        run_pip(["install", "--no-deps", "--index-url", TORCH_CPU_INDEX, requirement], environment=environment)


def install_project() -> None:
    run_pip(["install", "--no-deps", "--no-build-isolation", "--editable", str(ROOT)])


def drop_setuptools() -> None:
    # It comes with every environment and would hide `.venv`'s, with which PyTorch compiles.
    run_pip(["uninstall", "--yes", "setuptools"], environment=RAYLLM_VENV)


def run_pip(arguments: list[str], *, total: int = 0, check: bool = True, environment: Path = VENV) -> int:
    """Run pip with a line of progress for every twentieth package; its whole output is shown when it fails."""
    command = [str(environment / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", *arguments]
    output: list[str] = []
    found = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as pip:
        assert pip.stdout is not None
        for line in pip.stdout:
            output.append(line)
            if line.startswith(("Collecting", "Requirement already")):
                found += 1
                if total and found % 20 == 0:
                    say(f"  {found} of {total} found")
            elif line.startswith("Installing collected"):
                say("  unpacking")
    if pip.returncode and check:
        sys.exit("".join(output) + "\npip failed; see above")
    return pip.returncode


def say(text: str) -> None:
    print(f"[setup] {text}", flush=True)


if __name__ == "__main__":
    main()
