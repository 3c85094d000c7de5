"""The two ways in which a command can end badly. Both are shown as one sentence, never a traceback."""


class AlignbenchError(Exception):
    """Base class. The message is one sentence: what is wrong, where, and the mend."""

    exit_code = 1


class UsageError(AlignbenchError):
    """The command, a config or a task file is wrong (exit status 2)."""

    exit_code = 2


class DataAbsentError(UsageError):
    """A data set is neither here nor to be had: one task less of a suite, and no mistake in it."""


class WorkError(AlignbenchError):
    """The work failed, or part of it did; what succeeded has been kept (exit status 1)."""

    exit_code = 1


def nearest(word: str, known: "list[str] | tuple[str, ...] | set[str]") -> str:
    """Return ``' (did you mean X?)'`` for the known word nearest to ``word``, else an empty string."""
    import difflib

    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" (did you mean {close[0]!r}?)" if close else ""
