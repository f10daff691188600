"""What the programs of DaemonSets share.

They run on every node and need little memory, so nothing here imports pydantic or the Kubernetes client.
"""
