"""MultiArchBuilds to test with: one with the fewest fields, and some that together have every field of the spec."""

import json
import re
from typing import Any

from multiarchbuild.api.resource import GROUP, KIND, VERSION

Object = dict[str, Any]

MINIMAL: Object = {
    "platforms": ["linux/amd64"],
    "source": {"inline": {"files": {"Dockerfile": "FROM busybox:1.36\n"}}},
    "output": {"image": "registry.example.com/team-a/app"},
}

_NODE_TERM: Object = {"matchExpressions": [{"key": "kubernetes.io/os", "operator": "In", "values": ["linux"]}]}
_PREFERRED: Object = {"weight": 1, "preference": _NODE_TERM}
_AFFINITY: Object = {
    "nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [_NODE_TERM]},
        "preferredDuringSchedulingIgnoredDuringExecution": [_PREFERRED],
    }
}
_TOLERATION: Object = {
    "key": "example.com/pool",
    "operator": "Equal",
    "value": "builders",
    "effect": "NoExecute",
    "tolerationSeconds": 60,
}
_RESOURCES: Object = {"requests": {"cpu": "500m", "memory": "2Gi"}, "limits": {"cpu": 4, "memory": "4Gi"}}

_AWS: Object = {
    "provider": "AWS",
    "role": "arn:aws:iam::123456789012:role/builds",
    "registries": ["123456789012.dkr.ecr.eu-west-1.amazonaws.com"],
}
_AZURE: Object = {
    "provider": "Azure",
    "role": "66666666-7777-8888-9999-000000000000",
    "tenantId": "11111111-2222-3333-4444-555555555555",
    "registries": ["team.azurecr.io"],
}
_GOOGLE: Object = {
    "provider": "Google",
    "role": "builds@project.iam.gserviceaccount.com",
    "workloadIdentityProvider": "projects/42/locations/global/workloadIdentityPools/clusters/providers/test",
    "registries": ["europe-docker.pkg.dev"],
}

FULL: Object = {
    "platforms": ["linux/amd64", "linux/arm64"],
    "source": {
        "git": {
            "url": "https://git.example.com/team-a/app",
            "ref": "refs/heads/main",
            "subdirectory": "services/app",
            "secretRef": {"name": "git-token"},
            "interval": "5m",
            "keepGitDir": False,
        },
        "paths": {"include": ["services/app", "libs/**/*.go"], "exclude": ["**/*.md"]},
    },
    "build": {
        "dockerfile": "docker/app.Dockerfile",
        "target": "runtime",
        "args": {"NODE_ENV": "production"},
        "labels": {"maintainer": "team-a"},
        "secrets": [{"id": "npm", "secretKeyRef": {"name": "npm-token", "key": "token"}}],
        "ssh": {"secretRef": {"name": "deploy-key"}},
        "contexts": {"base": "docker-image://registry.example.com/base:1", "own": "multiarchbuild://node-base"},
        "identity": _GOOGLE,
        "network": "None",
    },
    "output": {
        "image": "registry.example.com:5000/team-a/app",
        "tags": ["latest", "{date}-{shortCommit}"],
        "annotations": {"vendor": "team-a"},
        "secretRefs": [{"name": "registry-credentials"}],
        "signing": {"secretRef": {"name": "cosign-key"}, "keyless": False},
        "compression": {"type": "Gzip", "level": 9, "force": True},
        "format": "Index",
        "childTags": True,
        "expire": "720h",
        "destinations": [
            {"image": "mirror.example.com/team-a/app", "secretRefs": [{"name": "mirror"}], "identity": _AZURE}
        ],
        "identity": _AWS,
    },
    "cache": {
        "repository": "registry.example.com/team-a/app-cache",
        "mode": "Min",
        "import": False,
        "expire": "1h",
        "identity": _AWS,
        "volume": {"size": "20Gi", "storageClassName": "fast"},
    },
    "scheduling": {
        "strategy": "Native",
        "nativeWait": "0s",
        "resources": _RESOURCES,
        "pendingTimeout": "20m",
        "keepBuilder": "0s",
        "nodeSelector": {"pool": "builders"},
        "tolerations": [_TOLERATION],
        "affinity": _AFFINITY,
        "serviceAccountName": "builder",
        "priorityClassName": "builds",
        "podMetadata": {
            "labels": {"kueue.x-k8s.io/queue-name": "builds"},
            "annotations": {"example.com/team": "team-a"},
        },
        "overrides": [
            {
                "platform": "linux/arm64",
                "strategy": "Emulated",
                "nodeSelector": {"pool": "graviton"},
                "tolerations": [_TOLERATION],
                "affinity": _AFFINITY,
                "resources": _RESOURCES,
            }
        ],
    },
    "attestations": {"provenance": "Max", "sbom": True, "record": False},
    "reproducible": False,
    "rebuild": {
        "onBaseImage": {"interval": "24h", "window": {"days": ["Sat", "Sun"], "start": "22:00", "duration": "6h"}},
        "schedule": "0 3 * * Mon-Fri",
        "window": {"days": ["Mon"], "start": "00:00", "duration": "24h"},
        "retryInterval": "30m",
    },
    "timeout": "1h30m",
    "retries": 0,
    "suspend": True,
    "history": {"successful": 1, "failed": 10},
}

FULL_INLINE: Object = {
    **FULL,
    "source": {"inline": {"files": {"Dockerfile": "FROM busybox:1.36\n", "README": "An example.\n"}}},
    "output": {**FULL["output"], "tags": ["{run}"]},
}

SOURCES: dict[str, Object] = {
    "git": FULL,
    "http": {
        **FULL_INLINE,
        "source": {
            "http": {
                "url": "https://files.example.com/app.tar.gz",
                "checksum": f"sha256:{'0' * 64}",
                "subdirectory": "app",
                "secretRef": {"name": "files"},
            }
        },
    },
    "oci": {
        **FULL_INLINE,
        "source": {
            "oci": {"image": "ghcr.io/team-a/source:main", "subdirectory": "app", "interval": "5m", "identity": _AWS}
        },
    },
    "flux": {
        **FULL,
        "source": {"flux": {"kind": "GitRepository", "name": "app", "subdirectory": "app"}},
    },
    "inline": FULL_INLINE,
}
"""Specs that together have every field, by their source."""


def build(name: str, spec: Object) -> Object:
    """Return a MultiArchBuild."""
    return {"apiVersion": f"{GROUP}/{VERSION}", "kind": KIND, "metadata": {"name": name}, "spec": spec}


def base(path: str) -> Object:
    """Return the spec with every field that has the one at `path`."""
    kind = path.split(".")[2] if path.startswith(".source.") else "git"
    return _copy(SOURCES.get(kind, FULL))


def steps(spec: Object, path: str) -> list[str | int]:
    """Return the keys that lead to `path`, where `*` is the first entry of a list or a map."""
    found: list[str | int] = []
    here: Any = spec
    for step in re.findall(r"[^.\[\]]+", path):
        key = (0 if isinstance(here, list) else next(iter(here))) if step == "*" else step
        found.append(key)
        here = here.get(key) if isinstance(here, dict) else here[key]
    return found


def changed(spec: Object, path: str, value: Any) -> Object:
    """Return `spec` with `value` at `path`; None removes the field."""
    spec = _copy(spec)
    *parents, last = steps(spec, path)
    here: Any = spec
    for key in parents:
        here = here[key]
    if value is None:
        del here[last]
    else:
        here[last] = value
    return spec


def shown(spec: Object, path: str) -> str:
    """Return `path` as the API server writes it in an error."""
    return "spec" + "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in steps(spec, path))


def _copy(spec: Object) -> Object:
    """Return a copy in which nothing is shared, not even between two of its places."""
    copied: Object = json.loads(json.dumps(spec))
    return copied
