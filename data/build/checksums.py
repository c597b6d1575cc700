"""Write ``data/SHA256SUMS``, against which the package checks every bundled file before it trusts it.

    python data/build/checksums.py
"""

from __future__ import annotations

from pathlib import Path

from download import sha256_of

DATA = Path(__file__).resolve().parents[1]
FOLDERS = ("drawings", "models", "runs", "tokenizers", "wikipedia")


def main() -> None:
    files = sorted(file for folder in FOLDERS for file in (DATA / folder).rglob("*") if file.is_file())
    lines = [f"{sha256_of(file)}  {file.relative_to(DATA).as_posix()}\n" for file in files]
    (DATA / "SHA256SUMS").write_text("".join(lines), encoding="utf-8", newline="\n")
    print(f"{len(lines)} files listed in {DATA / 'SHA256SUMS'}")


if __name__ == "__main__":
    main()
