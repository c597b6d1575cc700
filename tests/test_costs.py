"""The cost model: figures worked out by hand, what a real step keeps in memory, and inputs that make no sense."""

import math
import re

import pytest
import torch
from torch import nn

from llm_tutorial.costs import attention_flops, price, training_bytes, training_flops, training_hours


def test_six_operations_for_each_parameter_and_token():
    assert training_flops(10, 7) == 420
    assert training_flops(175e9, 300e9) == pytest.approx(3.15e23), "GPT-3: Brown et al. 2020, appendix D: 3.14e23"


def test_two_products_forward_and_four_backward_over_all_positions():
    assert attention_flops(3, 5, 7, 1) == 3 * 6 * 2 * 5 * 7
    assert attention_flops(3, 5, 7, 100) == 100 * attention_flops(3, 5, 7, 1)


@pytest.mark.parametrize(("make", "per_parameter"), [
    (lambda weights: torch.optim.AdamW(weights), 8),
    (lambda weights: torch.optim.SGD(weights, lr=0.1, momentum=0.9), 4),
    (lambda weights: torch.optim.SGD(weights, lr=0.1), 0),
])
def test_bytes_are_those_that_a_real_step_keeps(make, per_parameter):
    model = nn.Linear(30, 20)
    optimizer = make(model.parameters())
    model(torch.ones(2, 30)).sum().backward()
    optimizer.step()
    weights = list(model.parameters())
    states = [value for state in optimizer.state.values() for value in state.values()
              if isinstance(value, torch.Tensor) and value.ndim]
    kept = sum(tensor.nbytes for tensor in weights + [weight.grad for weight in weights] + states)
    assert training_bytes(20 * 31, optimizer=per_parameter) == kept


def test_bytes_by_hand():
    assert training_bytes(1000) == 16_000
    assert training_bytes(1000, weight=2, gradient=3, optimizer=10) == 15_000
    assert training_bytes(1000, activations=500) == 16_500


def test_fully_sharded_processes_share_everything_but_the_activations():
    assert training_bytes(1000, activations=500, processes=8) == 2000 + 500
    shares = [training_bytes(1000, processes=count) for count in (1, 2, 4)]
    assert shares == [16_000, 8000, 4000]


def test_hours_by_hand():
    assert training_hours(7.2e15, 1e12) == 2
    assert training_hours(7.2e15, 1e12, mfu=0.25) == 8
    assert training_hours(7.2e15, 1e12, mfu=0.25, devices=4) == 2


def test_a_price_is_for_each_device():
    assert price(3, 1.5) == 4.5
    assert price(3, 1.5, devices=8) == 36
    assert price(0, 1.5) == 0


def test_more_devices_are_faster_and_at_best_cost_the_same():
    bills = [price(training_hours(1e18, 1e13, devices=count), 2, devices=count) for count in (1, 4)]
    assert bills[0] == pytest.approx(bills[1])


GOOD = {
    training_flops: {"parameters": 1, "tokens": 1},
    attention_flops: {"layers": 1, "width": 1, "context_length": 1, "tokens": 1},
    training_bytes: {"parameters": 1, "weight": 4, "gradient": 4, "optimizer": 8, "activations": 0},
    training_hours: {"flops": 1, "flops_per_second": 1},
    price: {"hours": 1, "price_per_hour": 1},
}


@pytest.mark.parametrize("value", [-1, math.nan, math.inf])
@pytest.mark.parametrize(("function", "name"), [(function, name) for function, good in GOOD.items() for name in good])
def test_numbers_that_make_no_sense_are_named(function, name, value):
    assert function(**GOOD[function]) >= 0
    with pytest.raises(ValueError, match=re.escape(f"{name}={value}: a finite number that is not negative")):
        function(**GOOD[function] | {name: value})


@pytest.mark.parametrize("value", [0, -2, 1.5])
@pytest.mark.parametrize(("function", "name"), [(training_bytes, "processes"), (training_hours, "devices"),
                                                (price, "devices")])  # fmt: skip
def test_parts_of_processes_and_devices_are_refused(function, name, value):
    with pytest.raises(ValueError, match=re.escape(f"{name}={value}: a whole number above 0")):
        function(**GOOD[function] | {name: value})


@pytest.mark.parametrize("mfu", [0, -0.1, 1.01, 40])
def test_a_utilisation_is_a_share(mfu):
    with pytest.raises(ValueError, match=re.escape(f"mfu={mfu}: it is a share")):
        training_hours(1, 1, mfu=mfu)


def test_a_device_that_computes_nothing_is_named():
    with pytest.raises(ValueError, match="flops_per_second=0"):
        training_hours(1, 0)
