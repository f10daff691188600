"""Runs plans: hundreds of builds against one API server, each with its own faults, and looks at what came of each.

python -m tests.faults.rig.campaign [--seed N] [--plans N | --plan NAME …]
"""

import argparse
import asyncio
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from multiarchbuild.api.crd import crd
from multiarchbuild.plan.children import Role, pod_from
from tests.cluster.fixture import control_plane
from tests.support.pace import slowness
from tests.support.tasks import beside

from .api import Api, ApiError, Object, upstream
from .faults import Fault, Plan, sample
from .kubelet import Kubelet, Place
from .operator import Operator, at_pace
from .proxy import Proxy, Script
from .scenarios import BUILDS, SCENARIOS, Case, Scenario, manifest

TOGETHER: Final = 24
"""Plans at a time that share an operator."""
ALONE: Final = 5
"""Plans at a time that have an operator of their own."""
SECONDS: Final = 90.0
"""Time without any request, event or change of a pod after which a plan is given up."""
REST_SECONDS: Final = 20.0
"""Time without any of it, after the end of the last run, after which what is left over stays."""
_GIT_REPOSITORIES: Final[Object] = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "gitrepositories.source.toolkit.fluxcd.io"},
    "spec": {
        "group": "source.toolkit.fluxcd.io",
        "scope": "Namespaced",
        "names": {
            "kind": "GitRepository",
            "plural": "gitrepositories",
            "singular": "gitrepository",
            "listKind": "GitRepositoryList",
        },
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
            }
        ],
    },
}
"""Of Flux's kind, what the operator reads."""


@dataclass
class Report:
    """What came of a plan."""

    plan: Plan
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0
    fired: int = 0
    """Faults that happened: a run may have had fewer requests than the plan was made for."""
    requests: list[str] = field(default_factory=list)
    events: int = 0
    status: Object = field(default_factory=dict)


@dataclass
class Rig:
    """An API server without nodes of its own, a proxy before it, a kubelet, and one operator for all."""

    api: Api
    proxy: Proxy
    kubelet: Kubelet
    folder: Path
    shared: Operator
    times: Mapping[str, object]
    """Of operators, as this machine is fast."""
    cases: dict[str, Case] = field(default_factory=dict)
    """By namespace, or namespace/name."""
    restarts: int = 0

    async def run(self, plan: Plan, seconds: float = SECONDS) -> Report:
        """Run one plan to its end."""
        scenario = SCENARIOS[plan.scenario]
        namespace = f"f-{random.Random().getrandbits(40):010x}"
        place = Place()
        case = Case(self.api, namespace, place, seconds)
        place.behaviour = partial(scenario.behaviour, case)
        self.cases[namespace], self.kubelet.places[namespace] = case, place
        report, started = Report(plan), time.monotonic()
        await self.api.create("/api/v1/namespaces", {"metadata": {"name": namespace}})
        script = self.proxy.scripts[namespace] = Script(plan.injections)
        case.activity = lambda: (len(script.requests), script.events, len(place.pods), len(place.deleted))
        operator = self.shared
        if plan.alone:
            operator = Operator(
                f"{self.proxy.url}/plan/{namespace}",
                self.folder / namespace,
                "--no-leader-elect",
                f"--namespace={namespace}",
                namespace=namespace,
                times=self.times,
            )
            script.kill = operator.crash
            operator.start()
        try:
            await scenario.before(case)
            await self.api.create(BUILDS.format(namespace), manifest(scenario, namespace))
            await self._live(scenario, case, report)
        finally:
            report.seconds = time.monotonic() - started
            report.fired, report.requests, report.events = len(script.fired), script.requests, script.events
            report.status = case.status
            if not plan.alone:
                report.problems += _bugs(operator, namespace)
            else:
                if not await operator.end():
                    report.problems.append(f"the operator has ended: {operator.lines('error')[-1:]}")
                report.problems += _bugs(operator, namespace)
            await self.api.delete(case.path, {"propagationPolicy": "Background"})
            del self.cases[namespace], self.proxy.scripts[namespace]
        return report

    async def _live(self, scenario: Scenario, case: Case, report: Report) -> None:
        what = "people did what they do"
        try:
            await scenario.people(case)
            what = f"{len(scenario.runs)} runs end"
            if scenario.deleted:
                await case.until(lambda: case.uid and not case.build)
            else:
                await case.until(case.ended(len(scenario.runs)))
        except TimeoutError:
            report.problems.append(
                f"nothing happens for {case.seconds:.0f} s, or too much ({case.activity()}): not {what}"
            )
            report.problems += await self._judge(scenario, case)
            return
        started = idle_since = time.monotonic()
        last = case.activity()
        while problems := await self._judge(scenario, case):
            if (now := case.activity()) != last:
                last, idle_since = now, time.monotonic()
            elif time.monotonic() - idle_since > REST_SECONDS or idle_since - started > 10 * REST_SECONDS:
                report.problems += problems
                return
            await asyncio.sleep(1)

    async def _judge(self, scenario: Scenario, case: Case) -> list[str]:
        """Return what is wrong."""
        problems: list[str] = []
        root = f"/api/v1/namespaces/{case.namespace}"
        pods = (await self.api.get(f"{root}/pods"))["items"]
        maps = (await self.api.get(f"{root}/configmaps"))["items"]
        events = (await self.api.get(f"/apis/events.k8s.io/v1/namespaces/{case.namespace}/events"))["items"]
        maps = [each for each in maps if each["metadata"]["name"] != "kube-root-ca.crt"]
        problems += [*case.place.problems, *_doubled(case.place, scenario)]
        told = Counter((event.get("reason"), event.get("note")) for event in events if _is_ours(event))
        most = max(len(scenario.runs), 1)  # each run may say the same
        problems += [f"told {count} times: {reason}: {note}" for (reason, note), count in told.items() if count > most]
        if scenario.deleted:
            return problems + [f"left over: {each['metadata']['name']}" for each in (*pods, *maps)]
        problems += _ending(scenario, case)
        problems += _left_over(case, pods, maps)
        return problems


def _ending(scenario: Scenario, case: Case) -> Iterable[str]:
    """Yield what is wrong with how it ended."""
    if case.results != list(scenario.runs):
        yield f"runs ended with {case.results}, not {list(scenario.runs)}"
    status, run = case.status, case.status.get("run", {})
    ready = {entry["type"]: entry["status"] for entry in status.get("conditions", ())}
    good = scenario.runs[-1][0] == "Succeeded"
    if (ready.get("Ready") == "True") is not good:
        yield f"Ready is {ready.get('Ready')}"
    if status.get("observedGeneration") != case.build.get("metadata", {}).get("generation"):
        yield "the last generation was not looked at"
    image = status.get("image", {}).get("digest")
    if good and image != case.place.published.get(str(run.get("id"))):
        yield f"image {image} is not what was published: {case.place.published}"
    known = {entry["id"]: entry for entry in status.get("history", ())}
    for run_id, published in case.place.published.items():
        if known.get(run_id, {}).get("digest") != published:
            yield f"what run {run_id} published is lost: {published}"
    for entry in run.get("platforms", ()):
        if entry.get("attempt", 0) > scenario.attempts.get("build", 1):
            yield f"{entry['platform']} took {entry['attempt']} attempts: {entry.get('failedAttempts')}"


def _doubled(place: Place, scenario: Scenario) -> Iterable[str]:
    """Yield what was started more than once, or more often than it had to be."""
    seen: Counter[tuple[object, ...]] = Counter()
    runs: set[str] = set()
    for uid, manifest_ in place.first.items():
        pod = pod_from(manifest_)
        runs |= {pod.run_id, pod_from(place.pods[uid]).run_id}
        seen[pod.run_id, pod.role, pod.platforms, pod.attempt] += 1
        if pod.role is not Role.CHECK and pod.attempt > scenario.attempts.get(pod.role, 1):
            yield f"{pod.name} is an attempt too many"
    yield from (f"{count} pods for {key}" for key, count in seen.items() if count > 1)
    most = max(len(scenario.runs), 1)
    if len(runs) > most:
        yield f"{len(runs)} runs, not {most}: {sorted(runs)}"


def _left_over(case: Case, pods: Sequence[Object], maps: Sequence[Object]) -> Iterable[str]:
    """Yield what nobody needs any more."""
    kept = {entry["id"] for entry in case.status.get("history", ())} | {case.run()}
    for each in (*pods, *maps):
        meta = each["metadata"]
        if [owner["uid"] for owner in meta.get("ownerReferences", ())] != [case.uid]:
            yield f"{meta['name']} belongs to nobody"
        if meta["labels"]["multiarch.build/run"] not in kept:
            yield f"{meta['name']} is of a run that nobody knows"
    for each in pods:
        seen = pod_from(each)
        if seen.role is not Role.CHECK and not (seen.ended or seen.deleting or seen.idle):
            yield f"{seen.name} still runs"


def _is_ours(event: Object) -> bool:
    return bool(event.get("reportingController") == "multiarch.build/operator")


def _bugs(operator: Operator, namespace: str) -> list[str]:
    """Return what an operator calls a bug of itself."""
    found = [line for line in operator.lines("error") if "bug" in line.get("event", "")]
    return [json.dumps(line)[:4000] for line in found if line.get("build", "").startswith(namespace)]


@asynccontextmanager
async def rig(kubeconfig: Path, folder: Path) -> AsyncIterator[Rig]:
    """Yield a rig on an API server that nothing else works with."""
    server = upstream(kubeconfig)
    async with Api(server) as api, Proxy(server) as proxy:
        definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
        for definition in (crd(), _GIT_REPOSITORIES):
            await api.apply(f"{definitions}/{definition['metadata']['name']}", definition)
        await served(api, BUILDS.format("default"))
        kubelet = Kubelet(api)
        proxy.logs = kubelet.log
        times = at_pace(await asyncio.to_thread(slowness))
        shared = Operator(proxy.url, folder / "shared", "--no-leader-elect", times=times)
        made = Rig(api, proxy, kubelet, folder, shared, times)
        try:
            async with beside(kubelet.run(), _follow(made)):
                shared.start()
                yield made
        finally:
            await shared.kill()


async def served(api: Api, path: str) -> None:
    """Return once the API server serves `path`."""
    end = time.monotonic() + 240
    while True:
        try:
            await api.get(path)
        except ApiError:
            if time.monotonic() > end:
                raise
            await asyncio.sleep(0.2)
        else:
            return


async def _follow(made: Rig) -> None:
    async for kind, build in made.api.watch("/apis/multiarch.build/v1alpha1/multiarchbuilds"):
        meta = build["metadata"]
        case = made.cases.get(meta["namespace"]) or made.cases.get(f"{meta['namespace']}/{meta['name']}")
        if case is not None:
            case.seen(kind, build)


async def run(made: Rig, plans: Sequence[Plan], seconds: float = SECONDS) -> list[Report]:
    """Run plans, many at a time: first those that share an operator, then those that have their own."""
    together, alone = asyncio.Semaphore(TOGETHER), asyncio.Semaphore(ALONE)
    done = 0
    started = time.monotonic()

    async def one(plan: Plan) -> Report:
        nonlocal done
        async with alone if plan.alone else together:
            report = await made.run(plan, seconds)
        done += 1
        if report.problems:
            print(f"FAILED {plan.name}: {'; '.join(report.problems)}", flush=True)
            (made.folder / f"{plan.name.replace('/', '_')[:200]}.json").write_text(
                json.dumps(vars(report), default=str)
            )
        if len(plans) <= 50:
            print(f"{plan.name}: {len(report.requests)} requests, {report.events} events, {report.seconds:.1f} s")
        if done % 50 == 0:
            print(f"{done}/{len(plans)} plans, {time.monotonic() - started:.0f} s", flush=True)
        return report

    reports = list(await asyncio.gather(*(one(plan) for plan in plans if not plan.alone)))
    if not any(plan.alone for plan in plans):
        return reports
    if made.shared.starts:
        # Who serves all namespaces would serve those as well.
        assert await made.shared.end(), f"the shared operator has ended: {made.shared.log}"
    return reports + list(await asyncio.gather(*(one(plan) for plan in plans if plan.alone)))


def operators_problems(made: Rig) -> list[str]:
    """Return what the operator for all calls a bug of itself, and whether it has ended."""
    found = [json.dumps(line)[:3000] for line in made.shared.lines("error") if "bug" in line.get("event", "")]
    return found if made.shared.runs else [*found, f"the operator has ended: {made.shared.log}"]


def table(reports: Sequence[Report]) -> str:
    """Return what came of plans, by fault, as Markdown."""
    rows: dict[str, Counter[str]] = {}
    for report in reports:
        faults = [str(each.fault) for each in report.plan.injections]
        row = rows.setdefault(faults[0] if len(faults) == 1 else "several" if faults else "none", Counter())
        row["plans"] += 1
        row["fired"] += bool(report.fired)
        row["failed"] += bool(report.problems)
    order = [*(str(fault) for fault in Fault), "several", "none"]
    lines = ["| fault | plans | happened | wrong |", "|---|---:|---:|---:|"]
    lines += [
        f"| {name} | {rows[name]['plans']} | {rows[name]['fired']} | {rows[name]['failed']} |"
        for name in order
        if name in rows
    ]
    total = [sum(row[key] for row in rows.values()) for key in ("plans", "fired", "failed")]
    return "\n".join([*lines, f"| **all** | {total[0]} | {total[1]} | {total[2]} |"])


async def campaign(kubeconfig: Path, plans: Sequence[Plan], folder: Path) -> list[Report]:
    """Run plans on an API server and return what came of each."""
    async with rig(kubeconfig, folder) as made:
        return await run(made, plans)


def main(argv: Sequence[str] | None = None) -> int:
    """See the module; return 1 where something went wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.rig.campaign", description=__doc__)
    parser.add_argument("--kubeconfig", type=Path, help="of an API server that nothing else works with (default: own)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--plans", type=int, default=1200, help="how many (default 1200)")
    parser.add_argument("--plan", action="append", help="the name of one plan, as a report prints it")
    parser.add_argument("--scenario", action="append", choices=sorted(SCENARIOS), help="only these")
    parser.add_argument("--folder", type=Path, default=None, help="where logs go")
    options = parser.parse_args(argv)
    lengths = {name: each.length for name, each in SCENARIOS.items() if name in (options.scenario or SCENARIOS)}
    plans = list(map(Plan.parse, options.plan)) if options.plan else sample(lengths, options.plans, options.seed)
    folder = options.folder or Path(tempfile.mkdtemp(prefix="mab-faults-"))
    print(f"seed {options.seed}, {len(plans)} plans, logs in {folder}", flush=True)
    with control_plane(options.kubeconfig) as kubeconfig:
        reports = asyncio.run(campaign(kubeconfig, plans, folder))
    print(table(reports))
    return int(any(report.problems for report in reports))


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    sys.exit(main())


__all__: Sequence[Any] = ("Rig", "campaign", "rig", "run", "table")
