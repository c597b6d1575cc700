"""The summary of a class: mistakes are counted over the executed notebooks of a folder."""

import nbformat

from llm_tutorial import cli
from llm_tutorial.exercises import Exercises, tokenization

ANSWERS = {"ada": len, "bob": lambda character: len(character.encode()), "cem": len, "dee": ...}


def write(path, answer):
    """A notebook in which the answer to an exercise was checked."""
    data, metadata = Exercises(tokenization.EXERCISES).check("utf8", answer)._repr_mimebundle_()
    cell = nbformat.v4.new_code_cell("exercises.check(...)", outputs=[
        nbformat.v4.new_output("execute_result", data, metadata=metadata), nbformat.v4.new_output("stream", text="1")])
    path.parent.mkdir(parents=True)
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("Text"), cell]), path)


def test_each_mistake_is_counted_and_the_most_frequent_comes_first(tmp_path, capsys):
    for student, answer in ANSWERS.items():
        write(tmp_path / student / "lesson" / "lesson.ipynb", answer)
    assert cli.main(["summary", str(tmp_path)]) == 0
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["exercise", "mistake", "times"], ["utf8", "characters", "are", "counted,", "not", "bytes", "2"],
        ["utf8", "none", "1"], ["utf8", "no", "answer", "yet", "1"]]


def test_a_folder_without_executed_checks_is_told(tmp_path, capsys):
    assert cli.main(["summary", str(tmp_path)]) == 2
    assert "No check has been run in the 0 notebooks" in capsys.readouterr().err
