{{- define "multiarchbuild.fullname" -}}
{{- if contains "multiarchbuild" .Release.Name -}}
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
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{- define "multiarchbuild.policy" -}}
{{- $images := dict "step" (include "multiarchbuild.image" .) "pullPolicy" .Values.image.pullPolicy -}}
{{- toYaml (mergeOverwrite (dict "images" $images) (deepCopy .Values.policy)) -}}
{{- end -}}
