// sigcheck asks what clusters and clients ask before they run an image, with their own code: cosign's library
// (`cosign verify`, `cosign verify-attestation`), containers/image's policy (Podman, CRI-O, skopeo), the verifier of
// Flux's source-controller, and those of Kyverno's two kinds of policies.
//
// It reads questions from standard input, one JSON object a line, and prints an answer to each:
//
//	{"judge": "signature"|"bundle"|…, "image": "host/name@sha256:…", "key": "<PEM>", …}
//	{"error": "…", "verified": 1, "predicates": ["https://slsa.dev/provenance/v1"]}
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"

	policies "github.com/kyverno/api/api/policies.kyverno.io/v1beta1"
)

type question struct {
	Judge string `json:"judge"`
	Image string `json:"image"`
	Key   string `json:"key"`
	// Folder is for the files of containers/image's policy.
	Folder string `json:"folder"`
	// Keys is what a ClusterPolicy of Kyverno says of the key, and Attestor what an ImageValidatingPolicy does.
	Keys     keys               `json:"keys"`
	Attestor *policies.Attestor `json:"attestor"`
	// Keyless is what is asked for instead of Key.
	Keyless *keyless `json:"keyless"`
}

type answer struct {
	Error      string   `json:"error"`
	Verified   int      `json:"verified"`
	Predicates []string `json:"predicates"`
}

var judges = map[string]func(context.Context, question, *answer) error{
	"signature":      sigstore,
	"bundle":         sigstore,
	"policy":         policy,
	"flux":           flux,
	"kyverno":        kyverno,
	"kyverno-bundle": kyverno,
	"kyverno-image":  kyvernoImage,
	// Of these, "signature" and "bundle" know keyless signatures too.
	"kyverno-keyless": kyvernoKeyless,
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
	ask, known := judges[asked.Judge]
	if !known {
		return fmt.Errorf("there is no judge %q", asked.Judge)
	}
	return ask(ctx, asked, found)
}
