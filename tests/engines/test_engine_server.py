"""A server as an engine: what opening finds out, what is sent, and what its answers become."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
from faulty_server import FaultyServer, is_likeliest, logprob_of, reply_of, tokens_of

from alignbench.engines import open_engine
from alignbench.engines.policy import parse_policy
from alignbench.engines.servers.answers import Usage
from alignbench.engines.servers.engine import ServerEngine, ServerWork
from alignbench.engines.types import Completion, Engine, Generate, Reward, Sampling, Score, Scored
from alignbench.errors import WorkError

Serve = Callable[..., FaultyServer]


def opened(server: FaultyServer, options: str = "", **more: Any) -> Engine:
    return open_engine(parse_policy(server.policy(options)), **more)


def generate(engine: Engine, *requests: Generate) -> list[Completion]:
    found = dict(row for batch in engine.generate(requests) for row in batch)
    return [found[i] for i in range(len(requests))]


def score(engine: Engine, *requests: Score) -> list[Scored]:
    found = dict(row for batch in engine.score(requests) for row in batch)
    return [found[i] for i in range(len(requests))]


# --- generate ----------------------------------------------------------------------------------------------


def test_what_is_sent(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "prefix.txt").write_text("Be kind. ")
    server = serve()
    engine = opened(server, f"?prefix={tmp_path / 'prefix.txt'}")
    sampling = Sampling(max_tokens=5, temperature=0.5, top_k=3, top_p=0.9, stop=("\n",))
    generate(engine, Generate("a b", sampling, seed=11))
    assert server.bodies[-1] == {
        "model": "toy",
        "prompt": "Be kind. a b",
        "max_tokens": 5,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 3,
        "stop": ["\n"],
        "seed": 11,
        "logprobs": 0,
        "return_token_ids": True,
    }
    generate(engine, Generate("a b", Sampling(max_tokens=5)))
    assert {"top_k", "stop"}.isdisjoint(server.bodies[-1])


def test_a_server_that_speaks_as_vllm_does_gets_no_defaults_of_the_model(serve: Serve) -> None:
    server = serve(token_ids=True)
    generate(opened(server), Generate("a b", Sampling(top_k=4)))
    sent = server.bodies[-1]
    assert (sent["repetition_penalty"], sent["min_p"], sent["presence_penalty"], sent["top_k"]) == (
        1,
        0,
        0,
        4,
    )


def test_top_k_that_a_server_does_not_know_is_an_error(serve: Serve) -> None:
    engine = opened(serve(refuses=("top_k",)))
    with pytest.raises(WorkError, match="Unrecognized request argument supplied: top_k"):
        generate(engine, Generate("a b", Sampling(top_k=4, temperature=1.0)))


def test_completions_come_back_whatever_their_order(serve: Serve) -> None:
    server = serve(token_ids=True)
    requests = [Generate(f"prompt {i}", Sampling(max_tokens=3, stop=("gull",))) for i in range(40)]
    engine = opened(server, "?concurrency=8")
    for request, completion in zip(requests, generate(engine, *requests)):
        expected = reply_of(request.prompt, 3)
        stop = next((i for i, token in enumerate(expected) if "gull" in token), None)
        assert completion.text == "".join(expected[:stop])
        assert completion.finish == ("length" if stop is None else "stop")
        assert len(completion.token_ids) == len(completion.logprobs) == (3 if stop is None else stop + 1)
    assert server.most <= 8


def test_requests_run_side_by_side(serve: Serve) -> None:
    server = serve()
    engine = opened(server, "?concurrency=4&chat_template=on")
    meet = threading.Barrier(4, timeout=10)
    handler = server._http.RequestHandlerClass
    plain = handler._answer  # type: ignore[attr-defined]

    def together(self: Any, *words: Any) -> Any:
        meet.wait()  # breaks unless four requests are under way at once
        return plain(self, *words)

    handler._answer = together  # type: ignore[attr-defined]
    generate(engine, *(Generate(f"p {i}") for i in range(8)))
    assert server.most == 4


def test_held_requests_are_not_sent(serve: Serve) -> None:
    server = serve()
    requests = [Generate(f"p {i}") for i in range(3)]
    found = [row for batch in opened(server).generate(requests, held={0, 2}) for row in batch]
    assert [index for index, _ in found] == [1]
    assert dict(server.asked) == {"p 1": 1}


def test_a_seed_s_text_follows_from_the_request(serve: Serve) -> None:
    engine = opened(serve())
    sampling = Sampling(max_tokens=8, temperature=1.0)
    first, other, again = generate(engine, *(Generate("a", sampling, seed) for seed in (1, 2, 1)))
    assert first == again
    assert first.text != other.text


# --- score -------------------------------------------------------------------------------------------------


def expected_score(context: str, continuation: str, bos: bool) -> Scored:
    """By the model's rule, of the tokens that end behind the context."""
    tokens = tokens_of(context + continuation)
    ends = list(accumulate(map(len, tokens)))
    rows = [
        (("".join(tokens[:i])), token)
        for i, token in enumerate(tokens)
        if ends[i] > len(context.rstrip()) and (bos or i)
    ]
    logprob = sum(logprob_of(*row) for row in rows)
    return Scored(pytest.approx(logprob), len(rows), all(is_likeliest(*row) for row in rows))


PAIRS = [("one two", " three"), ("one two ", "three four"), ("a", "bc d."), ("q: é", " µ, π")]


@pytest.mark.parametrize("bos", ["", "<s>"])
@pytest.mark.parametrize("least", [0, 1])
def test_scores(serve: Serve, bos: str, least: int) -> None:
    engine = opened(serve(bos=bos, least=least))
    found = score(engine, *(Score(*pair) for pair in PAIRS[:2]), Score(*PAIRS[3]))
    assert found == [expected_score(*pair, bool(bos)) for pair in (*PAIRS[:2], PAIRS[3])]


def test_a_token_across_the_boundary_belongs_to_the_continuation(serve: Serve) -> None:
    (found,) = score(opened(serve(bos="<s>")), Score("a", "bc d."))
    assert found == expected_score("a", "bc d.", True)
    assert found.n_tokens == 3  # "abc", " d", "."


def test_an_empty_context(serve: Serve) -> None:
    requests = [Score("", "one two"), Score("", "one two", rolling=True)]
    found = score(opened(serve(bos="<s>")), *requests)
    assert found == [expected_score("", "one two", True)] * 2
    with pytest.raises(WorkError, match="no log-probability; an empty context needs a server that puts BOS"):
        score(opened(serve()), requests[0])


def test_an_empty_continuation_asks_nothing(serve: Serve) -> None:
    server = serve()
    assert score(opened(server), Score("one two", "")) == [Scored(0.0, 0, True)]
    assert not server.asked


def test_the_prefix_stands_before_a_context_and_not_before_a_document(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("Be kind. ")
    server = serve(bos="<s>")
    engine = opened(server, f"?prefix={tmp_path / 'p.txt'}")
    found = score(engine, Score("one", " two"), Score("", "one two", rolling=True))
    assert found == [expected_score("Be kind. one", " two", True), expected_score("", "one two", True)]


@pytest.mark.parametrize(
    ("behaviour", "why"),
    [
        ({"echo": "refused"}, "echo is not supported"),
        ({"echo": "ignored"}, "not those of the prompt"),
        ({"echo": "bare"}, "no log-probabilities of the prompt"),
        ({"echo": "zeros"}, "the same log-probability"),
        ({"echo": "other"}, "not those of the prompt"),
        ({"endpoints": ("chat",)}, "no completions endpoint"),
        ({"refuses": ("logprobs",)}, "Unrecognized request argument supplied: logprobs"),
    ],
)
def test_no_prompt_log_probabilities_is_an_error_at_once(
    serve: Serve, behaviour: dict[str, Any], why: str
) -> None:
    server = serve(**behaviour)
    engine = opened(server)
    with pytest.raises(WorkError, match=f"no log-probabilities of a prompt for 'toy'.*{re.escape(why)}") as e:
        engine.score([Score("a", " b")])
    assert "\n" not in str(e.value)
    assert not server.asked
    assert generate(engine, Generate("a"))[0].text


def test_chat_cannot_score_and_nothing_rewards(serve: Serve) -> None:
    engine = opened(serve(), "?chat_template=on")
    with pytest.raises(WorkError, match="chat_template=on"):
        engine.score([Score("a", " b")])
    with pytest.raises(WorkError, match="no scalar head"):
        engine.reward([Reward("a", " b")])


# --- what it costs -----------------------------------------------------------------------------------------


def test_tokens_are_counted_as_the_server_counts(serve: Serve) -> None:
    server = serve()
    engine = opened(server, "?price_in=2&price_out=10")
    assert isinstance(engine, ServerEngine)
    before = (engine.work.total_tokens, engine.work.decoded_tokens)
    server.behaviour.faults.append("500")
    generate(engine, Generate("a b c", Sampling(max_tokens=4)))
    work = engine.work
    assert (work.total_tokens - before[0], work.decoded_tokens - before[1]) == (3, 4)
    assert (work.again, work.uncounted) == (1, 0)
    assert work.requests == len(server.bodies) + 1  # the list of models
    assert work.cost == pytest.approx((work.total_tokens * 2 + work.decoded_tokens * 10) / 1e6)


def test_the_line_about_the_work() -> None:
    work = ServerWork(requests=12, again=2, price_in=0.5, price_out=2)
    work.add(Usage(1000, 500))
    assert str(work) == (
        "12 requests (2 of them tries again); 1,000 tokens in, 500 out, as the server counts; "
        "at least 0.0015 at 0.5 in and 2 out a million"
    )
    bare = ServerWork(requests=1)
    bare.add(Usage())
    assert bare.cost is None
    assert "1 answers came without a count" in str(bare)
