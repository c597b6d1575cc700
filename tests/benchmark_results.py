"""Results such as the benchmarks return them, with figures that a reader can check."""


def summed(**figures):
    """Figures of a single run, with the run."""
    return {**figures, "runs": [figures]}


RECITED = {"recitations": 12, "exact_match": 0.25, "token_accuracy": 0.5, "seconds": 30.0, "steps": 20.0, "loss": 1.5,
           "tokens_per_second": 3_400.0}
RECITE = {
    "benchmark": "recite",
    "settings": {"name": "smoke", "layers": 2, "width": 64, "chunks": 12, "context_length": 128},
    "peak_memory_bytes": 800_000_000,
    "preset": summed(**RECITED | {"exact_match": 0.96}, seconds_to_95=28.75),
    "classic_small": summed(**RECITED, seconds_to_95=None),
}
THROUGHPUT = {
    "benchmark": "throughput",
    "settings": {"name": "smoke", "layers": 2, "width": 64, "parameters": 141_056, "matmul_parameters": 131_072,
                 "tokens_per_step": 512, "precision": "fp32", "steps": 20, "repeats": 3},
    "flops_per_token": 1_250_000,
    "peak": {"flops_per_second": 1e11, "shape": [512, 64, 256], "dtype": "float32", "tried": [{}, {}]},
    "trainer": summed(tokens_per_second=38_000.0, seconds_per_step=0.0135, mfu=0.475),
    "bare": summed(tokens_per_second=40_000.0, seconds_per_step=0.0128, mfu=0.5),
    "ratio": 0.95, "ratios": [0.95], "ratio_of_totals": 0.94,
    "shares": {"matrix products": 0.5, "optimiser": 0.25, "softmax and loss": 0.05, "other elementwise": 0.125,
               "Python and idle": 0.075},
}
SMALL, LARGE = ({"seconds": count / 5_000, "documents_per_second": 5_000.0, "tokens_per_second": 500_000.0,
                 "memory_before_bytes": 500_000_000, "peak_memory_bytes": 500_000_000 + 4_000 * count}
                for count in (1_000, 10_000))
TOKENISE = {
    "benchmark": "tokenise",
    "settings": {"documents": [1_000, 10_000], "context_length": 32, "packed": False, "repeats": 3},
    "methods": {method: {"sizes": [SMALL, LARGE], "time_ratio": 10.0, "memory_growth_bytes": 36_000_000}
                for method in ("batched", "loop", "streaming")},
}
GENERATE = {
    "benchmark": "generate",
    "settings": {"model": "SmolLM2", "source": "offline", "parameters": 134_515_008, "precision": "float32",
                 "device": "cpu", "repeats": 3},
    "lengths": [{"new_tokens": length, "with_cache": summed(tokens_per_second=20.0),
                 "without_cache": summed(tokens_per_second=20 / speedup), "speedup": speedup}
                for length, speedup in ((64, 2.5), (128, 4.0))],
}
LOAD = {
    "benchmark": "load", "settings": {"repeats": 2, "source": "auto"},
    "import": summed(empty_python=0.015, with_package=0.02, difference=0.005),
    "notes": ["causal: the hub's model is not in use here (no network)"],
    "first_prediction": [{"model": "masked", "name": "minilm-mlm", "source": "offline", **summed(
        start=0.03, imports=1.5, checking=0.05, loading=0.25, prediction=0.02, total=1.85)}],
}
ALL = {"recite": RECITE, "throughput": THROUGHPUT, "tokenise": TOKENISE, "generate": GENERATE, "load": LOAD}
