"""Models of users: two around nn.TransformerEncoder, and a nanoGPT (github.com/karpathy/nanoGPT)."""

import torch
from torch import nn
from torch.nn import functional


class UsersViT(nn.Module):
    def __init__(self, norm_first: bool):
        super().__init__()
        self.patchify = nn.Conv2d(3, 16, 4, 4)
        self.cls = nn.Parameter(torch.zeros(1, 1, 16))
        self.pos = nn.Parameter(torch.zeros(1, 10, 16))
        layer = nn.TransformerEncoderLayer(16, 4, 24, batch_first=True, norm_first=norm_first, activation="gelu")
        norm = nn.LayerNorm(16) if norm_first else None
        self.encoder = nn.TransformerEncoder(layer, 2, norm, enable_nested_tensor=False)
        self.head = nn.Linear(16, 7)

    def forward(self, images):
        tokens = self.patchify(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls.expand(len(tokens), -1, -1), tokens], 1) + self.pos
        return self.head(self.encoder(tokens)[:, 0])


class UsersTextClassifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(20, 16)
        self.register_buffer("pe", torch.zeros(9, 1, 16))
        self.blocks = nn.ModuleList(nn.TransformerEncoderLayer(16, 4, 24, batch_first=True) for _ in range(2))
        self.norm = nn.LayerNorm(16)
        self.classifier = nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 7))

    def forward(self, words):
        stream = self.embedding(words) + self.pe[: words.shape[1], 0]
        for block in self.blocks:
            stream = block(stream)
        return self.classifier(self.norm(stream.mean(1)))


class _LayerNorm(nn.Module):
    def __init__(self, bias: bool):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(16))
        self.bias = nn.Parameter(torch.zeros(16)) if bias else None

    def forward(self, stream):
        return functional.layer_norm(stream, (16,), self.weight, self.bias, 1e-5)


class _Attention(nn.Module):
    def __init__(self, bias: bool):
        super().__init__()
        self.c_attn, self.c_proj = nn.Linear(16, 48, bias=bias), nn.Linear(16, 16, bias=bias)
        self.register_buffer("bias", torch.tril(torch.ones(9, 9)).view(1, 1, 9, 9))

    def forward(self, stream):
        q, k, v = (each.unflatten(-1, (4, 4)).transpose(1, 2) for each in self.c_attn(stream).split(16, -1))
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.c_proj(mixed.transpose(1, 2).flatten(2))


class _Block(nn.Module):
    def __init__(self, bias: bool):
        super().__init__()
        self.ln_1, self.attn, self.ln_2 = _LayerNorm(bias), _Attention(bias), _LayerNorm(bias)
        self.mlp = nn.ModuleDict({"c_fc": nn.Linear(16, 24, bias=bias), "c_proj": nn.Linear(24, 16, bias=bias)})

    def forward(self, stream):
        stream = stream + self.attn(self.ln_1(stream))
        return stream + self.mlp["c_proj"](functional.gelu(self.mlp["c_fc"](self.ln_2(stream))))


class NanoGPT(nn.Module):
    def __init__(self, bias: bool):
        super().__init__()
        blocks = nn.ModuleList(_Block(bias) for _ in range(2))
        parts = {"wte": nn.Embedding(20, 16), "wpe": nn.Embedding(9, 16), "h": blocks, "ln_f": _LayerNorm(bias)}
        self.transformer = nn.ModuleDict(parts)
        self.lm_head = nn.Linear(16, 20, bias=False)
        self.transformer["wte"].weight = self.lm_head.weight

    def forward(self, words):
        stream = self.transformer["wte"](words) + self.transformer["wpe"](torch.arange(words.shape[1]))
        for block in self.transformer["h"]:
            stream = block(stream)
        return self.lm_head(self.transformer["ln_f"](stream))
