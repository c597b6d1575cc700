"""What a signal does to a training, and a second one that follows it."""

import os
import signal

import pytest
import torch

from llm_tutorial import interruptions
from llm_tutorial.interruptions import interruptible
from llm_tutorial.pretraining_results import written


def end():
    os.kill(os.getpid(), signal.SIGTERM)


def test_a_second_signal_does_not_keep_the_way_to_go_on_from_being_told(tmp_path, monkeypatch):
    def newest(folder, **_):
        end()  # while the hashes are taken
        return folder / "checkpoint-5"

    monkeypatch.setattr(interruptions, "newest_checkpoint", newest)
    before, told = signal.getsignal(signal.SIGTERM), []
    with pytest.raises(KeyboardInterrupt), interruptible(tmp_path, told.append):
        end()
    assert told == [f"Stopped. The same command resumes from {tmp_path / 'checkpoint-5'}."]
    assert signal.getsignal(signal.SIGTERM) == before


def test_the_main_process_alone_looks_for_a_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(interruptions, "newest_checkpoint", lambda *_, **__: pytest.fail("took hashes"))
    with pytest.raises(KeyboardInterrupt), interruptible(tmp_path, pytest.fail):
        end()


def test_an_error_of_a_connection_after_a_signal_is_that_signal(tmp_path):
    told = []

    def lose_connection():
        try:
            end()
        except KeyboardInterrupt as error:
            raise RuntimeError("Connection closed by peer") from error

    with pytest.raises(KeyboardInterrupt), interruptible(tmp_path, told.append):
        lose_connection()
    assert told == ["Stopped. There is no checkpoint yet: the same command begins again."]
    with pytest.raises(RuntimeError, match="of itself"), interruptible(tmp_path, pytest.fail):
        raise RuntimeError("of itself")


class Endless:
    """A file that a signal ends the writing of, of which the writer then complains."""

    def write(self, _):
        try:
            end()
        except KeyboardInterrupt as error:
            raise RuntimeError("unexpected pos 576 vs 534") from error

    def flush(self):
        """Nothing is kept."""


def test_an_interrupted_checkpoint_is_no_full_disk(tmp_path):
    told = []
    with pytest.raises(KeyboardInterrupt), interruptible(tmp_path, told.append), written(lambda: tmp_path):
        torch.save({"weights": torch.zeros(10)}, Endless())
    assert told


@pytest.mark.parametrize("error", [RuntimeError("mat1 and mat2"), OSError("no errno"), PermissionError(13, "denied")])
def test_other_errors_stay_as_they_are(tmp_path, error):
    with pytest.raises(type(error)) as caught, written(lambda: tmp_path):
        raise error
    assert caught.value is error
