package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"go.podman.io/image/v5/docker"
	"go.podman.io/image/v5/image"
	"go.podman.io/image/v5/signature"
	"go.podman.io/image/v5/types"
)

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
