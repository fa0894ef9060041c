"""Fine-tune all-MiniLM-L6-v2 into a 3-class sentiment classifier, and evaluate it.

    python -m training.sentiment.train --data DATA --base MINILM --out OUT

DATA holds the public data sets, one sub-folder each (readers.py). A missing training set is an error, a missing
evaluation-only set is skipped with a note. MINILM holds model.safetensors and tokenizer.json of
sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0). OUT receives weights.safetensors (fp16) and metrics.json.

Labels: 0 negative, 1 neutral, 2 positive.
Needs torch, tokenizers, safetensors and numpy. A run takes minutes on a GPU and hours on a CPU.
"""

from __future__ import annotations

import argparse
import copy
import csv
import functools
import json
import math
import random
import re
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import nn

from training.sentiment.data import read_sets
from training.sentiment.network import Sentiment
from training.sentiment.scoring import score, score_binary


def augment(text: str, rng: random.Random, marks: bool = True) -> str:
    """Weaken the correlation between marks such as links and labels.

    In the training data nearly every text with a link or a $ticker is a (mostly neutral) financial tweet. Such marks
    are therefore removed at random and, if `marks`, added at random to all texts.
    """
    if rng.random() < 0.5:
        text = re.sub(r"https?://\S+", "", text)
    if rng.random() < 0.25:
        text = re.sub(r"^(\$[A-Z.]+[ ,-]*)+", "", text)
    if rng.random() < 0.15:
        text = text.rstrip(".! ")
    if not marks:
        return text.strip() or "."
    words = text.split()
    if words and rng.random() < 0.15:
        i = rng.randrange(len(words))
        words[i] = "#" + words[i].strip("#@$.,!?") if words[i][:1].isalnum() else words[i]
        text = " ".join(words)
    if rng.random() < 0.2:
        text = rng.choice(["@user ", "@user @user ", "RT @user: ", ". @user "]) + text
    if rng.random() < 0.2:
        text += " https://t.co/" + "".join(rng.choices("abcdefghjkmnpqrstuvwxyzABCDEFGH0123456789", k=10))
    return text.strip() or "."


def encode(tok: Tokenizer, texts, max_len: int):
    tok.enable_truncation(max_len)
    tok.no_padding()
    return [e.ids for e in tok.encode_batch(list(texts))]


def pad(seqs, device):
    both = np.zeros((2, len(seqs), max(map(len, seqs))), np.int64)  # ids, mask
    for i, s in enumerate(seqs):
        both[0, i, : len(s)] = s
        both[1, i, : len(s)] = 1
    ids, mask = torch.from_numpy(both).to(device, non_blocking=True)
    return ids, mask


@torch.no_grad()
def predict(model, seqs, device, batch=256):
    model.eval()
    order = sorted(range(len(seqs)), key=lambda i: len(seqs[i]))
    out = np.zeros((len(seqs), 3), np.float32)
    for i in range(0, len(order), batch):
        part = order[i : i + batch]
        ids, mask = pad([seqs[j] for j in part], device)
        out[part] = model(ids, mask).float().cpu().numpy()
    return out


def schedule(step, total):
    """Share of the learning rate: rises over the first 6 % of the steps, then falls to 0."""
    warm = int(0.06 * total)
    return min(1, step / max(1, warm)) * max(0.0, (total - step) / max(1, total - warm) if step > warm else 1)


def similar_lengths(seqs, size):
    """Batches of indices of texts of similar length: sorted within windows of 50 batches."""
    batches = []
    for w in range(0, len(seqs), size * 50):
        idx = sorted(range(w, min(w + size * 50, len(seqs))), key=lambda i: len(seqs[i]))
        batches += [idx[i : i + size] for i in range(0, len(idx), size)]
    return batches


def train_one(base_state, train_sets, tok, args, device, seed, lr, log):
    """Train on `train_sets`, a list of (rows, repeats per epoch); return the model."""
    torch.manual_seed(seed)
    rng = random.Random(seed)
    model = Sentiment().load_minilm(base_state).to(device)
    nn.init.normal_(model.head.weight, std=0.02)
    nn.init.zeros_(model.head.bias)
    decay = [p for n, p in model.named_parameters() if p.ndim > 1]
    plain = [p for n, p in model.named_parameters() if p.ndim <= 1]
    opt = torch.optim.AdamW(
        [{"params": decay, "weight_decay": 0.01}, {"params": plain, "weight_decay": 0.0}],
        lr=lr,
        betas=(0.9, 0.98),
        fused=device.type == "cuda",
    )
    per_epoch = sum(int(len(r) * k) for r, k in train_sets)
    total = args.epochs * math.ceil(per_epoch / args.batch)
    step, t0 = 0, time.time()
    for epoch in range(args.epochs):
        rows = [x for r, k in train_sets for x in (r * int(k) + rng.sample(r, int(len(r) * (k % 1))))]
        rng.shuffle(rows)
        seqs = encode(tok, [augment(t, rng, not args.no_marks) for t, _ in rows], args.max_len)
        ys = [y for _, y in rows]
        batches = similar_lengths(seqs, args.batch)
        rng.shuffle(batches)
        model.train()
        run = torch.zeros((), device=device)
        for idx in batches:
            for g in opt.param_groups:
                g["lr"] = lr * schedule(step, total)
            ids, mask = pad([seqs[i] for i in idx], device)
            y = torch.tensor([ys[i] for i in idx], device=device)
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                logits = model(ids, mask)
            loss = F.cross_entropy(logits.float(), y, label_smoothing=args.smooth)
            opt.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            opt.step()
            run += loss.detach()
            step += 1
        log(f"seed {seed} lr {lr:g} epoch {epoch + 1}: loss {run.item() / len(batches):.4f}  {time.time() - t0:.0f} s")
    return model


class Judge:
    """Scores models on the dev and the test sets."""

    def __init__(self, sets, tok, max_len, device):
        self.dev, self.tests, self.device = sets.dev, sets.tests, device
        self.dev_ids = {n: encode(tok, [t for t, _ in r], max_len) for n, r in sets.dev.items()}
        self.test_ids = {n: encode(tok, [t for t, _ in r], max_len) for n, r in sets.tests.items()}

    def dev_score(self, model):
        """Mean macro-F1 over the dev sets, and macro-F1 by dev set."""
        s = {
            n: score(predict(model, self.dev_ids[n], self.device), [y for _, y in r])["macro_f1"]
            for n, r in self.dev.items()
        }
        return float(np.mean(list(s.values()))), s

    def report(self, model):
        """All scores on each test set."""
        out = {}
        for n, rows in self.tests.items():
            logits, y = predict(model, self.test_ids[n], self.device), [y for _, y in rows]
            out[n] = score(logits, y)
            out[n]["polarity_only"] = score_binary(logits, y)
        return out


def best_rate(train, judge, rates, log):
    """Train once at each learning rate; return the best rate by the dev sets and its model."""
    best = None
    for lr in rates:
        m = train(seed=0, lr=lr)
        s, parts = judge.dev_score(m)
        log(f"lr {lr:g}: dev mean macro-F1 {s:.4f} {parts}")
        if best is None or s > best[0]:
            best = (s, lr, m)
    return best[1:]


def best_of(runs, judge, log):
    """Return the best, by the dev sets, of the runs and their average: (score, name, model)."""
    soup = copy.deepcopy(runs[0])
    soup.load_state_dict({k: torch.stack([m.state_dict()[k].float() for m in runs]).mean(0) for k in soup.state_dict()})
    options = [(f"seed {i}", m) for i, m in enumerate(runs)] + [("average", soup)]
    scored = [(judge.dev_score(m)[0], n, m) for n, m in options]
    for s, n, _ in scored:
        log(f"{n}: dev {s:.4f}")
    return max(scored, key=lambda x: x[0])


def save(out, model, metrics, log):
    """Write metrics and weights, and print the scores."""
    (out / "metrics.json").write_text(json.dumps(metrics, indent=1))
    save_file({k: v.half().contiguous().cpu() for k, v in model.state_dict().items()}, out / "weights.safetensors")
    for part in ("tests", "single_seed_with_synthetic", "single_seed_without_synthetic"):
        for n, r in metrics.get(part, {}).items():
            log(
                f"{part:32s} {n:18s} n {r['n']:6d} acc {r['accuracy']:.4f} "
                f"F1 {r['macro_f1']:.4f} polarity {r['polarity_only']['accuracy']:.4f} {r['confusion']}"
            )


def arguments():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("--data", type=Path, required=True)
    ap.add_argument("--base", type=Path, required=True)
    ap.add_argument("--out", type=Path, required=True)
    ap.add_argument("--epochs", type=int, default=5)
    ap.add_argument("--batch", type=int, default=128)
    ap.add_argument("--lr", type=float, nargs="+", default=[2e-4], help="several: the best on the dev sets is kept")
    ap.add_argument("--seeds", type=int, default=4, help="runs at the best rate; their averaged weights compete too")
    ap.add_argument("--smooth", type=float, default=0.05)
    ap.add_argument("--max-len", type=int, default=128)
    ap.add_argument("--synthetic", type=int, default=8000, help="rule-written sentences (0: none)")
    ap.add_argument("--no-marks", action="store_true", help="do not add links, @names and #tags to training texts")
    ap.add_argument("--goemotions-share", type=float, default=1.0, help="share of GoEmotions per epoch")
    ap.add_argument("--ablate", action="store_true", help="also train once without the rule-written sentences")
    return ap.parse_args()


def main():
    args = arguments()
    args.out.mkdir(parents=True, exist_ok=True)
    csv.field_size_limit(10**9)  # some rows are longer than the reader's default
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    log = functools.partial(print, flush=True)
    tok = Tokenizer.from_file(str(args.base / "tokenizer.json"))
    base_state = load_file(args.base / "model.safetensors")
    sets = read_sets(args.data, args.synthetic, log)
    repeats = {"goemotions": args.goemotions_share, "twitter_fin": 2, "uci": 3, "clothing": 2}
    public = [(rows, repeats[n]) for n, rows in sets.train.items()]
    full = public + ([(sets.made, 1)] if sets.made else [])
    judge = Judge(sets, tok, args.max_len, device)

    def train(seed, lr, rows):
        return train_one(base_state, rows, tok, args, device, seed, lr, log)

    lr, first = best_rate(functools.partial(train, rows=full), judge, args.lr, log)
    runs = [first] + [train(seed, lr, full) for seed in range(1, args.seeds)]
    dev_best, name, model = best_of(runs, judge, log)
    model.half().float()  # the weights as they are stored
    metrics = {
        "chosen": name,
        "lr": lr,
        "dev": dev_best,
        "train_rows": {n: len(r) for n, r in sets.train.items()} | {"synthetic": len(sets.made)},
        "repeats": repeats | {"synthetic": 1},
        "args": {k: str(v) for k, v in vars(args).items()},
        "tests": judge.report(model),
    }
    if args.ablate and sets.made:
        metrics["single_seed_with_synthetic"] = judge.report(runs[0])
        metrics["single_seed_without_synthetic"] = judge.report(train(0, lr, public))
    save(args.out, model, metrics, log)


if __name__ == "__main__":
    main()
