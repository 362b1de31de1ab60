{{- define "gateway.labels" -}}
app.kubernetes.io/name: pailflow-gateway
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* Labels of one component: (list . "serve") */}}
{{- define "gateway.component" -}}
{{ include "gateway.labels" (index . 0) }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "gateway.image" -}}
{{- with .Values.image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end }}
{{- end }}

{{/* What every pod is: not root, without an account of the cluster. */}}
{{- define "gateway.pod" -}}
automountServiceAccountToken: false
# A Service named `gateway` would set GATEWAY_PORT in every pod.
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{ toJson . }}
{{- end }}
{{- end }}

{{/* What every container is: (list . component) */}}
{{- define "gateway.container" -}}
{{- $top := index . 0 }}
{{- $part := index . 1 -}}
image: {{ include "gateway.image" $top | quote }}
imagePullPolicy: {{ $top.Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
resources: {{ toJson $part.resources }}
{{- end }}

{{/* Settings, and the file of each secret: (list . component) */}}
{{- define "gateway.env" -}}
{{- $top := index . 0 }}
{{- range $name, $value := $top.Values.settings }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- range (index . 1).secret.keys }}
- name: {{ . }}_FILE
  value: /run/secrets/gateway/{{ . }}
{{- end }}
{{- end }}

{{- define "gateway.mounts" -}}
- name: tmp
  mountPath: /tmp
- name: secrets
  mountPath: /run/secrets/gateway
  readOnly: true
{{- end }}

{{/* (list . component) */}}
{{- define "gateway.volumes" -}}
- name: tmp
  emptyDir: {}
- name: secrets
  secret:
    secretName: {{ (index . 1).secret.name }}
    defaultMode: 0440
{{- end }}

{{- define "gateway.placement" -}}
{{- with .nodeSelector }}
nodeSelector: {{ toJson . }}
{{- end }}
{{- with .tolerations }}
tolerations: {{ toJson . }}
{{- end }}
{{- end }}

{{/* Pods of one component on as many nodes as there are: (list . "serve") */}}
{{- define "gateway.spread" -}}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "gateway.component" . | nindent 8 }}
{{- end }}
