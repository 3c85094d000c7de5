"""Small checkpoints of four architectures, each with a tokenizer that is built the way its family's is.

Weights are random from a fixed seed, wide enough that log-probabilities are far from uniform. The tokenizers
are trained on the public texts that are scored later, so that texts have as many tokens as with a real one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

VOCABULARY = 8192
WINDOW = 1024
ARCHITECTURES = ("gpt2", "llama", "qwen2", "t5")


def checkpoint(architecture: str, texts: Sequence[str], scratch: Path) -> Path:
    """Folder of the architecture's checkpoint below ``scratch``; made where it is not there yet.

    Args:
        architecture: one of ``ARCHITECTURES``.
        texts: what the tokenizer is trained on.
        scratch: where checkpoints are kept.
    """
    folder = scratch / architecture
    if not (folder / "model.safetensors").exists():
        tokenizer = TOKENIZERS[architecture](texts)
        tokenizer.save_pretrained(folder)
        _model(architecture, tokenizer).save_pretrained(folder)
    return folder


def _model(architecture: str, tokenizer: Any) -> Any:
    import torch
    import transformers

    torch.manual_seed(11)
    common = {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    if architecture == "gpt2":
        config = transformers.GPT2Config(
            n_embd=128, n_layer=4, n_head=4, n_positions=WINDOW, initializer_range=0.2, **common
        )
    elif architecture == "t5":
        config = transformers.T5Config(
            d_model=128,
            d_kv=32,
            d_ff=256,
            num_layers=3,
            num_decoder_layers=3,
            num_heads=4,
            decoder_start_token_id=0,
            **common,
        )
        return transformers.T5ForConditionalGeneration(config).eval()
    else:
        kind = {"llama": transformers.LlamaConfig, "qwen2": transformers.Qwen2Config}[architecture]
        config = kind(
            hidden_size=128,
            intermediate_size=256,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=WINDOW,
            initializer_range=0.2,
            tie_word_embeddings=architecture == "qwen2",
            **common,
        )
    return transformers.AutoModelForCausalLM.from_config(config).eval()


def _byte_level(texts: Sequence[str], split: Any, specials: Sequence[str], normalizer: Any = None) -> Any:
    """A byte-level BPE (GPT-2's and Qwen's way)."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    bpe = Tokenizer(models.BPE())
    bpe.normalizer = normalizer
    bpe.pre_tokenizer = split
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(specials),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    return bpe


def _gpt2(texts: Sequence[str]) -> Any:
    """No special token by default; one token is BOS and EOS."""
    from tokenizers import pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    end = "<|endoftext|>"
    bpe = _byte_level(texts, pre_tokenizers.ByteLevel(add_prefix_space=False), [end])
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token=end, eos_token=end, model_max_length=WINDOW
    )


def _qwen2(texts: Sequence[str]) -> Any:
    """No BOS token at all, text in NFC, digits one by one."""
    from tokenizers import Regex, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    pieces = Regex(r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
    split = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(pieces, "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe = _byte_level(texts, split, ["<|endoftext|>", "<|im_end|>"], normalizers.NFC())
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token="<|im_end|>", pad_token="<|endoftext|>", model_max_length=WINDOW
    )


def _llama(texts: Sequence[str]) -> Any:
    """BOS by default; spaces are ▁, one is put in front of a text; unknown characters fall back to bytes."""
    from tokenizers import Tokenizer, decoders, models, normalizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    specials = ["<unk>", "<s>", "</s>"]
    spaces = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    trained = Tokenizer(models.BPE())
    trained.normalizer = normalizers.Replace(" ", "▁")
    words = [word for text in texts for word in text.replace(" ", "\n ").split("\n")]
    limits = {"vocab_size": VOCABULARY - 256 - len(specials), "limit_alphabet": 120, "show_progress": False}
    trained.train_from_iterator(words, trainers.BpeTrainer(**limits))
    learnt = json.loads(trained.to_str())["model"]
    pieces = [*specials, *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces += [piece for piece in learnt["vocab"] if piece not in pieces]
    bpe = Tokenizer(
        models.BPE(
            {piece: i for i, piece in enumerate(pieces)},
            [tuple(merge) for merge in learnt["merges"]],
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    bpe.normalizer = spaces
    bpe.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    bpe.add_special_tokens(specials)
    bpe.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=WINDOW,
    )


def _t5(texts: Sequence[str]) -> Any:
    """Unigram pieces, EOS behind a text; what it has not seen is ``<unk>``."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    unigram = Tokenizer(models.Unigram())
    unigram.pre_tokenizer = pre_tokenizers.Metaspace()
    unigram.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=VOCABULARY // 2,
        special_tokens=["<pad>", "</s>", "<unk>"],
        unk_token="<unk>",
        show_progress=False,
    )
    unigram.train_from_iterator(texts[::4], trainer)  # quadratic in what it learns from
    unigram.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=unigram,
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        model_max_length=WINDOW,
    )


TOKENIZERS: dict[str, Callable[[Sequence[str]], Any]] = {
    "gpt2": _gpt2,
    "llama": _llama,
    "qwen2": _qwen2,
    "t5": _t5,
}
