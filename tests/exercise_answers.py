"""Right answers to each exercise, and wrong ones with a part of the message that names the mistake."""

# ruff: noqa: ARG005  (an answer takes all arguments, right or wrong)

import itertools
import math
import random
import re
from collections import Counter
from fractions import Fraction
from itertools import pairwise

import numpy as np
import torch
from datasets import Dataset
from datasets.distributed import split_dataset_by_node
from tokenizers import decoders
from torch.nn.functional import cross_entropy
from transformers import get_linear_schedule_with_warmup
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from llm_tutorial import evaluation
from llm_tutorial.costs import training_hours
from llm_tutorial.decoding import filter_logits, greedy_decode
from llm_tutorial.interpretation import pseudo_perplexity

__all__ = ["RIGHT", "WRONG"]


def spoiling(solution):
    """The right answer, but nothing is left of the first argument."""
    def answer(first, *rest):
        result = solution(first, *rest)
        first.zero_() if isinstance(first, torch.Tensor) else first.clear()
        return result

    return answer


def endless(*_):
    while True:
        pass


def my_softmax(logits, dim=-1):
    powers = torch.exp(logits - logits.max(dim=dim, keepdim=True).values)
    return powers / powers.sum(dim=dim, keepdim=True)


def my_labels(original_ids, masked_ids, mask_token_id):
    return torch.where(masked_ids == mask_token_id, original_ids, -100)


@torch.no_grad()
def hidden_losses(model, tokenizer, text, ends=1, once=None, pile_up=False):
    """The loss of each token, hidden alone; or all at once, each seen as in the text with ``once`` in their place."""
    ids = tokenizer(text, return_tensors="pt").input_ids.to(model.device)
    losses, hidden = [], ids.clone()
    for place in range(ends, ids.shape[1] - ends):
        hidden = hidden if pile_up else ids.clone()
        if once is None:
            hidden[0, place] = tokenizer.mask_token_id
        elif once == "mask":
            hidden[0, ends:-ends] = tokenizer.mask_token_id
        losses.append(-model(hidden).logits[0, place].log_softmax(dim=-1)[ids[0, place]])
    return torch.stack(losses)


def my_pseudo_perplexity(*given):
    return math.exp(hidden_losses(*given).mean())


def my_two_masks(logits, labels, dim=-1):
    labeled = labels != -100
    return -logits[labeled].log_softmax(dim).gather(1, labels[labeled][:, None]).mean()


def indexed(logits, labels):
    """With -100 as a place that is counted from the end."""
    rows = logits[0].log_softmax(dim=-1)
    return -sum(rows[place, label] for place, label in enumerate(labels[0])) / len(rows)


def my_top_k(logits, k, ruled_out=-torch.inf):
    return torch.where(logits >= logits.topk(k).values[-1], logits, ruled_out)


def my_loss(logits, ids):
    return -logits[0, :-1].log_softmax(dim=-1).gather(1, ids[0, 1:, None]).mean()


def drawn(probabilities, generator):
    return torch.multinomial(probabilities, 1, generator=generator).item()


def my_sample(logits, temperature, generator):
    return drawn((logits / temperature).softmax(dim=-1), generator)


def gumbel(logits, temperature, generator):
    return (logits / temperature - torch.empty_like(logits).exponential_(generator=generator).log()).argmax()


@torch.no_grad()
def my_cached_greedy(model, ids, new_tokens, again=False, forgetful=False, best=torch.argmax):
    """Again: all tokens are fed in each step. Forgetful: the cache is not passed on."""
    fed, past = ids, None
    for _ in range(new_tokens):
        output = model(fed, past_key_values=past, use_cache=True)
        fed = best(output.logits[:, -1], dim=-1, keepdim=True)
        past = None if forgetful else output.past_key_values
        ids = torch.cat([ids, fed], dim=1)
        fed = ids if again else fed
    return ids


@torch.no_grad()
def fed_once_more(model, ids, new_tokens):
    """The last token is fed too, which is allowed."""
    written = my_cached_greedy(model, ids, new_tokens)
    model(written[:, -1:])
    return written


def my_chunks(ids, length):
    return [ids[start:start + length] for start in range(0, len(ids) - length + 1, length)]


def my_steps(chunks, batch, epochs):
    return math.ceil(chunks / batch) * epochs


def my_bits_per_byte(loss, tokens, text, base=2, size=lambda text: len(text.encode())):
    return loss / math.log(base) * tokens / size(text)


def my_recited(written, chunks, prompt, share=all):
    return sum(share(token == chunk[prompt + place] for place, token in enumerate(row))
               for row, chunk in zip(written, chunks, strict=True)) / len(chunks)


def muon_size(shapes, keep=lambda name, shape: ".h." in name and len(shape) == 2, size=math.prod):
    return sum(size(shape) for name, shape in shapes.items() if keep(name, shape))


def my_parameters(v, p, d, n, head=0, position=1, bias=1):
    return d * (v * (1 + head) + p * position) + n * (12 * d**2 + 9 * d * bias + 4 * d) + 2 * d


def my_adamw(weight, gradient, m, v, step, lr, betas, eps, weight_decay, *, inside=False, corrected=True, decay=True):
    first, second = betas
    m = first * m + (1 - first) * gradient
    v = second * v + (1 - second) * gradient**2
    m_hat, v_hat = (m / (1 - first**step), v / (1 - second**step)) if corrected else (m, v)
    update = m_hat / (torch.sqrt(v_hat + eps) if inside else v_hat.sqrt() + eps)
    return weight - lr * (update + decay * weight_decay * weight), m, v


def adamw_by_torch(weight, gradient, m, v, step, lr, betas, eps, weight_decay):
    parameter = torch.nn.Parameter(weight)
    parameter.grad = gradient
    optimizer = torch.optim.AdamW([parameter], lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)
    state = optimizer.state[parameter] = {"step": torch.tensor(step - 1.0), "exp_avg": m, "exp_avg_sq": v}
    optimizer.step()
    return parameter, state["exp_avg"], state["exp_avg_sq"]


def my_fertility(tokenizer, text, special=False, words=str.split):
    return len(tokenizer(text, add_special_tokens=special).input_ids) / len(words(text))


def my_pair(words, pairs=pairwise, weigh=True):
    counts = Counter()
    for word, count in words.items():
        for pair in pairs(word):
            counts[pair] += count if weigh else 1
    return max(counts, key=counts.get)


def my_fewest(word, known, choose=min):
    best = {0: []}
    for end in range(1, len(word) + 1):
        cuts = [[*best[start], word[start:end]] for start in best if word[start:end] in known]
        if cuts:
            best[end] = choose(cuts, key=len)
    return best.get(len(word), ["[UNK]"])


def greedy(word, known, otherwise=lambda cut: ["[UNK]"], inner=""):
    cut = []
    while word:
        end = next((end for end in range(len(word), 0, -1) if (inner * bool(cut)) + word[:end] in known), None)
        if end is None:
            return otherwise(cut)
        cut.append(word[:end])
        word = word[end:]
    return cut


def all_cuts(word, known):
    """Those with few pieces first."""
    for cuts in range(len(word)):
        for places in itertools.combinations(range(1, len(word)), cuts):
            cut = [word[start:end] for start, end in pairwise((0, *places, len(word)))]
            if all(piece in known for piece in cut):
                yield cut


def byte_table():
    """The byte that each character of GPT-2's pieces stands for."""
    itself = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in itself]
    return {chr(byte): byte for byte in itself} | {chr(256 + place): byte for place, byte in enumerate(others)}


def bytes_back(pieces):
    table = byte_table()
    return bytes(table[character] for piece in pieces for character in piece)


def my_orthogonal(x, coefficients, divide=torch.linalg.matrix_norm):
    x = x / divide(x)
    for a, b, c in coefficients:
        gram = x @ x.T
        x = a * x + b * gram @ x + c * gram @ gram @ x
    return x


def orthogonal_by_one_gram(x, coefficients):
    x = x / x.norm()
    gram = x @ x.T
    for a, b, c in coefficients:
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x


def rate_by_the_library(step, steps, warmup, peak):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=peak)
    [rate] = get_linear_schedule_with_warmup(optimizer, warmup, steps).lr_lambdas
    return peak * rate(step)


def my_exponent(one, other, log=math.log):
    return log(one[1] / other[1]) / log(other[0] / one[0])


def my_causal_mask(scores, ruled_out=-torch.inf, diagonal=1, dim=-1):
    hidden = torch.ones_like(scores).triu(diagonal).bool()
    return torch.where(hidden, ruled_out, scores).softmax(dim)


def causal_by_loops(scores):
    rows = []
    for place, row in enumerate(scores.tolist()):
        powers = [math.exp(score) for score in row[:place + 1]] + [0.0] * (len(row) - place - 1)
        rows.append([power / sum(powers) for power in powers])
    return rows


def my_scale(queries, keys, factor=lambda n, d: 1 / math.sqrt(d), dim=-1):
    return my_softmax(queries @ keys.T * factor(*queries.shape), dim)


def scale_by_torch(queries, keys):
    return torch.nn.functional.scaled_dot_product_attention(
        queries[None], keys[None], torch.eye(len(keys))[None])[0]


def my_rotate(vector, position, theta, sign=1, power=2):
    """As transformers does it for a Llama."""
    half, d = len(vector) // 2, len(vector)
    turned = (position / theta ** (power * torch.arange(half) / d)).repeat(2)
    return vector * turned.cos() + torch.cat([-sign * vector[half:], sign * vector[:half]]) * turned.sin()


def rotate_by_loops(vector, position, theta, pair=lambda i, d: (i, i + d // 2)):
    d, result = len(vector), vector.tolist()
    for i in range(d // 2):
        one, other = pair(i, d)
        angle = position * theta ** (-2 * i / d)
        result[one] = (vector[one] * math.cos(angle) - vector[other] * math.sin(angle)).item()
        result[other] = (vector[other] * math.cos(angle) + vector[one] * math.sin(angle)).item()
    return result


def rotate_by_the_library(vector, position, theta):
    angles = (position / theta ** (2 * torch.arange(len(vector) // 2) / len(vector))).repeat(2)[None]
    return apply_rotary_pos_emb(*[vector[None, None, None]] * 2, angles.cos()[None], angles.sin()[None])[0][0, 0, 0]


def my_count_weights(hidden, heads, kv_heads, intermediate, *, o=1, gate=1, norm=2):
    shapes = [(hidden, hidden), (hidden, o * hidden), (hidden, kv_heads * hidden // heads),
              (hidden, kv_heads * hidden // heads), (hidden, intermediate), (gate * hidden, intermediate),
              (intermediate, hidden), (norm * hidden,)]
    return sum(map(math.prod, shapes))


def my_copying_head(attention, back=lambda n: n - 1):
    """By loops."""
    n = attention.shape[-1] // 2
    means = {(place, number): sum(head[row, row - back(n)] for row in range(n, 2 * n))
             for place, layer in enumerate(attention) for number, head in enumerate(layer)}
    return max(means, key=means.get)


def copying_by_diagonal(attention):
    """As TransformerLens does it, with one more position: the last one of the first half."""
    scores = attention.diagonal(offset=1 - attention.shape[-1] // 2, dim1=-2, dim2=-1).mean(dim=-1)
    return torch.unravel_index(scores.argmax(), scores.shape)


def my_rows(rows, rank, processes, *, start=0):
    return list(range(rank + start, rows + start, processes))


def rows_by_the_library(rows, rank, processes):
    stream = Dataset.from_dict({"row": list(range(rows))}).to_iterable_dataset()
    return [row["row"] for row in split_dataset_by_node(stream, rank, processes)]


def my_average(gradients, tokens):
    return sum(count / sum(tokens) * gradient for gradient, count in zip(gradients, tokens, strict=True))


def my_hours(n, d, peak, mfu, devices, *, operations=6, unit=3600):
    return operations * n * d / peak / mfu / devices / unit


def my_devices(parameters, memory, each=16, rounded=math.ceil):
    return rounded(each * parameters / memory)


def my_cosine(u, v, divide=lambda u, v: u.norm() * v.norm()):
    return u @ v / divide(u, v)


def my_mean_pool(hidden, mask):
    return (hidden * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True)


def pooled_one_by_one(hidden, mask):
    return [states[keep.bool()].mean(dim=0) for states, keep in zip(hidden, mask, strict=True)]


def my_weights(shapes, r, of=lambda rows, columns, r: rows * r + r * columns):
    return sum(of(rows, columns, r) for rows, columns in shapes.values())


def my_merge(W, A, B, alpha, scale=lambda alpha, r: alpha / r):
    return W + scale(alpha, A.shape[0]) * (B @ A)


def both_paths(W, A, B, alpha):
    """The columns of the matrix are what the layer makes of the columns of an identity matrix."""
    x = torch.eye(W.shape[1])
    return W @ x + alpha / A.shape[0] * (B @ (A @ x))


def my_question(question, answer, labels=lambda q, a: [-100] * len(q) + a):
    return question + answer, labels(question, answer)


def question_in_tensors(question, answer):
    ids = torch.tensor(question + answer, dtype=torch.int32)
    return {"input_ids": ids, "labels": torch.where(torch.arange(len(ids)) < len(question), -100, ids),
            "attention_mask": torch.ones_like(ids)}


def own_pairs(*changed, number=20, reply="Answer {}."):
    """Pairs of the right form; those that are changed come in front."""
    return [*changed, *((f"Question {place}?", reply.format(place)) for place in range(number - len(changed)))]


# By exercise; right texts for "surer" and "sure_prompt" depend on the model, and are in test_exercises.py.
RIGHT = {
    "token_id": [9, 9.0, torch.tensor([9])],
    "mask_place": [6, np.int64(6)],
    "softmax": [my_softmax, lambda logits: my_softmax(logits).tolist(),
                lambda logits: my_softmax(logits).numpy().round(3)],
    "labels": [my_labels, lambda *given: my_labels(*given).tolist(), lambda *given: my_labels(*given).int()],
    "pseudo_perplexity": [my_pseudo_perplexity, lambda *given: 2 ** (hidden_losses(*given) / math.log(2)).mean()],
    "two_masks": [my_two_masks],
    "next_label": ["is", " is"],
    "next_id": [lambda logits: logits[0, -1].argmax(), lambda logits: logits[:, -1].topk(1).indices],
    "top_k": [my_top_k, lambda *given: my_top_k(*given, -1e9),
              lambda *given: my_top_k(*given, torch.finfo(torch.float32).min)],
    "loss": [my_loss, lambda *given: my_loss(*given).item()],
    "sample": [my_sample, gumbel],
    "cached_greedy": [my_cached_greedy, lambda *given: my_cached_greedy(*given).tolist(), fed_once_more],
    "chunk_count": [lambda tokens, length: tokens // length, lambda tokens, length: np.floor(tokens / length)],
    "dropped": [lambda ids, length: ids[len(ids) - len(ids) % length:],
                lambda ids, length: torch.tensor(ids, dtype=torch.long)[len(ids) // length * length:]],
    "chunks": [my_chunks, lambda *given: tuple(map(tuple, my_chunks(*given))), lambda *given: iter(my_chunks(*given)),
               lambda ids, length: torch.tensor(ids[:len(ids) // length * length], dtype=torch.long).view(-1, length)],
    "steps": [my_steps, lambda *given: torch.tensor(my_steps(*given))],
    "bits_per_byte": [my_bits_per_byte, lambda loss, tokens, text: 1.44 * loss * tokens / len(text.encode())],
    "parameters": [my_parameters, lambda *sizes: float(my_parameters(*sizes))],
    "recited": [my_recited],
    "weighted_sum": [lambda weights, values: weights @ values,
                     lambda weights, values: sum(weight * value for weight, value in zip(weights, values, strict=True)),
                     lambda weights, values: [sum((weights * column).tolist()) for column in values.T],
                     lambda weights, values: (weights @ values).round(decimals=3)],
    "head_width": [lambda hidden, heads: hidden // heads, lambda hidden, heads: np.array([hidden // heads])],
    "causal_mask": [my_causal_mask, causal_by_loops, lambda scores: my_causal_mask(scores, -1e9),
                    lambda scores: (scores + torch.full_like(scores, -1e4).triu(1)).softmax(dim=-1),
                    lambda scores: scores.exp().tril() / scores.exp().tril().sum(dim=-1, keepdim=True),
                    lambda scores: my_causal_mask(scores).numpy().round(3)],
    "scale": [my_scale, lambda queries, keys: my_scale(queries, keys).numpy().round(3)],
    "rotate": [my_rotate, rotate_by_loops, lambda *given: np.round(my_rotate(*given).numpy(), 3)],
    "count_weights": [my_count_weights, lambda *sizes: torch.tensor([my_count_weights(*sizes)], dtype=torch.int32)],
    "copying_head": [my_copying_head, copying_by_diagonal,
                     lambda attention: torch.tensor(my_copying_head(attention), dtype=torch.int32)],
    "muon_weights": [muon_size],
    "momentum": [lambda mean, gradient, beta: mean + (1 - beta) * (gradient - mean)],
    "adamw": [my_adamw, lambda *given: list(my_adamw(*given))],
    "orthogonal": [my_orthogonal, lambda *given: my_orthogonal(*given).tolist()],
    "rate": [rate_by_the_library],
    "cut": [lambda ids, length, offset: my_chunks(ids[offset:], length)],
    "exponent": [my_exponent, lambda one, other: -np.polyfit(*np.log([one, other]).T, 1)[0]],
    "accuracy": [lambda predictions, labels: (predictions == labels).float().mean(),
                 lambda *given: round(sum(map(torch.equal, *given)) / len(given[0]), 3)],
    "cosine": [my_cosine, lambda u, v: round(my_cosine(u, v).item(), 3),
               lambda u, v: (u[None] @ v[:, None]) / u.norm() / v.norm()],
    "mean_pool": [my_mean_pool, pooled_one_by_one, lambda *given: my_mean_pool(*given).numpy().round(3)],
    "trainable_weights": [my_weights, lambda shapes, r: r * np.sum(list(shapes.values()))],
    "merge_lora": [my_merge, both_paths, lambda *given: my_merge(*given).double().numpy().round(3)],
    "mask_question": [my_question, question_in_tensors, lambda *given: np.array(my_question(*given), dtype=np.int32),
                      lambda question, answer: ([*question, *answer], itertools.chain([-100] * len(question), answer))],
    "own_pairs": [own_pairs(), tuple(map(list, own_pairs(number=25))),
                  own_pairs(("What is Co?", "Cobalt."), ("What is CO?", "Carbon monoxide."), ("C?", "A letter."),
                            ("C++?", "A language."), ("Is it?", "Yes."), *((f"Is it {n}?", "Yes.") for n in range(9)))],
    "utf8": [lambda character: len(character.encode())],
    "neighbors": [pairwise, lambda word: [word[at:at + 2] for at in range(len(word) - 1)]],
    "costly": ["ᚠᛇᚻ᛫ᛒᛦᚦ᛫ᚠᚱᚩᚠᚢᚱ"],
    "fertility": [my_fertility, lambda tokenizer, text: Fraction(
        len(tokenizer(text, add_special_tokens=False).input_ids), len(text.split()))],
    "pair": [my_pair, lambda words: tuple(np.array(my_pair(words)))],
    "fewest": [my_fewest, lambda word, known: tuple(my_fewest(word, frozenset(known)))],
    "bytes_back": [bytes_back, lambda pieces: bytearray(bytes_back(pieces))],
    "dealt": [lambda rows: list(range(1, rows, 2)), lambda rows: np.arange(1.0, rows, 2)],
    "weighted_mean": [lambda one, n, other, m: np.average([one, other], weights=[n, m])],
    "rows": [my_rows, rows_by_the_library, lambda *given: iter(my_rows(*given))],
    "average": [my_average, lambda gradients, tokens: torch.tensor(
        np.average([gradient.numpy() for gradient in gradients], axis=0, weights=tokens))],
    "rounds": [lambda batch, n, fits: -(-batch // n // fits), lambda batch, n, fits: np.ceil(batch / n / fits)],
    "hours": [my_hours, lambda *given: np.float32(my_hours(*given)), lambda *given: round(my_hours(*given), 2)],
    "devices": [my_devices],
}

WRONG = {
    "token_id": [
        ("but one number is needed", [2, 9, 3]),
        ("Your answer is 'beach', but one number", "beach"),
        ("the id of '[CLS]'", 2),
        ("no such id, only those from 0 to", 0.5),
    ],
    "mask_place": [
        ("in front of the text has a place too", 5),
        ("counted from 0", 7),
        ("another token stands there", 1),
    ],
    "surer": [
        ("in capital letters", "Paris is the [mask] of France."),
        ("2 [MASK] tokens", "The [MASK] is a [MASK]."),
        ("the Paris sentence itself", "  paris is the  [MASK] of FRANCE!"),
        ("of type list, but a string", ["The [MASK] is here."]),
    ],
    "softmax": [
        ("too large for a float", lambda logits: logits.exp() / logits.exp().sum(dim=-1, keepdim=True)),
        ("all rows together", lambda logits: logits.exp() / logits.exp().sum()),
        ("another dimension than the last", lambda logits: my_softmax(logits, 0)),
        ("rounded", lambda logits: my_softmax(logits).round(decimals=2)),
        ("shape is (), but (5,)", lambda logits: my_softmax(logits).sum()),
        ("add up to 2, ", lambda logits: my_softmax(logits) * 2),
        ("not those of the right softmax", lambda logits: my_softmax(logits / 2)),
        ("changes logits itself", spoiling(my_softmax)),
        ("calls softmax of a library", torch.nn.Softmax(dim=-1)),
        ("calls log_softmax of a library", lambda logits: torch.log_softmax(logits, -1).exp()),
    ],
    "labels": [
        ("0 is the id of a token", lambda original, hidden, mask: torch.where(hidden == mask, original, 0)),
        ("mask_token_id = 4", lambda original, hidden, mask: torch.where(hidden == 103, original, -100)),
        ("another token than the mask",
         lambda original, hidden, mask: torch.where(hidden != original, original, -100)),
        ("torch.float32", lambda *given: my_labels(*given).float()),
        ("shape is (2,), but (5,)", lambda original, hidden, mask: original[hidden == mask]),
    ],
    "pseudo_perplexity": [
        ("all tokens are hidden at once", lambda *given: hidden_losses(*given, once="mask").mean().exp()),
        ("no token is hidden", lambda *given: hidden_losses(*given, once="text").mean().exp()),
        ("pile up", lambda *given: hidden_losses(*given, pile_up=True).mean().exp()),
        ("[CLS] and [SEP] are hidden", lambda *given: hidden_losses(*given, ends=0).mean().exp()),
        ("the last token is never hidden", lambda *given: hidden_losses(*given)[:-1].mean().exp()),
        ("still a loss", lambda *given: hidden_losses(*given).mean().item()),
        ("rounded", lambda *given: 1.005 * my_pseudo_perplexity(*given)),
        ("not the pseudo-perplexity.", lambda *given: 3 * my_pseudo_perplexity(*given)),
        ("calls pseudo_perplexity of a library", pseudo_perplexity),
        ("one number is needed", lambda *given: hidden_losses(*given).tolist() * 2),
    ],
    "two_masks": [
        ("by all places", lambda logits, labels: my_two_masks(logits, labels) * (labels >= 0).sum() / labels.numel()),
        ("-100 is taken for a token", indexed),
        ("twice", lambda logits, labels: my_two_masks(logits.softmax(dim=-1), labels)),
        ("over the places", lambda *given: my_two_masks(*given, dim=0)),
        ("calls cross_entropy of a library", lambda logits, labels: cross_entropy(logits[0], labels[0])),
        ("calls nll_loss of a library", lambda logits, labels: torch.nn.NLLLoss()(
            logits[0].log_softmax(dim=-1), labels[0])),
    ],
    "next_label": [
        ("only have to copy it", " beach"),
        ("on the left", "the"),
        ("is to be predicted there", "great"),
        ("is of type int", 318),
    ],
    "next_id": [
        ("after the first token", lambda logits: logits[0, 0].argmax()),
        ("one row after the other", lambda logits: logits.argmax()),
        ("but one number is needed", lambda logits: logits.argmax(dim=-1)),
        ("returns (7,), but one number is needed", lambda logits: (7,)),
        ("not the id of the most probable", lambda logits: 0),
    ],
    "sure_prompt": [
        ("is empty", " \n"),
        ("tokens, but at most 60", "box " * 61),
    ],
    "top_k": [
        ("only the kept logits", lambda logits, k: logits.topk(k).values),
        ("or not the best", lambda logits, k: logits.masked_fill(logits > logits.sort().values[k - 1], -torch.inf)),
        ("but a tensor is needed", lambda logits, k: logits.topk(k)),
        ("2 of 7 tokens", lambda logits, k: torch.where(logits > logits.topk(k).values[-1], logits, -torch.inf)),
        ("calls filter_logits of a library", lambda logits, k: filter_logits(logits, top_k=k)),
    ],
    "loss": [
        ("its own token", lambda logits, ids: cross_entropy(logits[0], ids[0])),
        ("the sum of the losses", lambda logits, ids: cross_entropy(logits[0, :-1], ids[0, 1:], reduction="sum")),
        ("fewer terms", lambda logits, ids: cross_entropy(logits[0, :-1], ids[0, 1:], reduction="sum") / ids.shape[1]),
        ("in bits", lambda *given: my_loss(*given) / math.log(2)),
        ("minus a mean of probabilities", lambda logits, ids: (
            -logits[0, :-1].softmax(-1).gather(1, ids[0, 1:, None]).mean())),
    ],
    "sample": [
        ("multiplied", lambda logits, heat, generator: drawn((logits * heat).softmax(-1), generator)),
        ("no effect", lambda logits, heat, generator: drawn(logits.softmax(-1) / heat, generator)),
        ("always the most probable", lambda logits, heat, generator: logits.argmax()),
        ("not draw with the generator", lambda logits, heat, generator: drawn((logits / heat).softmax(-1), None)),
        ("not draw with the generator", lambda logits, heat, generator: random.randrange(len(logits))),
        ("not the softmax of", lambda logits, heat, generator: my_sample(logits, heat + 0.1, generator)),
        ("not the softmax of", lambda *given: 2 if torch.rand(1, generator=given[2]) < 0.01 else my_sample(*given)),
        ("changes logits", spoiling(my_sample)),
        ("99, but the id of one of 6 tokens", lambda logits, heat, generator: 99),
    ],
    "cached_greedy": [
        ("fed 18 tokens", lambda *given: my_cached_greedy(*given, again=True, forgetful=True)),
        ("fed 18 tokens", lambda *given: my_cached_greedy(*given, again=True)),
        ("the cache is not passed on", lambda *given: my_cached_greedy(*given, forgetful=True)),
        ("not the most probable", lambda *given: my_cached_greedy(*given, best=torch.argmin)),
        ("the prompt is changed", lambda *given: my_cached_greedy(*given).roll(1)),
        ("calls generate of a library",
         lambda model, ids, new: model.generate(ids, max_new_tokens=new, do_sample=False)),
        ("calls greedy_decode of a library", greedy_decode),
    ],
    "chunk_count": [
        ("not full", lambda tokens, length: math.ceil(tokens / length)),
    ],
    "dropped": [
        ("ids[-0:] is the whole list", lambda ids, length: ids[-(len(ids) % length):]),
        ("a list of token ids", lambda ids, length: len(ids) % length),
    ],
    "chunks": [
        ("the short rest", lambda ids, length: torch.tensor(ids).split(length)),
        ("the last chunk is missing", lambda ids, length: [
            ids[at:at + length] for at in range(0, len(ids) - length, length)]),
        ("changes ids", spoiling(my_chunks)),
        ("does not end", endless),
    ],
    "steps": [
        ("smaller batch", lambda chunks, batch, epochs: chunks // batch * epochs),
        ("across the end of an epoch", lambda chunks, batch, epochs: math.ceil(chunks * epochs / batch)),
    ],
    "bits_per_byte": [
        ("calls bits_per_byte of a library", lambda *given: evaluation.bits_per_byte(*given)),
        ("characters", lambda *given: my_bits_per_byte(*given, size=len)),
        ("nats", lambda *given: my_bits_per_byte(*given, base=math.e)),
    ],
    "parameters": [
        ("head a second time", lambda *sizes: my_parameters(*sizes, head=1)),
        ("out the biases of the linear layers", lambda *sizes: my_parameters(*sizes, bias=0)),
        ("out the position embeddings", lambda *sizes: my_parameters(*sizes, position=0)),
        ("is +999,999,927,776", lambda *sizes: 10**12),
    ],
    "recited": [
        ("share of right tokens", lambda *given: my_recited(
            *given, share=lambda hits: Counter(hits)[True] / len(given[0][0]))),
        ("one right token", lambda *given: my_recited(*given, share=any)),
        ("whole rest of the chunk", lambda written, chunks, prompt: np.mean(
            [row == chunk[prompt:] for row, chunk in zip(written, chunks, strict=True)])),
        ("not the share", lambda written, chunks, prompt: np.mean([  # anywhere in the chunk
            str(row)[1:-1] in str(chunk) for row, chunk in zip(written, chunks, strict=True)])),
    ],
    "weighted_sum": [
        ("not added up", lambda weights, values: [weight * row for weight, row in zip(weights, values, strict=True)]),
        ("divided once more", lambda weights, values: (weights[:, None] * values).mean(dim=0)),
        ("which are the rows", lambda weights, values: values @ weights),
    ],
    "head_width": [
        ("all heads together", lambda hidden, heads: hidden),
    ],
    "causal_mask": [
        ("no position is hidden", my_softmax),
        ("comes after the softmax", lambda scores: my_softmax(scores) * torch.ones_like(scores).tril()),
        ("nothing is left for the first", lambda scores: my_causal_mask(scores, diagonal=0)),
        ("hidden from itself, so the first one looks everywhere",
         lambda scores: my_causal_mask(scores, -1e9, diagonal=0)),
        ("the hidden scores are 0", lambda scores: my_softmax(scores.tril())),
        ("on the right of a position, the largest", lambda scores: (
            scores - 10 * torch.ones_like(scores).triu(1)).softmax(dim=-1)),
        ("rounded", lambda scores: my_causal_mask(scores).round(decimals=2)),
    ],
    "scale": [
        ("not scaled", lambda *given: my_scale(*given, factor=lambda n, d: 1)),
        ("the root of the number of positions", lambda *given: my_scale(*given, factor=lambda n, d: n ** -0.5)),
        ("each column adds up to 1", lambda *given: my_scale(*given, dim=0)),
        ("the rows belong to the keys", lambda queries, keys: my_scale(keys, queries)),
        ("before the softmax", lambda queries, keys: my_softmax(queries @ keys.T) / keys.shape[1] ** 0.5),
        ("calls scaled_dot_product_attention of a library", scale_by_torch),
    ],
    "rotate": [
        ("neighbors are paired, as some models", lambda *given: rotate_by_loops(
            *given, pair=lambda i, d: (2 * i, 2 * i + 1))),
        ("the other way round", lambda *given: my_rotate(*given, sign=-1)),
        ("too slowly", lambda *given: my_rotate(*given, power=1)),
        ("theta is always 10000", lambda vector, position, theta: my_rotate(vector, position, 10000)),
        ("calls apply_rotary_pos_emb of a library", rotate_by_the_library),
        ("keeps the length", lambda *given: 2 * my_rotate(*given)),
        ("the length is right", lambda *given: -my_rotate(*given)),
        ("shape is (2,), but (4,)", lambda *given: my_rotate(*given)[::2]),
    ],
    "count_weights": [
        ("keys and values of its own", lambda h, n, kv, i: my_count_weights(h, n, n, i)),
        ("SwiGLU has one more", lambda *sizes: my_count_weights(*sizes, gate=0)),
        ("feed-forward part of GPT-2", lambda h, n, kv, i: my_count_weights(h, n, n, i, gate=0)),
        ("one norm is left out", lambda *sizes: my_count_weights(*sizes, norm=1)),
        ("the output matrix of the attention is left out", lambda *sizes: my_count_weights(*sizes, o=0)),
        ("is +1", lambda *sizes: my_count_weights(*sizes) + 1),
    ],
    "copying_head": [
        ("the earlier occurrence itself", lambda attention: my_copying_head(attention, back=lambda n: n)),
        ("the token before the earlier", lambda attention: my_copying_head(attention, back=lambda n: n + 1)),
        ("rows and columns are swapped", lambda attention: my_copying_head(attention.transpose(2, 3))),
        ("there is no such head", lambda attention: (-1, 0)),
        ("but two numbers are needed, layer", lambda attention: 3),
        ("but that of another one is", lambda attention: my_copying_head(-attention)),
    ],
    "muon_weights": [
        ("embeddings", lambda shapes: muon_size(shapes, lambda name, shape: len(shape) == 2)),
        ("biases and norms", lambda shapes: muon_size(shapes, lambda name, shape: ".h." in name)),
    ],
    "momentum": [
        ("belongs to the old mean", lambda mean, gradient, beta: (1 - beta) * mean + beta * gradient),
    ],
    "adamw": [
        ("calls adam", adamw_by_torch),
        ("passes through the averages", lambda weight, gradient, *rest: my_adamw(
            weight, gradient + rest[-1] * weight, *rest[:-1], 0.0)),
        ("inside the root", lambda *given: my_adamw(*given, inside=True)),
        ("no correction", lambda *given: my_adamw(*given, corrected=False)),
        ("does not shrink", lambda *given: my_adamw(*given, decay=False)),
        ("another new_m (yours has the shape ())", lambda *given: (my_adamw(*given)[0], 0.0, my_adamw(*given)[2])),
        ("3 tensors", lambda *given: my_adamw(*given)[0]),
    ],
    "orthogonal": [
        ("not divided by its norm", lambda *given: my_orthogonal(*given, divide=lambda x: 1)),
        ("largest singular value", lambda *given: my_orthogonal(*given, divide=lambda x: torch.linalg.svdvals(x)[0])),
        ("computed once", orthogonal_by_one_gram),
    ],
    "rate": [
        ("counted from step 0", lambda step, steps, warmup, peak: peak * (
            step / warmup if step < warmup else 1 - step / steps)),
        ("does not fall", lambda step, steps, warmup, peak: peak * min(1, step / (warmup or 1))),
    ],
    "cut": [
        ("the short rest", lambda ids, length, offset: [ids[at:at + length] for at in range(offset, len(ids), length)]),
        ("whole chunks", lambda ids, length, offset: my_chunks(ids, length)[offset:]),
        ("not the chunks", lambda ids, length, offset: my_chunks(ids[:-offset or None], length)),
    ],
    "exponent": [
        ("the slope, which is -b", lambda *given: -my_exponent(*given)),
        ("the loss needs one too", lambda one, other: (one[1] - other[1]) / math.log(other[0] / one[0])),
        ("rounded", lambda *given: round(my_exponent(*given), 2)),
    ],
    "accuracy": [
        ("number of right predictions", lambda predictions, labels: (predictions == labels).sum()),
        ("but one number is needed", lambda predictions, labels: (predictions == labels).float()),
    ],
    "cosine": [
        ("dot product alone", lambda u, v: u @ v),
        ("the root is missing", lambda u, v: u @ v / ((u**2).sum() * (v**2).sum())),
        ("the distance", torch.dist),
        ("not the cosine", lambda *given: abs(my_cosine(*given))),
        ("calls cosine_similarity of a library", torch.nn.CosineSimilarity(dim=0)),
    ],
    "mean_pool": [
        ("in the sum and in the number", lambda hidden, mask: hidden.mean(dim=1)),
        ("the padding is in the sum", lambda hidden, mask: hidden.sum(dim=1) / mask.sum(dim=1, keepdim=True)),
        ("the sum is right", lambda hidden, mask: (hidden * mask[..., None]).mean(dim=1)),
        ("real tokens in all texts", lambda hidden, mask: (hidden * mask[..., None]).sum(dim=1) / mask.sum()),
        ("they divide the columns", lambda hidden, mask: (hidden * mask[..., None]).sum(dim=1) / mask.sum(dim=1)),
        ("into one vector, but", lambda hidden, mask: hidden[mask == 1].mean(dim=0)),
        ("not the means", lambda hidden, mask: torch.stack(  # as if all padding were on the right
            [states[:int(keep.sum())].mean(dim=0) for states, keep in zip(hidden, mask, strict=True)])),
    ],
    "trainable_weights": [
        ("of the matrices themselves, which", lambda shapes, r: sum(map(math.prod, shapes.values()))),
        ("only A", lambda *given: my_weights(*given, of=lambda rows, columns, r: r * columns)),
    ],
    "merge_lora": [
        ("not divided by r", lambda *given: my_merge(*given, scale=lambda alpha, r: alpha)),
        ("columns of A", lambda W, A, B, alpha: W + alpha / A.shape[1] * B @ A),
        ("drops the remainder", lambda *given: my_merge(*given, scale=lambda alpha, r: alpha // r)),
        ("number by number", lambda W, A, B, alpha: W + alpha / len(A) * (A * B)),
        ("through A first", lambda W, A, B, alpha: W + alpha / len(A) * A @ B),
        ("second path alone", lambda W, A, B, alpha: alpha / len(A) * B @ A),
        ("changes W itself", lambda W, A, B, alpha: W.add_(alpha / len(A) * B @ A)),
    ],
    "mask_question": [
        ("learns to ask", lambda *given: my_question(*given, labels=lambda q, a: q + a)),
        ("the label 50256", lambda *given: my_question(*given, labels=lambda q, a: [50256] * len(q) + a)),
        ("different lengths", lambda *given: my_question(*given, labels=lambda q, a: a)),
        ("shifts them by itself.", lambda *given: my_question(
            *given, labels=lambda q, a: [*([-100] * len(q) + a)[1:], -100])),
        ("input_ids come first", lambda *given: my_question(*given)[::-1]),
        ("-100 is no id", lambda *given: my_question(*given)[1:] * 2),
        ("not question and answer", lambda question, answer: (answer + question, my_question(question, answer)[1])),
        ("5 ids but 7 labels", lambda *given: my_question(*given, labels=lambda q, a: [-100] * 5 + a)),
        ("two lists are needed", lambda *given: (*my_question(*given), [1])),
        ("a list of token ids is needed", lambda *given: (my_question(*given)[0], -100)),
    ],
    "own_pairs": [
        ("has 1 pair, but", own_pairs(number=1)),
        ("has 19 pairs", own_pairs(number=19)),
        ("a comma between them", own_pairs("Question?Answer.")),
        ("('a', 'b', 'c'), but a pair", own_pairs(("a", "b", "c"))),
        ("an answer of type int", own_pairs(("How many?", 4))),
        ("an empty question", own_pairs(("", "Yes."))),
        ("there twice, at the places 0 and 2", own_pairs(("Who is it?", "I."), ("Why?", "So."), ("who  is it", "He."))),
        ("11 of your 20 answers are 'no'", own_pairs(*((f"Is it {n}?", "No." if n else "no") for n in range(11)))),
        ("The answer at place 0 has 31 words", own_pairs(("Why?", "so " * 31))),
        ("The question at place 1 has 1 word and 201 characters", own_pairs(("Why?", "So."), ("w" * 201, "So?"))),
        ("of type function, but a list of pairs", own_pairs),
    ],
    "utf8": [
        ("characters are counted", len),
        ("not the number of bytes", lambda character: len(character.encode("utf-16"))),
    ],
    "neighbors": [
        ("do not overlap", lambda word: [word[at:at + 2] for at in range(0, len(word) - 1, 2)]),
        ("not the pairs", lambda word: list(itertools.combinations(word, 2))),
    ],
    "costly": [
        ("a length of 3, but at least 10", "ᚠᛇᚻ"),
        ("35 characters and only 9 tokens", "the box at the beach is like a pool"),
    ],
    "fertility": [
        ("special tokens", lambda *given: my_fertility(*given, special=True)),
        ("each single space", lambda *given: my_fertility(*given, words=lambda text: text.split(" "))),
        ("split alone", lambda tokenizer, text: np.mean([my_fertility(tokenizer, word) for word in text.split()])),
        ("It's an e-mail", lambda *given: my_fertility(*given, words=lambda text: re.findall(r"\w+", text))),
    ],
    "pair": [
        ("how often the words occur", lambda words: my_pair(words, weigh=False)),
        ("once per word", lambda words: my_pair(words, pairs=lambda word: dict.fromkeys(pairwise(word)))),
        ("3 times, but another one occurs 9", lambda words: my_pair(words, pairs=lambda word: pairwise(word[1:]))),
        ("in no word", lambda words: my_pair(words, pairs=lambda word: pairwise("".join(word)))),
        ("'ug', but a list of two symbols", lambda words: "".join(my_pair(words))),
        ("changes words", spoiling(my_pair)),
    ],
    "fewest": [
        ("the longest piece is taken each time", greedy),
        ("there is a cut", lambda *given: greedy(*given, inner="##")),
        ("'##est' is not one of the known pieces", lambda word, known: [
            piece if word.startswith(piece) else f"##{piece}" for piece in my_fewest(word, known)]),
        ("joined, these pieces give 'lowe'", lambda *given: greedy(*given, lambda cut: cut)),
        ("does not end", lambda word, known: next(all_cuts(word, frozenset(known)), ["[UNK]"])),
        ("can be cut into fewer", lambda *given: my_fewest(*given, choose=max)),
        ("returns 'low est', but a list of pieces is needed", lambda word, known: " ".join(my_fewest(word, known))),
        ("returns None", lambda *given: my_fewest(*given) if my_fewest(*given)[0] != "[UNK]" else None),
        ("changes known itself", lambda word, known: (my_fewest(word, known), known.clear())[0]),
    ],
    "bytes_back": [
        ("only the spaces", lambda pieces: "".join(pieces).replace("Ġ", " ").encode()),
        ("256 is subtracted", lambda pieces: bytes(ord(character) % 256 for character in "".join(pieces))),
        ("incomplete character", lambda pieces: decoders.ByteLevel().decode(pieces).encode()),
        ("not the bytes", lambda pieces: bytes_back([*pieces, "<|endoftext|>"])),
        ("but bytes are needed", lambda pieces: bytes_back(pieces).decode()),
    ],
    "dealt": [
        ("one by one", lambda rows: list(range(rows))[(rows + 1) // 2:]),
        ("not the rows of rank 1", lambda rows: itertools.count(1, 2)),
    ],
    "weighted_mean": [
        ("count alike", lambda one, n, other, m: (one + other) / 2),
    ],
    "rows": [
        ("counted from 1", lambda *given: my_rows(*given, start=1)),
        ("that is a block", lambda rows, rank, n: np.array_split(range(rows), n)[rank].tolist()),
        ("there is no row 10", lambda rows, rank, n: itertools.count(rank, n)),
        ("twice or never", lambda *given: [1.5, 4.0]),
        ("one number is needed", lambda rows, rank, n: [["1"]]),
    ],
    "average": [
        ("plain mean", lambda gradients, tokens: sum(gradients) / len(gradients)),
        ("once more", lambda gradients, tokens: sum(
            gradient / count for gradient, count in zip(gradients, tokens, strict=True)) / len(tokens)),
        ("not the gradient of the mean loss", lambda gradients, tokens: gradients[0] * 0.5),
    ],
    "rounds": [
        ("not full, is missing", lambda batch, n, fits: batch // (n * fits)),
    ],
    "hours": [
        ("calls training_hours of a library", lambda n, d, peak, mfu, count: training_hours(
            6 * n * d, peak, mfu=mfu, devices=count)),
        ("forward pass only", lambda *given: my_hours(*given, operations=2)),
        ("60 times the right number", lambda *given: my_hours(*given, unit=60)),
        ("utilization is missing", lambda n, d, peak, mfu, count: my_hours(n, d, peak, 1, count)),
    ],
    "devices": [
        ("rounded down", lambda *given: my_devices(*given, rounded=math.floor)),
        ("half of it", lambda *given: my_devices(*given, 8)),
        ("parameters = 1.56e+09", lambda parameters, memory: my_devices(parameters, memory / 1e9 * 2**30)),
    ],
}
