"""Write what opens the notebooks on Colab and Kaggle, badges and first cells, from one place in ``pyproject.toml``.

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
from llm_tutorial.sources.files import replace_file

ROOT = Path(__file__).resolve().parents[1]
COLAB = "https://colab.research.google.com"
KAGGLE = "https://kaggle.com"
BADGE = re.compile(rf"\[!\[[^\]]*\]\((?:{re.escape(COLAB)}/assets|{re.escape(KAGGLE)}/static)/[^)]*\)\]\([^)]*\)")
SECTION = re.compile(r"(?<=<!-- written by make colab -->\n).*?(?=<!-- end of what make colab writes -->)", re.S)
WHEEL = f"llm_tutorial-{__version__}-py3-none-any.whl"
UPLOAD = """
Build the wheel with `python -m pip wheel --no-deps -w dist .`, open a notebook with Colab's *File >
Upload notebook*, and put the wheel from `dist/` into Colab's file panel; the first cell installs it.
Once the repository is public, `make colab REPOSITORY=owner/name REF=tag` writes badges here and into
the notebooks, and lets the first cell install from there.

"""


@dataclass(frozen=True)
class Place:
    """A GitHub repository ``owner/name`` and a tag, branch or commit in it; both empty while it is not published."""

    repository: str = ""
    ref: str = ""

    def __post_init__(self) -> None:
        if bool(self.repository) != bool(self.ref):
            raise ValueError(f"REPOSITORY={self.repository!r} and REF={self.ref!r} belong together: give both.")
        if not re.fullmatch(r"([\w-]+/[\w.-]+)?", self.repository):
            raise ValueError(f"REPOSITORY={self.repository!r} is not of the form owner/name.")

    def badges(self, name: str) -> str:
        """Return the badges of the learner's notebook with this file name, as Markdown."""
        file, stem = f"{self.repository}/blob/{self.ref}/notebooks/{name}", Path(name).stem
        return (f"[![Open {stem} in Colab]({COLAB}/assets/colab-badge.svg)]({COLAB}/github/{file}) "
                f"[![Open {stem} in Kaggle]({KAGGLE}/static/images/open-in-kaggle.svg)]"
                f"({KAGGLE}/kernels/welcome?src=https://github.com/{file})")


def declared_place(root: Path = ROOT) -> Place:
    """Return what ``pyproject.toml`` says."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    return Place(**project["tool"]["llm-tutorial"]["colab"])


def notebooks(root: Path = ROOT) -> list[Path]:
    """Return the notebooks for learners and those with solutions."""
    return sorted([*root.glob("notebooks/*.ipynb"), *root.glob("notebooks/solutions/*.ipynb")])


def bootstrap(place: Place) -> str:
    """Return the source of the cell that installs the package on Colab; ``LLM_TUTORIAL_PACKAGE`` names another one.

    Once there is a repository, it installs from there on Kaggle as well. An earlier installation is removed first,
    because pip takes another wheel of the same version for installed.
    """
    where, condition = "Google Colab", '"google.colab" in sys.modules'
    if place.repository:
        where, condition = f"{where} and Kaggle", f'{condition} or "KAGGLE_KERNEL_RUN_TYPE" in os.environ'
    published = f"llm-tutorial @ git+https://github.com/{place.repository}@{place.ref}"
    return "\n".join([
        f"# @title Setup for {where} (elsewhere this cell does nothing)",
        "import os",
        "import sys",
        "",
        f"if {condition}:",
        f'    package = os.environ.get("LLM_TUTORIAL_PACKAGE", "{published if place.repository else f"./{WHEEL}"}")',
        "    %pip uninstall -qq -y llm-tutorial",
        '    %pip install -q "{package}"',
    ])


def write_links(root: Path, place: Place) -> list[Path]:
    """Write ``place`` into ``pyproject.toml``, the README and all notebooks, and return the files that changed.

    Raises:
        ValueError: the marks in the README, or the cell with the tag ``colab-bootstrap``, are not there once each.
    """
    head, mark, tail = (root / "pyproject.toml").read_text(encoding="utf-8").partition("[tool.llm-tutorial.colab]\n")
    for key in ("repository", "ref"):
        tail = re.sub(rf'^{key} = ".*"$', f'{key} = "{getattr(place, key)}"', tail, count=1, flags=re.M)
    badges = "".join(f"{place.badges(path.name)}\n" for path in sorted(root.glob("notebooks/*.ipynb")))
    section = (f"\n{badges}\nThe first cell of each notebook installs the package from `{place.repository}` at "
               f"`{place.ref}`. Kaggle needs *Internet on* in its settings.\n\n" if place.repository else UPLOAD)
    readme, count = SECTION.subn(lambda _: section, (root / "README.md").read_text(encoding="utf-8"))
    if count != 1:
        raise ValueError("README.md lacks the comments around the section on Colab: put them back.")
    contents = {root / "pyproject.toml": head + mark + tail, root / "README.md": readme}
    for path in notebooks(root):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        cells = [cell for cell in notebook["cells"] if "colab-bootstrap" in cell["metadata"].get("tags", [])]
        if len(cells) != 1:
            raise ValueError(f"{path} has {len(cells)} cells tagged colab-bootstrap: tag its first code cell.")
        title = BADGE.sub("", "".join(notebook["cells"][0]["source"])).rstrip()
        title += f"\n\n{place.badges(path.name)}" if place.repository else ""
        notebook["cells"][0]["source"] = title.splitlines(keepends=True)
        cells[0]["source"] = bootstrap(place).splitlines(keepends=True)
        contents[path] = json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
    changed = [path for path, text in contents.items() if path.read_text(encoding="utf-8") != text]
    for path in changed:
        replace_file(path, contents[path].encode("utf-8"))
    return changed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repository", default="", metavar="OWNER/NAME")
    parser.add_argument("--ref", default="", metavar="TAG")
    arguments = parser.parse_args()
    try:
        given = Place(arguments.repository, arguments.ref)
        for path in write_links(ROOT, given if given.repository else declared_place()):
            print(path.relative_to(ROOT))
    except ValueError as error:
        print(f"make colab: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
