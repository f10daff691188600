package main

import (
	"context"
	"fmt"

	"github.com/fluxcd/source-controller/internal/oci"
	fluxcosign "github.com/fluxcd/source-controller/internal/oci/cosign"
	"github.com/google/go-containerregistry/pkg/name"
)

// flux does what source-controller does for an OCIRepository with `verify: {provider: cosign, secretRef: …}`, for one
// public key of that Secret. Its package is internal: this module's path begins with the controller's for that.
func flux(ctx context.Context, asked question, found *answer) error {
	verifier, err := fluxcosign.NewCosignVerifierFactory().NewCosignVerifier(
		ctx, fluxcosign.WithPublicKey([]byte(asked.Key)), fluxcosign.WithInsecure(true))
	if err != nil {
		return err
	}
	ref, err := name.ParseReference(asked.Image, name.Insecure)
	if err != nil {
		return err
	}
	result, err := verifier.Verify(ctx, ref)
	if err != nil {
		return err
	}
	if result != oci.VerificationResultSuccess {
		return fmt.Errorf("%s", result)
	}
	found.Verified = 1
	return nil
}
