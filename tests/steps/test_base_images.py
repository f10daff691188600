"""What tags of base images mean now, asked of real registries."""

from multiarchbuild.api.results import Resolved
from tests.steps.conftest import Pods


def test_a_build_tells_what_may_move_and_a_look_what_has(pod: Pods) -> None:
    app = pod()
    (base,) = app.built().bases
    assert base.startswith("docker.io/library/busybox:1.36@sha256:")
    name, _, digest = base.partition("@")
    asked = app.run("resolve", f"--base={base}")
    assert asked == Resolved(), "it is asked of the mirror, as BuildKit does"
    before = f"{name}@sha256:{'0' * 64}"
    assert app.run("resolve", f"--base={before}") == Resolved(bases=(base,))
    gone = f"{name.rpartition(':')[0]}:gone@{digest}"
    assert app.run("resolve", f"--base={gone}", f"--base={before}") == Resolved(bases=(base,))
    pinned = pod(source={"inline": {"files": {"Dockerfile": f"FROM busybox:1.36@{digest}\n"}}})
    assert pinned.built().bases == ()
