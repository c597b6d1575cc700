"""Tokenizers that an earlier run saved, for a run that is to be compared with it."""

from __future__ import annotations

from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

__all__ = ["load_saved_tokenizer"]


def load_saved_tokenizer(folder: str | Path, vocabulary: int | None = None) -> PreTrainedTokenizerBase:
    """Return the tokenizer in a folder, written by ``save_pretrained``, with its end-of-text token as padding too.

    Args:
        vocabulary: the number of entries that is wanted; None takes any.

    Raises:
        FileNotFoundError: there is no such folder, or no tokenizer in it.
        ValueError: the tokenizer cannot be read, has another number of entries, or no end-of-text token.
    """
    path = Path(folder).expanduser() / "tokenizer.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist (looked in {Path.cwd()}): name a folder with a saved "
                                "tokenizer, such as <output-dir>/model of an earlier run.")
    try:
        tokenizer = AutoTokenizer.from_pretrained(path.parent, trust_remote_code=False)
    except Exception as error:  # a damaged file makes the tokenizers library raise a plain Exception
        trouble = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise ValueError(f"The tokenizer in {path.parent} cannot be read ({trouble}): save it again, or name another "
                         "folder.") from error
    if vocabulary is not None and len(tokenizer) != vocabulary:
        raise ValueError(f"The tokenizer in {path.parent} has {len(tokenizer):,} entries, but vocabulary={vocabulary:,}"
                         f": set the vocabulary to {len(tokenizer)}, or name another folder.")
    if tokenizer.eos_token is None:
        raise ValueError(f"The tokenizer in {path.parent} has no end-of-text token to put between documents: set its "
                         "eos_token and save it again.")
    tokenizer.pad_token = tokenizer.eos_token
    return tokenizer
