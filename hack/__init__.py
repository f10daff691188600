"""What a developer and the demo do with a cluster: build the operator's image, install it, show it at work."""
