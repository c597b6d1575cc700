"""What every test of a typical mistake asserts of the feedback."""

from llm_tutorial.exercises import Feedback


def assert_named(feedback: Feedback, fragment: str) -> None:
    """The answer is refused, and the message says why; it is no report of an exception."""
    assert not feedback.correct
    assert fragment in feedback.message
    assert "Your code raises" not in feedback.message
