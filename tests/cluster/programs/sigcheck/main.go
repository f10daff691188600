// sigcheck asks what clusters and clients ask before they run an image, with their own code: cosign's library
// (`cosign verify`, `cosign verify-attestation`) and containers/image's policy (Podman, CRI-O, skopeo).
//
// It reads questions from standard input, one JSON object a line, and prints an answer to each:
//
//	{"judge": "signature"|"bundle"|"policy", "image": "host/name@sha256:…", "key": "<PEM>", "folder": "<for the policy>"}
//	{"error": "…", "verified": 1, "predicates": ["https://slsa.dev/provenance/v1"]}
package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/sigstore/cosign/v3/pkg/cosign"
	"github.com/sigstore/cosign/v3/pkg/oci"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
	sigs "github.com/sigstore/sigstore/pkg/signature"
	"go.podman.io/image/v5/docker"
	"go.podman.io/image/v5/image"
	"go.podman.io/image/v5/signature"
	"go.podman.io/image/v5/types"
)

type question struct {
	Judge  string `json:"judge"`
	Image  string `json:"image"`
	Key    string `json:"key"`
	Folder string `json:"folder"`
}

type answer struct {
	Error      string   `json:"error"`
	Verified   int      `json:"verified"`
	Predicates []string `json:"predicates"`
}

func main() {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var asked question
		found := answer{Predicates: []string{}}
		err := json.Unmarshal(lines.Bytes(), &asked)
		if err == nil {
			err = judge(context.Background(), asked, &found)
		}
		if err != nil {
			found.Error = err.Error()
		}
		if err := json.NewEncoder(os.Stdout).Encode(found); err != nil {
			panic(err)
		}
	}
}

func judge(ctx context.Context, asked question, found *answer) error {
	switch asked.Judge {
	case "policy":
		return policy(ctx, asked, found)
	case "signature", "bundle":
		return sigstore(ctx, asked, found)
	}
	return fmt.Errorf("there is no judge %q", asked.Judge)
}

// sigstore does what `cosign verify --key … --insecure-ignore-tlog` does with images of the one format or the other.
func sigstore(ctx context.Context, asked question, found *answer) error {
	key, err := cryptoutils.UnmarshalPEMToPublicKey([]byte(asked.Key))
	if err != nil {
		return err
	}
	verifier, err := sigs.LoadVerifier(key, crypto.SHA256)
	if err != nil {
		return err
	}
	ref, err := name.ParseReference(asked.Image, name.Insecure)
	if err != nil {
		return err
	}
	options := &cosign.CheckOpts{SigVerifier: verifier, IgnoreTlog: true, IgnoreSCT: true, Offline: true}
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

// policy asks whether a host with a policy.json that demands this key for all images would run the image.
func policy(ctx context.Context, asked question, found *answer) error {
	key := filepath.Join(asked.Folder, "key.pub")
	if err := os.WriteFile(key, []byte(asked.Key), 0o600); err != nil {
		return err
	}
	registries := filepath.Join(asked.Folder, "registries.d")
	if err := os.MkdirAll(registries, 0o700); err != nil {
		return err
	}
	attached := []byte("default-docker:\n  use-sigstore-attachments: true\n")
	if err := os.WriteFile(filepath.Join(registries, "default.yaml"), attached, 0o600); err != nil {
		return err
	}
	demand, err := json.Marshal(map[string]any{
		"default": []any{map[string]string{"type": "reject"}},
		"transports": map[string]any{"docker": map[string]any{"": []any{map[string]any{
			"type": "sigstoreSigned", "keyPath": key, "signedIdentity": map[string]string{"type": "matchRepository"},
		}}}},
	})
	if err != nil {
		return err
	}
	parsed, err := signature.NewPolicyFromBytes(bytes.TrimSpace(demand))
	if err != nil {
		return err
	}
	demanded, err := signature.NewPolicyContext(parsed)
	if err != nil {
		return err
	}
	defer demanded.Destroy()
	ref, err := docker.ParseReference("//" + asked.Image)
	if err != nil {
		return err
	}
	system := &types.SystemContext{
		DockerInsecureSkipTLSVerify: types.OptionalBoolTrue,
		RegistriesDirPath:           registries,
		SystemRegistriesConfPath:    os.DevNull,
	}
	source, err := ref.NewImageSource(ctx, system)
	if err != nil {
		return err
	}
	defer source.Close()
	allowed, err := demanded.IsRunningImageAllowed(ctx, image.UnparsedInstance(source, nil))
	if err != nil {
		return err
	}
	if !allowed {
		return fmt.Errorf("not allowed")
	}
	found.Verified = 1
	return nil
}
