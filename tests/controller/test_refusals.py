"""What an API server costs that refuses each time in other words: a webhook that gives its refusals an id, say."""

import asyncio
import json
import random
import time
import uuid
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from aiohttp import web

from multiarchbuild.controller import refused
from multiarchbuild.controller.kube import BUILDS, EVENTS, PODS, Kube
from multiarchbuild.plan import not_created
from tests.faults.rig.api import Api, upstream
from tests.faults.rig.operator import SHORT, Operator
from tests.faults.rig.proxy import Proxy, Script, refusal

from .conftest import REAL, Kubectl, OperatorFactory, build, eventually

pytestmark = pytest.mark.api

FASTER = 10
"""How many times sooner than in the real operator is asked again for what was refused."""
MINUTES = 5 * 60 / FASTER
"""Seconds that are five minutes to it."""
ASK_AGAIN = not_created.ASK_AGAIN / FASTER
TIMES = {
    **SHORT,
    "multiarchbuild.controller.refused.REFUSED_SECONDS": refused.REFUSED_SECONDS / FASTER,
    "multiarchbuild.controller.refused.WORDS_SECONDS": refused.WORDS_SECONDS / FASTER,
    "multiarchbuild.controller.reconcile.REFUSED_SECONDS": refused.REFUSED_SECONDS / FASTER,
    "multiarchbuild.plan.not_created.ASK_AGAIN": ASK_AGAIN,
}
MOST_WRITES = 5
"""Status writes that a refusal may cost in five minutes."""

Words = Callable[[], str]
WORDS: dict[str, Words] = {
    "uid": lambda: f"denied, request {uuid.uuid4()}",
    "letters": lambda: f"denied, request {_letters(12)}",
    "sentences": lambda: "denied: " + " ".join(_letters(random.randint(1, 9)) for _ in range(random.randint(1, 9))),
    "the-same": lambda: "denied",
}


def _letters(count: int) -> str:
    return "".join(random.choices("abcdefghijklmnopqrstuvwxyz", k=count))


@pytest.mark.parametrize("kind", ["pods", "configmaps"])
async def test_other_words_each_time_cost_five_writes_in_five_minutes(
    kube: Kube, kubectl: Kubectl, kubeconfig: Path, namespace: str, tmp_path: Path, kind: str
) -> None:
    asked: Counter[tuple[str, str]] = Counter()

    async def refuse(request: web.Request) -> web.StreamResponse | None:
        path = request.path.rstrip("/")
        if request.method == "PATCH" and path.endswith("/status"):
            asked["status", path.split("/")[-2]] += 1
        if request.method != "POST" or not path.endswith(f"/{kind}"):
            return None
        name = (await request.json())["metadata"]["name"]
        app = next(app for app in WORDS if name.startswith(app))
        asked["create", app] += 1
        return refusal(403, "Forbidden", f'{kind} "{name}" is forbidden: {WORDS[app]()}')

    node = f"/api/v1/nodes/refusals-{namespace}"
    async with Api(upstream(kubeconfig)) as api, Proxy(upstream(kubeconfig)) as proxy:
        await api.create("/api/v1/nodes", {"metadata": {"name": node.rpartition("/")[2]}})
        proxy.scripts[namespace] = Script(instead=refuse)
        arguments = ("--no-leader-elect", f"--namespace={namespace}")
        server = f"{proxy.url}/plan/{namespace}"
        operator = Operator(server, tmp_path, *arguments, namespace=namespace, times=TIMES)
        operator.start()
        try:
            for app in WORDS:
                kubectl("create", "-f", "-", stdin=build(namespace, app))

            async def told() -> bool:
                builds = await kube.list(BUILDS, namespace)
                return all("denied" in json.dumps(each.get("status", {})) for each in builds)

            await eventually("each build says what was refused", told)
            began = time.monotonic()
            while (seconds := time.monotonic() - began) < MINUTES:
                # A node that changes has builds looked at that wait for one.
                await api.merge(node, {"metadata": {"labels": {"example.com/seen": f"{seconds:.0f}"}}})
                await asyncio.sleep(1)
            assert operator.runs, operator.log.read_text()
        finally:
            await operator.kill()
            await api.delete(node)
    for app in WORDS:
        assert asked["status", app] <= MOST_WRITES, asked
        assert 2 <= asked["create", app] <= 2 + seconds / (refused.REFUSED_SECONDS / FASTER), asked


async def test_a_service_account_that_comes_with_the_build_is_waited_for(
    kube: Kube, kubectl: Kubectl, namespace: str, operator: OperatorFactory, tmp_path: Path
) -> None:
    """As GitOps applies them, in whatever order: no build is Stalled for it, and none waits for a minute."""
    policy = tmp_path / "policy.yaml"
    policy.write_text(json.dumps({"tenants": [{"namespaces": ["*"], "serviceAccounts": ["*"]}]}))
    arguments = ("--policy", str(policy), "--no-flux", "--namespace", namespace)
    running = await operator(*arguments, program=REAL).leading()
    manifest = json.loads(build(namespace))
    manifest["spec"]["scheduling"] = {"serviceAccountName": "builder"}
    kubectl("create", "-f", "-", stdin=json.dumps(manifest))

    async def says_so() -> bool:
        status = (await kube.get(BUILDS, namespace, "app")).get("status", {})
        said = {each["type"]: each for each in status.get("conditions", ())}
        return 'serviceaccount "builder" not found' in said.get("Ready", {}).get("message", "")

    await eventually("status says what the pod waits for", says_so)
    kubectl("create", "serviceaccount", "builder", "-n", namespace)
    began = time.monotonic()

    async def is_created() -> bool:
        return bool(await kube.list(PODS, namespace))

    await eventually("the pod is created", is_created)
    assert time.monotonic() - began < not_created.ASK_AGAIN.total_seconds() / 2
    reasons = {event["reason"] for event in await kube.list(EVENTS, namespace)}
    assert "PodRejected" not in reasons
    assert running.metric('mab_reconcile_errors_total{kind="transient"}') == 0, "nothing has gone wrong"
