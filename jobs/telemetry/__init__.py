"""What is told of jobs to whoever runs the server: Prometheus' metrics and a log."""
