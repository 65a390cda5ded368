{{/* Environment of the containers of Ray. Takes root and envFrom. */}}
{{- define "tcmoa.ray.env" -}}
env:
  - {name: HOME, value: /home/tcmoa}
  {{- include "tcmoa.logEnv" .root | nindent 2 }}
  {{- include "tcmoa.tokenEnv" .root | nindent 2 }}
  {{- with .root.Values.ray.env }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with .envFrom }}
envFrom:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* The pod of a node of Ray. Takes root, bundles, envFrom, role (head or worker), image, gpu. */}}
{{- define "tcmoa.ray.pod" -}}
{{- $ray := .root.Values.ray }}
{{- $resources := (index $ray .role).resources }}
metadata:
  labels:
    {{- include "tcmoa.labels" .root | nindent 4 }}
    app.kubernetes.io/component: ray
  annotations:
    tcmoa/token: {{ .root.Values.token | toJson | sha256sum | trunc 16 }}
spec:
  {{- $placement := include "tcmoa.placement" (dict "root" .root "gpu" .gpu "values" $ray) }}
  {{- if and (eq .role "head") $ray.autoscaling }}
  {{- /* Ray's autoscaler, in the head's pod, asks Kubernetes for workers. */}}
  {{- $placement = replace "automountServiceAccountToken: false" "automountServiceAccountToken: true" $placement }}
  {{- end }}
  {{- $placement | nindent 2 }}
  securityContext:
    {{- include "tcmoa.podSecurity" .root | nindent 4 }}
  terminationGracePeriodSeconds: {{ add (int .root.Values.service.drainSeconds) (int .root.Values.service.stopSeconds) 10 }}
  {{- with include "tcmoa.initContainers" (dict "root" .root "bundles" .bundles "image" .image "gpu" .gpu) }}
  initContainers:
    {{- . | nindent 4 }}
  {{- end }}
  containers:
    - name: ray-{{ .role }}
      image: {{ include "tcmoa.image" .image }}
      imagePullPolicy: {{ .image.pullPolicy }}
      {{- include "tcmoa.ray.env" . | nindent 6 }}
      ports:
        {{- if eq .role "head" }}
        - {name: gcs-server, containerPort: 6379}
        - {name: dashboard, containerPort: 8265}
        - {name: client, containerPort: 10001}
        {{- end }}
        - {name: serve, containerPort: {{ .root.Values.service.port }}}
      {{- if eq .role "worker" }}
      lifecycle:
        preStop:
          exec: {command: [/bin/sh, -c, ray stop --grace-period {{ .root.Values.service.stopSeconds }}]}
      {{- end }}
      securityContext:
        {{- include "tcmoa.containerSecurity" .root | nindent 8 }}
      resources:
        {{- include "tcmoa.resources" (dict "root" .root "resources" $resources "gpu" .gpu) | nindent 8 }}
      volumeMounts:
        {{- include "tcmoa.volumeMounts" (dict "bundles" .bundles) | nindent 8 }}
        {{- with $ray.volumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
  volumes:
    {{- include "tcmoa.volumes" (dict "root" .root "bundles" .bundles) | nindent 4 }}
    {{- with $ray.volumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end }}

{{/* The specification of a cluster. Takes root, bundles and envFrom. */}}
{{- define "tcmoa.ray.cluster" -}}
{{- $ray := .root.Values.ray }}
{{- $gpu := int $ray.gpu }}
rayVersion: {{ $ray.version | quote }}
# Every node, the operator and every client need one token; KubeRay makes it.
authOptions: {mode: token}
{{- if $ray.autoscaling }}
enableInTreeAutoscaling: true
autoscalerOptions:
  idleTimeoutSeconds: 120
  securityContext:
    allowPrivilegeEscalation: false
    capabilities: {drop: [ALL]}
{{- end }}
headGroupSpec:
  rayStartParams: {num-cpus: "0"}  # no work on the head
  template:
    {{- include "tcmoa.ray.pod" (merge (dict "role" "head" "image" $ray.image "gpu" 0) .) | nindent 4 }}
workerGroupSpecs:
  - groupName: workers
    replicas: {{ $ray.workers }}
    minReplicas: {{ ternary $ray.minWorkers $ray.workers $ray.autoscaling }}
    maxReplicas: {{ ternary $ray.maxWorkers $ray.workers $ray.autoscaling }}
    rayStartParams: {}
    template:
      {{- include "tcmoa.ray.pod" (merge (dict "role" "worker" "image" (ternary $ray.gpuImage $ray.image (gt $gpu 0)) "gpu" $gpu) .) | nindent 6 }}
{{- end }}

{{/* A word for a shell. */}}
{{- define "tcmoa.word" -}}
'{{ . | toString | replace "'" "'\\''" }}'
{{- end }}
