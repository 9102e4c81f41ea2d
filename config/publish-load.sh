#!/bin/sh
# Publishes the load of one Service as a ServiceLoad (config/crds/), from what is measured already. Run it every 20 s or so:
# what it says holds for a minute.
# usage: config/publish-load.sh CONTEXT NAMESPACE SERVICE hpa [NAME]
#            of a HorizontalPodAutoscaler (default: of the Service's name): what its pods do now, of what all the pods that it
#            may start would do at its target
#        config/publish-load.sh CONTEXT NAMESPACE SERVICE prometheus URL QUERY
#            of a Prometheus query with one result from 0 to 1; more than 1 counts as 1
set -eu
usage() {
    sed -n 's/^# usage: /usage: /p; s/^#        config/       config/p' "$0" >&2
    exit 2
}
[ $# -ge 4 ] || usage
context=$1 namespace=$2 service=$3 source=$4
shift 4
kubectl() {
    command kubectl --context "$context" --namespace "$namespace" "$@"
}
case $source in
hpa)
    name=${1:-$service}
    status='{.status.currentReplicas} {.spec.maxReplicas}'
    metric='{.status.currentMetrics[0].resource.current.averageUtilization} {.spec.metrics[0].resource.target.averageUtilization}'
    load=$(kubectl get hpa "$name" -o "jsonpath=$status $metric" |
        awk 'NF == 4 && $2 > 0 && $4 > 0 { load = $1 * $3 / ($2 * $4); print load < 1 ? load : 1 }')
    what="hpa $namespace/$name has no utilization yet"
    ;;
prometheus)
    [ $# -eq 2 ] || usage
    # {"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1435781451.781,"0.42"]}]}}
    load=$(curl --fail --silent --show-error --max-time 10 --get --data-urlencode "query=$2" "$1/api/v1/query" |
        sed -n 's/.*"result": *\[{[^]]*"value": *\[[^,]*, *"\([0-9.eE+-]*\)"\]}\].*/\1/p' |
        awk '{ print $1 < 1 ? $1 : 1 }')
    what="the query has no single number as its result"
    ;;
*) usage ;;
esac
if [ -z "$load" ]; then
    echo "$0: $what; nothing is published" >&2
    exit 1
fi
kubectl apply --filename=- <<LOAD
apiVersion: signpost.dev/v1alpha1
kind: ServiceLoad
metadata:
  name: $service
  namespace: $namespace
spec:
  load: $load
  validForSeconds: 60
  # Without it, a load that does not change would expire.
  measuredAt: $(date -u +%Y-%m-%dT%H:%M:%SZ)
LOAD
