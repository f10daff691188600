// timestamps is the server of Sigstore's timestamp authority with a key in a file. Its command serves metrics as well, at
// a port that cannot be chosen: two of them cannot run on one machine.
package main

import (
	"flag"
	"log"
	"time"

	"github.com/sigstore/timestamp-authority/v2/pkg/server"
	"github.com/spf13/viper"
)

const patience = 30 * time.Second

func main() {
	host := flag.String("host", "127.0.0.1", "where to listen")
	port := flag.Int("port", 3000, "where to listen")
	chain := flag.String("certificate-chain-path", "", "certificates, the root last (PEM)")
	key := flag.String("file-signer-key-path", "", "key (PEM)")
	flag.Parse()
	for name, value := range map[string]any{
		"timestamp-signer":       "file",
		"timestamp-signer-hash":  "sha256",
		"certificate-chain-path": *chain,
		"file-signer-key-path":   *key,
		"default-policy-oid":     "1.3.6.1.4.1.57264.2",
		"accepted-policy-oids":   []string{"1.3.6.1.4.1.57264.2"},
		"max-request-body-size":  uint64(1 << 20),
	} {
		viper.Set(name, value)
	}
	if err := server.NewRestAPIServer(*host, *port, []string{"http"}, false, patience, patience).Serve(); err != nil {
		log.Fatal(err)
	}
}
