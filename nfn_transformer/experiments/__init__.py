"""Training, metrics, run directories, tracking and plots."""
