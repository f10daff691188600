"""What tests share: waiting, a git server in the cluster, a look into registries, and builds as a tenant sees them."""
