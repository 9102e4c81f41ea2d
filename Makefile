# Every target can be run from a fresh clone. Needed: Rust (rust-version in Cargo.toml), Go (tests/testbed/go.mod), and the
# packages of tests/apt-packages.txt.

CARGO ?= cargo

# What builds images: docker, podman or buildah, whichever is there.
BUILDER ?= $(firstword $(notdir $(shell command -v docker podman buildah)))
IMAGE ?= signpost:0.1.0

.PHONY: help test lint testbed budget bench bench-peers static image

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

test: testbed ## every test, those with real Kubernetes and real resolvers included
	CARGO='$(CARGO)' tests/run.sh

lint: ## formatting and clippy, warnings are errors
	$(CARGO) fmt --check
	$(CARGO) fmt --check --manifest-path tests/loom/Cargo.toml
	$(CARGO) clippy --locked --all-targets -- -D warnings

testbed: ## build etcd, kube-apiserver, kube-controller-manager, kwok, CoreDNS, helm and kube-score into target/testbed (about 15 minutes the first time)
	tests/testbed/build.sh target/testbed

budget: ## instructions for each kind of query, against benches/instructions/budget.txt
	$(CARGO) bench --locked --bench instructions

bench: ## every benchmark in its quick settings, in a few minutes; what lacks a tool says so and is left out
	$(CARGO) bench --locked --no-fail-fast -- --quick

bench-peers: ## CPU per query beside the echo floor and other name servers, in full (about 10 minutes)
	$(CARGO) bench --locked --bench peers

# Without libraries, so that it runs on an empty base. The host's own target by name: otherwise the flag would hold for procedural
# macros, too, which cannot be linked that way. Needs the static C library (Debian: libc6-dev).
static: ## the program for any Linux of this architecture, into target/image/signpost (about 10 minutes)
	host=$$(rustc -vV | sed -n 's/^host: //p') && \
	RUSTFLAGS='-C target-feature=+crt-static' $(CARGO) build --locked --release --bin signpost --target "$$host" --target-dir target/static && \
	install -D -m 755 "target/static/$$host/release/signpost" target/image/signpost

image: static ## the same as an image, signpost:0.1.0 or IMAGE; needs docker, podman or buildah, and no registry
	@test -n "$(BUILDER)" || { echo "make image: install docker, podman or buildah (Debian: buildah), or set BUILDER" >&2; exit 1; }
	$(BUILDER) build --target ready --tag $(IMAGE) .
