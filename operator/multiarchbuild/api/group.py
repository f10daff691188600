"""What the resource is called. Imports no pydantic: the command line loads this at each key press."""

GROUP = "multiarch.build"
VERSION = "v1alpha1"
KIND = "MultiArchBuild"
PLURAL = "multiarchbuilds"
SHORT_NAME = "mab"
