"""Tables of facts against independent counts, and the lines printed while training."""

from pathlib import Path

import datasets
import pandas as pd
import pytest
import torch
import transformers
from huggingface_hub.utils import are_progress_bars_disabled

from llm_tutorial.checkpoints import Checkpoint
from llm_tutorial.decoding import Prediction
from llm_tutorial.device import Device
from llm_tutorial.reporting import describe, prediction_table, quiet, setup_table


def gpt2_parameters(vocabulary: int, positions: int, width: int, layers: int) -> int:
    block = 2 * 2 * width + (width * 3 * width + 3 * width) + (width * width + width) + (8 * width * width + 5 * width)
    return (vocabulary + positions) * width + layers * block + 2 * width


def test_describe_counts_a_gpt2(causal_lm):
    facts = describe(causal_lm)[""]
    assert facts["class"] == "GPT2LMHeadModel"
    assert (facts["layers"], facts["width"], facts["attention heads"]) == (2, 32, 2)
    assert (facts["vocabulary"], facts["positions"]) == ("288", "64")
    assert facts["parameters"] == f"{gpt2_parameters(288, 64, 32, 2):,}"
    assert facts["type"] == "float32"


def test_describe_knows_the_size_of_gpt2_itself():
    with torch.device("meta"):
        facts = describe(transformers.GPT2LMHeadModel(transformers.GPT2Config()))[""]
    assert facts["parameters"] == "124,439,808" == f"{gpt2_parameters(50_257, 1024, 768, 12):,}"
    assert facts["weights in memory"] == "498 MB"


def test_describe_counts_tied_weights_of_a_bert_once(masked_lm):
    storages = {parameter.data_ptr(): parameter.numel() for parameter in masked_lm.parameters()}
    assert describe(masked_lm)[""]["parameters"] == f"{sum(storages.values()):,}"


@pytest.mark.parametrize(("device", "precision"), [
    (Device("cpu", True, "fast"), "bf16"), (Device("cpu", False, "safe"), "fp32"),
    (Device("cuda", False, "old", fp16=True), "fp16"),
])
def test_the_setup_table_says_what_is_used_and_why(device, precision):
    facts = setup_table(Checkpoint(Path("x"), "0123456789abcdef", "offline", "no network", "minilm"), device)[""]
    assert facts.tolist() == [
        "minilm", "0123456789ab", "offline", "no network", device.name, precision, device.reason]


def test_the_prediction_table_ranks_from_one():
    table = prediction_table([Prediction(" a", 7, 0.98765), Prediction("b", 9, 0.01)], digits=2)
    pd.testing.assert_frame_equal(table, pd.DataFrame(
        {"token": ["' a'", "'b'"], "id": [7, 9], "probability": [0.99, 0.01]},
        index=pd.RangeIndex(1, 3)), check_index_type=False)


def test_quiet_turns_bars_and_notices_off():
    verbosity = transformers.utils.logging.get_verbosity()
    quiet()
    assert are_progress_bars_disabled()
    assert datasets.are_progress_bars_disabled()
    assert not transformers.utils.logging.is_progress_bar_enabled()
    assert transformers.utils.logging.get_verbosity() == transformers.utils.logging.ERROR
    transformers.utils.logging.set_verbosity(verbosity)
