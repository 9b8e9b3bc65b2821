"""Questions, conflicts, facts and probes, built in and published."""
