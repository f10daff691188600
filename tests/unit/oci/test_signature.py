"""Signatures of AWS, by the example of their documentation; moto verifies those of the steps."""

import datetime as dt

from multiarchbuild.oci.identity.aws import Keys, sign
from multiarchbuild.oci.identity.requests import said_by

NOW = dt.datetime(2015, 8, 30, 12, 36, tzinfo=dt.UTC)
KEYS = Keys("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")


def test_the_example_of_the_documentation() -> None:
    # https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
    headers = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}
    url = "https://iam.amazonaws.com/?Action=ListUsers&Version=2010-05-08"
    signed = sign("GET", url, headers, "", KEYS, region="us-east-1", service="iam", now=NOW)
    assert signed["Authorization"] == (
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/iam/aws4_request, "
        "SignedHeaders=content-type;host;x-amz-date, "
        "Signature=5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7"
    )


def test_keys_are_not_printed() -> None:
    assert "wJalr" not in repr(KEYS)


def test_what_a_provider_says_is_told_without_tokens() -> None:
    xml = "<ErrorResponse><Error><Code>InvalidIdentityToken</Code><Message>No OpenIDConnect provider</Message></Error>"
    assert said_by(xml) == "InvalidIdentityToken: No OpenIDConnect provider"
    assert said_by('{"error": "invalid_grant", "error_description": "eyJhbGciOi.eyJhdWQi.c2ln is bad"}') == (
        "invalid_grant: … is bad"
    )
    assert said_by('{"error": {"code": 403, "message": "denied", "status": "PERMISSION_DENIED"}}') == (
        "PERMISSION_DENIED: denied"
    )
    assert said_by('{"errors": [{"code": "UNAUTHORIZED", "message": "m"}]}') == "UNAUTHORIZED: m"
    assert said_by("<html><body>nginx") == ""
