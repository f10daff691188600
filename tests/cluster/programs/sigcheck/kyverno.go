package main

import (
	"context"
	"fmt"

	"github.com/go-logr/logr"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	policies "github.com/kyverno/api/api/policies.kyverno.io/v1beta1"
	"github.com/kyverno/kyverno/pkg/image/verifiers"
	clusterpolicy "github.com/kyverno/kyverno/pkg/image/verifiers/cpol/cosign"
	imagepolicy "github.com/kyverno/kyverno/pkg/image/verifiers/ivpol/cosign"
	"github.com/kyverno/sdk/extensions/imagedataloader"
)

const provenance = "https://slsa.dev/provenance/v1"

// client is how Kyverno reaches registries that need no login.
type client struct{}

func (client) Options(context.Context) ([]remote.Option, []name.Option, error) {
	return nil, []name.Option{name.Insecure}, nil
}

func (client) NameOptions() []name.Option {
	return []name.Option{name.Insecure}
}

// keys is the part of `attestors[].entries[].keys` of a ClusterPolicy that its engine hands on for a public key.
type keys struct {
	Rekor struct {
		IgnoreTlog bool `json:"ignoreTlog"`
	} `json:"rekor"`
	CTLog struct {
		IgnoreSCT bool `json:"ignoreSCT"`
	} `json:"ctlog"`
}

// kyverno asks the verifier of a ClusterPolicy's `verifyImages`, of `type: Cosign` or `type: SigstoreBundle`.
func kyverno(ctx context.Context, asked question, found *answer) error {
	bundles := asked.Judge == "kyverno-bundle"
	verifier := clusterpolicy.NewVerifier()
	options := verifiers.Options{
		SigstoreBundle: bundles,
		ImageRef:       asked.Image,
		Client:         client{},
		Key:            asked.Key,
		IgnoreTlog:     asked.Keys.Rekor.IgnoreTlog,
		IgnoreSCT:      asked.Keys.CTLog.IgnoreSCT,
	}
	signed, err := verifier.VerifySignature(ctx, options)
	if err != nil {
		return err
	}
	ref, err := name.NewDigest(asked.Image, name.Insecure)
	if err != nil {
		return err
	}
	if signed.Digest != ref.DigestStr() {
		return fmt.Errorf("the signature is of %s", signed.Digest)
	}
	found.Verified = 1
	if !bundles {
		return nil
	}
	options.FetchAttestations, options.Type = true, provenance
	attested, err := verifier.FetchAttestations(ctx, options)
	if err != nil {
		return err
	}
	for _, statement := range attested.Statements {
		found.Predicates = append(found.Predicates, fmt.Sprint(statement["type"]))
	}
	return nil
}

// kyvernoImage asks what an ImageValidatingPolicy asks by `verifyImageSignatures` and, for SLSA provenance,
// `verifyAttestationSignatures`.
func kyvernoImage(ctx context.Context, asked question, found *answer) error {
	loader, err := imagedataloader.New(nil, nil, []name.Option{name.Insecure})
	if err != nil {
		return err
	}
	image, err := loader.FetchImageData(ctx, asked.Image, nil, []name.Option{name.Insecure})
	if err != nil {
		return err
	}
	verifier := imagepolicy.NewVerifier(nil, logr.Discard())
	if err := verifier.VerifyImageSignature(ctx, image, asked.Attestor); err != nil {
		return err
	}
	found.Verified = 1
	attestation := &policies.Attestation{Name: "provenance", InToto: &policies.InToto{Type: provenance}}
	if err := verifier.VerifyAttestationSignature(ctx, image, attestation, asked.Attestor); err != nil {
		return err
	}
	found.Predicates = append(found.Predicates, provenance)
	return nil
}
