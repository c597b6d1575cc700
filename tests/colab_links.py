"""Write what opens the notebooks on Colab, badges and bootstrap cells, from one place in ``pyproject.toml``.

    python tests/colab_links.py --repository owner/name --ref v1.0      # make colab REPOSITORY=owner/name REF=v1.0

Without options it writes what ``[tool.llm-tutorial.colab]`` says. As long as that names no repository, there are no
badges, and the bootstrap cells install a wheel that the reader uploads.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

from llm_tutorial import __version__
from llm_tutorial.files import replace_file

__all__ = [
    "BADGE", "Place", "bootstrap", "declared_place", "notebook_with_links", "notebooks", "readme_with_links",
    "write_links",
]

ROOT = Path(__file__).resolve().parents[1]
BADGE_IMAGE = "https://colab.research.google.com/assets/colab-badge.svg"
BADGE = re.compile(r"\[!\[[^\]]*\]\(https://colab\.research\.google\.com/assets/[^)]*\)\]\([^)]*\)")
SECTION = re.compile(r"(?<=<!-- written by make colab -->\n).*?(?=<!-- end of what make colab writes -->)", re.S)
REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*/[A-Za-z0-9._-]+")
REF = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]*")
WHEEL = f"llm_tutorial-{__version__}-py3-none-any.whl"


@dataclass(frozen=True)
class Place:
    """A GitHub repository ``owner/name`` and a tag, branch or commit in it; both empty while it is not published."""

    repository: str = ""
    ref: str = ""

    def __post_init__(self) -> None:
        if bool(self.repository) != bool(self.ref):
            raise ValueError(f"REPOSITORY={self.repository!r} and REF={self.ref!r} belong together: give both.")
        if self.repository and not REPOSITORY.fullmatch(self.repository):
            raise ValueError(f"REPOSITORY={self.repository!r} is not of the form owner/name.")
        if self.ref and not REF.fullmatch(self.ref):
            raise ValueError(f"REF={self.ref!r} is no name of a tag, branch or commit.")

    def url(self, notebook: str) -> str:
        """Return where Colab opens a notebook, given its path in the repository."""
        return f"https://colab.research.google.com/github/{self.repository}/blob/{self.ref}/{notebook}"

    def badge(self, notebook: str) -> str:
        """Return the badge of a notebook, given its path in the repository, as Markdown."""
        return f"[![Open {Path(notebook).stem} in Colab]({BADGE_IMAGE})]({self.url(notebook)})"


def declared_place(root: Path = ROOT) -> Place:
    """Return what ``pyproject.toml`` says."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    return Place(**project["tool"]["llm-tutorial"]["colab"])


def notebooks(root: Path = ROOT) -> list[Path]:
    """Return the notebooks for learners and those with solutions."""
    return sorted([*root.glob("notebooks/*.ipynb"), *root.glob("notebooks/solutions/*.ipynb")])


def bootstrap(place: Place) -> str:
    """Return the source of the cell that installs the package on Colab; ``LLM_TUTORIAL_PACKAGE`` names another one.

    What an earlier run of the cell installed is removed first: pip takes another wheel of the same version, or another
    commit, for what is there already, and a failure would leave it in place.
    """
    published = f"llm-tutorial @ git+https://github.com/{place.repository}@{place.ref}"
    return "\n".join([
        "import importlib.util",
        "import os",
        "import sys",
        "",
        f'package = "{published if place.repository else f"./{WHEEL}"}"',
        'if "google.colab" in sys.modules:',
        '    package = os.environ.get("LLM_TUTORIAL_PACKAGE", package)',
        "    %pip uninstall -qq -y llm-tutorial",
        '    %pip install -q "{package}"',
        "    importlib.invalidate_caches()",
        '    if importlib.util.find_spec("llm_tutorial") is None:',
        '        raise RuntimeError(f"{package} was not installed, see above. If it is a wheel, put it "',
        '                           "into the file panel, and run this cell again once it is there whole.")',
    ])


def notebook_with_links(notebook: dict, name: str, place: Place) -> dict:
    """Return ``notebook`` (as JSON) with the badge below its title's text and the bootstrap cell of ``place``.

    A notebook with solutions shows the badge of the one for learners: ``name`` is the file name of both.

    Raises:
        ValueError: no cell is tagged ``colab-bootstrap``.
    """
    title, *others = notebook["cells"]
    text = BADGE.sub("", "".join(title["source"])).rstrip()
    if place.repository:
        text = f"{text}\n\n{place.badge(f'notebooks/{name}')}"
    title["source"] = text.splitlines(keepends=True)
    cells = [cell for cell in others if "colab-bootstrap" in cell["metadata"].get("tags", [])]
    if len(cells) != 1:
        raise ValueError(f"{name} has {len(cells)} cells tagged colab-bootstrap: tag its first code cell.")
    cells[0]["source"] = bootstrap(place).splitlines(keepends=True)
    return notebook


def readme_with_links(readme: str, names: list[str], place: Place) -> str:
    """Return the README with its section on Colab written for ``place``; ``names`` are the notebooks' file names.

    Raises:
        ValueError: the marks around that section are gone.
    """
    if place.repository:
        text = "".join(f"{place.badge(f'notebooks/{name}')}\n" for name in names)
        text = (f"\n{text}\nThe first cell of each notebook installs the package from `{place.repository}` at "
                f"`{place.ref}`.\n\n")
    else:
        text = (
            "\nBuild the wheel with `python -m pip wheel --no-deps -w dist .`, open a notebook with Colab's *File >\n"
            "Upload notebook*, and put the wheel from `dist/` into Colab's file panel; the first cell installs it.\n"
            "Once the repository is public, `make colab REPOSITORY=owner/name REF=tag` writes badges here and into\n"
            "the notebooks, and lets the first cell install from there.\n\n"
        )
    written, count = SECTION.subn(lambda _: text, readme)
    if count != 1:
        raise ValueError("README.md lacks the comments around the section on Colab: put them back.")
    return written


def write_links(root: Path, place: Place) -> list[Path]:
    """Write ``place`` into ``pyproject.toml``, the README and all notebooks, and return the files that changed."""
    project = (root / "pyproject.toml").read_text(encoding="utf-8")
    head, mark, tail = project.partition("[tool.llm-tutorial.colab]\n")
    for key in ("repository", "ref"):
        tail = re.sub(rf'^{key} = ".*"$', f'{key} = "{getattr(place, key)}"', tail, count=1, flags=re.M)
    readme = (root / "README.md").read_text(encoding="utf-8")
    names = [path.name for path in notebooks(root) if path.parent.name == "notebooks"]
    contents = {root / "pyproject.toml": head + mark + tail}
    contents[root / "README.md"] = readme_with_links(readme, names, place)
    for path in notebooks(root):
        changed = notebook_with_links(json.loads(path.read_text(encoding="utf-8")), path.name, place)
        contents[path] = json.dumps(changed, indent=1, ensure_ascii=False) + "\n"
    found = [path for path, text in contents.items() if path.read_text(encoding="utf-8") != text]
    for path in found:
        replace_file(path, contents[path].encode("utf-8"))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repository", default="", metavar="OWNER/NAME")
    parser.add_argument("--ref", default="", metavar="TAG")
    arguments = parser.parse_args()
    try:
        given = Place(arguments.repository, arguments.ref)
        place = given if given.repository else declared_place()
    except ValueError as error:
        print(f"make colab: {error}", file=sys.stderr)
        return 2
    for path in write_links(ROOT, place):
        print(path.relative_to(ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
