"""Execute the notebooks as a Colab session does: alone in a folder, without the package until their first cell ran.

    .venv-colab/bin/python tests/colab_session.py            # part of make test-colab; or: ... 01_masked_lm.ipynb

The session has an environment of its own that sees the libraries of this interpreter's, but not the package; a module
``google.colab`` that is loaded before the first cell; and the variable that names a wheel built from this checkout.
Nothing else may be installed, so the session fails where a requirement of the package is not met by what is there.
Outputs are not compared: other versions round differently.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from llm_tutorial.execution import REFERENCE_ENVIRONMENT

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "build/colab"
RUN = "import sys; sys.path.insert(0, sys.argv[1]); from llm_tutorial.cli import main; sys.exit(main(sys.argv[2:]))"
STARTUP = 'import google.colab\n\nassert "llm_tutorial" not in __import__("sys").modules\n'


def built_wheel(folder: Path) -> Path:
    """Build the package's wheel into ``folder`` and return it."""
    subprocess.run([sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps",
                    "--wheel-dir", str(folder), str(ROOT)], check=True)
    [wheel] = folder.glob("llm_tutorial-*.whl")
    return wheel


def session_python(folder: Path) -> Path:
    """Make an environment that sees the libraries of this one, and return its interpreter.

    Lines of ``.pth`` files count only in an environment's own folder, so that the package itself, installed here in
    editable mode by such a file, is not seen.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    libraries = sysconfig.get_path("purelib")
    (own := site_packages(python)).mkdir(parents=True, exist_ok=True)
    (own / "libraries.pth").write_text(f"{libraries}\n", encoding="utf-8")
    return python


def site_packages(python: Path) -> Path:
    """Return where an interpreter's environment has its packages."""
    ask = [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    return Path(subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip())


def session_environment(wheel: Path, drive: Path, profile: Path) -> dict[str, str]:
    """Return the variables of the session; its startup file loads the imitated module, as Colab loads its own."""
    startup = profile / "profile_default/startup"
    startup.mkdir(parents=True)
    (startup / "00-colab.py").write_text(STARTUP, encoding="utf-8")
    templates = Path(sysconfig.get_path("data")) / "share/jupyter"  # of nbconvert, which looks in the new environment
    return os.environ | REFERENCE_ENVIRONMENT | {
        "JUPYTER_PATH": str(templates),
        "PYTHONPATH": str(ROOT / "tests/imitated_colab"), "IPYTHONDIR": str(profile), "PIP_NO_INDEX": "1",
        "LLM_TUTORIAL_PACKAGE": str(wheel), "LLM_TUTORIAL_DRIVE": str(drive)}


def faults(python: Path, work: Path, drive: Path, names: list[str]) -> list[str]:
    """Return what the session did not do."""
    found = []
    installed = sorted(path.name for path in site_packages(python).glob("*.dist-info"))
    if [name.partition("-")[0] for name in installed] != ["llm_tutorial"]:
        found.append(f"installed by the bootstrap cells: {', '.join(installed) or 'nothing'}, not the package alone")
    if "03_pretraining.ipynb" in names:
        saved = drive / "flushed/llm-tutorial/03_pretraining"
        kept, made = ({path.relative_to(place).as_posix() for path in place.rglob("*.safetensors")}
                      for place in (saved, work / "build"))
        if not kept or not kept <= made:
            found.append(f"{saved} holds {len(kept)} files of weights, not those notebook 3 left in {work / 'build'}")
    return found


def main() -> int:
    shutil.rmtree(FOLDER, ignore_errors=True)
    work, drive = FOLDER / "content", FOLDER / "drive"
    work.mkdir(parents=True)
    wheel = built_wheel(FOLDER)
    print(f"{wheel.name}: {wheel.stat().st_size / 1e6:.1f} MB", flush=True)
    names = sys.argv[1:] or sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))
    for name in names:
        shutil.copy2(ROOT / "notebooks" / name, work)
    python = session_python(FOLDER / "environment")
    environment = session_environment(wheel, drive, FOLDER / "ipython")
    if subprocess.run([str(python), "-c", "import llm_tutorial"], cwd=work, env=environment, check=False,
                      stderr=subprocess.DEVNULL).returncode == 0:
        print("the package can be imported before any bootstrap cell ran: this imitates nothing", file=sys.stderr)
        return 1
    paths = [str(work / name) for name in names]
    command = [str(python), "-c", RUN, str(ROOT / "src"), "run", *paths, "--output", str(FOLDER / "pages")]
    status = subprocess.run(command, cwd=work, env=environment, check=False).returncode
    found = faults(python, work, drive, names) if status == 0 else []
    print(*found, sep="\n", file=sys.stderr)
    return status or bool(found)


if __name__ == "__main__":
    sys.exit(main())
