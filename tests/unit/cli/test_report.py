"""What `kubectl mab report` shows of a resource."""

import yaml

from multiarchbuild.cli.report import resource


def test_who_wrote_a_field_is_left_out() -> None:
    last = "kubectl.kubernetes.io/last-applied-configuration"
    document = {
        "kind": "MultiArchBuild",
        "metadata": {"name": "app", "managedFields": [{}], "annotations": {last: "{}", "team": "a"}},
        "status": {"conditions": []},
    }
    shown = yaml.safe_load(resource(document))
    assert shown["metadata"] == {"name": "app", "annotations": {"team": "a"}}
    assert shown["status"] == document["status"]
    assert "managedFields" in document["metadata"], "the original stays as it is"
