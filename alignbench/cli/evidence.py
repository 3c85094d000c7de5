"""``alignbench evidence``."""

from __future__ import annotations

from pathlib import Path

import click

EPILOG = """\b
Examples:
  alignbench evidence
  alignbench evidence --seeds 16            goes on from the 12 seeds that are there
  alignbench evidence --out /tmp/e --seeds 3 --jobs 1
"""


@click.command(epilog=EPILOG)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("reports/pocket"),
    show_default=True,
    help="Folder.",
)
@click.option(
    "--seeds",
    type=click.IntRange(min=2),
    default=12,
    show_default=True,
    help="How many; the seed is the unit.",
)
@click.option(
    "--first-seed",
    type=click.IntRange(min=0),
    default=20,
    show_default=True,
    help="They go up by one; those below 20 were looked at beforehand.",
)
@click.option(
    "--jobs", type=click.IntRange(min=1), help="Seeds at a time, one thread each.  [default: cores]"
)
@click.option("--json", "as_json", is_flag=True, help="Print OUT/evidence.json.")
@click.option("--only-seed", type=click.IntRange(min=0), hidden=True)
@click.option("--scale", type=click.Choice(["full", "miniature"]), default="full", hidden=True)
def command(
    out: Path,
    seeds: int,
    first_seed: int,
    jobs: int | None,
    as_json: bool,
    only_seed: int | None,
    scale: str,
) -> None:
    """The quickstart's story over seeds: what holds, with intervals, beside what the paper found.

    Each seed trains every arm from demonstrations, labels and samples of its own, and an independent SFT and
    reward model to be judged by. OUT/evidence.md answers the questions that docs/pocket.md states; the runs
    themselves lie in OUT/seeds. Run again, it goes on where it stopped.
    """
    import json
    import sys

    from alignbench.recipes.evidence.page import estimate
    from alignbench.recipes.evidence.run import PAGE, evidence
    from alignbench.recipes.evidence.run import only_seed as run_one

    line = ["alignbench", *sys.argv[1:]]
    if only_seed is not None:
        run_one(out, only_seed, scale, line)
        return
    found = evidence(out, n_seeds=seeds, first_seed=first_seed, jobs=jobs, scale=scale, command=line)
    if as_json:
        click.echo(json.dumps(found))
        return
    for row in found["questions"]:
        if row["primary"]:
            verdict = row["verdict"] or "no claim to test"
            click.echo(f"{verdict:18s}{estimate(row, level=False):24s}{row['sentence']}")
    click.echo(f"the numbers: {out / PAGE}")
