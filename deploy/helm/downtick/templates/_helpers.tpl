{{/*
Name of everything. 52 characters: Kubernetes labels a StatefulSet's pods with its name, a dash and a hash of ten, and
no label's value is longer than 63.
*/}}
{{- define "downtick.name" -}}
{{- $name := ternary .Release.Name (printf "%s-downtick" .Release.Name) (contains "downtick" .Release.Name) -}}
{{- $name | trunc 52 | trimSuffix "-" -}}
{{- end }}

{{- define "downtick.selector" -}}
app.kubernetes.io/name: downtick
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "downtick.labels" -}}
{{ include "downtick.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "downtick.image" -}}
{{- $repository := required "image.repository: name the image that you built with deploy/Dockerfile" .Values.image.repository -}}
{{- if .Values.image.digest -}}
{{ $repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ $repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}
{{- end }}

{{/* kafka.client → DOWNTICK_KAFKA__CLIENT */}}
{{- define "downtick.variable" -}}
DOWNTICK_{{ replace "." "__" . | upper }}
{{- end }}

{{/* Dotted name → value, from a tree of groups. JSON: a template gives nothing but text. */}}
{{- define "downtick.flat" -}}
{{- $flat := dict -}}
{{- range $group, $settings := . -}}
{{- range $name, $value := $settings -}}
{{- $_ := set $flat (printf "%s.%s" $group $name) $value -}}
{{- end -}}
{{- end -}}
{{- toJson $flat -}}
{{- end }}

{{/* What the schema cannot see, or not say in words. */}}
{{- define "downtick.check" -}}
{{- $settings := include "downtick.flat" .Values.settings | fromJson -}}
{{- $secrets := include "downtick.flat" .Values.secrets | fromJson -}}
{{- $_ := required "settings.kafka.bootstrap_servers: name your brokers, host:port,…" (get $settings "kafka.bootstrap_servers") -}}
{{- if not (hasKey $secrets "redis.url") -}}
{{- $_ := required "settings.redis.url, or secrets.redis.url where it holds a password: name your Redis" (get $settings "redis.url") -}}
{{- end -}}
{{- if regexMatch "@|password" (get $settings "redis.url" | toString) -}}
{{- fail "settings.redis.url holds a password: put the address into a Secret, and name that in secrets.redis.url" -}}
{{- end -}}
{{- range $name := list "kafka.client" "kafka.consumer" "kafka.producer" -}}
{{- range $option := get $settings $name | default dict | keys | sortAlpha -}}
{{- /* As consumer/kafka_options.py has it: what may be a secret, and what of that is not. */ -}}
{{- if and (regexMatch `password|passphrase|secret|key|token|oauth|jaas|credential|\.pem$|^sasl\.` $option) (not (regexMatch `\.(location|mechanisms?|method|type|algorithm|url|name|seconds|login|include)$` $option)) -}}
{{- fail (printf "settings.%s has %s, which is a secret: put all its options, as JSON, into a Secret, and name that in secrets.%s" $name $option $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range $name := keys $secrets | sortAlpha -}}
{{- if hasKey $settings $name -}}
{{- fail (printf "%s is in settings and in secrets: keep one (options of kafka.client and the like go together)" $name) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.keda.enabled (gt (int .Values.keda.minReplicas) (int .Values.keda.partitions)) -}}
{{- fail (printf "keda.minReplicas is %v, and %v partitions have no work for more than %v" .Values.keda.minReplicas .Values.keda.partitions .Values.keda.partitions) -}}
{{- end -}}
{{- end }}
