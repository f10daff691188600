"""How long a multi-platform build takes: raw BuildKit pods, the operator and `docker buildx`, side by side."""
