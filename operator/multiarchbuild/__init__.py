"""Multi-architecture container builds as a declarative Kubernetes resource."""

__version__ = "0.1.0"
