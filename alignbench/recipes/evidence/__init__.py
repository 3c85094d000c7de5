"""The quickstart's story over seeds: what holds, with intervals over seeds, beside what the paper found."""
