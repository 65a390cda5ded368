{{- define "tcmoa.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 32 | trimSuffix "-" }}
{{- end }}

{{/* Names of objects: the release, with the name of the chart if that is not in it. At most 32 characters, as parts follow. */}}
{{- define "tcmoa.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 32 | trimSuffix "-" }}
{{- else if contains (include "tcmoa.name" .) .Release.Name }}
{{- .Release.Name | trunc 32 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "tcmoa.name" .) | trunc 32 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "tcmoa.selector" -}}
app.kubernetes.io/name: {{ include "tcmoa.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "tcmoa.labels" -}}
{{ include "tcmoa.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "tcmoa.image" -}}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ .tag }}{{ end }}
{{- end }}

{{- define "tcmoa.tokenSecret" -}}
{{- .Values.token.existingSecret | default (printf "%s-token" (include "tcmoa.fullname" .)) }}
{{- end }}

{{- define "tcmoa.tokenEnv" -}}
- name: TCMOA_TOKEN
  valueFrom:
    secretKeyRef:
      name: {{ include "tcmoa.tokenSecret" . }}
      key: {{ .Values.token.key }}
{{- end }}

{{- define "tcmoa.logEnv" -}}
- {name: TCMOA_LOG_FORMAT, value: {{ .Values.log.format }}}
- {name: TCMOA_LOG, value: {{ .Values.log.level }}}
{{- end }}

{{/* HOST:PORT, with brackets around an IPv6 address. */}}
{{- define "tcmoa.pageAddress" -}}
{{- if contains ":" .Values.listen }}[{{ .Values.listen }}]{{ else }}{{ .Values.listen }}{{ end }}:{{ .Values.pagePort }}
{{- end }}

{{- define "tcmoa.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
# A second look would give the group the right to write to the caches, which are then refused.
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "tcmoa.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* The bundle of what has none of its own, in JSON. */}}
{{- define "tcmoa.defaultBundle" -}}
{{- .Values.bundle | default (dict "name" "nano-vif") | toJson }}
{{- end }}

{{/* Name of the volume of a bundle; empty for one in the image. */}}
{{- define "tcmoa.bundleVolume" -}}
{{- if not .name }}bundle-{{ toJson . | sha256sum | trunc 8 }}{{ end }}
{{- end }}

{{/* What commands take as the bundle. */}}
{{- define "tcmoa.bundlePath" -}}
{{- if .name }}{{ .name }}{{ else }}/bundles/{{ toJson . | sha256sum | trunc 8 }}/{{ .path }}{{ end }}
{{- end }}

{{/* The volumes of a list of bundles and of the container's own folders. Takes root and bundles. */}}
{{- define "tcmoa.volumes" -}}
- name: tmp
  emptyDir: {}
- name: home
{{- if .root.Values.cache.claim }}
  persistentVolumeClaim: {claimName: {{ .root.Values.cache.claim }}}
{{- else }}
  emptyDir: {sizeLimit: {{ .root.Values.cache.sizeLimit }}}
{{- end }}
{{- range .bundles }}
{{- if not .name }}
- name: {{ include "tcmoa.bundleVolume" . }}
{{- if .claim }}
  persistentVolumeClaim: {claimName: {{ .claim }}, readOnly: true}
{{- else if .image }}
  image:
    {{- toYaml .image | nindent 4 }}
{{- else }}
  emptyDir: {}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "tcmoa.volumeMounts" -}}
- {name: tmp, mountPath: /tmp}
- {name: home, mountPath: /home/tcmoa}
{{- range .bundles }}
{{- if not .name }}
- {name: {{ include "tcmoa.bundleVolume" . }}, mountPath: {{ printf "/bundles/%s" (toJson . | sha256sum | trunc 8) }}, readOnly: true}
{{- end }}
{{- end }}
{{- end }}

{{/* Downloads of bundles, and builds of engines. Takes root, bundles, image and gpu. */}}
{{- define "tcmoa.initContainers" -}}
{{- $context := . }}
{{- range .bundles }}
{{- if .url }}
- name: {{ include "tcmoa.bundleVolume" . }}
  image: {{ include "tcmoa.image" $context.image }}
  imagePullPolicy: {{ $context.image.pullPolicy }}
  command: [python, -c]
  args:
    - |
      {{- $context.root.Files.Get "files/fetch_bundle.py" | nindent 6 }}
    - {{ .url | quote }}
    - {{ .sha256 | quote }}
    - {{ printf "/bundles/%s" (toJson . | sha256sum | trunc 8) }}
  securityContext:
    {{- include "tcmoa.containerSecurity" $context.root | nindent 4 }}
  resources:
    requests: {cpu: 100m, memory: 128Mi}
    limits: {memory: 512Mi}
  volumeMounts:
    - {name: tmp, mountPath: /tmp}
    - {name: {{ include "tcmoa.bundleVolume" . }}, mountPath: {{ printf "/bundles/%s" (toJson . | sha256sum | trunc 8) }}}
{{- end }}
{{- if and .name $context.gpu $context.root.Values.gpu.build }}
- name: build-{{ toJson . | sha256sum | trunc 8 }}
  image: {{ include "tcmoa.image" $context.image }}
  imagePullPolicy: {{ $context.image.pullPolicy }}
  args: [build, {{ .name | quote }}, --flavor, {{ $context.root.Values.gpu.build }}]
  env:
    - {name: HOME, value: /home/tcmoa}
  securityContext:
    {{- include "tcmoa.containerSecurity" $context.root | nindent 4 }}
  resources:
    limits: { {{ $context.root.Values.gpu.resource }}: {{ $context.gpu }} }
  volumeMounts:
    - {name: tmp, mountPath: /tmp}
    - {name: home, mountPath: /home/tcmoa}
{{- end }}
{{- end }}
{{- end }}

{{/* Resources with GPUs. Takes root, resources and gpu. */}}
{{- define "tcmoa.resources" -}}
{{- $resources := deepCopy .resources }}
{{- if .gpu }}
{{- $_ := set $resources "limits" (merge (dict .root.Values.gpu.resource .gpu) (default dict $resources.limits)) }}
{{- end }}
{{- toYaml $resources }}
{{- end }}

{{/* What pods of all kinds share. Takes root, gpu and the values of the kind: nodeSelector, tolerations, affinity. */}}
{{- define "tcmoa.placement" -}}
automountServiceAccountToken: false
# Otherwise a Service of the name tcmoa puts variables of the prefix TCMOA_ into every pod.
enableServiceLinks: false
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if and .gpu .root.Values.gpu.runtimeClassName }}
runtimeClassName: {{ .root.Values.gpu.runtimeClassName }}
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "tcmoa.scrapeAnnotations" -}}
{{- if .root.Values.metrics.annotations }}
prometheus.io/scrape: "true"
prometheus.io/port: {{ .port | quote }}
prometheus.io/path: /metrics
{{- end }}
{{- end }}
