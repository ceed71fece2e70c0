"""Monitoring of trainings without widgets: the training view, followed runs, log lines, curves and exports."""
