# The program and nothing else: no shell, no libraries, no credential plugins, no certificates (a kubeconfig brings its own authority).
#
#   docker build --tag signpost:0.1.0 .                     builds the program as well; needs a registry with the image of Rust
#   make image                                              takes one that was built outside, and needs no registry
#   docker build --target ready --build-arg BINARY=FILE .   the same with a program of your own: static, and below this directory
#
# Everywhere `buildah build` and `podman build` do the same.

FROM scratch AS base
LABEL org.opencontainers.image.title="signpost" \
      org.opencontainers.image.description="Authoritative DNS server for federations of Kubernetes clusters" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="0.1.0"
# By number: runAsNonRoot does not believe names, and there is no /etc/passwd. The same as in config/deploy.
USER 65532:65532
# DNS, and the admin address: above 1024, where no capability is needed.
EXPOSE 8053/udp 8053/tcp 8055/tcp
ENTRYPOINT ["/signpost"]

FROM base AS ready
ARG BINARY=target/image/signpost
COPY --chmod=755 ${BINARY} /signpost

FROM rust:1.95-bookworm AS build
WORKDIR /signpost
COPY . .
RUN make static

# The last stage is what is built if nothing else is said.
FROM base AS signpost
COPY --from=build --chmod=755 /signpost/target/image/signpost /signpost
