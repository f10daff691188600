{{- define "multiarchbuild.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else if contains "multiarchbuild" .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-multiarchbuild" (.Release.Name | trunc 35 | trimSuffix "-") -}}
{{- end -}}
{{- end -}}

{{- define "multiarchbuild.selector" -}}
app.kubernetes.io/name: multiarchbuild
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "multiarchbuild.labels" -}}
{{ include "multiarchbuild.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- /* Names of objects outside of any namespace. */ -}}
{{- define "multiarchbuild.clusterName" -}}
{{- printf "%s-%s" .Release.Namespace (include "multiarchbuild.fullname" .) -}}
{{- end -}}

{{- define "multiarchbuild.serviceAccount" -}}
{{- if .Values.serviceAccount.name -}}
{{- .Values.serviceAccount.name -}}
{{- else if .Values.serviceAccount.create -}}
{{- include "multiarchbuild.fullname" . -}}
{{- else -}}
default
{{- end -}}
{{- end -}}

{{- define "multiarchbuild.image" -}}
{{- include "multiarchbuild.imageRef" (list . .Values.image) -}}
{{- end -}}

{{- /* Of (the context, an image in the values). */ -}}
{{- define "multiarchbuild.imageRef" -}}
{{- $chart := (index . 0).Chart }}{{ $image := index . 1 -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image.repository ($image.tag | default $chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{- define "multiarchbuild.policy" -}}
{{- $images := dict "step" (include "multiarchbuild.image" .) "pullPolicy" .Values.image.pullPolicy -}}
{{- toYaml (mergeOverwrite (dict "images" $images) (deepCopy .Values.policy)) -}}
{{- end -}}

{{- /* "true" where the policy lets builds have volumes: else the operator has no rights for claims. */ -}}
{{- define "multiarchbuild.cacheVolumes" -}}
{{- $found := list .Values.policy.cacheVolumes -}}
{{- range .Values.policy.tenants }}{{ $found = append $found .cacheVolumes }}{{ end -}}
{{- range $found }}{{ if and . .maxSize }}true{{ break }}{{ end }}{{ end -}}
{{- end -}}

{{- define "multiarchbuild.testNamespace" -}}
{{- .Values.test.namespace | default (first .Values.namespaces) | default .Release.Namespace -}}
{{- end -}}

{{- define "multiarchbuild.qemuName" -}}
{{- include "multiarchbuild.fullname" . }}-qemu
{{- end -}}

{{- define "multiarchbuild.qemuServiceAccount" -}}
{{- .Values.qemu.serviceAccount.name | default (include "multiarchbuild.qemuName" .) -}}
{{- end -}}

{{- define "multiarchbuild.qemuSelector" -}}
app.kubernetes.io/name: multiarchbuild-qemu
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "multiarchbuild.qemuLabels" -}}
{{ merge (fromYaml (include "multiarchbuild.qemuSelector" .)) (fromYaml (include "multiarchbuild.labels" .)) | toYaml }}
{{- end -}}

{{- define "multiarchbuild.profileName" -}}
{{- include "multiarchbuild.fullname" . }}-profile
{{- end -}}

{{- /* Of both profiles: api/nodes.py. */ -}}
{{- define "multiarchbuild.profileVersion" -}}
1
{{- end -}}

{{- define "multiarchbuild.profileSelector" -}}
app.kubernetes.io/name: multiarchbuild-profile
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "multiarchbuild.profileLabels" -}}
{{ merge (fromYaml (include "multiarchbuild.profileSelector" .)) (fromYaml (include "multiarchbuild.labels" .)) | toYaml }}
{{- end -}}

{{- define "multiarchbuild.appArmorName" -}}
{{- include "multiarchbuild.profileName" . }}-apparmor
{{- end -}}

{{- define "multiarchbuild.appArmorSelector" -}}
app.kubernetes.io/name: multiarchbuild-profile-apparmor
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "multiarchbuild.appArmorLabels" -}}
{{ merge (fromYaml (include "multiarchbuild.appArmorSelector" .)) (fromYaml (include "multiarchbuild.labels" .)) | toYaml }}
{{- end -}}

{{- /* The hardened context of every container that needs no rights on its node. */ -}}
{{- define "multiarchbuild.restricted" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
runAsUser: 1000
runAsGroup: 1000
capabilities:
  drop: [ALL]
seccompProfile:
  type: RuntimeDefault
{{- end -}}
