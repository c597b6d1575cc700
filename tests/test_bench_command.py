"""llm-tutorial bench: what it accepts, measures, prints, draws and keeps."""

import json
import re
from pathlib import Path

import pytest
import torch
from benchmark_results import ALL
from PIL import Image

from llm_tutorial import cli
from llm_tutorial.benchmarks import commands, generation, loading, recite, throughput, tokenization

MODULES = {"recite": recite, "throughput": throughput, "tokenise": tokenization, "generate": generation,
           "load": loading}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def asked(monkeypatch):
    """Benchmarks that take no time; the dictionary fills with the arguments of each kind."""
    calls = {}

    def measured(kind):
        def bench(*arguments, report, **options):
            report(f"{kind}: at work")
            calls[kind] = (arguments, options)
            return ALL[kind]
        return bench

    for kind, module in MODULES.items():
        monkeypatch.setattr(module, f"bench_{kind}", measured(kind))
    monkeypatch.setattr(commands, "_warn_if_busy", lambda _: None)
    return calls


@pytest.mark.parametrize(("line", "kind", "arguments", "options"), [
    ("recite", "recite", (None,), {"repeats": 3, "full_size_steps": 3}),
    ("recite --preset smoke --repeats 2 --full-size-steps 0", "recite", ("smoke",),
     {"repeats": 2, "full_size_steps": 0}),
    ("throughput", "throughput", (None,), {"repeats": 3, "steps": 20}),
    ("throughput --preset smoke --steps 7", "throughput", ("smoke",), {"repeats": 3, "steps": 7}),
    ("tokenise", "tokenise", ((1_000, 10_000),), {"repeats": 3}),
    ("tokenise --documents 250 --repeats 1", "tokenise", ((25, 250),), {"repeats": 1}),
    ("generate --repeats 5", "generate", (), {"repeats": 5}),
    ("load", "load", (), {"repeats": 3}),
])
def test_one_kind_is_measured_with_its_options(asked, capsys, line, kind, arguments, options):
    assert cli.main(["bench", *line.split()]) == 0
    assert asked == {kind: (arguments, options)}
    out, err = capsys.readouterr()
    assert err == f"{kind}: at work\n"
    machine, blank, title, *table = out.splitlines()
    assert machine.startswith("cpu (")
    assert (blank, title) == ("", kind)
    assert "\n".join(table[:-1]) == getattr(MODULES[kind], f"{kind}_table")(ALL[kind])
    alt = getattr(MODULES[kind], f"{kind}_figure")(ALL[kind]).alt
    plot = Path("build") / f"bench-{kind}.png"
    assert table[-1] == f"Figure {plot}: {alt}"
    with Image.open(plot) as image:
        assert image.text["Description"] == alt
        assert image.width > 300


@pytest.mark.parametrize("kind", ALL)
def test_json_is_one_object_with_everything(asked, capsys, kind):
    assert cli.main(["bench", kind, "--json", "--plot", "here/plot.png"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["results"] == {kind: json.loads(json.dumps(ALL[kind]))}
    assert set(found["plots"]) == set(asked) == {kind}
    assert Path(found["plots"][kind]["file"]).is_file()
    assert found["plots"][kind]["file"] == str(Path("here/plot.png"))
    assert found["machine"]["transformers"]
    assert found["errors"] == {}


def test_all_kinds_follow_each_other(asked, capsys):
    assert cli.main(["bench", "--repeats", "2", "--preset", "smoke"]) == 0
    assert list(asked) == list(ALL)
    assert all(options["repeats"] == 2 for _, options in asked.values())
    assert capsys.readouterr().err.splitlines() == [f"{kind}: at work" for kind in ALL]
    assert {path.name for path in Path("build").iterdir()} == {f"bench-{kind}.png" for kind in ALL}


def break_off(error):
    def bench(*_, **__):
        raise error
    return bench


@pytest.mark.parametrize("error", [
    OSError("no such file"), torch.OutOfMemoryError("no such file"), ValueError("no such file")])
@pytest.mark.usefixtures("asked")
def test_what_cannot_be_measured_does_not_stop_the_others(monkeypatch, capsys, error):
    monkeypatch.setattr(tokenization, "bench_tokenise", break_off(error))
    assert cli.main(["bench", "--json"]) == 2
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert list(found["results"]) == [kind for kind in ALL if kind != "tokenise"]
    assert found["errors"] == {"tokenise": "no such file"}
    assert "llm-tutorial: error: tokenise: no such file" in err


@pytest.mark.usefixtures("asked")
def test_an_interrupt_loses_nothing_that_is_finished(monkeypatch, capsys):
    monkeypatch.setattr(tokenization, "bench_tokenise", break_off(KeyboardInterrupt()))
    assert cli.main(["bench", "--json"]) == 130
    assert list(json.loads(capsys.readouterr().out)["results"]) == ["recite", "throughput"]
    assert Path("build/bench-throughput.png").is_file()


@pytest.mark.usefixtures("asked")
def test_a_single_kind_that_fails_prints_no_result(monkeypatch, capsys):
    monkeypatch.setattr(tokenization, "bench_tokenise", break_off(OSError("no such file")))
    assert cli.main(["bench", "tokenise", "--json"]) == 2
    assert capsys.readouterr() == ("", "llm-tutorial: error: no such file\n")


@pytest.mark.parametrize(("line", "message"), [
    ("generate --preset smoke", "--preset is for recite and throughput, not for generate"),
    ("recite --steps 3", "--steps is for throughput, not for recite"),
    ("load --documents 1000", "--documents is for tokenise, not for load"),
    ("throughput --full-size-steps 0", "--full-size-steps is for recite, not for throughput"),
    ("tokenise --documents 99", "--documents 99: give at least 100"),
    ("tokenise --documents 0", "--documents 0: give at least 100"),
    ("recite --full-size-steps -1", "--full-size-steps -1: give 0 or more"),
    ("recite --preset tpu", "Unknown preset 'tpu': use one of cpu, cuda, mps, smoke"),
    ("--plot all.png", "--plot all.png is one file, but 5 kinds give one each: name a KIND"),
    ("load --plot plot.svg", "--plot plot.svg: the picture is a PNG"),
    ("load --plot taken/plot.png", r"no files can be written to taken \(.*\). Choose another --plot"),
    ("load --plot folder.png", "--plot folder.png is a folder"),
])
def test_errors_are_told_before_anything_is_measured(asked, capsys, folder, line, message):
    (folder / "taken").write_text("", encoding="utf-8")
    (folder / "folder.png").mkdir()
    assert cli.main(["bench", *line.split()]) == 2
    out, err = capsys.readouterr()
    assert (out, asked) == ("", {})
    assert re.search(message, err)


@pytest.mark.parametrize("line", ["speed", "recite --repeats 0", "load --repeats many", "throughput --steps -1"])
def test_wrong_usage_ends_with_status_2(asked, capsys, line):
    with pytest.raises(SystemExit) as stop:
        cli.main(["bench", *line.split()])
    assert stop.value.code == 2
    assert "error:" in capsys.readouterr().err
    assert asked == {}


@pytest.mark.parametrize(("load", "told"), [(1.5, True), (0.9, False), (None, False)])
def test_a_busy_machine_is_told(capsys, load, told):
    commands._warn_if_busy({"load_average": load, "processors": 2})
    assert ("processes were at work on 2 processors" in capsys.readouterr().err) == told
