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
from llm_tutorial.optimizers import orthogonalize

__all__ = ["RIGHT", "WRONG"]


def spoiling(solution):
    """The right answer, but nothing is left of the first argument."""
    def answer(first, *rest):
        result = solution(first, *rest)
        first.zero_() if isinstance(first, torch.Tensor) else first.clear()
        return result

    return answer


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


def my_two_masks(logits, labels, dim=-1, mean=torch.mean):
    labeled = labels != -100
    log_probabilities = logits[labeled] if dim is None else logits[labeled].log_softmax(dim)
    return -mean(log_probabilities.gather(1, labels[labeled][:, None]))


def labeled_probabilities(*given):
    return my_two_masks(*given, mean=torch.neg).exp()


def indexed(logits, labels):
    rows = logits[0].log_softmax(dim=-1)
    return -sum(rows[place, label] for place, label in enumerate(labels[0])) / len(rows)


def labeled_losses(logits, labels):
    return torch.where(labels[0] == -100, 0, torch.stack([
        -row.log_softmax(dim=-1)[label] for row, label in zip(logits[0], labels[0].clamp(min=0), strict=True)]))


def my_top_k(logits, k, ruled_out=-torch.inf):
    return torch.where(logits >= logits.topk(k).values[-1], logits, ruled_out)


def my_loss(logits, ids):
    return -logits[0, :-1].log_softmax(dim=-1).gather(1, ids[0, 1:, None]).mean()


def next_losses(logits, ids):
    return cross_entropy(logits[0, :-1], ids[0, 1:], reduction="none")


def drawn(probabilities, generator):
    return torch.multinomial(probabilities, 1, generator=generator).item()


def my_sample(logits, temperature, generator):
    return drawn((logits / temperature).softmax(dim=-1), generator)


def gumbel(logits, temperature, generator):
    return (logits / temperature - torch.empty_like(logits).exponential_(generator=generator).log()).argmax()


def inverse_cdf(logits, temperature, generator):
    below = (logits / temperature).softmax(dim=-1).cumsum(dim=-1)
    return torch.searchsorted(below, torch.rand(1, generator=generator) * below[-1], right=True)


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
def fed_once_more(model, ids, new_tokens, twice=False):
    """The last token is fed too: one token more than needed, which is allowed; or two."""
    written = my_cached_greedy(model, ids, new_tokens)
    model(written[:, -1:])
    if twice:
        model(written[:, -1:])
    return written


def my_chunks(ids, length):
    return [ids[start:start + length] for start in range(0, len(ids) - length + 1, length)]


def endless(*_):
    while True:
        pass


def my_steps(chunks, batch, epochs):
    return math.ceil(chunks / batch) * epochs


def my_bits_per_byte(loss, tokens, text, base=2, size=lambda text: len(text.encode())):
    return loss / math.log(base) * tokens / size(text)


def my_recited(written, chunks, prompt, share=all):
    return sum(share(token == chunk[prompt + place] for place, token in enumerate(row))
               for row, chunk in zip(written, chunks, strict=True)) / len(chunks)


def recited_by_tensors(written, chunks, prompt):
    written, chunks = torch.tensor(written), torch.tensor(chunks)
    return (written == chunks[:, prompt:prompt + written.shape[1]]).all(dim=1).float().mean()


def muon_size(shapes, keep=lambda name, shape: ".h." in name and len(shape) == 2, size=math.prod):
    return sum(size(shape) for name, shape in shapes.items() if keep(name, shape))


def my_parameters(v, p, d, n, head=0, position=1, bias=1, final=1, norms=1):
    return d * (v * (1 + head) + p * position) + n * (12 * d**2 + 9 * d * bias + 4 * d * norms) + 2 * d * final


def my_adamw(weight, gradient, m, v, step, lr, betas, eps, weight_decay, *,
             inside=False, corrected=True, decoupled=True, squared=True, times_lr=True):
    first, second = betas
    if not decoupled:
        gradient = gradient + weight_decay * weight
    m = first * m + (1 - first) * gradient
    v = second * v + (1 - second) * (gradient**2 if squared else gradient)
    m_hat, v_hat = (m / (1 - first**step), v / (1 - second**step)) if corrected else (m, v)
    update = m_hat / (torch.sqrt(v_hat + eps) if inside else v_hat.sqrt() + eps)
    decay = weight_decay * weight * (lr if times_lr else 1) if decoupled else 0
    return weight - lr * update - decay, m, v


def adamw_by_torch(weight, gradient, m, v, step, lr, betas, eps, weight_decay):
    parameter = torch.nn.Parameter(weight)
    parameter.grad = gradient
    optimizer = torch.optim.AdamW([parameter], lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)
    state = optimizer.state[parameter] = {"step": torch.tensor(step - 1.0), "exp_avg": m, "exp_avg_sq": v}
    optimizer.step()
    return parameter, state["exp_avg"], state["exp_avg_sq"]


def corrected_moments(weight, gradient, m, v, step, lr, betas, *rest):
    new, m, v = my_adamw(weight, gradient, m, v, step, lr, betas, *rest)
    return new, m / (1 - betas[0]**step), v / (1 - betas[1]**step)


def my_fertility(tokenizer, text, special=False, words=str.split):
    return len(tokenizer(text, add_special_tokens=special).input_ids) / len(words(text))


def counted(words, pairs=pairwise, weigh=True):
    counts = Counter()
    for word, count in words.items():
        for pair in pairs(word):
            counts[pair] += count if weigh else 1
    return counts


def my_pair(words, **options):
    return counted(words, **options).most_common(1)[0][0]


def last_pair(words, **options):
    return max(reversed(counted(words, **options).items()), key=lambda item: item[1])[0]


def my_fewest(word, known, choose=min):
    best = {0: []}
    for end in range(1, len(word) + 1):
        cuts = [[*best[start], word[start:end]] for start in best if word[start:end] in known]
        if cuts:
            best[end] = choose(cuts, key=len)
    return best.get(len(word), ["[UNK]"])


def by_breadth(word, known):
    """One piece more in each round."""
    reached = {"": []}
    while word not in reached:
        new = {begin + piece: [*cut, piece] for begin, cut in reached.items() for piece in known
               if word.startswith(begin + piece) and begin + piece not in reached}
        if not new:
            return ["[UNK]"]
        reached |= new
    return reached[word]


def greedy(word, known, otherwise=lambda cut, rest: ["[UNK]"], inner=""):
    cut = []
    while word:
        end = next((end for end in range(len(word), 0, -1) if (inner * bool(cut)) + word[:end] in known), None)
        if end is None:
            return otherwise(cut, word)
        cut.append(word[:end])
        word = word[end:]
    return cut


def ways(word, known):
    """The lesson's."""
    heads = [word[:end] for end in range(1, len(word) + 1) if word[:end] in known]
    rests = [ways(word[len(head):], known) for head in heads]
    found = [[head, *tail] for head, tails in zip(heads, rests, strict=True) for tail in tails]
    return found if word else [[]]


def all_cuts(word, known):
    """Those with few pieces first."""
    for cuts in range(len(word)):
        for places in itertools.combinations(range(1, len(word)), cuts):
            cut = [word[start:end] for start, end in pairwise((0, *places, len(word)))]
            if all(piece in known for piece in cut):
                yield cut


def up_to_four(word, known):
    cuts = (cut for n in range(1, 5) for cut in itertools.product(sorted(known), repeat=n) if "".join(cut) == word)
    return list(next(cuts, ["[UNK]"]))


def emptied(word, known):
    cut = my_fewest(word, known)
    known.difference_update(cut)
    return cut


def byte_table():
    """The byte that each character of GPT-2's pieces stands for."""
    itself = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in itself]
    return {chr(byte): byte for byte in itself} | {chr(256 + place): byte for place, byte in enumerate(others)}


def bytes_back(pieces):
    table = byte_table()
    return bytes(table[character] for piece in pieces for character in piece)


def pieces_decoded(pieces):
    """By the library: what is no UTF-8 becomes U+FFFD."""
    return decoders.ByteLevel().decode(pieces).encode()


def minus_256(pieces):
    """Right for the bytes up to 32, and for all that stand for themselves."""
    return bytes(ord(character) % 256 for character in "".join(pieces))


def my_orthogonal(x, coefficients, divide=torch.linalg.matrix_norm):
    x = x / divide(x)
    for a, b, c in coefficients:
        gram = x @ x.T
        x = a * x + b * gram @ x + c * gram @ gram @ x
    return x


def from_the_right(x, coefficients):
    x = x.T / x.norm()
    for a, b, c in coefficients:
        x = a * x + b * x @ (x.T @ x) + c * x @ (x.T @ x) @ (x.T @ x)
    return x.T


def orthogonal_by_one_gram(x, coefficients):
    x = x / x.norm()
    gram = x @ x.T
    for a, b, c in coefficients:
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x


def my_rate(step, steps, warmup, peak):
    return peak * step / warmup if step < warmup else peak * (steps - step) / (steps - warmup)


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


def causal_afterwards(scores):
    weights = scores.softmax(dim=-1).tril()
    return weights / weights.sum(dim=-1, keepdim=True)


def causal_by_torch(scores):
    """With the scores as queries, and with keys and values that change nothing."""
    same = torch.eye(len(scores))
    return torch.nn.functional.scaled_dot_product_attention(
        *(part[None] for part in (scores, same, same)), is_causal=True, scale=1.0)[0]


def my_scale(queries, keys, factor=lambda n, d: 1 / math.sqrt(d), dim=-1):
    return my_softmax(queries @ keys.T * factor(*queries.shape), dim)


def scale_by_loops(queries, keys):
    rows = []
    for query in queries:
        scores = [math.exp((query * key).sum() / len(query) ** 0.5) for key in keys]
        rows.append([score / sum(scores) for score in scores])
    return rows


def scale_by_torch(queries, keys):
    return torch.nn.functional.scaled_dot_product_attention(
        queries[None], keys[None], torch.eye(len(keys))[None])[0]


def rotate_half(vector, sign=1):
    half = len(vector) // 2
    return torch.cat([-sign * vector[half:], sign * vector[:half]])


def my_rotate(vector, position, theta, sign=1, power=2, start=0, angles=lambda angles: torch.cat([angles, angles])):
    """As transformers does it for a Llama."""
    d = len(vector)
    turned = angles(position / theta ** (power * torch.arange(start, d // 2 + start) / d))
    return vector * turned.cos() + rotate_half(vector, sign) * turned.sin()


def rotate_by_loops(vector, position, theta, pair=lambda i, d: (i, i + d // 2)):
    d, result = len(vector), vector.tolist()
    for i in range(d // 2):
        one, other = pair(i, d)
        angle = position * theta ** (-2 * i / d)
        result[one] = (vector[one] * math.cos(angle) - vector[other] * math.sin(angle)).item()
        result[other] = (vector[other] * math.cos(angle) + vector[one] * math.sin(angle)).item()
    return result


def rotate_complex(vector, position, theta):
    half = len(vector) // 2
    turned = torch.complex(vector[:half], vector[half:]) * torch.exp(
        1j * position * theta ** (-torch.arange(half) / half))
    return torch.cat([turned.real, turned.imag])


def rotate_by_the_library(vector, position, theta):
    angles = (position / theta ** (2 * torch.arange(len(vector) // 2) / len(vector))).repeat(2)[None]
    return apply_rotary_pos_emb(*[vector[None, None, None]] * 2, angles.cos()[None], angles.sin()[None])[0][0, 0, 0]


def my_count_weights(hidden, heads, kv_heads, intermediate, *, o=1, v=1, gate=1, norm=2):
    shapes = [(hidden, hidden), (hidden, o * hidden), (hidden, kv_heads * hidden // heads),
              (hidden, v * kv_heads * hidden // heads), (hidden, intermediate), (gate * hidden, intermediate),
              (intermediate, hidden), (norm * hidden,)]
    return sum(map(math.prod, shapes))


def copying_scores(attention, back=lambda n: n - 1, reduce=torch.mean):
    """By loops: a score for each head."""
    n = attention.shape[-1] // 2
    return torch.stack([torch.stack([
        reduce(torch.stack([head[row, row - back(n)] for row in range(n, 2 * n)])) for head in layer])
        for layer in attention])


def my_copying_head(attention, scores=copying_scores, **options):
    found = scores(attention, **options)
    return tuple((found == found.max()).nonzero()[0].tolist())


def copying_by_diagonal(attention):
    """As TransformerLens does it, with one more position: the last one of the first half."""
    scores = attention.diagonal(offset=1 - attention.shape[-1] // 2, dim1=-2, dim2=-1).mean(dim=-1)
    return torch.unravel_index(scores.argmax(), scores.shape)


def copying_from_the_start(attention):
    n = attention.shape[-1] // 2
    return sum(attention[:, :, row, max(0, row - n + 1)] for row in range(2 * n))


def my_rows(rows, rank, processes, *, last=True, start=0):
    stop = rows if last else rows // processes * processes
    return list(range(rank + start, stop + start, processes))


def rows_by_the_library(rows, rank, processes):
    stream = Dataset.from_dict({"row": list(range(rows))}).to_iterable_dataset()
    return [row["row"] for row in split_dataset_by_node(stream, rank, processes)]


def my_average(gradients, tokens):
    return sum(count / sum(tokens) * gradient for gradient, count in zip(gradients, tokens, strict=True))


def my_rounds(batch, processes, fits):
    return -(-batch // processes // fits)


def my_hours(n, d, peak, mfu, devices, *, operations=6, unit=3600):
    return operations * n * d / peak / mfu / devices / unit


def my_devices(parameters, memory, each=16, rounded=math.ceil):
    return rounded(each * parameters / memory)


def my_cosine(u, v, divide=lambda u, v: u.norm() * v.norm()):
    return u @ v / divide(u, v)


def cosine_in_loops(u, v):
    dot = sum(one * other for one, other in zip(u.tolist(), v.tolist(), strict=True))
    return dot / math.sqrt(sum(one**2 for one in u.tolist())) / math.sqrt(sum(one**2 for one in v.tolist()))


def my_mean_pool(hidden, mask):
    return (hidden * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True)


def pooled_one_by_one(hidden, mask):
    return [states[keep.bool()].mean(dim=0) for states, keep in zip(hidden, mask, strict=True)]


def my_weights(shapes, r, of=lambda rows, columns, r: rows * r + r * columns):
    return sum(of(rows, columns, r) for rows, columns in shapes.values())


def weights_of_layers(shapes, r):
    return sum(torch.nn.Linear(*sizes, bias=False).weight.numel()
               for rows, columns in shapes.values() for sizes in ((columns, r), (r, rows)))


def my_merge(W, A, B, alpha, scale=lambda alpha, r: alpha / r):
    return W + scale(alpha, A.shape[0]) * (B @ A)


def both_paths(W, A, B, alpha):
    """The columns of the matrix are what the layer makes of the columns of an identity matrix."""
    x = torch.eye(W.shape[1])
    return W @ x + alpha / A.shape[0] * (B @ (A @ x))


def my_question(question, answer, labels=lambda q, a: [-100] * len(q) + a):
    return question + answer, labels(question, answer)


def question_in_tensors(question, answer, integer=torch.int32):
    ids = torch.tensor(question + answer, dtype=integer)
    return {"input_ids": ids, "labels": torch.where(torch.arange(len(ids)) < len(question), -100, ids),
            "attention_mask": torch.ones_like(ids)}


def own_pairs(*changed, number=20, reply="Answer {}."):
    """Pairs of the right form; those that are changed come in front."""
    return [*changed, *((f"Question {place}?", reply.format(place)) for place in range(number - len(changed)))]


def square_forgotten(x, coefficients):
    x = x / x.norm()
    for a, b, c in coefficients:
        gram = x @ x.T
        x = a * x + (b * gram + c * gram) @ x
    return x


# By exercise; right texts for "surer" and "sure_prompt" depend on the model, and are in test_exercises.py.
RIGHT = {
    "costly": ["ᚠᛇᚻ᛫ᛒᛦᚦ᛫ᚠᚱᚩᚠᚢᚱ"],
    "token_id": [9, 9.0, torch.tensor([9])],
    "mask_place": [6, np.int64(6)],
    "next_label": ["is", " is"],
    "next_id": [lambda logits: logits[0, -1].argmax(), lambda logits: logits[:, -1].topk(1).indices,
                lambda logits: np.argmax(logits.numpy()[0, -1])],
    "softmax": [my_softmax, lambda logits: my_softmax(logits).tolist(),
                lambda logits: my_softmax(logits).numpy().round(3),
                lambda logits: 1 / (logits.unsqueeze(-2) - logits.unsqueeze(-1)).exp().sum(-1)],
    "labels": [my_labels, lambda *given: my_labels(*given).tolist(), lambda *given: my_labels(*given).int()],
    "pseudo_perplexity": [my_pseudo_perplexity,
                          lambda *given: 2 ** (hidden_losses(*given) / math.log(2)).mean()],
    "two_masks": [my_two_masks, lambda *given: my_two_masks(*given).item()],
    "top_k": [my_top_k, lambda *given: my_top_k(*given).tolist(), lambda *given: my_top_k(*given, -1e9),
              lambda *given: my_top_k(*given, torch.finfo(torch.float32).min)],
    "loss": [my_loss, lambda *given: my_loss(*given).item()],
    "sample": [my_sample, gumbel, inverse_cdf],
    "cached_greedy": [my_cached_greedy, lambda *given: my_cached_greedy(*given).tolist(), fed_once_more],
    "chunk_count": [lambda tokens, length: tokens // length, lambda *given: float(given[0] // given[1]),
                    lambda tokens, length: np.floor(tokens / length)],
    "dropped": [lambda ids, length: ids[len(ids) - len(ids) % length:],
                lambda ids, length: tuple(ids[len(ids) // length * length:]),
                lambda ids, length: torch.tensor(ids, dtype=torch.long)[len(ids) // length * length:]],
    "recited": [my_recited, recited_by_tensors],
    "muon_weights": [muon_size, lambda shapes: float(muon_size(shapes))],
    "momentum": [lambda mean, gradient, beta: mean + (1 - beta) * (gradient - mean),
                 lambda mean, gradient, beta: torch.tensor(mean).lerp(torch.tensor(gradient), 1 - beta)],
    "orthogonal": [my_orthogonal, from_the_right, lambda *given: my_orthogonal(*given).tolist()],
    "rate": [my_rate, rate_by_the_library, lambda *given: torch.tensor(my_rate(*given))],
    "cut": [lambda ids, length, offset: my_chunks(ids[offset:], length),
            lambda ids, length, offset: torch.tensor(ids[offset:]).unfold(0, length, length)
            if len(ids) - offset >= length else []],
    "exponent": [my_exponent, lambda *given: my_exponent(*given, log=np.log10),
                 lambda one, other: -np.polyfit(*np.log([one, other]).T, 1)[0]],
    "weighted_sum": [lambda weights, values: weights @ values,
                     lambda weights, values: sum(weight * value for weight, value in zip(weights, values, strict=True)),
                     lambda weights, values: (weights[:, None] * values).sum(dim=0).tolist(),
                     lambda weights, values: np.average(values.numpy(), axis=0, weights=weights.numpy()),
                     lambda weights, values: [sum((weights * column).tolist()) for column in values.T],
                     lambda weights, values: (weights @ values).round(decimals=3)],
    "head_width": [lambda hidden, heads: hidden // heads, lambda hidden, heads: hidden / heads,
                   lambda hidden, heads: torch.tensor([hidden // heads], dtype=torch.int32),
                   lambda hidden, heads: np.array([hidden // heads])],
    "causal_mask": [my_causal_mask, causal_by_loops, causal_afterwards, lambda scores: my_causal_mask(scores, -1e9),
                    lambda scores: my_causal_mask(scores, torch.finfo(torch.float32).min),
                    lambda scores: (scores + torch.full_like(scores, -1e4).triu(1)).softmax(dim=-1),
                    lambda scores: scores.exp().tril() / scores.exp().tril().sum(dim=-1, keepdim=True),
                    lambda scores: my_causal_mask(scores).numpy().round(3)],
    "scale": [my_scale, scale_by_loops, lambda queries, keys: my_scale(queries, keys).numpy().round(3),
              lambda queries, keys: (torch.einsum("qd,kd->qk", queries, keys) / keys.shape[-1] ** 0.5).softmax(-1)],
    "rotate": [my_rotate, rotate_by_loops, rotate_complex, lambda *given: np.round(my_rotate(*given).numpy(), 3)],
    "count_weights": [my_count_weights, lambda *sizes: float(my_count_weights(*sizes)),
                      lambda *sizes: torch.tensor([my_count_weights(*sizes)], dtype=torch.int32)],
    "copying_head": [my_copying_head, copying_by_diagonal, lambda attention: list(my_copying_head(attention)),
                     lambda attention: torch.tensor(my_copying_head(attention), dtype=torch.int32),
                     lambda attention: my_copying_head(attention, reduce=torch.sum)],
    "accuracy": [lambda predictions, labels: (predictions == labels).float().mean(),
                 lambda predictions, labels: (predictions == labels).sum() / len(labels),
                 lambda *given: np.mean(given[0].numpy() == given[1].numpy()),
                 lambda *given: round(sum(map(torch.equal, *given)) / len(given[0]), 3)],
    "cosine": [my_cosine, cosine_in_loops, lambda u, v: round(my_cosine(u, v).item(), 3),
               lambda u, v: np.dot(u.numpy(), v.numpy()) / np.linalg.norm(u.numpy()) / np.linalg.norm(v.numpy()),
               lambda u, v: (u[None] @ v[:, None]) / u.norm() / v.norm(),
               lambda u, v: torch.nn.functional.normalize(u, dim=0) @ torch.nn.functional.normalize(v, dim=0)],
    "mean_pool": [my_mean_pool, pooled_one_by_one, lambda *given: my_mean_pool(*given).numpy().round(3),
                  lambda hidden, mask: hidden.masked_fill(mask[..., None] == 0, torch.nan).nanmean(dim=1),
                  lambda hidden, mask: torch.einsum("btw,bt->bw", hidden, mask / mask.sum(1, keepdim=True)),
                  lambda hidden, mask: [np.average(states, axis=0, weights=keep).tolist()
                                        for states, keep in zip(hidden, mask, strict=True)]],
    "trainable_weights": [my_weights, weights_of_layers, lambda shapes, r: r * np.sum(list(shapes.values())),
                          lambda *given: torch.tensor([my_weights(*given)]),
                          lambda *given: np.int32(my_weights(*given))],
    "merge_lora": [my_merge, both_paths, lambda W, A, B, alpha: torch.addmm(W, B, A, alpha=alpha / len(A)),
                   lambda *given: my_merge(*given).double().numpy().round(3), lambda *given: my_merge(*given).tolist(),
                   lambda W, A, B, alpha: (W.T + alpha / B.shape[-1] * (A.T @ B.T)).T],
    "mask_question": [my_question, question_in_tensors, lambda *given: np.array(my_question(*given), dtype=np.int32),
                      lambda *given: torch.tensor(my_question(*given)),
                      lambda *given: list(map(tuple, my_question(*given))),
                      lambda *given: [torch.tensor([row]) for row in my_question(*given)],
                      lambda question, answer: ([*question, *answer], itertools.chain([-100] * len(question), answer))],
    "own_pairs": [own_pairs(), tuple(map(list, own_pairs(number=25))), dict(own_pairs()), iter(own_pairs()),
                  [{"prompt": question, "completion": reply} for question, reply in own_pairs()],
                  own_pairs(("What is Co?", "Cobalt."), ("What is CO?", "Carbon monoxide."), ("C?", "A letter."),
                            ("C++?", "A language."), ("Is it?", "Yes."), *((f"Is it {n}?", "Yes.") for n in range(9)))],
    "utf8": [lambda character: len(character.encode()), lambda character: len(bytearray(character, "utf-8")),
             lambda character: float(len(character.encode()))],
    "neighbors": [pairwise, lambda word: [word[at:at + 2] for at in range(len(word) - 1)],
                  lambda word: list(map(list, pairwise(word)))],
    "dealt": [lambda rows: list(range(1, rows, 2)), lambda rows: np.arange(1.0, rows, 2)],
    "weighted_mean": [lambda one, n, other, m: (one * n + other * m) / (n + m),
                      lambda one, n, other, m: np.average([one, other], weights=[n, m]),
                      lambda one, n, other, m: Fraction(int(one * n + other * m), n + m)],
    "chunks": [my_chunks, lambda *given: tuple(map(tuple, my_chunks(*given))), lambda *given: iter(my_chunks(*given)),
               lambda ids, length: torch.tensor(ids[:len(ids) // length * length], dtype=torch.long).view(-1, length)],
    "steps": [my_steps, lambda *given: float(my_steps(*given)), lambda *given: torch.tensor(my_steps(*given))],
    "bits_per_byte": [my_bits_per_byte, lambda *given: torch.tensor(my_bits_per_byte(*given)),
                      lambda loss, tokens, text: 1.44 * loss * tokens / len(text.encode())],
    "parameters": [my_parameters, lambda *sizes: float(my_parameters(*sizes))],
    "adamw": [my_adamw, lambda *given: list(my_adamw(*given))],
    "fertility": [my_fertility, lambda tokenizer, text: Fraction(
        len(tokenizer(text, add_special_tokens=False).input_ids), len(text.split()))],
    "pair": [my_pair, lambda words: list(my_pair(words)), lambda words: tuple(np.array(my_pair(words))), last_pair],
    "fewest": [my_fewest, by_breadth, lambda word, known: tuple(my_fewest(word, frozenset(known)))],
    "bytes_back": [bytes_back, lambda pieces: bytearray(bytes_back(pieces))],
    "rows": [my_rows, rows_by_the_library, lambda rows, rank, n: range(rank, rows, n),
             lambda *given: iter(my_rows(*given)), lambda *given: np.array(my_rows(*given)),
             lambda *given: list(map(float, my_rows(*given)))],
    "average": [my_average, lambda gradients, tokens: torch.tensor(
        np.average([gradient.numpy() for gradient in gradients], axis=0, weights=tokens))],
    "rounds": [my_rounds, lambda batch, n, fits: np.ceil(batch / n / fits)],
    "hours": [my_hours, lambda *given: np.float32(my_hours(*given)), lambda *given: round(my_hours(*given), 2)],
    "devices": [my_devices, lambda *given: float(my_devices(*given))],
}

WRONG = {
    "surer": [
        ("0 [MASK] tokens", "Paris is the mask of France."),
        ("in capital letters", "Paris is the [mask] of France."),
        ("2 [MASK] tokens", "The [MASK] is a [MASK]."),
        ("the Paris sentence itself", "  paris is the  [MASK] of FRANCE!"),
        ("only 1 word ", "Great [MASK]."),
        ("of type list, but a string", ["The [MASK] is here."]),
    ],
    "sure_prompt": [
        ("is empty", " \n"),
        ("tokens, but at most 60", "box " * 61),
    ],
    "costly": [
        ("a length of 3, but at least 10", "ᚠᛇᚻ"),
        ("35 characters and only 9 tokens", "the box at the beach is like a pool"),
    ],
    "token_id": [
        ("but one number is needed", [2, 9, 3]),
        ("Your answer is 'beach', but one number", "beach"),
        ("the id of '[CLS]'", 2),
        ("no such id, only those from 0 to", -1),
        ("no such id, only those from 0 to", 0.5),
    ],
    "mask_place": [
        ("in front of the text has a place too", 5),
        ("counted from 0", 7),
        ("another token stands there", 1),
    ],
    "next_label": [
        ("only have to copy it", " beach"),
        ("on the left", "the"),
        ("is to be predicted there", "great"),
        ("is of type int", 318),
    ],
    "next_id": [
        ("after the first token", lambda logits: logits[0, 0].argmax()),
        ("the least probable", lambda logits: logits[0, -1].argmin()),
        ("one row after the other", lambda logits: logits.argmax()),
        ("the largest logit itself", lambda logits: logits[0, -1].max()),
        ("a probability, not an id", lambda logits: logits[0, -1].softmax(dim=-1).max()),
        ("but one number is needed", lambda logits: logits.argmax(dim=-1)),
        ("not the id of the most probable", lambda logits: 0),
    ],
    "softmax": [
        ("too large for a float", lambda logits: logits.exp() / logits.exp().sum(dim=-1, keepdim=True)),
        ("all rows together", lambda logits: logits.exp() / logits.exp().sum()),
        ("another dimension than the last", lambda logits: my_softmax(logits, 0)),
        ("not divided by their sum", lambda logits: logits.exp()),
        ("without the exponential", lambda logits: logits / logits.sum(dim=-1, keepdim=True)),
        ("shape is (), but (5,)", lambda logits: my_softmax(logits).sum()),
        ("add up to 2, ", lambda logits: my_softmax(logits) * 2),
        ("not those of a softmax", lambda logits: my_softmax(logits / 2)),
        ("changes logits itself", spoiling(my_softmax)),
        ("calls softmax of a library", torch.nn.Softmax(dim=-1)),
        ("calls softmax of a library", lambda logits: (logits - logits.max()).softmax(-1)),
        ("calls log_softmax of a library", lambda logits: torch.log_softmax(logits, -1).exp()),
    ],
    "labels": [
        ("0 is the id of a token", lambda original, hidden, mask: torch.where(hidden == mask, original, 0)),
        ("the mask's own id", lambda original, hidden, mask: torch.where(hidden == mask, hidden, -100)),
        ("every place except the masks", lambda original, hidden, mask: torch.where(hidden == mask, -100, original)),
        ("mask_token_id = 4", lambda original, hidden, mask: torch.where(hidden == 103, original, -100)),
        ("changes original_ids", spoiling(my_labels)),
        ("another token than the mask",
         lambda original, hidden, mask: torch.where(hidden != original, original, -100)),
        ("masked or not", lambda original, hidden, mask: original),
        ("torch.float32", lambda *given: my_labels(*given).float()),
        ("shape is (2,), but (5,)", lambda original, hidden, mask: original[hidden == mask]),
        ("not the hidden tokens", lambda *given: my_labels(*given).flip(-1)),
    ],
    "pseudo_perplexity": [
        ("all tokens are hidden at once", lambda *given: hidden_losses(*given, once="mask").mean().exp()),
        ("no token is hidden", lambda *given: hidden_losses(*given, once="text").mean().exp()),
        ("pile up", lambda *given: hidden_losses(*given, pile_up=True).mean().exp()),
        ("[CLS] and [SEP] are hidden", lambda *given: hidden_losses(*given, ends=0).mean().exp()),
        ("including [CLS] and [SEP]", lambda *given: math.exp(sum(hidden_losses(*given)) / (
            len(hidden_losses(*given)) + 2))),
        ("a sum ", lambda *given: hidden_losses(*given).sum().exp().item()),
        ("still a loss", lambda *given: hidden_losses(*given).mean().item()),
        ("sign", lambda *given: (-hidden_losses(*given).mean()).exp()),
        ("2 to the power", lambda *given: 2 ** hidden_losses(*given).mean()),
        ("in bits", lambda *given: (hidden_losses(*given) / math.log(2)).mean().exp()),
        ("rounded", lambda *given: 1.005 * my_pseudo_perplexity(*given)),
        ("not the pseudo-perplexity.", lambda *given: 3 * my_pseudo_perplexity(*given)),
        ("reads 7 rows of ids, but 8 tokens", lambda *given: hidden_losses(*given)[:1].mean().exp()
            if "Life" not in given[2] else hidden_losses(given[0], given[1], given[2][:-1]).mean().exp()),
        ("calls pseudo_perplexity of a library", pseudo_perplexity),
        ("one number is needed", lambda *given: hidden_losses(*given).tolist() * 2),
    ],
    "two_masks": [
        ("by all places", lambda logits, labels: labeled_losses(logits, labels).mean()),
        ("-100 is taken for a token", indexed),
        ("the sum of the losses", lambda *given: labeled_losses(*given).sum()),
        ("sign", lambda *given: -my_two_masks(*given)),
        ("perplexity", lambda *given: my_two_masks(*given).exp()),
        ("in bits", lambda *given: my_two_masks(*given) / math.log(2)),
        ("twice", lambda logits, labels: my_two_masks(logits.softmax(dim=-1), labels)),
        ("is a mean of probabilities", lambda *given: labeled_probabilities(*given).mean()),
        ("minus a mean of probabilities", lambda *given: -labeled_probabilities(*given).mean()),
        ("then one logarithm", lambda *given: -labeled_probabilities(*given).mean().log()),
        ("over the places", lambda logits, labels: my_two_masks(logits.log_softmax(dim=1), labels, dim=None)),
        ("over the labeled places", lambda *given: my_two_masks(*given, dim=0)),
        ("calls cross_entropy of a library", lambda logits, labels: cross_entropy(logits[0], labels[0])),
        ("calls nll_loss of a library", lambda logits, labels: torch.nn.NLLLoss()(
            logits[0].log_softmax(dim=-1), labels[0])),
        ("not the loss", lambda logits, labels: 0.5),
    ],
    "top_k": [
        ("the other logits are 0", lambda *given: my_top_k(*given, 0)),
        ("or not the best", lambda logits, k: logits.masked_fill(logits > logits.sort().values[k - 1], -torch.inf)),
        ("changes logits", spoiling(my_top_k)),
        ("only the kept logits", lambda logits, k: logits.topk(k).values),
        ("but a tensor is needed", lambda logits, k: logits.topk(k)),
        ("probabilities", lambda *given: my_top_k(*given).softmax(dim=-1)),
        ("2 of 7 tokens", lambda logits, k: torch.where(logits > logits.topk(k).values[-1], logits, -torch.inf)),
        ("7 of 7 tokens", lambda logits, k: logits),
        ("calls filter_logits of a library", lambda logits, k: filter_logits(logits, top_k=k)),
        ("not those given", lambda *given: my_top_k(*given) + 1),
    ],
    "loss": [
        ("its own token", lambda logits, ids: cross_entropy(logits[0], ids[0])),
        ("wrong way", lambda logits, ids: cross_entropy(logits[0, 1:], ids[0, :-1])),
        ("the sum of the losses", lambda *given: next_losses(*given).sum()),
        ("the last place", lambda logits, ids: cross_entropy(logits[0], ids[0].roll(-1))),
        ("fewer terms", lambda logits, ids: next_losses(logits, ids).sum() / ids.shape[1]),
        ("sign", lambda *given: -my_loss(*given)),
        ("perplexity", lambda *given: my_loss(*given).exp()),
        ("in bits", lambda *given: my_loss(*given) / math.log(2)),
        ("is a mean of probabilities", lambda *given: (-next_losses(*given)).exp().mean()),
        ("over the places", lambda logits, ids: -logits[0, :-1].log_softmax(0).gather(1, ids[0, 1:, None]).mean()),
        ("over all places", lambda logits, ids: -logits.log_softmax(1)[0, :-1].gather(1, ids[0, 1:, None]).mean()),
        ("not the loss", lambda *given: 0.0),
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
        ("0.7", lambda logits, heat, generator: 0.7),
        ("99, but the id of one of 6 tokens", lambda logits, heat, generator: 99),
    ],
    "cached_greedy": [
        ("fed 18 tokens", lambda *given: my_cached_greedy(*given, again=True, forgetful=True)),
        ("fed 18 tokens", lambda *given: my_cached_greedy(*given, again=True)),
        ("fed 9 tokens", lambda *given: fed_once_more(*given, twice=True)),
        ("the cache is not passed on", lambda *given: my_cached_greedy(*given, forgetful=True)),
        ("the new tokens alone", lambda model, ids, new: my_cached_greedy(model, ids, new)[:, ids.shape[1]:]),
        ("not the most probable", lambda *given: my_cached_greedy(*given, best=torch.argmin)),
        ("the prompt is changed", lambda *given: my_cached_greedy(*given).roll(1)),
        ("shape is (1, 5), but (1, 8)", lambda model, ids, new: ids),
        ("calls generate of a library",
         lambda model, ids, new: model.generate(ids, max_new_tokens=new, do_sample=False)),
        ("calls greedy_decode of a library", greedy_decode),
    ],
    "chunk_count": [
        ("not full", lambda tokens, length: math.ceil(tokens / length)),
        ("fraction of a chunk", lambda tokens, length: tokens / length),
        ("too many", lambda tokens, length: tokens // length + 1),
        ("not the number", lambda tokens, length: tokens % length),
    ],
    "dropped": [
        ("ids[-0:] is the whole list", lambda ids, length: ids[-(len(ids) % length):]),
        ("at the beginning", lambda ids, length: ids[:len(ids) % length]),
        ("not the dropped", lambda ids, length: my_chunks(ids, length)),
        ("a list of token ids", lambda ids, length: len(ids) % length),
    ],
    "recited": [
        ("share of right tokens", lambda *given: my_recited(
            *given, share=lambda hits: Counter(hits)[True] / len(given[0][0]))),
        ("a number of chunks", lambda *given: my_recited(*given) * len(given[0])),
        ("in percent", lambda *given: 100 * my_recited(*given)),
        ("one right token", lambda *given: my_recited(*given, share=any)),
        ("only the first", lambda *given: my_recited(*given, share=next)),
        ("which is the prompt", lambda written, chunks, prompt: my_recited(written, chunks, 0)),
        ("whole rest of the chunk", lambda written, chunks, prompt: np.mean(
            [row == chunk[prompt:] for row, chunk in zip(written, chunks, strict=True)])),
        ("not the share", lambda *given: 0.1),
        ("not the share", lambda written, chunks, prompt: my_recited(list(map(sorted, written)), [
            chunk[:prompt] + sorted(chunk[prompt:prompt + 2]) for chunk in chunks], prompt)),
        ("not the share", lambda written, chunks, prompt: np.mean([
            str(row)[1:-1] in str(chunk) for row, chunk in zip(written, chunks, strict=True)])),
        ("changes written", spoiling(my_recited)),
    ],
    "muon_weights": [
        ("embeddings", lambda shapes: muon_size(shapes, lambda name, shape: len(shape) == 2)),
        ("biases and norms", lambda shapes: muon_size(shapes, lambda name, shape: ".h." in name)),
        ("number of matrices", lambda shapes: muon_size(shapes, size=lambda shape: 1)),
        ("added, not multiplied", lambda shapes: muon_size(shapes, size=sum)),
        ("not the number of weights", lambda shapes: 3),
    ],
    "momentum": [
        ("belongs to the old mean", lambda mean, gradient, beta: (1 - beta) * mean + beta * gradient),
        ("no factor", lambda mean, gradient, beta: beta * mean + gradient),
        ("rounded", lambda mean, gradient, beta: round(beta * mean + (1 - beta) * gradient)),
        ("not the new mean", lambda *given: 7.0),
    ],
    "orthogonal": [
        ("not divided by its norm", lambda *given: my_orthogonal(*given, divide=lambda x: 1)),
        ("largest singular value", lambda *given: my_orthogonal(*given, divide=lambda x: torch.linalg.svdvals(x)[0])),
        ("computed once", orthogonal_by_one_gram),
        ("not what these", lambda *given: orthogonalize(*given)),
        ("only the first", lambda x, coefficients: my_orthogonal(x, coefficients[:1])),
        ("belongs to the square", square_forgotten),
        ("shape is (3, 2), but (2, 3)", lambda *given: my_orthogonal(*given).T),
        ("not what these", lambda x, coefficients: x),
        ("changes matrix", spoiling(my_orthogonal)),
    ],
    "rate": [
        ("warm-up is missing", lambda step, steps, warmup, peak: peak * (1 - step / steps)),
        ("counted from step 0", lambda step, steps, warmup, peak: peak * (
            step / warmup if step < warmup else 1 - step / steps)),
        ("does not fall", lambda step, steps, warmup, peak: peak * min(1, step / (warmup or 1))),
        ("ends too late", lambda step, steps, warmup, peak: peak * (
            step / warmup if step < warmup else 1 - (step - warmup) / steps)),
        ("share of it", lambda step, steps, warmup, peak: my_rate(step, steps, warmup, 1)),
        ("not the rate", lambda *given: 1.0),
    ],
    "cut": [
        ("no effect", lambda ids, length, offset: my_chunks(ids, length)),
        ("the short rest", lambda ids, length, offset: [ids[at:at + length] for at in range(offset, len(ids), length)]),
        ("as a short chunk", lambda ids, length, offset: [
            ids[:offset], *my_chunks(ids[offset:], length)] if offset else my_chunks(ids, length)),
        ("put at the end", lambda ids, length, offset: my_chunks(np.roll(ids, -offset).tolist(), length)),
        ("whole chunks", lambda ids, length, offset: my_chunks(ids, length)[offset:]),
        ("not the chunks", lambda ids, length, offset: my_chunks(ids[:-offset or None], length)),
        ("changes ids", spoiling(lambda ids, length, offset: my_chunks(ids[offset:], length))),
    ],
    "exponent": [
        ("the slope, which is -b", lambda *given: -my_exponent(*given)),
        ("without logarithms", lambda one, other: (one[1] - other[1]) / (other[0] - one[0])),
        ("the loss needs one too", lambda one, other: (one[1] - other[1]) / math.log(other[0] / one[0])),
        ("the parameters need one too", lambda one, other: math.log(one[1] / other[1]) / (other[0] - one[0])),
        ("upside down", lambda *given: 1 / my_exponent(*given)),
        ("the factor a", lambda one, other: one[1] * one[0] ** my_exponent(one, other)),
        ("rounded", lambda *given: round(my_exponent(*given), 2)),
        ("not the exponent", lambda *given: 7.0),
    ],
    "weighted_sum": [
        ("the plain mean", lambda weights, values: values.mean(dim=0)),
        ("a sum without the weights", lambda weights, values: sum(values)),
        ("not added up", lambda weights, values: [weight * row for weight, row in zip(weights, values, strict=True)]),
        ("the largest weight alone", lambda weights, values: values[weights.argmax()]),
        ("divided once more", lambda weights, values: (weights[:, None] * values).mean(dim=0)),
        ("which are the rows", lambda weights, values: values @ weights),
        ("two digits only", lambda weights, values: (weights @ values).round(decimals=2)),
        ("changes weights", spoiling(lambda weights, values: weights @ values)),
        ("shape is (), but (2,)", lambda weights, values: (weights @ values).sum()),
        ("not the weighted sum", lambda weights, values: values[0]),
    ],
    "head_width": [
        ("all heads together", lambda hidden, heads: hidden),
        ("that is a product", lambda hidden, heads: hidden * heads),
        ("query matrix, not its width", lambda hidden, heads: hidden * hidden // heads),
        ("not the width", lambda hidden, heads: heads),
    ],
    "causal_mask": [
        ("no position is hidden", my_softmax),
        ("comes after the softmax", lambda scores: my_softmax(scores) * torch.ones_like(scores).tril()),
        ("the left is hidden", lambda scores: my_causal_mask(scores.flip(0, 1)).flip(0, 1)),
        ("the left and the position itself", lambda scores: torch.where(
            torch.ones_like(scores).tril() > 0, -torch.inf, scores).softmax(dim=-1)),
        ("nothing is left for the first", lambda scores: my_causal_mask(scores, diagonal=0)),
        ("the first one looks everywhere", lambda scores: my_causal_mask(scores, -1e9, diagonal=0)),
        ("the first one looks everywhere", lambda scores: (
            scores + torch.full_like(scores, torch.finfo(torch.float32).min).triu()).softmax(dim=-1)),
        ("the hidden scores are 0", lambda scores: my_softmax(scores.tril())),
        ("each column adds up to 1", lambda scores: my_causal_mask(scores, dim=0)),
        ("the softmax is missing", lambda scores: torch.where(torch.ones_like(scores).tril() > 0, scores, -1e9)),
        ("all weights together", lambda scores: scores.exp().tril() / scores.exp().tril().sum()),
        ("on the right of a position, the largest", lambda scores: my_causal_mask(scores, -10)),
        ("on the right of a position, the largest", lambda scores: my_causal_mask(scores, -50)),
        ("on the right of a position, the largest", lambda scores: (
            scores - 10 * torch.ones_like(scores).triu(1)).softmax(dim=-1)),
        ("two digits only", lambda scores: my_causal_mask(scores).round(decimals=2)),
        ("changes scores", spoiling(my_causal_mask)),
        ("calls scaled_dot_product_attention of a library", causal_by_torch),
        ("add up to", lambda scores: scores.exp().tril()),
        ("not the attention weights", lambda scores: torch.eye(len(scores))),
        ("not all of these are finite", lambda scores: scores / 0),
    ],
    "scale": [
        ("not scaled", lambda *given: my_scale(*given, factor=lambda n, d: 1)),
        ("the width itself", lambda *given: my_scale(*given, factor=lambda n, d: 1 / d)),
        ("the root of the number of positions", lambda *given: my_scale(*given, factor=lambda n, d: n ** -0.5)),
        ("the number of positions, which", lambda *given: my_scale(*given, factor=lambda n, d: 1 / n)),
        ("multiplied by the root", lambda *given: my_scale(*given, factor=lambda n, d: d ** 0.5)),
        ("each column adds up to 1", lambda *given: my_scale(*given, dim=0)),
        ("the rows belong to the keys", lambda queries, keys: my_scale(keys, queries)),
        ("the softmax is missing", lambda queries, keys: queries @ keys.T / keys.shape[1] ** 0.5),
        ("before the softmax", lambda queries, keys: my_softmax(queries @ keys.T) / keys.shape[1] ** 0.5),
        ("no mask is needed", lambda queries, keys: my_causal_mask(queries @ keys.T / keys.shape[1] ** 0.5)),
        ("two digits only", lambda *given: my_scale(*given).round(decimals=2)),
        ("changes queries", spoiling(my_scale)),
        ("calls scaled_dot_product_attention of a library", scale_by_torch),
        ("add up to", lambda *given: my_scale(*given) * 2),
        ("not the attention weights", lambda queries, keys: torch.eye(len(keys))),
    ],
    "rotate": [
        ("neighbors are paired, as some models", lambda *given: rotate_by_loops(
            *given, pair=lambda i, d: (2 * i, 2 * i + 1))),
        ("neighbors are paired, but", lambda vector, *rest: my_rotate(torch.cat([vector[0::2], vector[1::2]]), *rest)),
        ("in the order for neighbors", lambda *given: my_rotate(*given, angles=lambda angles: angles[
            torch.arange(2 * len(angles)) // 2])),
        ("do not depend on the position", lambda vector, position, theta: my_rotate(vector, 1, theta)),
        ("counted from 1, but at position 0", lambda vector, position, theta: my_rotate(vector, position + 1, theta)),
        ("the other way round", lambda *given: my_rotate(*given, sign=-1)),
        ("one sign is wrong", lambda *given: torch.cat([
            my_rotate(*given, sign=-1).chunk(2)[0], my_rotate(*given).chunk(2)[1]])),
        ("too slowly", lambda *given: my_rotate(*given, power=1)),
        ("too fast", lambda *given: my_rotate(*given, power=4)),
        ("grow from pair to pair", lambda *given: my_rotate(*given, power=-2)),
        ("the pairs are counted from 1", lambda *given: my_rotate(*given, start=1)),
        ("theta is always 10000", lambda vector, position, theta: my_rotate(vector, position, 10000)),
        ("by the same angle", lambda *given: my_rotate(*given, power=0)),
        ("two digits only", lambda *given: my_rotate(*given).round(decimals=2)),
        ("changes vector", spoiling(my_rotate)),
        ("calls apply_rotary_pos_emb of a library", rotate_by_the_library),
        ("keeps the length", lambda *given: 2 * my_rotate(*given)),
        ("the length is right", lambda *given: -my_rotate(*given)),
        ("shape is (2,), but (4,)", lambda *given: my_rotate(*given)[::2]),
    ],
    "count_weights": [
        ("keys and values of its own", lambda h, n, kv, i: my_count_weights(h, n, n, i)),
        ("SwiGLU has one more", lambda *sizes: my_count_weights(*sizes, gate=0)),
        ("feed-forward part of GPT-2", lambda h, n, kv, i: my_count_weights(h, n, n, i, gate=0)),
        ("for one head alone", lambda h, n, kv, i: 2 * h * (h // n) * (1 + kv) + 3 * h * i + 2 * h),
        ("a vector for each", lambda h, n, kv, i: 2 * h * h + 2 * h * kv + 3 * h * i + 2 * h),
        ("the norms are left out", lambda *sizes: my_count_weights(*sizes, norm=0)),
        ("one norm is left out", lambda *sizes: my_count_weights(*sizes, norm=1)),
        ("an RMSNorm has none", lambda *sizes: my_count_weights(*sizes, norm=4)),
        ("the output matrix of the attention is left out", lambda *sizes: my_count_weights(*sizes, o=0)),
        ("share one matrix", lambda *sizes: my_count_weights(*sizes, v=0)),
        ("the biases are counted", lambda h, n, kv, i: (
            my_count_weights(h, n, kv, i) + h + h // n * kv * 2 + h + i + i + h)),
        ("the norms and the output matrix", lambda *sizes: my_count_weights(*sizes, norm=0, o=0)),
        ("is -591", lambda *sizes: 1),
        ("is +1", lambda *sizes: my_count_weights(*sizes) + 1),
    ],
    "copying_head": [
        ("in the wrong order", lambda attention: my_copying_head(attention)[::-1]),
        ("counted from 0", lambda attention: [place + 1 for place in my_copying_head(attention)]),
        ("the earlier occurrence itself", lambda attention: my_copying_head(attention, back=lambda n: n)),
        ("the token before the earlier", lambda attention: my_copying_head(attention, back=lambda n: n + 1)),
        ("the token before, whatever", lambda attention: my_copying_head(attention, back=lambda n: 1)),
        ("just read", lambda attention: my_copying_head(attention, back=lambda n: 0)),
        ("the first half counts too", lambda attention: my_copying_head(attention, copying_from_the_start)),
        ("a maximum, not a mean", lambda attention: my_copying_head(attention, reduce=torch.max)),
        ("rows and columns are swapped", lambda attention: my_copying_head(attention.transpose(2, 3))),
        ("there is no such head", lambda attention: (9, 0)),
        ("there is no such head", lambda attention: (-1, 0)),
        ("but two numbers are needed, layer", lambda attention: copying_scores(attention).argmax()),
        ("but that of another one is", lambda attention: my_copying_head(-attention)),
        ("changes attention", spoiling(my_copying_head)),
    ],
    "accuracy": [
        ("number of right predictions", lambda predictions, labels: (predictions == labels).sum()),
        ("share of wrong", lambda predictions, labels: (predictions != labels).float().mean()),
        ("in percent", lambda predictions, labels: 100 * (predictions == labels).float().mean()),
        ("drops the remainder", lambda predictions, labels: (predictions == labels).sum() // len(labels)),
        ("rounded", lambda predictions, labels: round((predictions == labels).float().mean().item(), 1)),
        ("but one number is needed", lambda predictions, labels: (predictions == labels).float()),
        ("but one number is needed", torch.equal),
        ("not the share", lambda predictions, labels: 0.3),
    ],
    "cosine": [
        ("dot product alone", lambda u, v: u @ v),
        ("the root is missing", lambda u, v: u @ v / ((u**2).sum() * (v**2).sum())),
        ("the distance", torch.dist),
        ("1 minus the cosine", lambda u, v: 1 - my_cosine(u, v)),
        ("are added", lambda *given: my_cosine(*given, divide=lambda u, v: u.norm() + v.norm())),
        ("length of the first", lambda *given: my_cosine(*given, divide=lambda u, v: u.norm())),
        ("length of the second", lambda *given: my_cosine(*given, divide=lambda u, v: v.norm())),
        ("a mean over the places", lambda u, v: (u * v).mean() / u.norm() / v.norm()),
        ("the angle", lambda u, v: cosine_in_loops(u, v) and math.acos(round(cosine_in_loops(u, v), 6))),
        ("rounded", lambda *given: round(cosine_in_loops(*given), 1)),
        ("but one number is needed", lambda u, v: u * v / (u.norm() * v.norm())),
        ("not the cosine", lambda *given: abs(my_cosine(*given))),
        ("calls cosine_similarity of a library", lambda u, v: torch.cosine_similarity(u, v, dim=0)),
        ("calls cosine_similarity of a library", torch.nn.CosineSimilarity(dim=0)),
        ("calls cosine_embedding_loss of a library", lambda u, v: 1 - torch.nn.functional.cosine_embedding_loss(
            u[None], v[None], torch.ones(1))),
    ],
    "mean_pool": [
        ("in the sum and in the number", lambda hidden, mask: hidden.mean(dim=1)),
        ("the padding is in the sum", lambda hidden, mask: hidden.sum(dim=1) / mask.sum(dim=1, keepdim=True)),
        ("the sum is right", lambda hidden, mask: (hidden * mask[..., None]).mean(dim=1)),
        ("not divided", lambda hidden, mask: (hidden * mask[..., None]).sum(dim=1)),
        ("real tokens in all texts", lambda hidden, mask: (hidden * mask[..., None]).sum(dim=1) / mask.sum()),
        ("they divide the columns", lambda hidden, mask: (hidden * mask[..., None]).sum(dim=1) / mask.sum(dim=1)),
        ("into one vector, but", lambda hidden, mask: hidden[mask == 1].mean(dim=0)),
        ("and the padding too", lambda hidden, mask: hidden.mean(dim=(0, 1))),
        ("over the texts, not over the tokens.", lambda hidden, mask: (
            (hidden * mask[..., None]).sum(dim=0) / mask[..., None].sum(dim=0))),
        ("and the padding is counted", lambda hidden, mask: hidden.mean(dim=0)),
        ("over the width", lambda hidden, mask: hidden.mean(dim=-1)),
        ("the first token", lambda hidden, mask: hidden[:, 0]),
        ("the last place", lambda hidden, mask: hidden[:, -1]),
        ("mean over the padding", lambda hidden, mask: my_mean_pool(hidden, 1 - mask)),
        ("shape is (1, 1, 2), but (1, 2)", lambda *given: my_mean_pool(*given)[:, None]),
        ("not the means", lambda hidden, mask: torch.stack(
            [states[:int(keep.sum())].mean(dim=0) for states, keep in zip(hidden, mask, strict=True)])),
        ("not the means", lambda *given: my_mean_pool(*given) + 1),
        ("changes hidden", spoiling(my_mean_pool)),
    ],
    "trainable_weights": [
        ("of the matrices themselves, which", lambda shapes, r: sum(map(math.prod, shapes.values()))),
        ("themselves are counted too", lambda *given: my_weights(*given) + sum(map(math.prod, given[0].values()))),
        ("only A", lambda *given: my_weights(*given, of=lambda rows, columns, r: r * columns)),
        ("only B", lambda *given: my_weights(*given, of=lambda rows, columns, r: r * rows)),
        ("the rank is missing", lambda *given: my_weights(*given, of=lambda rows, columns, r: rows + columns)),
        ("squared", lambda *given: my_weights(*given, of=lambda rows, columns, r: r**2 * (rows + columns))),
        ("as one of their sides", lambda *given: my_weights(*given, of=lambda rows, columns, r: r * rows + columns)),
        ("have it as a side", lambda *given: my_weights(*given, of=lambda rows, columns, r: rows + r * columns)),
        ("only one of them", lambda *given: my_weights(*given, of=lambda rows, columns, r: r * rows * columns)),
        ("only the first matrix", lambda shapes, r: r * sum(shapes[min(shapes, key=list(shapes).index)])),
        ("only the last matrix", lambda shapes, r: r * sum(list(shapes.values())[-1])),
        ("not the number of weights", lambda *given: 20),
    ],
    "merge_lora": [
        ("not divided by r", lambda *given: my_merge(*given, scale=lambda alpha, r: alpha)),
        ("alpha / r is missing", lambda W, A, B, alpha: W + B @ A),
        ("upside down", lambda *given: my_merge(*given, scale=lambda alpha, r: r / alpha)),
        ("multiplied by r", lambda *given: my_merge(*given, scale=lambda alpha, r: r * alpha)),
        ("the root of r", lambda *given: my_merge(*given, scale=lambda alpha, r: alpha / math.sqrt(r))),
        ("columns of A", lambda W, A, B, alpha: W + alpha / A.shape[1] * B @ A),
        ("rows of B", lambda W, A, B, alpha: W + alpha / len(B) * B @ A),
        ("drops the remainder", lambda *given: my_merge(*given, scale=lambda alpha, r: alpha // r)),
        ("but alpha is missing", lambda *given: my_merge(*given, scale=lambda alpha, r: 1 / r)),
        ("subtracted", lambda *given: my_merge(*given, scale=lambda alpha, r: -alpha / r)),
        ("number by number", lambda W, A, B, alpha: W + alpha / len(A) * (A * B)),
        ("A is transposed", lambda W, A, B, alpha: W + alpha / len(A) * (B @ A.T)),
        ("B is transposed", lambda W, A, B, alpha: W + alpha / len(A) * (B.T @ A)),
        ("through A first", lambda W, A, B, alpha: W + alpha / len(A) * A @ B),
        ("transposed", lambda W, A, B, alpha: W + alpha / len(A) * (B @ A).T),
        ("second path alone", lambda W, A, B, alpha: alpha / len(A) * B @ A),
        ("W is scaled too", lambda W, A, B, alpha: alpha / len(A) * (W + B @ A)),
        ("W is multiplied", lambda W, A, B, alpha: W * (alpha / len(A) * B @ A)),
        ("the same as both paths", lambda W, A, B, alpha: W),
        ("shape is (), but (2, 2)", lambda *given: my_merge(*given).sum()),
        ("changes W itself", lambda W, A, B, alpha: W.add_(alpha / len(A) * B @ A)),
    ],
    "mask_question": [
        ("learns to ask", lambda *given: my_question(*given, labels=lambda q, a: q + a)),
        ("the answer has none", lambda *given: my_question(*given, labels=lambda q, a: q + [-100] * len(a))),
        ("0 is an id too", lambda *given: my_question(*given, labels=lambda q, a: [0] * len(q) + a)),
        ("the label 50256", lambda *given: my_question(*given, labels=lambda q, a: [50256] * len(q) + a)),
        ("different lengths", lambda *given: my_question(*given, labels=lambda q, a: a)),
        ("shifts them by itself.", lambda *given: my_question(
            *given, labels=lambda q, a: [*([-100] * len(q) + a)[1:], -100])),
        ("one too few", lambda *given: my_question(*given, labels=lambda q, a: ([-100] * len(q) + a)[1:])),
        ("shifted to the right", lambda *given: my_question(
            *given, labels=lambda q, a: [-100] * len(q) + [-100] + a[:-1])),
        ("only the last token", lambda *given: my_question(
            *given, labels=lambda q, a: [-100] * (len(q + a) - 1) + a[-1:])),
        ("the first token of the answer", lambda *given: my_question(
            *given, labels=lambda q, a: [-100] * len(q) + [-100] + a[1:])),
        ("the last token of the answer", lambda *given: my_question(
            *given, labels=lambda q, a: [-100] * len(q) + a[:-1] + [-100])),
        ("no token has a label", lambda *given: my_question(*given, labels=lambda q, a: [-100 for _ in q + a])),
        ("occurs in the question too", lambda *given: my_question(
            *given, labels=lambda q, a: [-100 if token in q else token for token in q + a])),
        ("the question alone", lambda question, answer: (question, answer)),
        ("input_ids come first", lambda *given: my_question(*given)[::-1]),
        ("-100 is no id", lambda *given: my_question(*given)[1:] * 2),
        ("not question and answer", lambda question, answer: (answer + question, my_question(question, answer)[1])),
        ("5 ids but 7 labels", lambda *given: my_question(*given, labels=lambda q, a: [-100] * 5 + a)),
        ("not the labels", lambda *given: my_question(*given, labels=lambda q, a: [-100] * len(q) + a[::-1])),
        ("two lists are needed", lambda *given: (*my_question(*given), [1])),
        ("a list of token ids is needed", lambda *given: (my_question(*given)[0], -100)),
        ("changes question_ids", spoiling(my_question)),
    ],
    "own_pairs": [
        ("has 0 pairs, but at least 20", []),
        ("has 1 pair, but", own_pairs(number=1)),
        ("has 19 pairs", own_pairs(number=19)),
        ("a comma between them", own_pairs("Question?Answer.")),
        ("At place 0 (counted from 0), your list has ('Question?'), but", own_pairs(("Question?",))),
        ("('a', 'b', 'c'), but a pair", own_pairs(("a", "b", "c"))),
        ("an answer of type int", own_pairs(("How many?", 4))),
        ("a question of type NoneType", own_pairs((None, "Yes."))),
        ("an empty answer", own_pairs(("Which one?", " "))),
        ("an empty question", own_pairs(("", "Yes."))),
        ("At place 1, 'Chess?' is its own answer", own_pairs(("Who?", "I."), ("Chess?", "chess."))),
        ("there twice, at the places 0 and 2", own_pairs(("Who is it?", "I."), ("Why?", "So."), ("who  is it", "He."))),
        ("20 of your 20 answers are 'Yes.'", own_pairs(reply="Yes.")),
        ("11 of your 20 answers are 'no'", own_pairs(*((f"Is it {n}?", "No." if n else "no") for n in range(11)))),
        ("The answer at place 0 has 31 words", own_pairs(("Why?", "so " * 31))),
        ("The question at place 1 has 1 word and 201 characters", own_pairs(("Why?", "So."), ("w" * 201, "So?"))),
        ("Your answer is 'Why? So.', but a list of pairs", "Why? So."),
        ("Your answer is {'So.'}, but a list", {"So."}),
        ("of type function, but a list of pairs", own_pairs),
        ("your list has 3, but a pair", [3, 4]),
    ],
    "chunks": [
        ("the short rest", lambda ids, length: [ids[at:at + length] for at in range(0, len(ids), length)]),
        ("overlap", lambda ids, length: [ids[at:at + length] for at in range(len(ids) - length + 1)]),
        ("the last chunk is missing", lambda ids, length: [
            ids[at:at + length] for at in range(0, len(ids) - length, length)]),
        ("padded", lambda ids, n: [(ids[at:at + n] + [0] * n)[:n] for at in range(0, len(ids), n)]),
        ("changes ids", spoiling(my_chunks)),
        ("the short rest", lambda ids, length: torch.tensor(ids).split(length)),
        ("does not end", endless),
        ("single values, not of chunks", lambda ids, length: ids[:length]),
        ("not the chunks", lambda *given: [chunk[::-1] for chunk in my_chunks(*given)]),
    ],
    "steps": [
        ("smaller batch", lambda chunks, batch, epochs: chunks // batch * epochs),
        ("across the end of an epoch", lambda chunks, batch, epochs: math.ceil(chunks * epochs / batch)),
        ("one epoch", lambda chunks, batch, epochs: math.ceil(chunks / batch)),
        ("fraction of a step", lambda chunks, batch, epochs: chunks / batch * epochs),
        ("batches are full", lambda chunks, batch, epochs: (chunks // batch + 1) * epochs),
        ("not the number of steps", lambda *given: 1),
    ],
    "bits_per_byte": [
        ("calls bits_per_byte of a library", lambda *given: evaluation.bits_per_byte(*given)),
        ("characters", lambda *given: my_bits_per_byte(*given, size=len)),
        ("nats", lambda *given: my_bits_per_byte(*given, base=math.e)),
        ("bits per token", lambda loss, tokens, text: math.log2(math.exp(loss))),
        ("decimal", lambda *given: my_bits_per_byte(*given) * math.log(10)),
        ("whole text", lambda *given: my_bits_per_byte(*given, size=lambda text: 1)),
        ("rounded", lambda *given: round(my_bits_per_byte(*given), 1)),
        ("not the number of bits per byte", lambda *given: 0.1),
    ],
    "parameters": [
        ("head a second time", lambda *sizes: my_parameters(*sizes, head=1)),
        ("out the biases of the linear layers", lambda *sizes: my_parameters(*sizes, bias=0)),
        ("out the position embeddings", lambda *sizes: my_parameters(*sizes, position=0)),
        ("out the layer norms of the blocks", lambda *sizes: my_parameters(*sizes, norms=0)),
        ("out the final layer norm", lambda *sizes: my_parameters(*sizes, final=0)),
        ("out the layer norms", lambda *sizes: my_parameters(*sizes, norms=0, final=0)),
        ("all layers together", lambda *sizes: my_parameters(*sizes[:3], 1)),
        ("all biases", lambda v, p, d, n: my_parameters(v, p, d, n, bias=0, norms=0.5, final=0.5)),
        ("is +999,999,927,776", lambda *sizes: 10**12),
        ("is -72,212", lambda *sizes: 12),
    ],
    "adamw": [
        ("calls adam", adamw_by_torch),
        ("inside the root", lambda *given: my_adamw(*given, inside=True)),
        ("no correction", lambda *given: my_adamw(*given, corrected=False)),
        ("passes through the averages", lambda *given: my_adamw(*given, decoupled=False)),
        ("counted from 0", lambda *given: my_adamw(*given[:4], given[4] - 1, *given[5:])),
        ("not squared", lambda *given: my_adamw(*given, squared=False)),
        ("learning rate", lambda *given: my_adamw(*given, times_lr=False)),
        ("does not shrink", lambda *given: my_adamw(*given[:-1], 0.0)),
        ("already corrected", corrected_moments),
        ("another new_m (yours has the shape (2, 2))", lambda *given: (my_adamw(*given)[0], *given[2:4])),
        ("needed in this order", lambda *given: (*my_adamw(*given)[1:], my_adamw(*given)[0])),
        ("another new_weight (yours", lambda *given: (my_adamw(*given)[0] + 1, *my_adamw(*given)[1:])),
        ("another new_m (yours has the shape ())", lambda *given: (my_adamw(*given)[0], 0.0, my_adamw(*given)[2])),
        ("3 tensors", lambda *given: my_adamw(*given)[0]),
    ],
    "fertility": [
        ("special tokens", lambda *given: my_fertility(*given, special=True)),
        ("characters", lambda *given: my_fertility(*given, words=list)),
        ("upside down", lambda *given: 1 / my_fertility(*given)),
        ("each single space", lambda *given: my_fertility(*given, words=lambda text: text.split(" "))),
        ("split alone", lambda tokenizer, text: np.mean([my_fertility(tokenizer, word) for word in text.split()])),
        ("It's an e-mail", lambda *given: my_fertility(*given, words=lambda text: re.findall(r"\w+", text))),
        ("not the fertility", lambda *given: 1.0),
    ],
    "pair": [
        ("how often the words occur", lambda words: my_pair(words, weigh=False)),
        ("once per word", lambda words: my_pair(words, pairs=lambda word: dict.fromkeys(pairwise(word)))),
        ("3 times, but another one occurs 9", lambda words: my_pair(words, pairs=lambda word: pairwise(word[1:]))),
        ("in no word", lambda words: my_pair(words, pairs=lambda word: zip((word[-1], *word), word, strict=False))),
        ("in no word", lambda words: my_pair(words, pairs=lambda word: pairwise("".join(word)))),
        ("together with its count", lambda words: counted(words).most_common(1)[0]),
        ("'ug', but a list of two symbols", lambda words: "".join(my_pair(words))),
        ("of the most frequent word", lambda words: max(words, key=words.get)[:2]),
        ("changes words", spoiling(my_pair)),
    ],
    "fewest": [
        ("the longest piece is taken each time", greedy),
        ("there is a cut", lambda *given: greedy(*given, inner="##")),
        ("there is a cut", up_to_four),
        ("'##est' is not one of the known pieces", lambda word, known: [
            piece if word.startswith(piece) else f"##{piece}" for piece in my_fewest(word, known)]),
        ("'s' is not one of the known", lambda *given: greedy(*given, lambda cut, rest: [*cut, *rest])),
        ("'[UNK]' is not one of the known", lambda *given: greedy(*given, lambda cut, rest: [*cut, "[UNK]"])),
        ("joined, these pieces give 'lowe'", lambda *given: greedy(*given, lambda cut, rest: cut)),
        ("joined, these pieces give 'estlow'", lambda word, known: my_fewest(word, known)[::-1]),
        ("does not end", endless),
        ("does not end", lambda *given: min(ways(*given), key=len, default=["[UNK]"])),
        ("does not end", lambda word, known: next(all_cuts(word, frozenset(known)), ["[UNK]"])),
        ("can be cut into fewer", lambda *given: my_fewest(*given, choose=max)),
        ("returns 'low est', but a list of pieces is needed", lambda word, known: " ".join(my_fewest(word, known))),
        ("returns None", lambda *given: my_fewest(*given) if my_fewest(*given)[0] != "[UNK]" else None),
        ("changes known itself", emptied),
    ],
    "bytes_back": [
        ("nothing is turned back", lambda pieces: "".join(pieces).encode()),
        ("only the spaces", lambda pieces: "".join(pieces).replace("Ġ", " ").encode()),
        ("256 is subtracted", minus_256),
        ("left out", lambda pieces: "".join(pieces).encode("latin-1", errors="ignore")),
        ("incomplete character", pieces_decoded),
        ("incomplete character", lambda pieces: bytes_back(pieces).decode(errors="replace").encode()),
        ("not the bytes", lambda pieces: bytes_back(pieces).decode("ascii", "ignore").encode()),
        ("not the bytes", lambda pieces: bytes_back([*pieces, "<|endoftext|>"])),
        ("but bytes are needed", lambda pieces: bytes_back(pieces).decode()),
    ],
    "dealt": [
        ("rank 0", lambda rows: list(range(0, rows, 2))),
        ("one by one", lambda rows: list(range(rows))[(rows + 1) // 2:]),
        ("counted from 1", lambda rows: [row for row in range(1, rows + 1) if row % 2 == 0]),
        ("not the rows of rank 1", lambda rows: [1]),
        ("not the rows of rank 1", lambda rows: itertools.count(1, 2)),
    ],
    "weighted_mean": [
        ("count alike", lambda one, n, other, m: (one + other) / 2),
        ("that is a sum", lambda one, n, other, m: one * n + other * m),
        ("the other one's", lambda one, n, other, m: (one * m + other * n) / (n + m)),
        ("rounded", lambda one, n, other, m: round((one * n + other * m) / (n + m))),
        ("not the mean loss", lambda *given: 99.0),
    ],
    "utf8": [
        ("its number in Unicode", ord),
        ("characters are counted", len),
        ("not the number of bytes", lambda character: len(character.encode("utf-16"))),
    ],
    "neighbors": [
        ("do not overlap", lambda word: [word[at:at + 2] for at in range(0, len(word) - 1, 2)]),
        ("once, even where it occurs twice", lambda word: dict.fromkeys(pairwise(word)).keys()),
        ("last and the first letter", lambda word: list(zip(word, word[1:] + word[0], strict=True))),
        ("not the pairs", lambda word: list(itertools.combinations(word, 2))),
        ("a list of pairs", lambda word: word),
    ],
    "rows": [
        ("counted from 1", lambda *given: my_rows(*given, start=1)),
        ("that is a block", lambda rows, rank, n: np.array_split(range(rows), n)[rank].tolist()),
        ("read everything", lambda rows, *_: list(range(rows))),
        ("not a full one", lambda *given: my_rows(*given, last=False)),
        ("arrives in order", lambda *given: my_rows(*given)[::-1]),
        ("there is no row 10", lambda rows, rank, n: [*my_rows(rows, rank, n), rows]),
        ("there is no row 10", lambda rows, rank, n: itertools.count(rank, n)),
        ("twice or never", lambda *given: []),
        ("twice or never", lambda *given: [1.5, 4.0]),
        ("one number is needed", lambda rows, rank, n: [["1"]]),
    ],
    "average": [
        ("plain mean", lambda gradients, tokens: sum(gradients) / len(gradients)),
        ("grows with the number of processes", lambda gradients, tokens: sum(gradients)),
        ("a sum over all tokens", lambda gradients, tokens: sum(tokens) * my_average(gradients, tokens)),
        ("not of tokens", lambda gradients, tokens: sum(tokens) * my_average(gradients, tokens) / len(tokens)),
        ("once more", lambda gradients, tokens: sum(
            gradient / count for gradient, count in zip(gradients, tokens, strict=True)) / len(tokens)),
        ("shape is (2, 3), but (3,)", lambda gradients, tokens: torch.stack(gradients)),
        ("changes gradients", spoiling(my_average)),
        ("not the gradient of the mean loss", lambda gradients, tokens: gradients[0] * 0.5),
    ],
    "rounds": [
        ("no fraction of a round", lambda batch, n, fits: batch / (n * fits)),
        ("not full, is missing", lambda batch, n, fits: batch // (n * fits)),
        ("one process alone", lambda batch, n, fits: math.ceil(batch / fits)),
        ("one round too many", lambda batch, n, fits: batch // n // fits + 1),
        ("not the number of rounds", lambda *given: -1),
    ],
    "hours": [
        ("calls training_hours of a library", lambda n, d, peak, mfu, count: training_hours(
            6 * n * d, peak, mfu=mfu, devices=count)),
        ("forward pass only", lambda *given: my_hours(*given, operations=2)),
        ("one operation", lambda *given: my_hours(*given, operations=1)),
        ("in seconds", lambda *given: my_hours(*given, unit=1)),
        ("60 times the right number", lambda *given: my_hours(*given, unit=60)),
        ("utilization is missing", lambda n, d, peak, mfu, count: my_hours(n, d, peak, 1, count)),
        ("one device alone", lambda n, d, peak, mfu, count: my_hours(n, d, peak, mfu, 1)),
        ("rounded", lambda *given: round(my_hours(*given), 1)),
    ],
    "devices": [
        ("no fraction of a device", lambda *given: my_devices(*given, rounded=float)),
        ("rounded down", lambda *given: my_devices(*given, rounded=math.floor)),
        ("only the weights", lambda *given: my_devices(*given, 4)),
        ("half of it", lambda *given: my_devices(*given, 8)),
        ("three of the four", lambda *given: my_devices(*given, 12)),
        ("not their bytes", lambda *given: my_devices(*given, 1)),
        ("one device too many", lambda *given: my_devices(*given, rounded=math.floor) + 1),
        ("parameters = 1.56e+09", lambda parameters, memory: my_devices(parameters, memory / 1e9 * 2**30)),
        ("not the number of devices", lambda *given: 99),
    ],
}
