"""Tiny random models of several families over one byte-level tokenizer."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing

TEXT = "the cat sat on the mat and the dog ran to the cat; where is the mat? the dog sat on it."
PAD, EOS, BOS = "<pad>", "<eos>", "<bos>"
FAMILIES = ("llama", "gpt2", "qwen2", "gemma2")


def make_tokenizer(*, bos: bool = False, behind: bool = False) -> Any:
    """Byte-level BPE. ``bos``: puts BOS in front by default; ``behind``: and EOS behind."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    specials = [PAD, EOS, BOS]
    bpe.train_from_iterator(
        [TEXT] * 3, trainers.BpeTrainer(vocab_size=320, special_tokens=specials, initial_alphabet=alphabet)
    )
    if bos or behind:
        single = f"{BOS if bos else ''} $A {EOS if behind else ''}".strip()
        bpe.post_processor = TemplateProcessing(single=single, special_tokens=[(EOS, 1), (BOS, 2)])
    named = {"bos_token": BOS} if bos else {}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=bpe, pad_token=PAD, eos_token=EOS, **named)


def make_model(family: str, head: str = "CausalLM", **changes: Any) -> Any:
    torch.manual_seed(7)
    common = {"vocab_size": 330, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None, **changes}
    if family == "gpt2":
        config = transformers.GPT2Config(n_embd=32, n_layer=2, n_head=2, n_positions=96, **common)
    else:
        kind = {
            "llama": transformers.LlamaConfig,
            "qwen2": transformers.Qwen2Config,
            "gemma2": transformers.Gemma2Config,
        }[family]
        common = {"max_position_embeddings": 96, **common}
        if family == "gemma2":
            common |= {"head_dim": 16, "sliding_window": 64, "final_logit_softcapping": 2.0}
        config = kind(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            initializer_range=0.3,
            **common,
        )
    if head == "CausalLM":
        return transformers.AutoModelForCausalLM.from_config(config).eval()
    config.num_labels = 1
    return transformers.AutoModelForSequenceClassification.from_config(config).eval()


SEQ2SEQ = ("t5", "t5_untied", "bart", "marian")
BART = {"layers": 2, "attention_heads": 2, "ffn_dim": 64}


def make_seq2seq(family: str, **changes: Any) -> Any:
    """An encoder-decoder model: T5 (tied: scales what the head gets), T5 v1.1 (untied), BART (learned
    positions, 96 of them), Marian (a bias behind the head, here not 0)."""
    torch.manual_seed(7)
    common = {"vocab_size": 330, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None, "d_model": 32}
    if family.startswith("t5"):
        tied = family == "t5"
        sizes = {"d_kv": 16, "num_heads": 2, "num_layers": 2, "d_ff": 64, "decoder_start_token_id": 0}
        kind = "relu" if tied else "gated-gelu"
        more = {"tie_word_embeddings": tied, "scale_decoder_outputs": tied, "feed_forward_proj": kind}
        config = transformers.T5Config(**common | sizes | more | changes)
    else:
        sizes = {f"{side}_{what}": n for side in ("encoder", "decoder") for what, n in BART.items()}
        kind = transformers.BartConfig if family == "bart" else transformers.MarianConfig
        start = {"decoder_start_token_id": 1, "max_position_embeddings": 96, "forced_eos_token_id": None}
        config = kind(**common | sizes | start | {"init_std": 0.3} | changes)
    model = transformers.AutoModelForSeq2SeqLM.from_config(config).eval()
    with torch.no_grad():
        if family.startswith("t5"):  # its own initialization is so small that all tokens are equally likely
            for name, weight in model.named_parameters():
                if weight.dim() > 1 and "shared" not in name:
                    weight.normal_(std=0.3)
        if family == "marian":
            model.final_logits_bias.normal_()
    return model
