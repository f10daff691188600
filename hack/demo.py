"""The main job, shown: build the example for two platforms, watch it, look at the result, run it."""

import json
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from .image import build_image, native
from .install import install
from .target import CommandError, Target, finish

EXAMPLE = Path(__file__).parent.parent / "examples" / "node" / "build.yaml"
NAMESPACE = "mab-demo"
TIMEOUT = 900
RESOURCE = "multiarchbuilds.multiarch.build"


def demo(target: Target) -> None:
    """Build examples/node, print live progress for each platform, then the digest, the index and what the images run.

    Raises:
        CommandError: A command failed, or the build did; the message says what status says.
    """
    check(target)
    install(target, build_image(target, native(target)))
    build = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))
    build["metadata"]["namespace"] = NAMESPACE
    build["metadata"]["annotations"] = {"multiarch.build/rebuild-requested-at": datetime.now(UTC).isoformat()}
    build["spec"]["output"] |= {"image": f"{target.facts.registry}/{NAMESPACE}/{build['metadata']['name']}"}
    build["spec"]["output"].pop("secretRefs", None)
    build["spec"]["scheduling"] = {**build["spec"].get("scheduling", {}), "nativeWait": _native_wait(target)}
    print(f"==> kubectl apply -f {EXAMPLE.relative_to(EXAMPLE.parents[2])}", flush=True)
    name = build["metadata"]["name"]
    last_run = _last_run(target, name)
    target.kubectl("apply", "-f", "-", stdin=json.dumps(build))
    status = _follow(target, name, last_run)
    _show(target, name, status)
    _run_variants(target, status)
    path = f" PATH={target.facts.bin}:$PATH" if target.facts.bin else ""
    print(f"==> look around: export KUBECONFIG={target.facts.kubeconfig}{path}; kubectl get mab -n {NAMESPACE} -o yaml")


def check(target: Target) -> None:
    """Ask `kubectl mab doctor` whether the cluster has what builds need, and print what it says.

    Raises:
        CommandError: something is missing.
    """
    print("==> kubectl mab doctor", flush=True)
    target.kubectl("apply", "-f", "-", stdin=json.dumps(_namespace()))
    target.kubectl("wait", "serviceaccount/default", "-n", NAMESPACE, "--for=create", "--timeout=300s")
    argv = [sys.executable, "-m", "multiarchbuild", "cli", "doctor", "--before-installation", "-n", NAMESPACE]
    done = subprocess.run(argv, env=target.environment, text=True, capture_output=True, check=False)
    print(textwrap.indent(done.stdout + done.stderr, "    "), end="", flush=True)
    if done.returncode:
        raise CommandError("the cluster lacks what builds need: see above")


def _native_wait(target: Target) -> str:
    """Return how long to wait for native nodes: not at all for those that the cluster does not have."""
    return "2m" if set(target.nodes.values()) >= {"amd64", "arm64"} else "0s"


def _namespace() -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}


def _last_run(target: Target, name: str) -> str:
    """Return the id of the last run, so that `_follow` does not take it for the new one."""
    found = target.kubectl(
        "get", RESOURCE, name, "-n", NAMESPACE, "--ignore-not-found", "-o", "jsonpath={.status.run.id}"
    )
    return found.strip()


def _follow(target: Target, name: str, last_run: str) -> dict[str, Any]:
    """Print a line whenever something changes; return the status of the run that follows `last_run` once it ended."""
    started, shown = time.monotonic(), dict[str, str]()
    for build in _watch(target, name):
        status = build.get("status", {})
        run = status.get("run", {})
        if not run or run["id"] == last_run:
            continue
        for subject, line in _lines(run):
            if shown.get(subject) != line:
                shown[subject] = line
                print(f"    {time.monotonic() - started:6.1f} s  {subject:<14} {line}", flush=True)
        if result := run.get("result"):
            if result == "Succeeded":
                return dict(status)
            logs = "\n".join(entry.get("logTail", "") for entry in run["platforms"])
            raise CommandError(f"the build ended as {result}: {run['reason']}: {run['message']}\n{logs}")
    raise CommandError(f"the build did not end within {TIMEOUT} s: see kubectl get mab -n {NAMESPACE} {name} -o yaml")


def _watch(target: Target, name: str) -> Iterator[dict[str, Any]]:
    """Yield the resource now and after each change, for TIMEOUT seconds at most."""
    command = ["kubectl", "get", RESOURCE, name, "-n", NAMESPACE, "--watch", "-o", "json"]
    command += [f"--request-timeout={TIMEOUT}s"]
    with subprocess.Popen(command, env=target.environment, stdout=subprocess.PIPE, text=True) as watch:
        assert watch.stdout is not None
        buffer = ""
        try:
            for line in watch.stdout:
                buffer += line
                if line.startswith("}"):  # the end of an object that kubectl printed with indents
                    yield json.loads(buffer)
                    buffer = ""
        finally:
            watch.terminate()


def _lines(run: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (subject, state) for the run and each of its platforms."""
    for entry in run.get("platforms", ()):
        where = f"{entry.get('mode', '')} on {entry['node']}" if entry.get("node") else entry.get("mode", "")
        state = entry["phase"] if entry["phase"] in {"Running", "Succeeded"} else entry.get("reason", entry["phase"])
        cache = entry.get("cache", {})
        cached = f", {cache['hits']}/{cache['total']} steps cached" if cache else ""
        yield entry["platform"], f"{state:<10} {where}{cached}"
    if publish := run.get("publish"):
        yield "index", "published" if publish.get("finishedAt") and run.get("result") == "Succeeded" else "publishing"


def _show(target: Target, name: str, status: dict[str, Any]) -> None:
    print(f"==> kubectl get mab -n {NAMESPACE} -o wide")
    print(target.kubectl("get", RESOURCE, name, "-n", NAMESPACE, "-o", "wide"))
    ref = status["image"]["ref"]
    print(f"==> the index {ref}")
    index = target.manifest(ref)
    print(json.dumps(index.content if index else None, indent=2))
    print(f"==> digest: {status['image']['digest']}", flush=True)


def _run_variants(target: Target, status: dict[str, Any]) -> None:
    """Run `node -p process.arch` from each image of the index, on the node that built it natively."""
    repository = target.pulled(status["image"]["ref"]).split("@")[0]
    nodes = {entry["platform"]: entry["node"] for entry in status["run"]["platforms"] if entry["mode"] == "Native"}
    for image in status["image"]["platforms"]:
        platform, ref = image["platform"], f"{repository}@{image['digest']}"
        if platform not in nodes:
            print(f"==> {platform}: was built in QEMU, and no node can run it")
            continue
        name = f"run-{platform.replace('/', '-')}"
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {
                "nodeName": nodes[platform],
                "restartPolicy": "Never",
                "terminationGracePeriodSeconds": 0,
                "containers": [{"name": "node", "image": ref, "command": ["node", "-p", "process.arch"]}],
            },
        }
        target.kubectl("delete", "pod", name, "-n", NAMESPACE, "--ignore-not-found")
        target.kubectl("apply", "-f", "-", stdin=json.dumps(pod))
        succeeded = "--for=jsonpath={.status.phase}=Succeeded"
        target.kubectl("wait", f"pod/{name}", "-n", NAMESPACE, succeeded, "--timeout=300s")
        print(f"==> {platform}: node -p process.arch prints {target.kubectl('logs', name, '-n', NAMESPACE).strip()}")


def main() -> int:
    """Run the demo on the cluster that the environment names."""
    return finish(demo, bring_registry=True)


if __name__ == "__main__":
    raise SystemExit(main())
