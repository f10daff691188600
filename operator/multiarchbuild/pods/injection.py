"""What keeps admission webhooks from adding containers to a pod.

A container that a webhook adds does not end with the step: the pod, and buildkitd in it, would live until its deadline.
Where it is a proxy, the step and buildkitd may also start before it answers. Kubernetes has no common switch.
"""

from multiarchbuild.plan.pod_policy import Injection

_LABELS = {
    "sidecar.istio.io/inject": "false",
    "kuma.io/sidecar-injection": "disabled",
    "admission.datadoghq.com/enabled": "false",
}
_ANNOTATIONS = {
    # Istio before 1.10 and OpenShift Service Mesh 2 read this one, later ones the label.
    "sidecar.istio.io/inject": "false",
    "linkerd.io/inject": "disabled",
    "vault.hashicorp.com/agent-inject": "false",
    "consul.hashicorp.com/connect-inject": "false",
    "appmesh.k8s.aws/sidecarInjectorWebhook": "disabled",
    "sidecar.opentelemetry.io/inject": "false",
    # It replaces PYTHONPATH, by which the step finds its modules.
    "instrumentation.opentelemetry.io/inject-python": "false",
    "dynatrace.com/inject": "false",
}
"""By the documentation of each: istio.io and kuma.io on sidecar injection, docs.datadoghq.com on its admission
controller, linkerd.io on proxy injection, developer.hashicorp.com on the injectors of Vault and Consul, AWS App Mesh on
its injector, the OpenTelemetry operator on sidecars and instrumentation, docs.dynatrace.com on annotations of pods.
Dapr injects only where a pod asks for it."""


def labels(injection: Injection) -> dict[str, str]:
    """Return the labels of a pod for this setting of the policy."""
    return dict(_LABELS) if injection is Injection.DISABLED else {}


def annotations(injection: Injection) -> dict[str, str]:
    """Return the annotations of a pod for this setting of the policy."""
    return dict(_ANNOTATIONS) if injection is Injection.DISABLED else {}
