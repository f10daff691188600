{{- /*
What a DaemonSet that labels its nodes may do. Takes root, name, account, annotations, labels, daemonset (its name in messages),
own (CEL: whether `key` is a label of its), value (CEL: of the label `key`), shown (its labels with their values in messages).
*/ -}}
{{- define "multiarchbuild.nodeLabeller" -}}
{{- $clusterName := printf "%s-%s" (include "multiarchbuild.clusterName" .root) (.daemonset | lower) }}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ .account }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- .labels | nindent 4 }}
  {{- with .annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
automountServiceAccountToken: false
---
# RBAC knows no "own node" and no "these labels only": the policy below adds both.
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata:
  name: {{ $clusterName }}
  labels:
    {{- .labels | nindent 4 }}
rules:
  - apiGroups: [""]
    resources: [nodes]
    verbs: [patch]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata:
  name: {{ $clusterName }}
  labels:
    {{- .labels | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: ClusterRole
  name: {{ $clusterName }}
subjects:
  - kind: ServiceAccount
    name: {{ .account }}
    namespace: {{ .root.Release.Namespace }}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata:
  name: {{ $clusterName }}
  labels:
    {{- .labels | nindent 4 }}
spec:
  failurePolicy: Fail
  matchConstraints:
    resourceRules:
      - apiGroups: [""]
        apiVersions: [v1]
        operations: [UPDATE]
        resources: [nodes]
  matchConditions:
    - name: by-the-daemonset
      expression: request.userInfo.username == 'system:serviceaccount:{{ .root.Release.Namespace }}:{{ .account }}'
  variables:
    - name: labels
      expression: object.metadata.?labels.orValue({})
    - name: oldLabels
      expression: oldObject.metadata.?labels.orValue({})
    # The token of a pod says on which node the pod runs.
    - name: nodes
      expression: request.userInfo.?extra[?'authentication.kubernetes.io/node-name'].orValue([])
  validations:
    - expression: variables.nodes == [object.metadata.name]
      message: a pod of the {{ .daemonset }} DaemonSet may label its own node only
    - expression: >-
        variables.labels.all(key, {{ .own }}
        ? variables.labels[key] == {{ .value }} : key in variables.oldLabels && variables.oldLabels[key] == variables.labels[key])
        && variables.oldLabels.all(key, {{ .own }} || key in variables.labels)
      message: the {{ .daemonset }} DaemonSet may set {{ .shown }}, or remove them, and no others
    - expression: >-
        object.spec == oldObject.spec
        && object.metadata.?annotations == oldObject.metadata.?annotations
        && object.metadata.?finalizers == oldObject.metadata.?finalizers
        && object.metadata.?ownerReferences == oldObject.metadata.?ownerReferences
      message: the {{ .daemonset }} DaemonSet may change labels of a node and nothing else
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata:
  name: {{ $clusterName }}
  labels:
    {{- .labels | nindent 4 }}
spec:
  policyName: {{ $clusterName }}
  validationActions: [Deny]
{{- end -}}

{{- /* What the Job that ends a DaemonSet may do. Takes root, name and labels. */ -}}
{{- define "multiarchbuild.mayRemove" -}}
---
# For the Job that ends the DaemonSet while it may still take its labels back.
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ .name }}-remove
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- .labels | nindent 4 }}
automountServiceAccountToken: false
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: {{ .name }}-remove
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- .labels | nindent 4 }}
rules:
  - apiGroups: [apps]
    resources: [daemonsets]
    resourceNames: [{{ .name }}]
    verbs: [get, delete]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: {{ .name }}-remove
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- .labels | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: Role
  name: {{ .name }}-remove
subjects:
  - kind: ServiceAccount
    name: {{ .name }}-remove
    namespace: {{ .root.Release.Namespace }}
{{- end -}}

{{- /* The Job that ends a DaemonSet while it may still take its labels back. Takes root, name, labels and enabled. */ -}}
{{- define "multiarchbuild.removeJob" -}}
---
apiVersion: batch/v1
kind: Job
metadata:
  name: {{ .name }}-remove
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- .labels | nindent 4 }}
  annotations:
    helm.sh/hook: {{ .enabled | ternary "pre-delete" "pre-upgrade" }}
    helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
spec:
  backoffLimit: 2
  activeDeadlineSeconds: 240
  template:
    spec:
      serviceAccountName: {{ .name }}-remove
      automountServiceAccountToken: true
      enableServiceLinks: false
      restartPolicy: Never
      {{- with .root.Values.imagePullSecrets }}
      imagePullSecrets:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      containers:
        - name: remove
          image: {{ include "multiarchbuild.image" .root }}
          imagePullPolicy: {{ .root.Values.image.pullPolicy }}
          command: [python, -m, multiarchbuild, qemu, remove]
          args:
            - --namespace={{ .root.Release.Namespace }}
            - --daemonset={{ .name }}
          securityContext:
            {{- include "multiarchbuild.restricted" . | nindent 12 }}
      {{- with .root.Values.nodeSelector }}
      nodeSelector:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with .root.Values.tolerations }}
      tolerations:
        {{- toYaml . | nindent 8 }}
      {{- end }}
{{- end -}}
