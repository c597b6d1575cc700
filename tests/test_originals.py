"""Resetting: the notebook is the published one again, and what the learner wrote is kept."""

import shutil
import subprocess
from pathlib import Path

import pytest

from llm_tutorial import cli, files, originals
from llm_tutorial.originals import SAVED, original_notebooks, reset_notebook

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "core.autocrlf=false"]


def git(folder, *command, settings=SETTINGS):
    if shutil.which("git") is None:
        pytest.skip("git is not installed, and the originals come from it")
    subprocess.run(["git", *settings, *command], cwd=folder, check=True)


def commit(folder):
    """Make a repository of all files of a folder."""
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "first")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The notebooks of a git checkout with one commit, in the current folder."""
    notebooks = tmp_path / "notebooks"
    (notebooks / "solutions").mkdir(parents=True)
    for name in ("01_first.ipynb", "02_second.ipynb", "solutions/01_first.ipynb"):
        (notebooks / name).write_bytes(f"published: {name} é\r\n".encode())
    (notebooks / "GLOSSARY.md").write_text("terms")
    commit(tmp_path)
    monkeypatch.chdir(tmp_path)
    return notebooks


def test_the_originals_are_those_of_the_last_commit(folder):
    (folder / "01_first.ipynb").write_text("mine")
    (folder / "own.ipynb").write_text("my own notebook")
    found = original_notebooks(folder)
    assert found == {name: f"published: {name} é\r\n".encode() for name in ("01_first.ipynb", "02_second.ipynb")}


def test_an_installed_package_brings_its_own(folder, tmp_path, monkeypatch):
    packaged = tmp_path / "package"
    packaged.mkdir()
    (packaged / "01_first.ipynb").write_bytes(b"from the wheel")
    monkeypatch.setattr(originals, "PACKAGED", packaged)
    assert original_notebooks(folder) == {"01_first.ipynb": b"from the wheel"}


@pytest.mark.parametrize("lack", ["no git", "no checkout", "no commit", "not committed"])
def test_without_originals_the_error_says_what_to_do(folder, tmp_path, monkeypatch, lack):
    if lack == "no git":
        monkeypatch.setattr("shutil.which", lambda _: None)
    elif lack == "not committed":
        git(tmp_path, "rm", "-rq", "--cached", "notebooks")
        git(tmp_path, "commit", "-qm", "second")
    else:
        shutil.rmtree(tmp_path / ".git")
        if lack == "no commit":
            git(tmp_path, "init", "-q")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(FileNotFoundError, match="Download the repository again"):
        original_notebooks(folder)


def test_git_for_windows_checks_out_the_published_bytes(tmp_path, monkeypatch):
    """Its core.autocrlf=true would give texts other line ends, and so other hashes, than they were published with."""
    first, clone = tmp_path / "first", tmp_path / "clone"
    copied = [ROOT / ".gitattributes", ROOT / "data/SHA256SUMS", ROOT / "notebooks/01_masked_lm.ipynb"]
    copied += [path for path in (ROOT / "data").rglob("*") if path.suffix in {".txt", ".json"}]
    for path in copied:
        copy = first / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    commit(first)
    git(tmp_path, "clone", "-q", str(first), str(clone), settings=["-c", "core.autocrlf=true"])
    monkeypatch.setattr(files, "data_folder", lambda: clone / "data")
    listed = (clone / "data/SHA256SUMS").read_text(encoding="utf-8").splitlines()
    paths = [clone / "data" / line.split(maxsplit=1)[1] for line in listed]
    checked = {files.verified(path).name for path in paths if path.is_file()}
    assert {"vocab.txt", "merges.txt", "config.json", "tokenizer.json"} <= checked
    [original] = original_notebooks(clone / "notebooks").values()
    assert reset_notebook(clone / "notebooks/01_masked_lm.ipynb", original) is None


def test_a_changed_notebook_is_kept_and_replaced(folder):
    path = folder / "01_first.ipynb"
    path.write_text("mine")
    kept = reset_notebook(path, b"original")
    assert path.read_bytes() == b"original"
    assert kept.parent == folder / SAVED
    assert kept.read_text() == "mine"


def test_two_resets_within_a_second_keep_both(folder, monkeypatch):
    monkeypatch.setattr("time.strftime", lambda _: "now")
    path, kept = folder / "01_first.ipynb", []
    for text in ("mine", "mine again", "and again"):
        path.write_text(text)
        kept.append(reset_notebook(path, b"original"))
    assert [copy.read_text() for copy in kept] == ["mine", "mine again", "and again"]


def test_an_unchanged_notebook_is_left_alone_and_a_missing_one_is_written(folder):
    path = folder / "01_first.ipynb"
    before = path.stat().st_mtime_ns
    assert reset_notebook(path, path.read_bytes()) is None
    assert path.stat().st_mtime_ns == before
    assert reset_notebook(folder / "new/03.ipynb", b"original") is None
    assert (folder / "new/03.ipynb").read_bytes() == b"original"
    assert not (folder / SAVED).exists()


def test_nothing_is_lost_when_the_copy_cannot_be_made(folder, monkeypatch):
    def full(*_):
        raise OSError("No space left on device")

    path = folder / "01_first.ipynb"
    path.write_text("mine")
    monkeypatch.setattr("shutil.copy2", full)
    with pytest.raises(OSError, match="No space left"):
        reset_notebook(path, b"original")
    assert path.read_text() == "mine"


def test_the_command_resets_what_is_named_and_tells(folder, capsys):
    for name in ("01_first.ipynb", "02_second.ipynb"):
        (folder / name).write_text("mine")
    assert cli.main(["reset", "02"]) == 0
    assert (folder / "01_first.ipynb").read_text() == "mine"
    [kept] = (folder / SAVED).iterdir()
    out = capsys.readouterr().out
    assert out.splitlines()[0] == f"02_second.ipynb  reset; yours is saved/{kept.name}"
    (folder / "02_second.ipynb").unlink()
    assert cli.main(["reset"]) == 0
    first, second = capsys.readouterr().out.splitlines()[:2]
    assert first.startswith("01_first.ipynb  reset; yours is saved/01_first-")
    assert second == "02_second.ipynb  written"
    assert cli.main(["reset"]) == 0
    assert "01_first.ipynb  unchanged" in capsys.readouterr().out


def test_an_unknown_name_is_refused_before_anything_changes(folder, capsys):
    (folder / "01_first.ipynb").write_text("mine")
    assert cli.main(["reset", "01", "07"]) == 2
    assert "07: no such notebook was published. There are: 01_first.ipynb, 02_second.ipynb." in capsys.readouterr().err
    assert (folder / "01_first.ipynb").read_text() == "mine"


def test_an_installed_package_writes_its_notebooks_into_an_empty_folder(tmp_path, monkeypatch, capsys):
    packaged, empty = tmp_path / "package", tmp_path / "empty"
    for new in (packaged, empty):
        new.mkdir()
    (packaged / "01_first.ipynb").write_bytes(b"from the wheel")
    monkeypatch.setattr(originals, "PACKAGED", packaged)
    monkeypatch.setattr(cli, "__file__", str(tmp_path / "site/llm_tutorial/cli.py"))
    monkeypatch.chdir(empty)
    assert cli.main(["reset"]) == 0
    assert (empty / "notebooks/01_first.ipynb").read_bytes() == b"from the wheel"
    assert capsys.readouterr().out.startswith("01_first.ipynb  written")


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A package installed from a wheel, seen from an empty current folder, which is returned."""
    packaged, empty = tmp_path / "site/llm_tutorial/notebooks", tmp_path / "empty"
    for new in (packaged, empty):
        new.mkdir(parents=True)
    for name in ("01_first.ipynb", "TERMS.md"):
        (packaged / name).write_text(f"packaged {name}")
    monkeypatch.setattr(originals, "PACKAGED", packaged)
    monkeypatch.setattr(cli, "__file__", str(packaged.parent / "cli.py"))
    monkeypatch.chdir(empty)
    return empty


def test_an_installed_package_brings_the_documents_that_its_notebooks_link_to(installed, capsys):
    assert cli.main(["reset"]) == 0
    assert {path.name: path.read_text() for path in (installed / "notebooks").iterdir()} == {
        "01_first.ipynb": "packaged 01_first.ipynb", "TERMS.md": "packaged TERMS.md"}
    (installed / "notebooks/TERMS.md").write_text("mine")
    assert cli.main(["reset"]) == 0
    assert (installed / "notebooks/TERMS.md").read_text() == "mine"
    assert capsys.readouterr().out.count("TERMS.md  written") == 1


def test_an_installed_package_finds_notebooks_in_the_current_folder_if_they_are_its_own(installed):
    (installed / "other.ipynb").write_text("somebody's")
    with pytest.raises(FileNotFoundError, match=r"no notebooks in .*notebooks or .*empty\. Run `llm-tutorial reset`"):
        cli._notebooks_folder()
    (installed / "01_first.ipynb").write_text("a copy")
    assert cli._notebooks_folder() == installed
    (installed / "notebooks").mkdir()
    (installed / "notebooks/mine.ipynb").write_text("named like the folder")
    assert cli._notebooks_folder() == installed / "notebooks"


def test_in_a_checkout_the_current_folder_is_not_enough(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(cli, "__file__", str(tmp_path / "src/llm_tutorial/cli.py"))
    monkeypatch.chdir(folder / "solutions")
    assert cli._notebooks_folder() == folder


@pytest.mark.parametrize(("in_checkout", "remedy"), [
    (True, 'python -m pip install -e ".[lab]"'), (False, "python -m pip install nbclient")])
def test_what_is_missing_is_installed_where_the_package_lies(in_checkout, remedy, installed, monkeypatch, capsys):
    find = cli.importlib.util.find_spec
    monkeypatch.setattr(cli.importlib.util, "find_spec", lambda name: None if name == "nbclient" else find(name))
    if in_checkout:
        monkeypatch.setattr(cli, "__file__", str(installed / "src/llm_tutorial/cli.py"))
        (installed / "pyproject.toml").write_text("")
    assert cli.main(["run"]) == 2
    assert capsys.readouterr().err.rstrip().endswith(f"Run: {remedy}")
