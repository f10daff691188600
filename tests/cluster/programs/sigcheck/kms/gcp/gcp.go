// Package gcp is empty: no key of this service is verified here, and its client would have to be compiled.
package gcp
