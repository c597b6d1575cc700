"""Right answers to each exercise, and wrong ones with a part of the message that names the mistake."""

# ruff: noqa: ARG005  (an answer takes all arguments, right or wrong)

import itertools
import math
import random
import re
from collections import Counter
from itertools import pairwise

import numpy as np
import torch
from datasets import Dataset
from datasets.distributed import split_dataset_by_node
from torch.nn.functional import cross_entropy

__all__ = ["RIGHT", "WRONG"]


def spoiling(solution):
    """The right answer, but nothing is left of the first argument."""
    def answer(first, *rest):
        result = solution(first, *rest)
        first.zero_() if isinstance(first, torch.Tensor) else first.clear()
        return result

    return answer


def my_softmax(logits):
    powers = torch.exp(logits - logits.max(dim=-1, keepdim=True).values)
    return powers / powers.sum(dim=-1, keepdim=True)


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


def my_two_masks(logits, labels):
    labeled = labels != -100
    log_probabilities = logits[labeled].log_softmax(dim=-1)
    return -log_probabilities.gather(1, labels[labeled][:, None]).mean()


def indexed(logits, labels):
    rows = logits[0].log_softmax(dim=-1)
    return -sum(rows[place, label] for place, label in enumerate(labels[0])) / len(rows)


def labeled_losses(logits, labels):
    return cross_entropy(logits[0], labels[0], reduction="none", ignore_index=-100)


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


def my_steps(chunks, batch, epochs):
    return math.ceil(chunks / batch) * epochs


def my_bits_per_byte(loss, tokens, text, base=2, size=lambda text: len(text.encode())):
    return loss / math.log(base) * tokens / size(text)


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


def never_ending(word, known):
    cut, start = [], 0
    while start < len(word):
        for end in range(len(word), start, -1):
            if word[start:end] in known:
                cut.append(word[start:end])
                start = end
                break
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


def my_text_back(pieces):
    return bytes_back(pieces).decode()


def decoded_alone(pieces, errors="replace"):
    return "".join(bytes_back([piece]).decode(errors=errors) for piece in pieces)


def minus_256(pieces, errors="replace"):
    """Right for the bytes up to 32, and for all that stand for themselves."""
    return bytes(ord(character) % 256 for character in "".join(pieces)).decode(errors=errors)


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


# By exercise; "costly" and the other texts of one's own are in test_exercises.py.
RIGHT = {
    "softmax": [my_softmax, lambda logits: my_softmax(logits).tolist(), lambda logits: my_softmax(logits).numpy(),
                lambda logits: (logits - logits.max()).softmax(-1),
                lambda logits: 1 / (logits.unsqueeze(-2) - logits.unsqueeze(-1)).exp().sum(-1)],
    "labels": [my_labels, lambda *given: my_labels(*given).tolist()],
    "pseudo_perplexity": [my_pseudo_perplexity],
    "two_masks": [my_two_masks, lambda *given: my_two_masks(*given).item()],
    "top_k": [my_top_k, lambda *given: my_top_k(*given).tolist(), lambda *given: my_top_k(*given, -1e9),
              lambda *given: my_top_k(*given, torch.finfo(torch.float32).min)],
    "loss": [my_loss, lambda *given: my_loss(*given).item()],
    "sample": [my_sample, gumbel, inverse_cdf],
    "cached_greedy": [my_cached_greedy, lambda *given: my_cached_greedy(*given).tolist(), fed_once_more],
    "chunks": [my_chunks, lambda *given: tuple(map(tuple, my_chunks(*given))), lambda *given: iter(my_chunks(*given)),
               lambda ids, length: torch.tensor(ids[:len(ids) // length * length], dtype=torch.long).view(-1, length)],
    "steps": [my_steps, lambda *given: float(my_steps(*given)), lambda *given: torch.tensor(my_steps(*given))],
    "bits_per_byte": [my_bits_per_byte, lambda *given: torch.tensor(my_bits_per_byte(*given))],
    "parameters": [my_parameters, lambda *sizes: float(my_parameters(*sizes))],
    "adamw": [my_adamw, adamw_by_torch, lambda *given: list(my_adamw(*given))],
    "fertility": [my_fertility],
    "pair": [my_pair, lambda words: list(my_pair(words)), lambda words: tuple(np.array(my_pair(words))), last_pair],
    "fewest": [my_fewest, by_breadth, lambda word, known: tuple(my_fewest(word, frozenset(known))),
               lambda *given: my_fewest(*given, choose=lambda cuts, key: min(reversed(cuts), key=key))],
    "text_back": [my_text_back],
    "rows": [my_rows, rows_by_the_library, lambda rows, rank, n: range(rank, rows, n),
             lambda *given: iter(my_rows(*given)), lambda *given: np.array(my_rows(*given))],
    "average": [my_average, lambda gradients, tokens: torch.tensor(
        np.average([gradient.numpy() for gradient in gradients], axis=0, weights=tokens))],
    "rounds": [my_rounds, lambda batch, n, fits: np.ceil(batch / n / fits)],
    "hours": [my_hours],
    "devices": [my_devices, lambda *given: float(my_devices(*given))],
}

WRONG = {
    "softmax": [
        ("too large for a float", lambda logits: logits.exp() / logits.exp().sum(dim=-1, keepdim=True)),
        ("all rows together", lambda logits: logits.exp() / logits.exp().sum()),
        ("another dimension than the last", lambda logits: logits.softmax(dim=0)),
        ("not divided by their sum", lambda logits: logits.exp()),
        ("without the exponential", lambda logits: logits / logits.sum(dim=-1, keepdim=True)),
        ("shape is (), but (5,)", lambda logits: logits.softmax(dim=-1).sum()),
        ("add up to 2, ", lambda logits: logits.softmax(dim=-1) * 2),
        ("not those of a softmax", lambda logits: (logits / 2).softmax(dim=-1)),
        ("changes logits itself", spoiling(my_softmax)),
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
        ("rounded", lambda *given: 1.005 * my_pseudo_perplexity(*given)),
        ("not the pseudo-perplexity", lambda *given: 1.0),
        ("one number is needed", lambda *given: hidden_losses(*given).tolist() * 2),
    ],
    "two_masks": [
        ("by all places", lambda logits, labels: labeled_losses(logits, labels).mean()),
        ("-100 is taken for a token", indexed),
        ("a sum ", lambda logits, labels: labeled_losses(logits, labels).sum()),
        ("sign", lambda *given: -my_two_masks(*given)),
        ("perplexity", lambda *given: my_two_masks(*given).exp()),
        ("in bits", lambda *given: my_two_masks(*given) / math.log(2)),
        ("twice", lambda logits, labels: my_two_masks(logits.softmax(dim=-1), labels)),
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
        ("not those given", lambda *given: my_top_k(*given) + 1),
    ],
    "loss": [
        ("its own token", lambda logits, ids: cross_entropy(logits[0], ids[0])),
        ("wrong way", lambda logits, ids: cross_entropy(logits[0, 1:], ids[0, :-1])),
        ("a sum ", lambda *given: next_losses(*given).sum()),
        ("the last place", lambda logits, ids: cross_entropy(logits[0], ids[0].roll(-1))),
        ("fewer terms", lambda logits, ids: next_losses(logits, ids).sum() / ids.shape[1]),
        ("sign", lambda *given: -my_loss(*given)),
        ("perplexity", lambda *given: my_loss(*given).exp()),
        ("in bits", lambda *given: my_loss(*given) / math.log(2)),
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
        ("fed 26 tokens", lambda *given: my_cached_greedy(*given, again=True, forgetful=True)),
        ("fed 26 tokens", lambda *given: my_cached_greedy(*given, again=True)),
        ("fed 10 tokens", lambda *given: fed_once_more(*given, twice=True)),
        ("the cache is not passed on", lambda *given: my_cached_greedy(*given, forgetful=True)),
        ("the new tokens alone", lambda model, ids, new: my_cached_greedy(model, ids, new)[:, ids.shape[1]:]),
        ("not the most probable", lambda *given: my_cached_greedy(*given, best=torch.argmin)),
        ("the prompt is changed", lambda *given: my_cached_greedy(*given).roll(1)),
        ("shape is (1, 5), but (1, 9)", lambda model, ids, new: ids),
    ],
    "chunks": [
        ("the short rest", lambda ids, length: [ids[at:at + length] for at in range(0, len(ids), length)]),
        ("overlap", lambda ids, length: [ids[at:at + length] for at in range(len(ids) - length + 1)]),
        ("the last chunk is missing", lambda ids, length: [
            ids[at:at + length] for at in range(0, len(ids) - length, length)]),
        ("padded", lambda ids, n: [(ids[at:at + n] + [0] * n)[:n] for at in range(0, len(ids), n)]),
        ("changes ids", spoiling(my_chunks)),
        ("single values, not of chunks", lambda ids, length: ids[:length]),
        ("only the first chunk", lambda *given: my_chunks(*given)[:1]),
        ("not the chunks", lambda *given: [chunk[::-1] for chunk in my_chunks(*given)]),
    ],
    "steps": [
        ("smaller batch", lambda chunks, batch, epochs: chunks // batch * epochs),
        ("across the end of an epoch", lambda chunks, batch, epochs: math.ceil(chunks * epochs / batch)),
        ("across the end of an epoch, and", lambda chunks, batch, epochs: chunks * epochs // batch),
        ("one epoch", lambda chunks, batch, epochs: math.ceil(chunks / batch)),
        ("fraction of a step", lambda chunks, batch, epochs: chunks / batch * epochs),
        ("batches are full", lambda chunks, batch, epochs: (chunks // batch + 1) * epochs),
        ("not the number of steps", lambda *given: 1),
    ],
    "bits_per_byte": [
        ("characters", lambda *given: my_bits_per_byte(*given, size=len)),
        ("nats", lambda *given: my_bits_per_byte(*given, base=math.e)),
        ("bits per token", lambda loss, tokens, text: math.log2(math.exp(loss))),
        ("decimal", lambda *given: my_bits_per_byte(*given) * math.log(10)),
        ("into nats", lambda *given: my_bits_per_byte(*given) * math.log(2) ** 2),
        ("whole text", lambda *given: my_bits_per_byte(*given, size=lambda text: 1)),
        ("rounded", lambda loss, tokens, text: 1.44 * loss * tokens / len(text.encode())),
        ("not the number of bits per byte", lambda *given: 0.1),
    ],
    "parameters": [
        ("head a second time", lambda *sizes: my_parameters(*sizes, head=1)),
        ("out the biases of the linear layers", lambda *sizes: my_parameters(*sizes, bias=0)),
        ("out the position embeddings", lambda *sizes: my_parameters(*sizes, position=0)),
        ("out the layer norms of the blocks and the final layer norm",
         lambda *sizes: my_parameters(*sizes, norms=0, final=0)),
        ("only once, and it leaves out the final layer norm", lambda *sizes: my_parameters(*sizes, head=1, final=0)),
        ("all layers together", lambda *sizes: my_parameters(*sizes[:3], 1)),
        ("all biases", lambda v, p, d, n: my_parameters(v, p, d, n, bias=0, norms=0.5, final=0.5)),
        ("too many", lambda *sizes: 10**12),
        ("too few", lambda *sizes: 12),
    ],
    "adamw": [
        ("inside the root", lambda *given: my_adamw(*given, inside=True)),
        ("no correction", lambda *given: my_adamw(*given, corrected=False)),
        ("passes through the averages", lambda *given: my_adamw(*given, decoupled=False)),
        ("counted from 0", lambda *given: my_adamw(*given[:4], given[4] - 1, *given[5:])),
        ("not squared", lambda *given: my_adamw(*given, squared=False)),
        ("learning rate", lambda *given: my_adamw(*given, times_lr=False)),
        ("does not shrink", lambda *given: my_adamw(*given[:-1], 0.0)),
        ("already corrected", corrected_moments),
        ("new_m is not that of AdamW", lambda *given: (my_adamw(*given)[0], *given[2:4])),
        ("though new_m and new_v are", lambda *given: (my_adamw(*given)[0] + 1, *my_adamw(*given)[1:])),
        ("the shape of new_m is ()", lambda *given: (my_adamw(*given)[0], 0.0, my_adamw(*given)[2])),
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
        ("'ug', but a pair", lambda words: "".join(my_pair(words))),
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
        ("never ends", never_ending),
        ("never ends", lambda word, known: [piece for _ in iter(int, 1) for piece in known]),
        ("far too many cuts", lambda *given: min(ways(*given), key=len, default=["[UNK]"])),
        ("far too many cuts", lambda *given: next(all_cuts(*given), ["[UNK]"])),
        ("can be cut into fewer", lambda *given: my_fewest(*given, choose=max)),
        ("returns 'low est', but a list of pieces is needed", lambda word, known: " ".join(my_fewest(word, known))),
        ("returns None", lambda *given: my_fewest(*given) if my_fewest(*given)[0] != "[UNK]" else None),
        ("changes known itself", emptied),
    ],
    "text_back": [
        ("nothing is turned back", "".join),
        ("only the spaces", lambda pieces: "".join(pieces).replace("Ġ", " ")),
        ("each piece is decoded alone", decoded_alone),
        ("read as one character each", lambda pieces: bytes_back(pieces).decode("latin-1")),
        ("256 is subtracted", minus_256),
        ("whitespace", lambda pieces: " ".join(my_text_back(pieces).split())),
        ("right up to character 9 and", lambda pieces: my_text_back(pieces).encode("ascii", "ignore").decode()),
        ("right up to character 20 and", lambda pieces: my_text_back(pieces) + "<|endoftext|>"),
        ("right up to character 0 and", lambda pieces: "<s>" + my_text_back(pieces)),
        ("What your function returns is of type bytes, but a string", bytes_back),
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
        ("a list of whole numbers", lambda *given: [1.0, 4.0]),
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
        ("forward pass only", lambda *given: my_hours(*given, operations=2)),
        ("one operation", lambda *given: my_hours(*given, operations=1)),
        ("in seconds", lambda *given: my_hours(*given, unit=1)),
        ("60 times the right number", lambda *given: my_hours(*given, unit=60)),
        ("utilization is missing", lambda n, d, peak, mfu, count: my_hours(n, d, peak, 1, count)),
        ("one device alone", lambda n, d, peak, mfu, count: my_hours(n, d, peak, mfu, 1)),
        ("rounded", lambda *given: round(my_hours(*given), 2)),
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
