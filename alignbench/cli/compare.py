"""``alignbench compare``."""

from __future__ import annotations

from typing import Any

import click

from alignbench.cli.evaluation import POLICY, carry_out, settings_of, shared_options
from alignbench.errors import UsageError

EPILOG = """\b
Examples:
  alignbench compare runs/sft runs/ppo
  alignbench compare base=pocket runs/sft runs/ppo --win-reference sft
  alignbench compare runs/sft runs/ppo --tasks truthfulqa_mc1,truthfulqa_mc2 --data data
  alignbench compare runs/sft runs/ppo --tasks prompts:mine.jsonl --judge rm:runs/rm
  alignbench compare a=recorded:a.jsonl b=recorded:b.jsonl --tasks self_instruct --judge rm:runs/rm
  alignbench compare runs/sft vllm=vllm:runs/sft 'served=openai:sft@http://127.0.0.1:8000/v1?concurrency=32'

\b
In the table: + better than the reference, − worse, = equivalent, ? inconclusive; † by a judge that is not
shown to beat a coin.
"""
HELP = f"""Compare policies: win-rates, deltas and alignment tax, with intervals, and a report. What the
ledger holds is not computed again.

{POLICY}"""


@click.command(help=HELP, epilog=EPILOG)
@click.argument("policies", nargs=-1, required=True, metavar="POLICY POLICY [POLICY …]")
@shared_options
@click.option(
    "--judge",
    "judges",
    multiple=True,
    metavar="J[,J…]",
    help="gold, rm:PATH, or none. Default: gold on the pocket world, a reward model found beside a policy.",
)
@click.option(
    "--reference", metavar="NAME", help="Policy that deltas and tax are against. Default: the first."
)
@click.option("--win-reference", metavar="NAME", help="Policy that win-rates are against. Default: the same.")
def command(policies: tuple[str, ...], **options: Any) -> None:
    """See ``HELP``."""
    if len(policies) < 2:
        raise UsageError("compare needs two policies or more; for one there is alignbench eval")
    from alignbench.compare.plan import make_plan

    plan = make_plan(
        policies,
        options["tasks"] or None,
        options["judges"] or None,
        options["out"],
        reference=options["reference"],
        win_reference=options["win_reference"],
        settings=settings_of(options),
    )
    carry_out(plan, options)
