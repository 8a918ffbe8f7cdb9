"""What emitted logic computes, proven for all inputs."""
