"""The durable record of what was paid for, keyed by content."""

from alignbench.ledger.answers import answer
from alignbench.ledger.store import Ledger, content_key, ledger_path

__all__ = ["Ledger", "answer", "content_key", "ledger_path"]
