"""Image registries, spoken to in raw bytes: names, credentials, manifests, the index over several platforms.

Sources: OCI distribution spec v1.1 and image spec v1.1.
"""
