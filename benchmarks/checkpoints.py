"""Checkpoints to measure: random weights of known shape, tokenizers trained on real text.

    python benchmarks/checkpoints.py --data DIR --out DIR [NAME …]

Speed does not depend on what a model has learned, but on its shape, on its tokenizer and on how long its
answers are. The weights are drawn wide enough for greedy text to wander instead of repeating itself, and the
embedding of EOS is scaled so that greedy decoding picks it about once in ``EOS_EVERY`` tokens: answers have
ragged lengths, as a real model's have. BOS is never picked.
"""

from __future__ import annotations

import argparse
import math
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignbench.sources.files import format_of, read_rows

SEED = 20221104
CONTEXT = 2048
EOS_EVERY = 96
TEXT_FOLDERS = ("flan_cot", "gsm8k", "hh_rlhf", "mmlu", "nlp_tasks")


@dataclass(frozen=True)
class Shape:
    """A transformer's shape: ``heads`` × ``head_dim`` is its width, ``inner`` the width of its MLPs."""

    architecture: str
    vocabulary: int
    layers: int
    heads: int
    head_dim: int
    inner: int

    @property
    def width(self) -> int:
        return self.heads * self.head_dim

    @property
    def matrices(self) -> int:
        """Weights of the layers' matrices: each multiplies every token once."""
        mlp = 3 if self.architecture == "llama" else 2  # Llama's has a gate
        return self.layers * (4 * self.width**2 + mlp * self.width * self.inner)


SHAPES = {
    "llama-1m": Shape("llama", 4096, 3, 4, 32, 384),
    "llama-5m": Shape("llama", 8192, 4, 4, 64, 704),
    "llama-20m": Shape("llama", 32768, 8, 5, 64, 896),
    "llama-124m": Shape("llama", 50257, 12, 12, 64, 2048),
    "gpt2-124m": Shape("gpt2", 50257, 12, 12, 64, 3072),
}


def make(name: str, data: Path, out: Path) -> Path:
    """The checkpoint's folder below ``out``; made where it is not there yet (the same bytes each time).

    Args:
        name: a key of ``SHAPES``.
        data: folder of public data whose text the tokenizer is trained on.
        out: where checkpoints are kept.

    Raises:
        SystemExit: no such name, or no text below ``data``.
    """
    if name not in SHAPES:
        raise SystemExit(f"no checkpoint {name!r}; choose among {', '.join(SHAPES)}")
    folder = out / name
    if not folder.exists():
        shape = SHAPES[name]
        draft = out / f".{name}.{os.getpid()}"
        tokenizer = _tokenizer(shape, _trained(shape.vocabulary, data, out))
        module = _module(shape, tokenizer)
        module.save_pretrained(draft)
        tokenizer.save_pretrained(draft)
        try:
            draft.rename(folder)  # whole or not at all
        except OSError:  # another process was faster
            shutil.rmtree(draft)
    return folder


def texts(data: Path) -> Iterator[str]:
    """Every string of more than one word in the files of the text folders."""
    for folder in TEXT_FOLDERS:
        for path in sorted(filter(format_of, (data / folder).glob("*"))):
            yield from _strings(read_rows(path))


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        if " " in value:
            yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)


def _trained(vocabulary: int, data: Path, out: Path) -> Path:
    """A byte-level BPE of ``vocabulary`` entries with ``<|endoftext|>`` and ``<s>``, as a tokenizer.json."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    path = out / f"bpe-{vocabulary}.json"
    if path.exists():
        return path
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<|endoftext|>", "<s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts(data), trainer)
    if bpe.get_vocab_size() != vocabulary:
        raise SystemExit(
            f"the text below {data} gives a vocabulary of {bpe.get_vocab_size()}, where {vocabulary} "
            f"are needed: name a folder with the data in {', '.join(TEXT_FOLDERS)}"
        )
    out.mkdir(parents=True, exist_ok=True)
    draft = out / f".{path.name}.{os.getpid()}"
    bpe.save(str(draft))
    draft.rename(path)
    return path


def _tokenizer(shape: Shape, path: Path) -> Any:
    """As is usual: BOS in front of a text for Llama, nothing for GPT-2."""
    from tokenizers import Tokenizer, processors
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer.from_file(str(path))
    if shape.architecture == "llama":
        named = [("<s>", bpe.token_to_id("<s>"))]
        bpe.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=named)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        model_max_length=CONTEXT,
        bos_token="<s>",
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
    )


def _module(shape: Shape, tokenizer: Any) -> Any:
    import torch
    from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

    common = {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.bos_token_id}
    if shape.architecture == "gpt2":
        config = GPT2Config(
            vocab_size=shape.vocabulary,
            n_positions=CONTEXT,
            n_embd=shape.width,
            n_layer=shape.layers,
            n_head=shape.heads,
            n_inner=shape.inner,
            **common,
        )
    else:
        config = LlamaConfig(
            vocab_size=shape.vocabulary,
            max_position_embeddings=CONTEXT,
            hidden_size=shape.width,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.heads,
            intermediate_size=shape.inner,
            tie_word_embeddings=True,
            **common,
        )
    torch.manual_seed(SEED)
    module = AutoModelForCausalLM.from_config(config)
    _widen(module.eval(), tokenizer.eos_token_id, tokenizer.bos_token_id)
    return module


def _widen(module: Any, eos: int, bos: int) -> None:
    """Draw every matrix with unit gain and the embedding small beside it; then set the two special rows."""
    import torch
    from transformers.pytorch_utils import Conv1D

    generator = torch.Generator().manual_seed(SEED)
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, torch.nn.Embedding):
                # learned positions are as large as what the layers write, or text falls into a circle
                positions = part.num_embeddings == CONTEXT
                part.weight.normal_(0.0, 1.0 if positions else 0.1, generator=generator)
            elif isinstance(part, (torch.nn.Linear, Conv1D)) and part is not module.get_output_embeddings():
                inputs = part.weight.shape[0] if isinstance(part, Conv1D) else part.weight.shape[1]
                part.weight.normal_(0.0, 1.5 / math.sqrt(inputs), generator=generator)
        embedding = module.get_input_embeddings().weight
        embedding[bos] = 0.0
        ids = torch.randint(2, len(embedding), (16, 128), generator=generator)
        logits = module(input_ids=ids).logits.flatten(0, 1)
        wanted = logits[:, eos].clone()
        logits[:, eos] = -torch.inf
        ratio = wanted / logits.amax(-1)  # EOS is picked where its scale times this exceeds 1
        embedding[eos] /= ratio.quantile(1 - 1 / EOS_EVERY)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", default=list(SHAPES), metavar="NAME", help=", ".join(SHAPES))
    parser.add_argument("--data", type=Path, default=os.environ.get("ALIGNBENCH_DATA"))
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("name the folder of public data: --data DIR, or ALIGNBENCH_DATA")
    for name in arguments.names:
        print(f"making {name}", file=sys.stderr)
        print(make(name, arguments.data, arguments.out))


if __name__ == "__main__":
    main()
