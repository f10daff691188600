{{- /*
What a DaemonSet that labels its nodes may do. Takes root, name, account, annotations, labels, daemonset (its name in messages),
own (CEL: whether `key` is a label of its), value (CEL: of the label `key`), ownAnnotation (CEL: whether `key` is the annotation
beside a label of its), shown (its labels with their values in messages).
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
    - name: annotations
      expression: object.metadata.?annotations.orValue({})
    - name: oldAnnotations
      expression: oldObject.metadata.?annotations.orValue({})
    # The token of a pod says which pod it is, and on which node it runs.
    - name: nodes
      expression: request.userInfo.?extra[?'authentication.kubernetes.io/node-name'].orValue([])
    - name: pods
      expression: request.userInfo.?extra[?'authentication.kubernetes.io/pod-uid'].orValue([])
  # Forbidden: by default the answer would be that of a patch which does not apply, which means something else to the pods.
  validations:
    - expression: variables.nodes == [object.metadata.name]
      message: a pod of the {{ .daemonset }} DaemonSet may label its own node only
      reason: Forbidden
    # What is there may stay as it is: a label of an older version, until the pod that answers for it has ended.
    - expression: >-
        variables.labels.all(key, (key in variables.oldLabels && variables.oldLabels[key] == variables.labels[key])
        || ({{ .own }} && variables.labels[key] == {{ .value }}))
        && variables.oldLabels.all(key, key in variables.labels || {{ .own }})
      message: the {{ .daemonset }} DaemonSet may set {{ .shown }}, or remove them, and no others
      reason: Forbidden
    - expression: >-
        variables.annotations.all(key, (key in variables.oldAnnotations && variables.oldAnnotations[key] == variables.annotations[key])
        || ({{ .ownAnnotation }} && variables.pods == [variables.annotations[key]]))
        && variables.oldAnnotations.all(key, key in variables.annotations || {{ .ownAnnotation }})
      message: a pod of the {{ .daemonset }} DaemonSet may set the annotations …-verified-by beside its labels to its uid, or remove them, and no others
      reason: Forbidden
    - expression: >-
        object.spec == oldObject.spec
        && object.metadata.?finalizers == oldObject.metadata.?finalizers
        && object.metadata.?ownerReferences == oldObject.metadata.?ownerReferences
      message: the {{ .daemonset }} DaemonSet may change labels of a node, the annotations beside them, and nothing else
      reason: Forbidden
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

{{- /*
How the container runs that labels its node. Takes program (the module that has it), every (verifySeconds) and args (besides).
*/ -}}
{{- define "multiarchbuild.labelling" -}}
command: [python, -m, multiarchbuild, {{ .program }}, label]
args:
  - --node=$(NODE_NAME)
  - --pod=$(POD_UID)
  - --started=/tmp/started
  - --every={{ .every }}
  {{- range .args }}
  - {{ . | quote }}
  {{- end }}
env:
  - name: NODE_NAME
    valueFrom: {fieldRef: {fieldPath: spec.nodeName}}
  - name: POD_UID
    valueFrom: {fieldRef: {fieldPath: metadata.uid}}
# Not Ready before it has labelled the node: in a rollout the pod before it stays until then, and its labels with it.
startupProbe:
  exec:
    command: [test, -e, /tmp/started]
  periodSeconds: 1
  timeoutSeconds: 10
  failureThreshold: 600
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
