import hashlib
import json

from multiarchbuild.cli import artifact
from multiarchbuild.cli.pack import Packed

PACKED = Packed(digest=f"sha256:{'a' * 64}", diff_id=f"sha256:{'d' * 64}", size=9, files=1)


def test_the_shape_is_that_of_flux_push_artifact() -> None:
    config = artifact.config_of(PACKED)
    assert dict(artifact.manifest_of(PACKED).content) == {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.cncf.flux.config.v1+json",
            "size": len(config),
            "digest": f"sha256:{hashlib.sha256(config).hexdigest()}",
        },
        "layers": [
            {
                "mediaType": "application/vnd.cncf.flux.content.v1.tar+gzip",
                "size": 9,
                "digest": PACKED.digest,
            }
        ],
    }
    assert json.loads(config)["rootfs"] == {"type": "layers", "diff_ids": [PACKED.diff_id]}
