// What Argo CD makes of objects: their health, the actions it offers for them and what an action changes.
//
// Its own packages read the settings and run the Lua. The argument is a ConfigMap argocd-cm (YAML); each request on
// standard input, {"object": …, "action": …}, is answered by one JSON object a line.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/argoproj/argo-cd/v3/pkg/apis/application/v1alpha1"
	"github.com/argoproj/argo-cd/v3/util/lua"
	"github.com/argoproj/argo-cd/v3/util/settings"
	"github.com/argoproj/gitops-engine/pkg/health"
	"github.com/sirupsen/logrus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/kubernetes/fake"
	"sigs.k8s.io/yaml"
)

type request struct {
	Object json.RawMessage `json:"object"`
	Action string          `json:"action"`
}

type answer struct {
	Health  *health.HealthStatus `json:"health"`
	Actions map[string]bool      `json:"actions"`
	Changed []map[string]any     `json:"changed"`
}

func main() {
	logrus.SetOutput(os.Stderr)
	logrus.SetLevel(logrus.WarnLevel)
	if err := run(os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(args []string, in io.Reader, out io.Writer) error {
	if len(args) != 1 {
		return errors.New("usage: argocd-lua CONFIGMAP < REQUESTS")
	}
	overrides, err := read(args[0])
	if err != nil {
		return err
	}
	requests, answers := json.NewDecoder(in), json.NewEncoder(out)
	for {
		var asked request
		if err := requests.Decode(&asked); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		found, err := look(overrides, asked)
		if err != nil {
			return err
		}
		if err := answers.Encode(found); err != nil {
			return err
		}
	}
}

// read returns what Argo CD's settings manager finds in the ConfigMap, as `argocd admin settings` does.
func read(path string) (map[string]v1alpha1.ResourceOverride, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var config corev1.ConfigMap
	if err := yaml.UnmarshalStrict(text, &config); err != nil {
		return nil, err
	}
	secret := corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "argocd-secret"},
		Data:       map[string][]byte{"admin.password": []byte("x"), "server.secretkey": []byte("x")},
	}
	for _, meta := range []*metav1.ObjectMeta{&config.ObjectMeta, &secret.ObjectMeta} {
		meta.Namespace = "argocd"
		meta.Labels = map[string]string{"app.kubernetes.io/part-of": "argocd"}
	}
	manager := settings.NewSettingsManager(context.Background(), fake.NewClientset(&config, &secret), "argocd")
	return manager.GetResourceOverrides()
}

func look(overrides map[string]v1alpha1.ResourceOverride, asked request) (*answer, error) {
	object := &unstructured.Unstructured{}
	if err := object.UnmarshalJSON(asked.Object); err != nil {
		return nil, err
	}
	found, err := health.GetResourceHealth(object, lua.ResourceHealthOverrides(overrides))
	if err != nil {
		return nil, err
	}
	vm := lua.VM{ResourceOverrides: overrides}
	scripts, err := vm.GetResourceActionDiscovery(object)
	if err != nil {
		return nil, err
	}
	actions, err := vm.ExecuteResourceActionDiscovery(object, scripts)
	if err != nil {
		return nil, err
	}
	result := &answer{Health: found, Actions: map[string]bool{}}
	for _, action := range actions {
		result.Actions[action.Name] = !action.Disabled
	}
	if asked.Action == "" {
		return result, nil
	}
	action, err := vm.GetResourceAction(object, asked.Action)
	if err != nil {
		return nil, err
	}
	impacted, err := vm.ExecuteResourceAction(object, action.ActionLua, nil)
	if err != nil {
		return nil, err
	}
	for _, each := range impacted {
		result.Changed = append(result.Changed, each.UnstructuredObj.Object)
	}
	return result, nil
}
