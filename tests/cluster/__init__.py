"""A real Kubernetes cluster with nodes of two architectures on one Linux machine, for tests and demos."""
