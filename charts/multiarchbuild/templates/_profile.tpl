{{- /*
A DaemonSet that gives nodes a profile of rootless builders: a root container that puts it there, and one without rights that
runs with it and labels the node. Takes root, name, account, labels, selector, first (name, args, capabilities and appArmorProfile
of the root container), mount (a hostPath volume and its mountPath), appArmor (where the AppArmor profile is used: here, elsewhere or
nowhere), appArmorProfile, nodeSelector.
*/ -}}
{{- define "multiarchbuild.profileDaemonset" -}}
{{- $values := .root.Values.profile }}
apiVersion: apps/v1
kind: DaemonSet
metadata:
  name: {{ .name }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- .labels | nindent 4 }}
spec:
  selector:
    matchLabels:
      {{- .selector | nindent 6 }}
  updateStrategy:
    type: RollingUpdate
    rollingUpdate:
      maxSurge: 1
      maxUnavailable: 0
  template:
    metadata:
      labels:
        {{- .labels | nindent 8 }}
      {{- with $values.podAnnotations }}
      annotations:
        {{- toYaml . | nindent 8 }}
      {{- end }}
    spec:
      serviceAccountName: {{ .account }}
      automountServiceAccountToken: false
      enableServiceLinks: false
      terminationGracePeriodSeconds: 90
      {{- with .root.Values.imagePullSecrets }}
      imagePullSecrets:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $values.priorityClassName }}
      priorityClassName: {{ . }}
      {{- end }}
      initContainers:
        - name: {{ .first.name }}
          restartPolicy: Always
          image: {{ include "multiarchbuild.image" .root }}
          imagePullPolicy: {{ .root.Values.image.pullPolicy }}
          command: [python, -m, multiarchbuild, profile, {{ .first.name }}]
          args:
            {{- range .first.args }}
            - {{ . }}
            {{- end }}
            - --every={{ $values.verifySeconds }}
          resources:
            {{- toYaml $values.resources | nindent 12 }}
          securityContext: # root, whom what it writes to belongs to, and nothing besides
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            runAsUser: 0
            runAsGroup: 0
            capabilities:
              drop: [ALL]
              {{- with .first.capabilities }}
              add: {{ toJson . }}
              {{- end }}
            seccompProfile:
              type: RuntimeDefault
            {{- with .first.appArmorProfile }}
            appArmorProfile:
              type: {{ . }}
            {{- end }}
          volumeMounts:
            - name: node
              mountPath: {{ .mount.mountPath }}
      containers:
        # Begins when the profile is there: until then its runtime refuses it, and the kubelet tries again.
        - name: label
          image: {{ include "multiarchbuild.image" .root }}
          imagePullPolicy: {{ .root.Values.image.pullPolicy }}
          {{- include "multiarchbuild.labelling" (dict "program" "profile" "every" $values.verifySeconds "args" (list (printf "--app-armor=%s" .appArmor))) | nindent 10 }}
          resources:
            {{- toYaml $values.resources | nindent 12 }}
          securityContext:
            {{- $restricted := fromYaml (include "multiarchbuild.restricted" .root) }}
            {{- $_ := set $restricted "seccompProfile" (dict "type" "Localhost" "localhostProfile" (printf "multiarchbuild/rootless-%s.json" (include "multiarchbuild.profileVersion" .root))) }}
            {{- with .appArmorProfile }}
            {{- $_ := set $restricted "appArmorProfile" (dict "type" "Localhost" "localhostProfile" .) }}
            {{- end }}
            {{- toYaml $restricted | nindent 12 }}
          volumeMounts:
            - name: label
              mountPath: /tmp
            - name: token
              mountPath: /var/run/secrets/kubernetes.io/serviceaccount
              readOnly: true
      volumes:
        - name: node
          hostPath:
            path: {{ .mount.path }}
            type: {{ .mount.type }}
        - name: label
          emptyDir: {sizeLimit: 16Mi}
        # As kubelet would mount it, for one of the two containers only.
        - name: token
          projected:
            sources:
              - serviceAccountToken: {path: token, expirationSeconds: 3607}
              - configMap: {name: kube-root-ca.crt, items: [{key: ca.crt, path: ca.crt}]}
      nodeSelector:
        kubernetes.io/os: linux
        {{- with .nodeSelector }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
        {{- with $values.nodeSelector }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- with $values.affinity }}
      affinity:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $values.tolerations }}
      tolerations:
        {{- toYaml . | nindent 8 }}
      {{- end }}
{{- end -}}
