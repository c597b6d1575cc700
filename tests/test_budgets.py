"""What a run may take: declared once, shown in the README and in every notebook, compared with what it took."""

import re
from pathlib import Path

import nbformat
import pytest
from huggingface_hub import constants

from llm_tutorial import cli
from llm_tutorial.budget_checks import FACTOR, budget_excesses, hub_cache_bytes
from llm_tutorial.budgets import BUDGETS, ESTIMATED, budget_table
from llm_tutorial.execution import Failure, Run
from llm_tutorial.presets import PRESETS

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted([*ROOT.glob("notebooks/*.ipynb"), *ROOT.glob("notebooks/solutions/*.ipynb")])
BUDGET = BUDGETS["01_masked_lm"].presets["cpu"]
MEGABYTE = 1_000_000


def run_of(seconds: float, memory_bytes: float, *, device: str = "cpu", source: str = "offline",
           name: str = "01_masked_lm", error: Failure | None = None) -> Run:
    notebook = nbformat.v4.new_notebook()
    return Run(Path(f"{name}.ipynb"), seconds, round(memory_bytes), 1, source, error, notebook, device)


def test_every_preset_has_a_budget_and_every_notebook_too():
    assert all(set(budget.presets) == set(PRESETS) for budget in BUDGETS.values())
    assert {path.stem for path in NOTEBOOKS} <= set(BUDGETS)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.relative_to(ROOT / "notebooks").as_posix())
def test_the_first_cells_of_a_notebook_show_its_budget(path):
    cells = nbformat.read(path, as_version=4)["cells"][:5]
    showing = [cell for cell in cells if re.search(rf'^budget_table\("{path.stem}"\)', cell["source"], re.MULTILINE)]
    assert len(showing) == 1
    [output] = showing[0]["outputs"]
    table = budget_table(path.stem)
    html = output["data"]["text/html"]
    assert re.findall(r"<th>([^<]+)</th>", html) == [*table.columns, *table.index], "run `make outputs`"
    assert re.findall(r"<td>([^<]+)</td>", html) == [str(cell) for row in table.to_numpy() for cell in row]
    assert not showing[0]["metadata"].get("tags"), "the table does not depend on the machine: let it be compared"


def test_the_readme_shows_the_budgets():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    names = [f"{name} (estimate)" if name in ESTIMATED else name for name in PRESETS]
    header, _, *rows = re.search(r"^\| notebook \| cpu .*?\n\n", readme, re.MULTILINE | re.DOTALL)[0].splitlines()[:-1]
    columns = [cell.strip() for cell in header.strip("|").split("|")]
    assert sorted(columns[1:5]) == sorted(names)
    expected = []
    for notebook, budget in BUDGETS.items():
        presets = [budget.presets[name.split()[0]] for name in columns[1:5]]
        cells = [notebook, *(f"{one.seconds} s, {one.memory_bytes / 1e9:.1f} GB" for one in presets),
                 f"{budget.offline_bytes / 1e6:.0f} MB", f"{budget.hub_bytes / 1e6:.0f} MB"]
        expected.append(f"| {' | '.join(cells)} |")
    assert rows == expected
    assert f"more than {FACTOR:g} times its seconds or its memory" in " ".join(readme.split())


def test_the_table_says_what_was_never_measured():
    table = budget_table("02_causal_lm.ipynb")
    estimated = dict.fromkeys(("smoke", "cuda", "mps"), "estimated")
    assert dict(table["basis"]) == {"cpu": "measured"} | estimated
    assert table.loc["cpu", "download offline, MB"] == 93
    assert table.loc["cpu", "from hub, MB"] == 440 + 550
    with pytest.raises(ValueError, match=r"No budget is declared for 'mine': .*\. There are: 01_masked_lm"):
        budget_table("mine.ipynb")


def test_a_budget_is_exceeded_only_above_its_factor():
    limit = FACTOR * BUDGET.seconds, FACTOR * BUDGET.memory_bytes
    assert budget_excesses(run_of(*limit)) == []
    [time] = budget_excesses(run_of(limit[0] + 0.1, limit[1]))
    [memory] = budget_excesses(run_of(limit[0], limit[1] + MEGABYTE))
    assert time == "01_masked_lm: time 45.1 s, allowed 45.0 s (1.5 times the budget for cpu, 30 s)"
    assert memory == "01_masked_lm: peak memory 1951.0 MB, allowed 1950.0 MB (1.5 times the budget for cpu, 1300 MB)"
    assert len(budget_excesses(run_of(limit[0] + 1, limit[1] + MEGABYTE))) == 2


def test_the_budget_is_that_of_the_device():
    [excess] = budget_excesses(run_of(1000, 1, device="cuda", name="03_pretraining"))
    assert "allowed 900.0 s (1.5 times the budget for cuda, estimated, 600 s)" in excess
    assert budget_excesses(run_of(800, 1, device="cuda", name="03_pretraining")) == []
    [excess] = budget_excesses(run_of(1, 1, device=""))
    assert excess.startswith("01_masked_lm: its device is '', and budgets are declared for cpu")


def test_a_download_counts_where_the_hub_is_the_source():
    assert budget_excesses(run_of(1, 1, source="hub"), 660 * MEGABYTE) == []
    [excess] = budget_excesses(run_of(1, 1, source="hub"), 661 * MEGABYTE)
    assert excess.startswith("01_masked_lm: download 661.0 MB, allowed 660.0 MB")
    [excess] = budget_excesses(run_of(1, 1), MEGABYTE)
    assert excess.startswith("01_masked_lm: download 1.0 MB, allowed 0.0 MB")


def test_the_time_of_a_run_that_downloaded_is_not_compared():
    assert budget_excesses(run_of(1000, 1, source="hub"), 440 * MEGABYTE) == []
    [excess] = budget_excesses(run_of(1000, 2 * BUDGET.memory_bytes, source="hub"), 440 * MEGABYTE)
    assert excess.startswith("01_masked_lm: peak memory")
    [excess] = budget_excesses(run_of(1000, 1, source="cache"), 0)
    assert excess.startswith("01_masked_lm: time 1000.0 s")


def test_the_size_of_the_hub_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    assert hub_cache_bytes() == 0
    blobs, snapshot = tmp_path / "hub/models--a--b/blobs", tmp_path / "hub/models--a--b/snapshots/main"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    (blobs / "hash").write_bytes(b"x" * 1000)
    (snapshot / "file").write_bytes(b"y" * 10)
    (snapshot / "model.safetensors").symlink_to(blobs / "hash")
    assert hub_cache_bytes() == 1010


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Run the command on notebooks of these names; the execution takes no time, and what it reports is given."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    (tmp_path / "notebooks").mkdir()

    def call(*options: str, downloaded: int = 0, **runs: Run) -> int:
        executed = []

        def execute(path, **_):
            executed.append(path.stem)
            (tmp_path / "hub").mkdir(exist_ok=True)
            (tmp_path / "hub" / path.stem).write_bytes(b"x" * downloaded)
            return runs[f"n{path.stem}"]

        for name in runs:
            cells = [nbformat.v4.new_markdown_cell("# One"), nbformat.v4.new_code_cell("1")]
            nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "notebooks" / f"{name[1:]}.ipynb")
        monkeypatch.setattr("llm_tutorial.execution.execute_notebook", execute)
        call.executed = executed
        return cli.main(["run", *options])

    return call


def named(tmp_path: Path, *arguments: float, **options) -> Run:
    run = run_of(*arguments, **options)
    return Run(tmp_path.resolve() / "notebooks" / run.notebook, *list(vars(run).values())[1:])


def test_a_run_that_exceeds_its_budget_fails_and_says_by_what(command, tmp_path, capsys):
    slow = named(tmp_path, 46, 1)
    large = named(tmp_path, 1, 2 * BUDGET.memory_bytes, name="02_causal_lm")
    runs = {"n01_masked_lm": slow, "n02_causal_lm": large}
    assert command("--check-budgets", **runs) == 1
    out = capsys.readouterr().out
    assert "Budget exceeded by 01_masked_lm: time 46.0 s, allowed 45.0 s (1.5 times the budget for cpu, 30 s)\n" in out
    assert "Budget exceeded by 02_causal_lm: peak memory 2600.0 MB, allowed 2400.0 MB" in out
    assert "Budgets: kept" not in out
    assert command(**runs) == 0, "without the option nothing is compared"
    assert "Budget" not in capsys.readouterr().out


def test_a_run_within_its_budget_passes(command, tmp_path, capsys):
    assert command("--check-budgets", n01_masked_lm=named(tmp_path, 1, 1)) == 0
    assert "Budgets: kept by 1 of 1 notebooks" in capsys.readouterr().out


def test_what_the_run_adds_to_the_cache_is_its_download(command, tmp_path, capsys):
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub/earlier").write_bytes(b"x" * MEGABYTE)
    assert command("--check-budgets", n01_masked_lm=named(tmp_path, 1, 1)) == 0
    assert command("--check-budgets", downloaded=2 * MEGABYTE, n01_masked_lm=named(tmp_path, 1, 1)) == 1
    assert "01_masked_lm: download 2.0 MB, allowed 0.0 MB" in capsys.readouterr().out


def test_a_run_says_that_the_time_of_a_download_is_not_compared(command, tmp_path, capsys):
    slow = named(tmp_path, 65, 1, source="hub")
    assert command("--check-budgets", downloaded=3 * MEGABYTE, n01_masked_lm=slow) == 0
    told = "01_masked_lm  its time is not compared with its budget, because 3 MB were downloaded meanwhile"
    assert told in capsys.readouterr().out
    assert command("--check-budgets", downloaded=3 * MEGABYTE, n01_masked_lm=slow) == 1, "it is in the cache now"
    assert "not compared" not in capsys.readouterr().out


def test_a_failed_notebook_is_no_matter_of_budgets(command, tmp_path, capsys):
    failed = named(tmp_path, 1000, 1, error=Failure(1, "1 / 0", "ZeroDivisionError"))
    assert command("--check-budgets", n01_masked_lm=failed) == 1
    out = capsys.readouterr().out
    assert "Budget exceeded" not in out
    assert "Budgets: kept by 0 of 1 notebooks" in out


def test_a_notebook_without_a_budget_is_told_before_anything_is_executed(command, tmp_path, capsys):
    runs = {"n01_masked_lm": named(tmp_path, 1, 1), "nmine": named(tmp_path, 1, 1, name="mine")}
    assert command("--check-budgets", **runs) == 2
    assert command.executed == []
    assert "No budget is declared for 'mine'" in capsys.readouterr().err
