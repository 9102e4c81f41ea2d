#!/usr/bin/env bash
# Builds the programs that the tests run beside Signpost, from pinned Go modules, into a folder (default: target/testbed):
#   etcd kube-apiserver kube-controller-manager kwok [kubectl] kwok-stages/   from go.mod here
#   coredns                                                                   from coredns/go.mod (its versions conflict with the above)
#   mcs-crds/                                                                 from mcs/go.mod (so do the versions that it asks for)
# kubectl is built only where the machine has none. What is up to date with its go.mod, its go.sum and this script is
# left alone. From nothing this takes about 12 minutes on two cores and 4 GB of Go build cache.
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

coredns() {
    local hash
    hash=$(recipe "$here/coredns")
    if fresh "$out/.coredns.stamp" "$hash" coredns; then return; fi
    need_go
    cd "$here/coredns"
    ldflags="-s -w" build coredns github.com/coredns/coredns
    echo "$hash" >"$out/.coredns.stamp"
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

mcs_crds
kubernetes_programs
coredns
