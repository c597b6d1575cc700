"""Running notebooks: what is executed, measured, stored and told, on notebooks that need neither a model nor a hub."""

import json
import os
import signal
import subprocess
import sys
import time

import nbformat
import psutil
import pytest

from llm_tutorial.commands.run import RECORD, execute_notebook, library_versions

INTERRUPTIBLE = """
import signal, sys
from llm_tutorial.cli import main
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background would ignore it
sys.exit(main(sys.argv[1:]))
"""


def code(source, *outputs, **metadata):
    return nbformat.v4.new_code_cell(source, outputs=list(outputs), metadata=metadata)


@pytest.fixture
def stored(tmp_path):
    """A function that stores a notebook of the given cells in the test's folder and returns its path."""
    def stored(*cells, **metadata):
        nbformat.write(nbformat.v4.new_notebook(cells=list(cells), metadata=metadata), tmp_path / "01.ipynb")
        return tmp_path / "01.ipynb"

    return stored


def test_a_run_gives_outputs_time_and_the_number_of_cells(stored, tmp_path):
    path = stored(nbformat.v4.new_markdown_cell("# Title"), code(""), code("import os, sys"),
                  code("print(sys.executable, os.getcwd())"))
    run = execute_notebook(path)
    assert (run.notebook, run.cells, run.error) == (path, 2, None)
    assert run.seconds > 0
    assert run.executed.cells[3].outputs[0].text.split() == [sys.executable, str(tmp_path)]
    assert nbformat.read(path, 4).cells[3].outputs == []


def test_the_kernel_is_this_interpreters_also_where_another_one_is_installed(stored, tmp_path, monkeypatch):
    spec = tmp_path / "kernels" / "python3" / "kernel.json"
    spec.parent.mkdir(parents=True)
    spec.write_text(json.dumps({"argv": ["no-such-python"], "display_name": "other", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    assert execute_notebook(stored(code("1"))).error is None


def test_peak_memory_counts_the_kernel_and_its_children(stored):
    child = "import time; text = b'x' * 150_000_000; time.sleep(2)"
    run = execute_notebook(stored(code(f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {child!r}])")))
    assert run.error is None
    assert 150e6 < run.peak_memory_bytes < 1000e6


def test_a_failing_cell_ends_the_run_and_is_described(stored):
    path = stored(code("1"), code("half = 1\nhalf / 0"), code("2"))
    before = path.read_bytes()
    run = execute_notebook(path, in_place=True)
    assert run.error.startswith("cell 2:\n\nhalf = 1\nhalf / 0\n\n")
    assert run.error.endswith("ZeroDivisionError: division by zero")
    assert "\x1b" not in run.error
    assert path.read_bytes() == before


@pytest.mark.parametrize(("source", "timeout", "words"), [
    ("import os; os._exit(1)", None, "The kernel died"), ("import time; time.sleep(100)", 1, "ran for more than 1 s"),
])
def test_a_dead_kernel_and_an_endless_cell_are_told_in_words(stored, source, timeout, words):
    run = execute_notebook(stored(code(source), code("2")), timeout=timeout)
    assert run.cells == 1
    assert words in run.error
    assert words in run.executed.cells[0].outputs[0].evalue, "the page shows why it ends there"


def test_in_place_stores_reference_outputs_and_nothing_of_this_computer(stored, monkeypatch):
    monkeypatch.setenv("LLM_TUTORIAL_SOURCE", "hub")
    old = nbformat.v4.new_output("display_data", data={"text/plain": "old"})
    path = stored(
        code("1 + 1", old, tags=["keep"], execution={"iopub.status.busy": "2020"}),
        code("import ipywidgets; ipywidgets.IntSlider()"),
        code("1 / 0", tags=["raises-exception"]),
        code("import os; os.environ['LLM_TUTORIAL_SOURCE']"),
        kernelspec={"name": "python3", "display_name": "Python 3"},
        widgets={"application/vnd.jupyter.widget-state+json": {}},
    )
    ids = [cell.id for cell in nbformat.read(path, 4).cells]
    assert execute_notebook(path, in_place=True).error is None
    after = nbformat.read(path, 4)
    assert [cell.id for cell in after.cells] == ids
    assert after.cells[0].outputs[0].data["text/plain"] == "2"
    assert after.cells[0].metadata == {"tags": ["keep"]}
    assert after.cells[3].outputs[0].data["text/plain"] == "'offline'"
    assert [cell.execution_count for cell in after.cells] == [1, 2, 3, 4]
    assert after.metadata.pop(RECORD) == library_versions()
    assert after.metadata == {
        "kernelspec": {"name": "python3", "display_name": "Python 3"},
        "language_info": {"file_extension": ".py", "mimetype": "text/x-python", "name": "python",
                          "nbconvert_exporter": "python", "pygments_lexer": "ipython3"},
    }
    assert [file.name for file in path.parent.iterdir()] == ["01.ipynb"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for another process")
def test_ctrl_c_leaves_no_kernel_and_an_unchanged_file(stored, tmp_path):
    path = stored(code("import os; open('pid', 'w').write(str(os.getpid()))"), code("import time; time.sleep(1000)"))
    before, pid = path.read_bytes(), tmp_path / "pid"
    command = [sys.executable, "-c", INTERRUPTIBLE, "run", "--in-place", str(path)]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 120
        while not (pid.is_file() and pid.read_text()):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        kernel = psutil.Process(int(pid.read_text()))
        process.send_signal(signal.SIGINT)
        err = process.communicate(timeout=120)[1]
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 130
    assert err.endswith("\nllm-tutorial: stopped\n"), "an old debugger of ipykernel has notices of its own"
    assert "Traceback" not in err
    assert not kernel.is_running()
    assert path.read_bytes() == before


def test_streams_are_joined_as_a_terminal_shows_them(stored):
    run = execute_notebook(stored(code(
        "import sys, time\nprint('x' * 300_000)\nfor k in range(3):\n    print(end=f'\\r{k} of 2', flush=True)\n"
        "    print('note', file=sys.stderr, flush=True); time.sleep(0.2)\nprint('\\r\\ndone')")))
    assert [(output.name, output.text[-15:]) for output in run.executed.cells[0].outputs] == [
        ("stdout", "xx\n2 of 2\ndone\n"), ("stderr", "note\nnote\nnote\n")]
    assert len(run.executed.cells[0].outputs[0].text) == 300_000 + 13
