"""Execute the notebooks as a Colab session does: alone in a folder, without the package until their first cell ran.

    .venv-colab/bin/python tests/colab_session.py            # part of make test-colab; or: ... 01_masked_lm.ipynb

The session has an environment of its own that sees the libraries of this interpreter's, but not the package; a module
``google.colab`` that is loaded before the first cell; and the variable that names a wheel built from this checkout.
Nothing else may be installed, so the session fails where a requirement of the package is not met by what is there.
Outputs are not compared.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from llm_tutorial.commands.run import REFERENCE_ENVIRONMENT

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "build/colab"
RUN = "import sys; sys.path.insert(0, sys.argv[1]); from llm_tutorial.cli import main; sys.exit(main(sys.argv[2:]))"
STARTUP = 'import google.colab\n\nassert "llm_tutorial" not in __import__("sys").modules\n'


def main() -> int:
    shutil.rmtree(FOLDER, ignore_errors=True)
    work = FOLDER / "content"
    work.mkdir(parents=True)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", str(FOLDER), str(ROOT)], check=True)
    [wheel] = FOLDER.glob("llm_tutorial-*.whl")
    names = sys.argv[1:] or sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))
    for name in names:
        shutil.copy2(ROOT / "notebooks" / name, work)
    python, packages = session_python(FOLDER / "environment")
    startup = FOLDER / "ipython/profile_default/startup"  # loads the imitated module, as Colab loads its own
    startup.mkdir(parents=True)
    (startup / "00-colab.py").write_text(STARTUP, encoding="utf-8")
    environment = os.environ | REFERENCE_ENVIRONMENT | {
        "PYTHONPATH": str(ROOT / "tests/imitated_colab"), "IPYTHONDIR": str(FOLDER / "ipython"), "PIP_NO_INDEX": "1",
        "LLM_TUTORIAL_PACKAGE": str(wheel)}
    check = [python, "-c", "import llm_tutorial"]
    if subprocess.run(check, cwd=work, env=environment, capture_output=True).returncode == 0:
        print("the package can be imported before any bootstrap cell ran: this imitates nothing", file=sys.stderr)
        return 1
    paths = [str(work / name) for name in names]
    command = [python, "-c", RUN, str(ROOT / "src"), "run", *paths, "--output", str(FOLDER / "pages")]
    status = subprocess.run(command, cwd=work, env=environment).returncode
    installed = [path.name.partition("-")[0] for path in packages.glob("*.dist-info")]
    if status == 0 and installed != ["llm_tutorial"]:
        print(f"installed by the bootstrap cells: {installed}, not the package alone", file=sys.stderr)
        return 1
    return status


def session_python(folder: Path) -> tuple[str, Path]:
    """Make an environment that sees the libraries of this one; return its interpreter and its own packages' folder.

    Lines of ``.pth`` files count only in an environment's own folder, so that the package itself, installed here in
    editable mode by such a file, is not seen.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    (packages / "libraries.pth").write_text(f"{sysconfig.get_path('purelib')}\n", encoding="utf-8")
    return str(folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")), packages


if __name__ == "__main__":
    sys.exit(main())
