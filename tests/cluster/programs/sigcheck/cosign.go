package main

import (
	"context"
	"crypto"
	"encoding/base64"
	"encoding/json"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/sigstore/cosign/v3/pkg/cosign"
	"github.com/sigstore/cosign/v3/pkg/oci"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
	sigs "github.com/sigstore/sigstore/pkg/signature"
)

// sigstore does what `cosign verify --key … --insecure-ignore-tlog` does with images of the one format or the other, and
// without a key what it does with the identity in a certificate.
func sigstore(ctx context.Context, asked question, found *answer) error {
	options, err := demanded(asked)
	if err != nil {
		return err
	}
	ref, err := name.ParseReference(asked.Image, name.Insecure)
	if err != nil {
		return err
	}
	var checked []oci.Signature
	if asked.Judge == "signature" {
		options.ClaimVerifier = cosign.SimpleClaimVerifier
		checked, _, err = cosign.VerifyImageSignatures(ctx, ref, options)
	} else {
		options.ClaimVerifier, options.NewBundleFormat = cosign.IntotoSubjectClaimVerifier, true
		checked, _, err = cosign.VerifyImageAttestations(ctx, ref, options, name.Insecure)
	}
	if err != nil {
		return err
	}
	found.Verified = len(checked)
	for _, each := range checked {
		if kind := predicate(each); kind != "" {
			found.Predicates = append(found.Predicates, kind)
		}
	}
	return nil
}

func demanded(asked question) (*cosign.CheckOpts, error) {
	if asked.Keyless != nil {
		return asked.Keyless.options(asked.Judge == "bundle")
	}
	key, err := cryptoutils.UnmarshalPEMToPublicKey([]byte(asked.Key))
	if err != nil {
		return nil, err
	}
	verifier, err := sigs.LoadVerifier(key, crypto.SHA256)
	if err != nil {
		return nil, err
	}
	return &cosign.CheckOpts{SigVerifier: verifier, IgnoreTlog: true, IgnoreSCT: true, Offline: true}, nil
}

// predicate returns the predicateType of an attestation, empty for anything else.
func predicate(signed oci.Signature) string {
	payload, err := signed.Payload()
	if err != nil {
		return ""
	}
	var envelope struct{ Payload string }
	if json.Unmarshal(payload, &envelope) != nil {
		return ""
	}
	statement, err := base64.StdEncoding.DecodeString(envelope.Payload)
	if err != nil {
		return ""
	}
	var said struct{ PredicateType string }
	if json.Unmarshal(statement, &said) != nil {
		return ""
	}
	return said.PredicateType
}
