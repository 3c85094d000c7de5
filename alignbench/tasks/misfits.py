"""What is wrong with a task file although every key by itself is right."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

from alignbench.errors import nearest
from alignbench.tasks.problems import Misfit
from alignbench.tasks.spec import FUNCTION, MetricSpec, TaskSpec
from alignbench.tasks.types import WITH_CHOICES


def misfits(spec: TaskSpec) -> Iterator[Misfit]:
    """Every problem, with the key where it lies: one that is missing lies at the file's head."""
    yield from _of_kind(spec)
    yield from _of_metrics(spec)
    yield from _of_headlines(spec)
    yield from _of_scorers(spec)
    yield from _of_few_shot(spec)
    if spec.generation.samples > 1 and spec.generation.temperature == 0:
        at = ("generation", "samples")
        yield at, "'generation.samples' draws outputs; give 'generation.temperature' above 0"


def _of_kind(spec: TaskSpec) -> Iterator[Misfit]:
    if spec.data is not None and spec.documents is not None:
        yield ("documents",), "give either 'data' (a data set) or 'documents' (file.py:function), not both"
    if spec.data is None and spec.documents is None:
        yield (), "give either 'data' (a data set) or 'documents' (file.py:function)"
    if spec.kind in WITH_CHOICES and spec.choices is None:
        pair = ": [chosen, rejected]" if spec.kind == "preference" else ""
        yield ("kind",), f"kind {spec.kind} needs 'choices'{pair}"
    if spec.kind == "multiple_choice" and spec.correct is None:
        yield ("kind",), "kind multiple_choice needs 'correct', the indices of the right choices"
    if spec.kind == "loglikelihood" and spec.target is None:
        yield ("kind",), "kind loglikelihood needs 'target', the text whose likelihood is asked for"
    if spec.kind != "generate":
        if spec.judged:
            yield ("judged",), "only a task of kind generate can be 'judged'"
        if "generation" in spec.model_fields_set:
            yield ("generation",), f"'generation' is for kind generate, and this is {spec.kind}; take it out"


def _of_metrics(spec: TaskSpec) -> Iterator[Misfit]:
    names = [metric.name for metric in spec.metrics]
    if not names and not spec.judged:
        yield (), "give at least one of 'metrics', or 'judged: true'"
    for i, metric in enumerate(spec.metrics):
        if metric.name in names[:i]:
            yield ("metrics", i, "name"), f"two metrics have the name {metric.name!r}; rename one"
        for key, problem in (*_of_scorer(metric, spec), *_of_metric(metric, spec)):
            yield ("metrics", i, key), f"metric {metric.name!r}{problem}"


def _of_scorer(metric: MetricSpec, spec: TaskSpec) -> Iterator[tuple[str, str]]:
    if metric.scorer is not None and spec.kind != "generate":
        yield "scorer", ": a scorer reads outputs, which only kind generate has"
    for name in metric.scorers:
        if not re.fullmatch(r"\w+", name):
            yield "scorer", f": the scorer's name {name!r} is none; write letters, digits and _ only"
    if metric.scorer is not None and not metric.scorers:
        yield "scorer", ": the list of scorers is empty; name one, or take it out"
    if len(metric.scorers) > 1 and metric.function is None:
        many = len(metric.scorers)
        yield "scorer", f" has {many} scorers; say with 'function' what their scores make together"
    if "summary" in metric.model_fields_set and (metric.scorer is None or metric.function is not None):
        mend = "take it out, as 'function' gets all scores" if metric.function else "it needs 'scorer'"
        yield "summary", f": 'summary' is of a scorer's scores; {mend}"
    if metric.combine is not None and not re.match(FUNCTION, metric.combine):
        from alignbench.metrics import COMBINE

        if metric.combine not in COMBINE:
            yield (
                "combine",
                f": 'combine' {metric.combine!r} is neither file.py:function nor built in"
                f"{nearest(metric.combine, list(COMBINE))}; built in are {', '.join(COMBINE)}",
            )
    if metric.combine is not None and metric.function is None:
        yield "combine", ": 'combine' needs 'function', which gives the numbers of a document"
    for key, there in (("bounds", metric.bounds), ("scorer", metric.scorer)):
        if metric.combine is not None and there is not None:
            yield key, f": 'combine' goes without {key!r}; take one of them out"
    if metric.combine is not None and spec.generation.samples > 1:
        yield "combine", ": 'combine' goes with one output a document, not with 'generation.samples'"


def _of_metric(metric: MetricSpec, spec: TaskSpec) -> Iterator[tuple[str, str]]:
    from alignbench.metrics import BUILT_IN, CORPUS, IDEAL, LOWER, PER_TOKEN

    summed = CORPUS[spec.kind]
    known = [*BUILT_IN[spec.kind], *summed, *(PER_TOKEN if spec.kind == "multiple_choice" else ())]
    own = metric.function is not None or spec.score is not None or metric.scorer is not None
    if not own and metric.name not in known:
        yield (
            "name",
            f" is not built in for kind {spec.kind}{nearest(metric.name, known)}; "
            f"built in are {', '.join(known)}, others need 'function' or 'score' (file.py:function), or a "
            "'scorer'",
        )
    if not own and metric.name in summed and spec.generation.samples > 1:
        yield "name", " is a statistic of sums and goes with one output a document; leave 'samples' out"
    if metric.chance == "uniform" and spec.kind != "multiple_choice":
        yield "chance", ": 'chance: uniform' is for multiple_choice; give a number"
    if metric.bounds is not None and not -math.inf < metric.bounds[0] < metric.bounds[1] < math.inf:
        yield "bounds", ": 'bounds' are two numbers, the lower first"
    lower = metric.name in LOWER or (metric.name in summed and summed[metric.name].higher_is_better is False)
    if not own and lower and metric.higher_is_better:
        yield "higher_is_better", " is better when it is lower; write higher_is_better: false"
    if not own and metric.name in known and metric.name in IDEAL and metric.ideal is None:
        best = f"{IDEAL[metric.name]:g}"
        yield "name", f" is best at {best}; write ideal: {best}"
    if not own and (metric.unit or metric.bounds):
        yield (
            "unit" if metric.unit else "bounds",
            " is built in and knows its unit and bounds; take them out",
        )


def _of_headlines(spec: TaskSpec) -> Iterator[Misfit]:
    names = [metric.name for metric in spec.metrics]
    if names and not spec.headlines:
        yield ("headline",), f"'headline' is missing: name one of {', '.join(names)}"
    always = {metric.name for metric in spec.metrics if not metric.scorers}
    before: str | None = None
    for i, headline in enumerate(spec.headlines):
        at = ("headline",) if isinstance(spec.headline, str) else ("headline", i)
        if headline not in names:
            yield at, f"headline {headline!r} is none of the metrics{nearest(headline, names)}"
        elif before is not None:
            yield (
                at,
                f"headline {headline!r} never counts, as {before!r} before it needs no scorer; put it first",
            )
        if headline in always and before is None:
            before = headline


def _of_scorers(spec: TaskSpec) -> Iterator[Misfit]:
    wanted = list(dict.fromkeys(name for metric in spec.metrics for name in metric.scorers))
    for name in spec.scorers:
        if name not in wanted:
            mend = "write scorer: " + name + " in a metric, or take it out"
            yield ("scorers", name), f"no metric has the scorer {name!r}{nearest(name, wanted)}; {mend}"
        if spec.scorers[name].yes == spec.scorers[name].no:
            yield ("scorers", name), f"scorer {name!r}: 'yes' and 'no' are the same; write two answers"


def _of_few_shot(spec: TaskSpec) -> Iterator[Misfit]:
    shots = spec.few_shot
    if shots is None:
        return
    for key in ("split", "files"):
        if getattr(shots, key) and spec.data is None:
            yield ("few_shot", key), f"'few_shot.{key}' needs 'data'"
    if spec.target is None and spec.kind != "multiple_choice":
        yield ("few_shot",), "'few_shot' needs 'target', the exemplars' answer"
