"""More cases for the exercises that are checked by cases: hidden tests of a class use them, the notebooks do not."""

import torch

__all__ = ["CASES"]

# Each case is a tuple of arguments. The dictionary is the last statement: `make class` copies its values as source.
CASES = {
    # 1 · Masked language models
    "labels": [(torch.tensor([[12, 7, 7], [9, 4, 12]]), torch.tensor([[7, 7, 7], [9, 7, 3]]), 7)],
    "two_masks": [(torch.tensor([[[0.5, -1.0, 2.0, 0.0], [1.5, 0.2, -0.3, 1.0], [0.1, 3.0, 0.4, -2.0]]]),
                   torch.tensor([[-100, 3, 0]]))],
    # 2 · Causal language models
    "next_id": [(torch.tensor([[[9.0, 0.0, 1.0, 2.0], [-4.0, -3.0, -5.0, -6.0]]]),)],
    "top_k": [(torch.tensor([-3.0, -0.5, -7.0, -1.0, -2.0, -9.0]), 4)],
    "loss": [(torch.tensor([[[0.3, 1.2, -0.7], [2.0, -1.0, 0.4], [0.9, 0.1, 1.7], [-0.2, 0.8, 0.5]]]),
              torch.tensor([[1, 0, 2, 2]]))],
    # 3 · Pre-training
    "chunk_count": [(511, 64), (90, 30)],
    "dropped": [([4, 9, 9, 1, 6, 2, 8], 5), ([2, 7, 1, 8], 4)],
    "chunks": [([3, 1, 4, 1, 5, 9, 2, 6, 5], 4), ([2, 7, 1, 8], 2)],
    "steps": [(33, 16, 6), (64, 16, 3)],
    "bits_per_byte": [(2.7, 6, "Größe 5 µm"), (0.4, 30, "plain letters only")],
    "parameters": [(300, 16, 8, 2), (11, 9, 6, 5)],
    "recited": [([[1], [4], [5]], [[7, 1, 2], [7, 3, 3], [7, 5, 0]], 1), ([[6, 6, 1], [2, 3, 4]],
                                                                         [[6, 6, 6, 6, 0], [1, 1, 2, 3, 4]], 2)],
    # 4 · Inside a transformer
    "weighted_sum": [(torch.tensor([0.25, 0.25, 0.5]), torch.tensor([[8.0, 4.0], [0.0, -4.0], [2.0, 6.0]]))],
    "head_width": [(1024, 16), (48, 4)],
    "causal_mask": [(torch.tensor([[0.5, 9.0, 9.0], [1.0, 0.0, 9.0], [-2.0, 1.5, 0.3]]),)],
    "scale": [(torch.tensor([[1.0, 0.0, 2.0, 0.0], [0.5, -1.0, 1.0, 1.0], [0.0, 2.0, 0.0, -1.0]]),
               torch.tensor([[2.0, 1.0, 0.0, 1.0], [1.0, 1.0, 1.0, 0.0], [0.0, -1.0, 3.0, 1.0]]))],
    "rotate": [(torch.tensor([1.0, -2.0, 0.5, 3.0, 0.0, -1.0]), 7, 500.0)],
    "count_weights": [(96, 6, 2, 200), (12, 3, 1, 40)],
    "copying_head": [(torch.stack([torch.eye(6), 0.8 * torch.ones(4).diag(-2), 0.9 * torch.ones(3).diag(-3),
                                   0.9 * torch.ones(5).diag(-1), 0.5 * torch.ones(4).diag(-2),
                                   torch.ones(2).diag(-4)]).view(3, 2, 6, 6),)],
    # 5 · Training well
    "muon_weights": [({"transformer.wpe.weight": (8, 4), "transformer.h.2.mlp.c_fc.weight": (4, 16),
                       "transformer.h.2.mlp.c_fc.bias": (16,), "transformer.h.10.attn.c_proj.weight": (4, 4),
                       "transformer.ln_f.weight": (4,)},)],
    "momentum": [(4.0, -6.0, 0.8), (0.5, 0.0, 0.99)],
    "adamw": [(torch.tensor([[1.0, -0.5]]), torch.tensor([[0.3, -2.0]]), torch.tensor([[0.1, 0.4]]),
               torch.tensor([[0.2, 0.9]]), 3, 0.2, (0.7, 0.9), 0.2, 0.3)],
    "orthogonal": [(torch.tensor([[1.0, 2.0, -1.0], [0.5, 0.0, 3.0]]), [(2.0, -1.5, 0.5), (3.0, -3.2, 1.2)])],
    "rate": [(7, 50, 25, 0.3), (37, 50, 25, 0.3)],
    "cut": [([3, 1, 4, 1, 5, 9, 2, 6], 2, 3), ([5, 8, 9, 7], 4, 0)],
    "exponent": [((2e5, 5.0), (8e6, 3.1)), ((4.0, 2.0), (400.0, 0.7))],
    # 6 · Reusing a model
    "accuracy": [(torch.tensor([2, 2, 0, 1, 1, 0, 2]), torch.tensor([2, 0, 0, 1, 2, 0, 1]))],
    "cosine": [(torch.tensor([6.0, -8.0, 0.0]), torch.tensor([3.0, 0.0, 4.0]))],
    "mean_pool": [(torch.tensor([[[7.0, 7.0], [2.0, -1.0], [4.0, 6.0]], [[3.0, 0.5], [1.0, 1.5], [9.0, -8.0]]]),
                   torch.tensor([[0, 1, 1], [1, 1, 0]]))],
    "trainable_weights": [({"query": (20, 30), "value": (10, 30), "output": (30, 20)}, 3)],
    "merge_lora": [(torch.tensor([[2.0, 0.0, 1.0], [1.0, 1.0, 0.0]]), torch.tensor([[1.0, 0.0, -1.0]]),
                    torch.tensor([[3.0], [-2.0]]), 4)],
    "mask_question": [([4, 15, 4], [15, 6, 4, 1]), ([8], [8])],
    # 7 · Tokenizers
    "utf8": [("ß",), ("語",), ("𝄞",), ("%",)],
    "neighbors": [("mississippi",), ("to",)],
    "pair": [({("x", "y", "x", "y"): 3, ("y", "z"): 4, ("w",): 99},), ({("th", "e"): 2, ("th", "e", "m"): 2,
                                                                    ("h", "e", "m"): 3},)],
    "fewest": [("tokenize", {"token", "to", "ken", "kenize", "i", "z", "e"}), ("abcab", {"ab", "abca", "c"}),
               ("xyz", {"x", "yz", "y", "xy"}), ("dog", {"d", "o"})],
    "bytes_back": [(["Ã¤ĠÄ", "ģ", "ĊĉĠĠ"],)],
    # 8 · Scaling up
    "dealt": [(11,), (2,)],
    "weighted_mean": [(1.5, 8, 0.5, 24), (7.0, 3, 2.0, 9)],
    "rows": [(17, 2, 5), (6, 5, 6)],
    "average": [([torch.tensor([[1.0, -2.0]]), torch.tensor([[5.0, 4.0]]), torch.tensor([[0.5, 0.0]])], [2, 6, 12])],
    "rounds": [(100, 4, 7), (96, 6, 8)],
    "hours": [(3.5e8, 7e9, 2e14, 0.25, 4)],
    "devices": [(3e9, 24e9), (2.6e10, 40e9)],
}
