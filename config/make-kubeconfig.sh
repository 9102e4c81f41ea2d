#!/bin/sh
# Writes a kubeconfig for a service account of config/rbac/rbac.yaml, made from a context of your own kubeconfig. The file
# holds a token that does not expire, so only its owner can read it.
# usage: config/make-kubeconfig.sh CONTEXT FILE [signpost|signpost-voter]
set -eu
if [ $# -ne 2 ] && [ $# -ne 3 ]; then
    echo "usage: $0 CONTEXT FILE [signpost|signpost-voter]" >&2
    exit 2
fi
context=$1
file=$2
account=${3:-signpost}
cluster=$(kubectl config view -o "jsonpath={.contexts[?(@.name==\"$context\")].context.cluster}")
server=$(kubectl config view --raw -o "jsonpath={.clusters[?(@.name==\"$cluster\")].cluster.server}")
if [ -z "$server" ]; then
    echo "$0: the kubeconfig has no context \"$context\" with a cluster" >&2
    exit 1
fi
secret() {
    kubectl --context "$context" -n signpost get secret "$account-token" -o "jsonpath={.data.$1}"
}
token=$(secret token | base64 -d)
authority=$(secret 'ca\.crt')
if [ -z "$token" ] || [ -z "$authority" ]; then
    echo "$0: the secret signpost/$account-token has no token yet; apply config/rbac/rbac.yaml and try again" >&2
    exit 1
fi
umask 077
new=$(mktemp "$file.XXXXXX")
trap 'rm -f "$new"' EXIT
cat >"$new" <<KUBECONFIG
apiVersion: v1
kind: Config
clusters:
- name: "$context"
  cluster:
    server: $server
    certificate-authority-data: $authority
users:
- name: signpost
  user:
    token: $token
contexts:
- name: "$context"
  context:
    cluster: "$context"
    user: signpost
current-context: "$context"
KUBECONFIG
mv "$new" "$file"
