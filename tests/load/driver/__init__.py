"""The driver of the benchmark: fetches, starts, measures, reports. Python's standard library only."""
