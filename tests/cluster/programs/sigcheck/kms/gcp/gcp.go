// Package gcp has the one function that the command of Fulcio names: no key of this service is used here, and its client
// would have to be compiled.
package gcp

import (
	"github.com/sigstore/sigstore/pkg/signature"
	"google.golang.org/api/option"
)

// WithGoogleAPIClientOption is what Fulcio's command names.
func WithGoogleAPIClientOption(option.ClientOption) signature.RPCOption { return nil }
