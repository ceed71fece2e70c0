"""Benchmark of training, generation and the interface on this machine.

All measurements raise `terminal.BenchError` if a measured program fails or does not reach the expected state.
"""
