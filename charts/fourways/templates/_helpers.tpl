{{- define "fourways.labels" -}}
app.kubernetes.io/name: fourways
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "fourways.selector" -}}
app.kubernetes.io/name: fourways
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}

{{- define "fourways.image" -}}
{{- if .image.digest -}}
{{ .image.repository }}@{{ .image.digest }}
{{- else -}}
{{ .image.repository }}:{{ .image.tag | default .root.Chart.AppVersion }}
{{- end }}
{{- end }}

{{- /*
An image of ours: in the registry of the values, if its repository names none.
*/ -}}
{{- define "fourways.ownImage" -}}
{{- if and .root.Values.imageRegistry (not (contains "/" .image.repository)) -}}
{{ .root.Values.imageRegistry }}/
{{- end -}}
{{- include "fourways.image" . -}}
{{- end }}

{{- define "fourways.namespaces" -}}
{{ .Values.watch.namespaces | default (list .Release.Namespace) | toJson }}
{{- end }}

{{- define "fourways.podSecurity" -}}
runAsNonRoot: true
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "fourways.containerSecurity" -}}
allowPrivilegeEscalation: false
capabilities: {drop: [ALL]}
readOnlyRootFilesystem: true
{{- end }}

{{- /*
The Secret of the prediction store: that of CloudNativePG's Cluster, or the one of the values.
*/ -}}
{{- define "fourways.storeSecret" -}}
{{- if .Values.cloudnativePg.enabled -}}
{{ .Values.cloudnativePg.name }}-app
{{- else -}}
{{ .Values.store.secretName }}
{{- end }}
{{- end }}

{{- /*
The password of a trial server: the one it was created with, the one from the values, or a new one.
Without a cluster, Helm cannot look up the first, so the password is derived and the same each time.
*/ -}}
{{- define "fourways.trialPassword" -}}
{{- $namespace := .root.Release.Namespace }}
{{- $own := lookup "v1" "Secret" $namespace .name }}
{{- $before := dig "data" "password" (dig "data" "password" "" .store) $own }}
{{- if $before }}
{{- b64dec $before }}
{{- else if .given }}
{{- .given }}
{{- else if lookup "v1" "ServiceAccount" $namespace "default" }}
{{- randAlphaNum 32 }}
{{- else }}
{{- printf "%s/%s/%s" $namespace .root.Release.Name .name | sha256sum | trunc 32 }}
{{- end }}
{{- end }}

{{- /*
The address of the store: the one in the Secret, or else the trial database's. It is empty if the Secret
does not belong to this release: the chart leaves that one alone.
*/ -}}
{{- define "fourways.storeAddress" -}}
{{- $owner := dig "metadata" "annotations" "meta.helm.sh/release-name" "" .store }}
{{- if or (not .store) (eq $owner .root.Release.Name) }}
{{- dig "data" "uri" (b64enc .own) .store | b64dec }}
{{- end }}
{{- end }}
