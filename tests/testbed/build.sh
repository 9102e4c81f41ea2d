#!/usr/bin/env bash
# Builds the programs that the tests run beside Signpost, from pinned Go modules, into a folder (default: target/testbed):
#   etcd kube-apiserver kube-controller-manager kwok [kubectl] kwok-stages/   from go.mod here
#   coredns                                                                   from coredns/go.mod (its versions conflict with the above)
#   mcs-crds/                                                                 from mcs/go.mod (so do the versions that it asks for)
#   helm                                                                      from helm/go.mod
#   kube-score                                                                from kube-score/go.mod (which wants older APIs than helm)
# kubectl is built only where the machine has none. What is up to date with its go.mod, its go.sum and this script is
# left alone. From nothing this takes about 15 minutes on two cores and 5 GB of Go build cache.
# After the folder, names of parts may follow that are to be built, and no others: mcs_crds kubernetes_programs coredns helm kube_score.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
out=${1:-$here/../../target/testbed}
mkdir -p "$out"
out=$(cd "$out" && pwd)

# The Go on this machine or none: a build must not fetch a toolchain behind one's back.
export GOTOOLCHAIN=local
# The main packages lie in the module cache, so there is no revision of theirs to stamp in.
export GOFLAGS="-trimpath -buildvcs=false -mod=readonly"

# Without these kube-apiserver reports v0.0.0, and clients that compare versions (kubectl, kwok) go wrong.
kubernetes=$(awk '$1 == "k8s.io/kubernetes" { print $2 }' "$here/go.mod")
minor=${kubernetes#v1.}
minor=${minor%%.*}
version=k8s.io/component-base/version
ldflags="-s -w -X $version.gitVersion=$kubernetes -X $version.gitMajor=1 -X $version.gitMinor=$minor"

need_go() {
    if ! command -v go >/dev/null; then
        echo "make testbed: Go is not on PATH; install Go $(awk '$1 == "go" { print $2 }' "$here/go.mod") or later" >&2
        exit 1
    fi
}

# recipe DIRECTORY: a hash of all that decides what is built from that module.
recipe() {
    cat "$1/go.mod" "$1/go.sum" "$here/build.sh" | sha256sum | cut -d' ' -f1
}

# fresh STAMP HASH FILE...: whether the files are there and were made by that recipe.
fresh() {
    local stamp=$1 hash=$2 file
    shift 2
    [[ -f $stamp && $(<"$stamp") == "$hash" ]] || return 1
    for file in "$@"; do
        [[ -e $out/$file ]] || return 1
    done
}

# build NAME PACKAGE: through a temporary name, so that a build which was broken off leaves no half program.
build() {
    echo "building $1"
    go build -ldflags "$ldflags" -o "$out/.$1.part" "$2"
    mv "$out/.$1.part" "$out/$1"
}

kubernetes_programs() {
    local hash files=(etcd kube-apiserver kube-controller-manager kwok kwok-stages)
    command -v kubectl >/dev/null || files+=(kubectl)
    hash=$(recipe "$here")
    if fresh "$out/.kubernetes.stamp" "$hash" "${files[@]}"; then return; fi
    need_go
    cd "$here"
    build etcd go.etcd.io/etcd/server/v3
    build kube-apiserver k8s.io/kubernetes/cmd/kube-apiserver
    build kube-controller-manager k8s.io/kubernetes/cmd/kube-controller-manager
    build kwok sigs.k8s.io/kwok/cmd/kwok
    if [[ " ${files[*]} " == *" kubectl "* ]]; then build kubectl k8s.io/kubernetes/cmd/kubectl; fi
    stages
    echo "$hash" >"$out/.kubernetes.stamp"
}

# kwok does nothing without stages: here those that make nodes ready and keep them so, and pods ready as soon as they exist.
stages() {
    local module
    module=$(go list -m -f '{{.Dir}}' sigs.k8s.io/kwok)/kustomize/stage
    rm -rf "$out/kwok-stages"
    mkdir "$out/kwok-stages"
    install -m 644 "$module"/pod/fast/pod-*.yaml "$module"/node/fast/node-*.yaml "$module"/node/heartbeat/node-*.yaml \
        "$out/kwok-stages/"
}

# The custom resources of the Multi-Cluster Services API, as its own module has them.
mcs_crds() {
    local hash module=sigs.k8s.io/mcs-api directory
    hash=$(recipe "$here/mcs")
    if fresh "$out/.mcs.stamp" "$hash" mcs-crds; then return; fi
    need_go
    cd "$here/mcs"
    go mod download "$module"
    directory=$(go list -m -f '{{.Dir}}' "$module")/config/crd
    rm -rf "$out/mcs-crds"
    mkdir "$out/mcs-crds"
    install -m 644 "$directory"/multicluster.x-k8s.io_*.yaml "$out/mcs-crds/"
    echo "$hash" >"$out/.mcs.stamp"
}

# program NAME DIRECTORY PACKAGE [LDFLAGS]: one program from a module of its own.
program() {
    local hash
    hash=$(recipe "$here/$2")
    if fresh "$out/.$1.stamp" "$hash" "$1"; then return; fi
    need_go
    cd "$here/$2"
    ldflags="-s -w ${4-}" build "$1" "$3"
    echo "$hash" >"$out/.$1.stamp"
}

coredns() { program coredns coredns github.com/coredns/coredns; }
# Without these helm takes every cluster for Kubernetes 1.20 where it has none to ask.
helm() {
    local minor
    minor=$(awk '$1 == "k8s.io/client-go" { split($2, part, "."); print part[2] }' "$here/helm/go.mod")
    program helm helm helm.sh/helm/v3/cmd/helm "-X helm.sh/helm/v3/pkg/chartutil.k8sVersionMajor=1 \
        -X helm.sh/helm/v3/pkg/chartutil.k8sVersionMinor=$minor -X helm.sh/helm/v3/pkg/lint/rules.k8sVersionMajor=1 \
        -X helm.sh/helm/v3/pkg/lint/rules.k8sVersionMinor=$minor"
}
kube_score() { program kube-score kube-score github.com/zegl/kube-score/cmd/kube-score; }

parts=("${@:2}")
((${#parts[@]})) || parts=(mcs_crds kubernetes_programs coredns helm kube_score)
for part in "${parts[@]}"; do
    case $part in
    mcs_crds | kubernetes_programs | coredns | helm | kube_score) "$part" ;;
    *)
        echo "$0: there is no part \"$part\"; the parts are mcs_crds, kubernetes_programs, coredns, helm and kube_score" >&2
        exit 2
        ;;
    esac
done
