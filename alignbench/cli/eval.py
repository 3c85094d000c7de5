"""``alignbench eval``."""

from __future__ import annotations

from typing import Any

import click

from alignbench.cli.evaluation import POLICY, carry_out, settings_of, shared_options

EPILOG = """\b
Examples:
  alignbench eval runs/sft
  alignbench eval runs/sft --tasks truthfulqa --data data --limit 200
  alignbench eval runs/rm --tasks hh_preferences --data data --json
  alignbench eval openai:gpt2@http://127.0.0.1:8000/v1 --tasks prompts:mine.txt
"""
HELP = f"""Run tasks on one policy; writes the folder that compare writes, without win-rates. What the ledger
holds is not computed again.

{POLICY}"""


@click.command(help=HELP, epilog=EPILOG)
@click.argument("policy")
@shared_options
def command(policy: str, **options: Any) -> None:
    """See ``HELP``."""
    from alignbench.compare.plan import make_plan

    plan = make_plan(
        [policy],
        options["tasks"] or None,
        out=options["out"],
        settings=settings_of(options),
    )
    carry_out(plan, options)
