"""Tools for what the harness's workloads do not show: see bench/README.md."""
