"""A tokenizer made with the library itself, and a small model that reads its tokens."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from onnx import TensorProto, helper
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from fourways_runtime.scoring.columns import Array
from tools.kit.models import FLOAT, onnx_bytes

LENGTH = 12
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
CORPUS = [
    "the film was good and the music was better",
    "a bad film with a worse end",
    "the end was neither good nor bad, it was long",
    "Überraschend gut: ein schöner Film",
]
TEXTS = [
    "A good film",
    "",
    "bad",
    "the music was better than the film, and the end was neither good nor bad nor long",
    "schöner Film",
    "日本語 \N{PILE OF POO} [SEP] good",
    "good " * 200,
]


@cache
def tokenizer_json() -> bytes:
    """Return a tokenizer as a BERT model has it, trained on a few sentences."""
    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.train_from_iterator(
        CORPUS, trainers.WordPieceTrainer(vocab_size=90, special_tokens=SPECIAL)
    )
    marks = [(token, made.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=marks
    )
    return made.to_str().encode()


def classifier(length: Any = "L", kind: int = TensorProto.INT64, rows: Any = "N") -> bytes:
    """y (N, 2): the mean of the tokens' vectors, each scaled by its position, times a matrix."""
    random = np.random.default_rng(3)
    nodes = [
        helper.make_node("Gather", ["vectors", "input_ids"], ["v"]),
        helper.make_node("Cast", ["attention_mask"], ["m"], to=FLOAT),
        helper.make_node("Unsqueeze", ["m", "last"], ["mm"]),
        helper.make_node("Mul", ["v", "mm"], ["vm"]),
        helper.make_node("CumSum", ["mm", "axis"], ["position"]),
        helper.make_node("Div", ["vm", "position"], ["scaled"]),
        helper.make_node("ReduceMax", ["scaled"], ["pooled"], axes=[1], keepdims=0),
        helper.make_node("MatMul", ["pooled", "w"], ["y"]),
    ]
    return onnx_bytes(
        nodes,
        [("input_ids", kind, [rows, length]), ("attention_mask", kind, [rows, length])],
        [("y", FLOAT, [rows, 2])],
        [
            ("vectors", np.abs(random.normal(0, 1, (200, 8))).astype(np.float32)),
            ("w", random.normal(0, 1, (8, 2)).astype(np.float32)),
            ("last", np.array([2], np.int64)),
            ("axis", np.array(1, np.int64)),
        ],
    )


def expected(texts: Sequence[str], length: int = LENGTH) -> Array:
    """Return what the model answers to each text alone, cut and padded by the library."""
    library = Tokenizer.from_str(tokenizer_json().decode())
    library.enable_truncation(length)
    library.enable_padding(length=length)
    session = onnxruntime.InferenceSession(classifier())
    found = []
    for text in texts:
        tokens = library.encode(text)
        given = {"input_ids": tokens.ids, "attention_mask": tokens.attention_mask}
        found.append(session.run(None, {n: np.array([v], np.int64) for n, v in given.items()})[0])
    return np.concatenate(found)


def contract(uri: str = "pvc://data/tokenizer.json", **tokens: Any) -> dict[str, Any]:
    digest = hashlib.sha256(tokenizer_json()).hexdigest()
    return {
        "entityKey": {"name": "id"},
        "inputs": [{"name": "review", "type": "string", "tokens": {"maxLength": LENGTH, **tokens}}],
        "outputs": [
            {
                "name": "label",
                "type": "string",
                "tensor": "y",
                "reduce": "ArgMax",
                "categories": ["bad", "good"],
            },
            {"name": "scores", "type": "float32", "shape": [2], "tensor": "y"},
        ],
        "tokenizer": {"uri": uri, "digest": f"sha256:{digest}"},
    }


def golden() -> list[dict[str, Any]]:
    return [
        {
            "inputs": {"review": text},
            "outputs": {"label": ["bad", "good"][int(y.argmax())], "scores": y.tolist()},
        }
        for text, y in zip(TEXTS, expected(TEXTS), strict=True)
    ]


def written(folder: Path) -> Path:
    """Write the tokenizer's file and return its path."""
    file = folder / "tokenizer.json"
    file.write_bytes(tokenizer_json())
    return file


def changed(**more: Any) -> str:
    """Return the tokenizer's file with parts replaced."""
    return json.dumps(json.loads(tokenizer_json()) | more)
