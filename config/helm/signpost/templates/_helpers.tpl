{{/* The same as with Kustomize, whatever the release is called: runbooks and make-kubeconfig.sh know them. */}}
{{- define "signpost.name" -}}
signpost{{ include "signpost.suffix" . }}
{{- end }}

{{- define "signpost.suffix" -}}
{{ if eq .Values.mode "public" }}-public{{ end }}
{{- end }}

{{- define "signpost.selector" -}}
app.kubernetes.io/name: signpost
app.kubernetes.io/component: {{ .Values.mode }}
{{- end }}

{{- define "signpost.chartLabels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end }}

{{- define "signpost.labels" -}}
{{ include "signpost.selector" . }}
{{ include "signpost.chartLabels" . }}
{{- end }}

{{/* signpost.yaml: `config`, with what the Pods decide where it says nothing. */}}
{{- define "signpost.config" -}}
{{- $config := deepCopy .Values.config -}}
{{- $own := "" -}}
{{- range $config.clusters -}}
  {{- if .inCluster -}}{{- $own = .name -}}{{- end -}}
{{- end -}}
{{- range $index, $zone := $config.zones -}}
  {{- with $zone.file -}}
    {{- if and (not (contains "/" .)) (not (hasKey $.Values.files .)) -}}
      {{- fail (printf "config.zones[%d].file: %q is not a key of `files`" $index .) -}}
    {{- end -}}
  {{- end -}}
  {{- if and (eq $.Values.mode "stub") (not (hasKey $zone "internalMode")) -}}
    {{- $_ := set $zone "internalMode" "nearest" -}}
  {{- end -}}
{{- end -}}
{{- if not (hasKey $config "listeners") -}}
  {{- $view := "external" -}}
  {{- if eq .Values.mode "stub" -}}
    {{- if not $own -}}
      {{- fail "config.clusters: with mode stub, one has `inCluster: true`, whose view is served; or give config.listeners" -}}
    {{- end -}}
    {{- $view = dict "internal" $own -}}
  {{- end -}}
  {{- $_ := set $config "listeners" (list (dict "addresses" (list "0.0.0.0:8053") "view" $view)) -}}
{{- end -}}
{{- if not (hasKey $config "admin") -}}
  {{- $_ := set $config "admin" (dict "address" "0.0.0.0:8055") -}}
{{- end -}}
{{- if not (hasKey $config "limits") -}}
  {{- $_ := set $config "limits" dict -}}
{{- end -}}
{{- if not (hasKey $config.limits "lameDuck") -}}
  {{- /* Until kube-proxy, and for public load balancers, have noticed that a Pod ends. */ -}}
  {{- $_ := set $config.limits "lameDuck" (ternary "5s" "15s" (eq .Values.mode "stub")) -}}
{{- end -}}
{{- with $config.health -}}
  {{- if and (eq (toString .quorum) "majority") (not (hasKey . "namespace")) (ne $.Release.Namespace "signpost") -}}
    {{- $_ := set . "namespace" $.Release.Namespace -}}
  {{- end -}}
{{- end -}}
{{- toYaml $config -}}
{{- end }}

{{- define "signpost.configMapData" -}}
{{- if hasKey .Values.files "signpost.yaml" -}}
  {{- fail "files: signpost.yaml is made of `config`; give it there" -}}
{{- end -}}
signpost.yaml: |
  {{- include "signpost.config" . | nindent 2 }}
{{- with .Values.files }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "signpost.image" -}}
{{- $tag := .Values.image.tag | default .Chart.AppVersion -}}
{{- if eq $tag "latest" -}}
  {{- fail "image.tag: latest may be another program tomorrow; give a version" -}}
{{- end -}}
{{ .Values.image.repository }}:{{ $tag }}
{{- end }}
