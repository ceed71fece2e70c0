"""Threads, processes, memory and hardware that trainings and generations run on."""
