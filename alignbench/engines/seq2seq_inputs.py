"""From requests to token ids for encoder–decoder models: what the encoder reads, what the decoder predicts.

The rule is that of lm-evaluation-harness 0.4.13 (``HFLM`` with the backend ``seq2seq``). Unlike for a causal
model, context and continuation are encoded **apart**: the context with all special tokens that the tokenizer
puts there by default, in front and behind (T5: EOS behind; BART: BOS in front and EOS behind), the
continuation with none. White space at the end of the context moves to the continuation. An empty context is
the start token (BOS, else EOS). A context that is longer than the encoder's window loses tokens on its left,
and so does a continuation that is longer than the decoder's. A rolling text is encoded with its default
special tokens, which are predicted like the others.
"""

from __future__ import annotations

from collections.abc import Sequence

from alignbench.engines.encoding import move_space
from alignbench.engines.inputs import Inputs, Tokens, check_sampling, start_token
from alignbench.engines.types import Generate, Score
from alignbench.errors import UsageError


class Seq2SeqInputs(Inputs):
    """How requests to an encoder–decoder model become token ids; see ``Inputs``. A sequence is the encoder's
    ids and behind them, from ``starts`` on, the ids that the decoder has to predict."""

    def prompts(self, requests: Sequence[Generate]) -> Tokens:
        """The prompts as the encoder reads them; its whole window is theirs. See ``Inputs.prompts``.

        Raises:
            UsageError: sampling parameters out of range, or more ``max_tokens`` than the decoder can hold.
        """
        for request in requests:
            check_sampling(request, None)
            if self.window is not None and request.sampling.max_tokens > self.window:
                raise UsageError(
                    f"max_tokens {request.sampling.max_tokens} is more than the {self.window} tokens that "
                    "the model's decoder can hold"
                )
        ids = self._encode([self.render(request.prompt) for request in requests], special=not self.templated)
        return self._fit(ids, [0] * len(requests))

    def pairs(self, requests: Sequence[Score]) -> Tokens:
        """Contexts, and behind each its continuation; see the module's rule. A rolling text stands whole
        behind the start token.

        Raises:
            UsageError: an empty context with a tokenizer that has neither BOS nor EOS.
        """
        shown = ["" if request.rolling else self.render(request.context) for request in requests]
        moved = [move_space(context, r.continuation) for context, r in zip(shown, requests)]
        contexts = sorted(
            {kept for context, (kept, _) in zip(shown, moved) if context}
        )  # choices share theirs
        fronts = dict(zip(contexts, self._encode(contexts, special=not self.templated)))
        bodies = self._encode([text for _, text in moved], special=False)
        tokens = Tokens([], [], [])
        for request, context, (kept, text), body in zip(requests, shown, moved, bodies):
            front = (fronts[kept] if context else []) or [start_token(self.tokenizer)]
            if request.rolling:
                ids, start = front + self._encode([text], special=True)[0], len(front)
            else:
                limit = self.window or len(front) + len(body)
                ids, start = front[-limit:] + body[-limit:], min(limit, len(front))
            tokens.sequences.append(ids)
            tokens.starts.append(start)
            tokens.cuts.append(0 if request.rolling else len(front) + len(body) - len(ids))
        return tokens

    def _encode(self, texts: Sequence[str], *, special: bool) -> list[list[int]]:
        """Token ids with the tokenizer's default special tokens, or without any."""
        if not texts:
            return []
        ids: list[list[int]] = self.tokenizer(list(texts), add_special_tokens=special, verbose=False)[
            "input_ids"
        ]
        return ids
