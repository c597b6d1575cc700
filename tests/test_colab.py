"""Colab: badges and bootstrap cells come from one place, and work is saved to Drive without a loss."""

import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import colab_links
import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from llm_tutorial.colab import save_to_drive

ROOT = Path(__file__).resolve().parents[1]
PLACE = colab_links.Place("someone/language-models", "v1.0")
NOTEBOOKS = colab_links.notebooks()
BADGE_LINK = re.compile(r"https://colab\.research\.google\.com/github/([\w.-]+/[\w.-]+)/blob/(\S+?)/(notebooks/[^)\s]*)")


def sources(path: Path) -> list[str]:
    return ["".join(cell["source"]) for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]]


def bootstrap_cell(path: Path) -> str:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    [found] = [cell for cell in cells if "colab-bootstrap" in cell["metadata"].get("tags", [])]
    return "".join(found["source"])


@pytest.fixture
def checkout(tmp_path):
    """A copy of the files that ``make colab`` writes."""
    for path in [ROOT / "pyproject.toml", ROOT / "README.md", *NOTEBOOKS]:
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, copy)
    return tmp_path


# Badges and bootstrap cells.


def test_all_files_say_what_pyproject_says(checkout):
    assert colab_links.write_links(checkout, colab_links.declared_place(checkout)) == [], "run `make colab`"


def test_every_badge_points_at_a_notebook_that_exists():
    place = colab_links.declared_place()
    texts = [(ROOT / "README.md").read_text(encoding="utf-8"), *(text for path in NOTEBOOKS for text in sources(path))]
    links = [link for text in texts for link in BADGE_LINK.findall(text)]
    assert bool(links) == bool(place.repository)
    for repository, ref, notebook in links:
        assert (repository, ref) == (place.repository, place.ref)
        assert (ROOT / notebook).is_file()


def test_a_repository_is_written_everywhere_and_taken_back(checkout):
    before = {path: path.read_bytes() for path in checkout.rglob("*") if path.is_file()}
    written = colab_links.write_links(checkout, PLACE)
    assert set(written) == set(before)
    assert colab_links.declared_place(checkout) == PLACE
    assert colab_links.write_links(checkout, PLACE) == []
    for path in colab_links.notebooks(checkout):
        [link] = [link for text in sources(path) for link in BADGE_LINK.findall(text)]
        assert link == (PLACE.repository, PLACE.ref, f"notebooks/{path.name}")
        assert (checkout / link[2]).is_file()
        assert sources(path)[0].startswith("# ")
        assert '"llm-tutorial @ git+https://github.com/someone/language-models@v1.0"' in bootstrap_cell(path)
        assert ".whl" not in bootstrap_cell(path)
    readme = (checkout / "README.md").read_text(encoding="utf-8")
    learners = sorted(path.name for path in checkout.glob("notebooks/*.ipynb"))
    assert [Path(link[2]).name for link in BADGE_LINK.findall(readme)] == learners
    assert "Upload" not in colab_links.SECTION.search(readme)[0]
    assert set(colab_links.write_links(checkout, colab_links.Place("someone/else", "main"))) == set(before)
    assert not any("someone/language-models" in path.read_text(encoding="utf-8") for path in before)
    colab_links.write_links(checkout, colab_links.Place())
    assert {path: path.read_bytes() for path in before} == before


def test_until_then_the_readme_tells_how_to_upload(checkout):
    colab_links.write_links(checkout, colab_links.Place())
    readme = (checkout / "README.md").read_text(encoding="utf-8")
    assert re.search(r"pip wheel --no-deps -w dist \.", colab_links.SECTION.search(readme)[0])
    assert not colab_links.BADGE.search(readme)
    assert f'"./{colab_links.WHEEL}"' in bootstrap_cell(checkout / "notebooks/01_masked_lm.ipynb")


@pytest.mark.parametrize(("repository", "ref", "message"), [
    ("owner", "v1", "is not of the form owner/name"),
    ("owner/name/more", "v1", "is not of the form owner/name"),
    ('owner/na"me', "v1", "is not of the form owner/name"),
    ("owner/name", "v 1", "is no name of a tag"),
    ("owner/name", "", "belong together"),
    ("", "v1", "belong together"),
])  # fmt: skip
def test_wrong_places_are_refused(monkeypatch, capsys, repository, ref, message):
    monkeypatch.setattr(colab_links, "write_links", lambda *_: pytest.fail("nothing may be written"))
    monkeypatch.setattr(sys, "argv", ["colab_links.py", "--repository", repository, "--ref", ref])
    assert colab_links.main() == 2
    assert message in capsys.readouterr().err


def test_what_is_not_there_to_be_written_is_told():
    with pytest.raises(ValueError, match="lacks the comments"):
        colab_links.readme_with_links("# Title", [], PLACE)
    title = {"cell_type": "markdown", "metadata": {}, "source": ["# Title"]}
    with pytest.raises(ValueError, match="0 cells tagged colab-bootstrap"):
        colab_links.notebook_with_links({"cells": [title]}, "x.ipynb", PLACE)


@pytest.mark.parametrize("place", [PLACE, colab_links.Place()], ids=["published", "uploaded"])
@pytest.mark.parametrize("variable", [None, "/wheels/mine.whl"])
def test_the_bootstrap_cell_installs_on_colab_only(monkeypatch, place, variable):
    from IPython.core.interactiveshell import InteractiveShell

    shell, commands = InteractiveShell(), []
    monkeypatch.setattr(shell, "system", lambda command: commands.append(shell.var_expand(command)))
    monkeypatch.delenv("LLM_TUTORIAL_PACKAGE", raising=False)
    if variable:
        monkeypatch.setenv("LLM_TUTORIAL_PACKAGE", variable)
    monkeypatch.delitem(sys.modules, "google.colab", raising=False)
    shell.run_cell(colab_links.bootstrap(place)).raise_error()
    assert commands == []
    monkeypatch.setitem(sys.modules, "google.colab", object())
    shell.run_cell(colab_links.bootstrap(place)).raise_error()
    published = "llm-tutorial @ git+https://github.com/someone/language-models@v1.0"
    package = variable or (published if place.repository else f"./{colab_links.WHEEL}")
    assert [command.partition(" -m pip ")[2] for command in commands] == [
        "uninstall -qq -y llm-tutorial", f'install -q "{package}"']


@pytest.fixture
def session(tmp_path, monkeypatch):
    """A function that runs the bootstrap cell in a new environment, for which pip works as ever, without an index.

    It returns what the package there says, or None where it is not installed.
    """
    from IPython.core.interactiveshell import InteractiveShell

    folder, shell = tmp_path / "environment", InteractiveShell()
    venv.create(folder)
    script = "Scripts/python.exe" if os.name == "nt" else "bin/python"
    ask = [str(folder / script), "-c", "import llm_tutorial; print(llm_tutorial.BUILD)"]

    def said() -> str | None:
        done = subprocess.run(ask, cwd=tmp_path, env={**os.environ, "PYTHONPATH": ""}, capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else None

    def system(command: str) -> None:
        pip = shlex.split(shell.var_expand(command).partition(" -m pip ")[2])
        subprocess.run([sys.executable, "-m", "pip", "--python", str(folder), *pip], cwd=tmp_path, capture_output=True)

    def run() -> str | None:
        shell.run_cell(colab_links.bootstrap(colab_links.Place())).raise_error()
        return said()

    find = importlib.util.find_spec
    monkeypatch.setattr(shell, "system", system)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: (
        said() and find(name) if name == "llm_tutorial" else find(name, *rest)))
    monkeypatch.setitem(sys.modules, "google.colab", object())
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("LLM_TUTORIAL_PACKAGE", raising=False)
    return run


def write_wheel(folder: Path, build: str) -> Path:
    """Write a wheel of the package's name and version that holds one line."""
    path, information = folder / colab_links.WHEEL, f"{'-'.join(colab_links.WHEEL.split('-')[:2])}.dist-info"
    version = colab_links.WHEEL.split("-")[1]
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("llm_tutorial/__init__.py", f"BUILD = {build!r}\n")
        wheel.writestr(f"{information}/METADATA", f"Metadata-Version: 2.1\nName: llm-tutorial\nVersion: {version}\n")
        wheel.writestr(f"{information}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{information}/RECORD", "")
    return path


def test_the_bootstrap_cell_installs_the_wheel_that_is_there_or_says_that_it_could_not(session, tmp_path):
    with pytest.raises(RuntimeError, match=rf"\./{colab_links.WHEEL} was not installed.*run this cell again"):
        session()
    wheel = write_wheel(tmp_path, "first")
    assert session() == "first"
    write_wheel(tmp_path, "another of the same version")
    assert session() == "another of the same version"
    wheel.write_bytes(wheel.read_bytes()[:-30])  # as while it is being uploaded
    with pytest.raises(RuntimeError, match="was not installed"):
        session()


def test_nothing_that_colab_brings_has_to_be_replaced():
    lines = (ROOT / "constraints-colab.txt").read_text(encoding="utf-8").splitlines()
    there = dict(line.lower().replace("_", "-").split("==") for line in lines if "==" in line and line[0] != "#")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    missing = set()
    for requirement in map(Requirement, project["dependencies"]):
        name = requirement.name.lower().replace("_", "-")
        version = Version("2.11.0") if name == "torch" else Version(there[name])
        if name == "gguf":  # not on Colab, so it is added
            missing.add(name)
        assert requirement.specifier.contains(version), f"{requirement} would replace Colab's {version}"
    assert missing == {"gguf"}


# Drive.


@pytest.fixture
def drive(tmp_path, monkeypatch):
    """The imitated session, with Drive's mount point in a folder of the test."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "imitated_colab"))
    for name in [name for name in sys.modules if name == "google" or name.startswith("google.")]:
        monkeypatch.delitem(sys.modules, name)
    importlib.invalidate_caches()
    importlib.import_module("google.colab")
    monkeypatch.setenv("LLM_TUTORIAL_DRIVE", str(tmp_path / "drive"))
    monkeypatch.chdir(tmp_path)
    yield sys.modules["google.colab"].drive
    for name in [name for name in sys.modules if name == "google" or name.startswith("google.")]:
        del sys.modules[name]


@pytest.fixture
def work(tmp_path):
    folder = tmp_path / "build"
    (folder / "model").mkdir(parents=True)
    (folder / "model/weights").write_bytes(b"new" * 1000)
    (folder / "notes.txt").write_text("new")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def mounted(drive, tmp_path: Path, **files: str) -> Path:
    """Mount Drive, as a user does, with an earlier copy in it, and return the copy."""
    drive.mount(str(tmp_path / "drive"))
    earlier = tmp_path / "drive/MyDrive/llm-tutorial/lesson"
    earlier.mkdir(parents=True)
    for name, text in files.items():
        (earlier / name).write_text(text)
    drive.calls.clear()
    return earlier


def test_outside_colab_nothing_happens(tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "google.colab", raising=False)
    monkeypatch.setenv("LLM_TUTORIAL_DRIVE", str(tmp_path / "drive"))
    assert save_to_drive("no such folder", "lesson") is None
    assert list(tmp_path.iterdir()) == []


def test_work_is_copied_flushed_and_left_where_it_was(drive, work, tmp_path):
    before = contents(work)
    assert save_to_drive("build", "lesson") == tmp_path / "drive/MyDrive/llm-tutorial/lesson"
    assert drive.calls == ["mount", "flush_and_unmount"]
    assert contents(tmp_path / "drive/flushed/llm-tutorial/lesson") == before
    assert contents(work) == before


def test_a_later_copy_replaces_the_earlier_one(drive, work, tmp_path):
    earlier = mounted(drive, tmp_path, gone="old")
    assert save_to_drive(work, "lesson") == earlier
    assert drive.calls == [], "who mounted it goes on using it"
    assert contents(earlier) == contents(work)
    assert [path.name for path in earlier.parent.iterdir()] == ["lesson"]


def test_nothing_is_lost_where_copying_fails(drive, work, tmp_path, monkeypatch):
    earlier, before = mounted(drive, tmp_path, kept="old"), contents(work)

    def full(_source, target, **_):
        target.mkdir()
        (target / "model").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copytree", full)
        with pytest.raises(OSError, match=r"could not be saved to Drive \(.*No space left.*It is unchanged.*room"):
            save_to_drive(work, "lesson")
    assert (contents(earlier), contents(work)) == ({"kept": b"old"}, before)
    assert [path.name for path in earlier.parent.iterdir()] == ["lesson"]
    save_to_drive(work, "lesson")
    assert contents(earlier) == before


def test_a_copy_that_lacks_something_replaces_nothing(drive, work, tmp_path, monkeypatch):
    earlier, copy = mounted(drive, tmp_path, kept="old"), shutil.copytree

    def lossy(source, target, *arguments, **options):  # called for the folders in it, too
        copy(source, target, *arguments, **options)
        if (target := Path(target)).name == "model":
            (target / "weights").write_bytes(b"")

    monkeypatch.setattr(shutil, "copytree", lossy)
    with pytest.raises(OSError, match="the copy is not complete"):
        save_to_drive(work, "lesson")
    assert contents(earlier) == {"kept": b"old"}


@pytest.mark.parametrize("failing", ["lesson", "new"])
def test_a_failing_rename_keeps_the_earlier_copy(drive, work, tmp_path, monkeypatch, failing):
    earlier, rename = mounted(drive, tmp_path, kept="old"), Path.rename

    def broken(self, target):
        if self.name == failing:
            raise OSError(107, "Transport endpoint is not connected")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", broken)
    with pytest.raises(OSError, match="Transport endpoint"):
        save_to_drive(work, "lesson")
    assert contents(earlier) == {"kept": b"old"}


@pytest.mark.usefixtures("work")
def test_refused_access_is_told_with_a_remedy(drive, monkeypatch):
    class MessageError(Exception):
        """What Colab raises when the user closes the dialogue."""

    monkeypatch.setattr(drive, "refused", MessageError("Error: credential propagation was unsuccessful"))
    with pytest.raises(OSError, match=r"credential propagation.*It is unchanged.*Allow the access"):
        save_to_drive("build", "lesson")


def test_a_flush_that_fails_is_told_after_the_copy_was_replaced(drive, work, tmp_path, monkeypatch):
    earlier, before = mounted(drive, tmp_path, gone="old"), contents(work)
    monkeypatch.setenv("LLM_TUTORIAL_DRIVE", str(tmp_path / "elsewhere"))  # so that it is mounted by the call
    monkeypatch.setattr(drive, "mount", lambda place: (tmp_path / "drive").rename(place))
    monkeypatch.setattr(drive, "_mounted", None)
    with pytest.raises(OSError, match=r"was copied to .*elsewhere.*flush_and_unmount failed.*is unchanged") as told:
        save_to_drive(work, "lesson")
    assert "nothing that was saved before" not in str(told.value)
    earlier = tmp_path / "elsewhere" / earlier.relative_to(tmp_path / "drive")
    assert (contents(earlier), contents(work)) == (before, before)


@pytest.mark.parametrize("moment", ["copying", "between the renames", "after the renames"])
def test_what_a_session_left_that_ended_in_a_call_is_put_back_or_removed(drive, work, tmp_path, monkeypatch, moment):
    earlier = mounted(drive, tmp_path, kept="old")
    working = earlier.with_name(".lesson-a1b2c3d4.partial")
    other = earlier.with_name(".lesson-two-a1b2c3d4.partial")  # of another name
    for folder in (working, other):
        (folder / "new").mkdir(parents=True)
        (folder / "new/half").write_text("half")
    if moment == "between the renames":
        earlier.rename(working / "old")
    elif moment == "after the renames":
        (working / "new").rename(working / "old")

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copytree", full)
        with pytest.raises(OSError, match="No space left"):
            save_to_drive(work, "lesson")
    assert contents(earlier) == {"kept": b"old"}
    assert sorted(path.name for path in earlier.parent.iterdir()) == [other.name, "lesson"]
    save_to_drive(work, "lesson")
    assert contents(earlier) == contents(work)


def test_drive_is_mounted_anew_where_its_process_has_crashed(drive, work, tmp_path, monkeypatch):
    """Until then, a look at the mount point raises what the system says, and not that there is no folder."""
    root, stat = tmp_path / "drive/MyDrive", os.stat

    def crashed(path, *arguments, **options):
        if not drive.calls and not isinstance(path, int) and Path(path) == root:
            raise OSError(107, "Transport endpoint is not connected")
        return stat(path, *arguments, **options)

    monkeypatch.setattr(os, "stat", crashed)
    assert save_to_drive(work, "lesson") == root / "llm-tutorial/lesson"
    assert drive.calls == ["mount", "flush_and_unmount"]


@pytest.mark.usefixtures("drive")
def test_a_folder_that_is_not_there_is_told_before_access_is_asked_for():
    with pytest.raises(FileNotFoundError, match=r"There is no folder .*nothing: run the cells"):
        save_to_drive("nothing", "lesson")
    assert sys.modules["google.colab"].drive.calls == []


def test_a_notebook_that_trains_a_model_to_keep_can_save_it():
    saving = []
    for path in NOTEBOOKS:
        cells = sources(path)
        saves = [position for position, text in enumerate(cells) if "save_to_drive(" in text]
        kept = [position for position, text in enumerate(cells) if "trainer.save_model(" in text]
        assert len(saves) == bool(kept), path
        assert all(f'save_to_drive("build", "{path.stem}")' in cells[position] for position in saves)
        assert all(position > max(kept) for position in saves)
        saving += [path.stem] * len(saves)
    assert saving == ["03_pretraining"] * 2
