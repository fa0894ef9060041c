"""The network: a BERT encoder of MiniLM's shape, mean pooling over real tokens, a linear head."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import nn


class Layer(nn.Module):
    def __init__(self, d: int, heads: int, ff: int, drop: float):
        super().__init__()
        self.heads, self.drop = heads, drop
        self.q, self.k, self.v, self.o = (nn.Linear(d, d) for _ in range(4))
        self.up, self.down = nn.Linear(d, ff), nn.Linear(ff, d)
        self.ln1, self.ln2 = nn.LayerNorm(d, 1e-12), nn.LayerNorm(d, 1e-12)

    def forward(self, x, bias):
        def split(t):  # [N, L, D] -> [N, H, L, D/H]
            return t.unflatten(-1, (self.heads, -1)).transpose(1, 2)

        q, k, v = split(self.q(x)), split(self.k(x)), split(self.v(x))
        if self.training:
            y = F.scaled_dot_product_attention(q, k, v, bias.to(q.dtype), self.drop)
        else:  # the explicit form, without dropout
            y = torch.softmax(q @ k.transpose(-1, -2) * (q.shape[-1] ** -0.5) + bias, -1) @ v
        y = self.o(y.transpose(1, 2).flatten(2))
        x = self.ln1(x + F.dropout(y, self.drop, self.training))
        y = self.down(F.gelu(self.up(x)))
        return self.ln2(x + F.dropout(y, self.drop, self.training))


class Sentiment(nn.Module):
    """BERT encoder (MiniLM shape), mean pooling over real tokens, linear head."""

    def __init__(self, vocab=30522, d=384, layers=6, heads=12, ff=1536, positions=512, drop=0.1, classes=3):
        super().__init__()
        self.words, self.places, self.kinds = nn.Embedding(vocab, d), nn.Embedding(positions, d), nn.Embedding(2, d)
        self.ln = nn.LayerNorm(d, 1e-12)
        self.layers = nn.ModuleList(Layer(d, heads, ff, drop) for _ in range(layers))
        self.drop, self.head = drop, nn.Linear(d, classes)

    def forward(self, input_ids, attention_mask):
        x = self.words(input_ids) + self.places.weight[: input_ids.shape[1]] + self.kinds.weight[0]
        x = F.dropout(self.ln(x), self.drop, self.training)
        mask = attention_mask.to(x.dtype)
        bias = (mask - 1)[:, None, None, :] * 1e4
        for layer in self.layers:
            x = layer(x, bias)
        m = mask[..., None]
        return self.head(F.dropout((x * m).sum(1) / m.sum(1), self.drop, self.training))

    def load_minilm(self, state: dict):
        """Copy a Hugging Face BERT state dict into this layout."""
        pairs = {
            "words": "embeddings.word_embeddings",
            "places": "embeddings.position_embeddings",
            "kinds": "embeddings.token_type_embeddings",
            "ln": "embeddings.LayerNorm",
        }
        for i in range(len(self.layers)):
            hf, own = f"encoder.layer.{i}.", f"layers.{i}."
            for a, b in [
                ("q", "attention.self.query"),
                ("k", "attention.self.key"),
                ("v", "attention.self.value"),
                ("o", "attention.output.dense"),
                ("ln1", "attention.output.LayerNorm"),
                ("up", "intermediate.dense"),
                ("down", "output.dense"),
                ("ln2", "output.LayerNorm"),
            ]:
                pairs[own + a] = hf + b
        own = self.state_dict()
        for a, b in pairs.items():
            for part in ("weight", "bias"):
                if f"{a}.{part}" in own:
                    own[f"{a}.{part}"].copy_(state[f"{b}.{part}"].float())
        return self
