"""What a researcher runs: evaluations and benchmarks, each leaving a small report."""
