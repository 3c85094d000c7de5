"""Statistics: pure functions of numbers. Every estimate carries its n, its interval and what was left out."""

from alignbench.stats.estimate import Estimate, Interval, clip, mean_interval
from alignbench.stats.gain import paired_gain
from alignbench.stats.length import LengthControlled, length_controlled
from alignbench.stats.multiplicity import Decision, Verdict, decide, holm, simultaneous_level, verdict
from alignbench.stats.paired import PairedDifference, paired_difference
from alignbench.stats.tax import TaskGain, Tax, tax
from alignbench.stats.winrate import PositionBias, WinRate, position_bias, win_rate

__all__ = [
    "Decision",
    "Estimate",
    "Interval",
    "LengthControlled",
    "PairedDifference",
    "PositionBias",
    "TaskGain",
    "Tax",
    "Verdict",
    "WinRate",
    "clip",
    "decide",
    "holm",
    "length_controlled",
    "mean_interval",
    "paired_difference",
    "paired_gain",
    "position_bias",
    "simultaneous_level",
    "tax",
    "verdict",
    "win_rate",
]
