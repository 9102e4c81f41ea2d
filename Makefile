# Every target can be run from a fresh clone. Needed: Rust (rust-version in Cargo.toml), Go (tests/testbed/go.mod), and the
# packages of tests/apt-packages.txt.

CARGO ?= cargo

.PHONY: help test lint testbed budget bench bench-peers

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

test: testbed ## every test, those with real Kubernetes and real resolvers included
	$(CARGO) test --locked --no-fail-fast
	$(CARGO) test --locked --manifest-path tests/loom/Cargo.toml --target-dir target/loom

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
