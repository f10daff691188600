package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"fmt"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/kyverno/kyverno/pkg/image/verifiers"
	clusterpolicy "github.com/kyverno/kyverno/pkg/image/verifiers/cpol/cosign"
	"github.com/sigstore/cosign/v3/pkg/cosign"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
)

// keyless is what is demanded of a certificate and a timestamp where no key is named.
type keyless struct {
	Subject string `json:"subject"`
	Issuer  string `json:"issuer"`
	// Roots and Timestamps are the chains of Fulcio and of the timestamp authority (PEM), the root last.
	Roots      string `json:"roots"`
	Timestamps string `json:"timestamps"`
}

// certificates is a chain, sorted.
type certificates struct {
	leaf          *x509.Certificate
	intermediates []*x509.Certificate
	root          *x509.Certificate
}

func sorted(pem string) (certificates, error) {
	var found certificates
	all, err := cryptoutils.UnmarshalCertificatesFromPEM([]byte(pem))
	if err != nil {
		return found, err
	}
	for _, each := range all {
		switch {
		case !each.IsCA:
			found.leaf = each
		case bytes.Equal(each.RawSubject, each.RawIssuer):
			found.root = each
		default:
			found.intermediates = append(found.intermediates, each)
		}
	}
	if found.root == nil {
		return found, fmt.Errorf("the chain has no root")
	}
	return found, nil
}

// options does what cosign's command does with --certificate-identity, --certificate-oidc-issuer, --insecure-ignore-tlog,
// --insecure-ignore-sct and --use-signed-timestamps: for signatures of cosign 2 with --certificate-chain and
// --timestamp-certificate-chain, for bundles with --trusted-root.
func (demanded keyless) options(bundles bool) (*cosign.CheckOpts, error) {
	fulcio, err := sorted(demanded.Roots)
	if err != nil {
		return nil, err
	}
	stamps, err := sorted(demanded.Timestamps)
	if err != nil {
		return nil, err
	}
	options := &cosign.CheckOpts{
		IgnoreTlog: true, IgnoreSCT: true, Offline: true, UseSignedTimestamps: true,
		Identities: []cosign.Identity{{Subject: demanded.Subject, Issuer: demanded.Issuer}},
	}
	if bundles {
		options.TrustedMaterial, err = trusted(fulcio, stamps)
		return options, err
	}
	options.RootCerts, options.IntermediateCerts = x509.NewCertPool(), x509.NewCertPool()
	options.RootCerts.AddCert(fulcio.root)
	for _, each := range fulcio.intermediates {
		options.IntermediateCerts.AddCert(each)
	}
	options.TSACertificate, options.TSAIntermediateCertificates = stamps.leaf, stamps.intermediates
	options.TSARootCertificates = []*x509.Certificate{stamps.root}
	return options, nil
}

// trusted is what `cosign trusted-root create --fulcio … --tsa …` writes.
func trusted(fulcio, stamps certificates) (*root.TrustedRoot, error) {
	begin := time.Unix(0, 0)
	return root.NewTrustedRoot(
		root.TrustedRootMediaType01,
		[]root.CertificateAuthority{&root.FulcioCertificateAuthority{
			Root: fulcio.root, Intermediates: fulcio.intermediates, ValidityPeriodStart: begin,
		}},
		nil,
		[]root.TimestampingAuthority{&root.SigstoreTimestampingAuthority{
			Root: stamps.root, Intermediates: stamps.intermediates, Leaf: stamps.leaf, ValidityPeriodStart: begin,
		}},
		nil,
	)
}

// kyvernoKeyless asks the verifier of a ClusterPolicy's `verifyImages` of `type: Cosign` with `keyless`.
func kyvernoKeyless(ctx context.Context, asked question, found *answer) error {
	signed, err := clusterpolicy.NewVerifier().VerifySignature(ctx, verifiers.Options{
		ImageRef:     asked.Image,
		Client:       client{},
		Roots:        asked.Keyless.Roots,
		TSACertChain: asked.Keyless.Timestamps,
		Subject:      asked.Keyless.Subject,
		Issuer:       asked.Keyless.Issuer,
		IgnoreTlog:   asked.Keys.Rekor.IgnoreTlog,
		IgnoreSCT:    asked.Keys.CTLog.IgnoreSCT,
	})
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
	return nil
}
