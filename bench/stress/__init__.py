"""Stress tools for properties that the harness's workloads do not measure: see bench/README.md."""
