//! Signpost: an authoritative DNS server for federations of Kubernetes clusters.
//!
//! The modules, in the order in which an address travels from a cluster to a client:
//!
//! | module | what it is |
//! |---|---|
//! | [`config`] | what the operator wrote → what will be run |
//! | [`source`] | Kubernetes API servers and manifest directories → [`index::Update`]s |
//! | [`index`] | what each cluster last said; which services an update changes |
//! | [`snapshot`] | what was last heard of each cluster, on disk |
//! | [`load`] | what clusters publish of their load → which share of their traffic goes elsewhere |
//! | [`location`] | client address → the cluster it is in |
//! | [`ranking`] | a service and a client → ordered bands of candidates |
//! | [`zonefile`] | zone files → static RRsets |
//! | [`table`] | ready-made answers: one publisher, many readers, no lock |
//! | [`wire`] | query parsing and response writing, slices in, slices out |
//! | [`answer`] | what to say to a query (RFC 1034 section 4.3.2) |
//! | [`net`] | UDP workers and TCP connections |
//! | [`metrics`] | per-worker counters, summed on scrape |
//! | [`explain`] | why an answer is as it is |
//! | [`dump`] | all answers of a zone, as a zone file |
//! | [`status`] | how the server is doing, for people and programs |
//! | [`admin`] | HTTP: /metrics, /livez, /readyz |
//! | [`app`] | starts, reloads, stops and joins all of the above |
//! | [`cli`] | the command line |
//!
//! [`model`] holds the nouns and [`names`] the wire names that they all share.
//!
//! Start reading at [`answer::Responder::answer`] (a query's way) or at [`app`] (the daemon's life).
//!
//! # Invariants, held by `tests/tidy.rs`
//!
//! 1. `kube` and `k8s_openapi` are named only in `source/`; `prometheus` only in `metrics.rs`.
//! 2. `model`, `names`, `wire`, `index`, `load`, `location`, `ranking`, `table` and `answer` are synchronous and pure: no
//!    clock, socket, file, environment or random source. Time, randomness and addresses are arguments.
//! 3. There is one writer: `table::Publisher` is not `Clone`. A reader never waits and never sees half of a service.
//! 4. Every task is joined in `app.rs`; the first one to end stops the process with its name. Every queue
//!    and cache has a named limit.
//! 5. `unsafe` is in `net/udp.rs`, `table/map.rs` and `table/arena.rs` only.

pub mod admin;
pub mod answer;
pub mod app;
pub mod cli;
pub mod config;
pub mod courtesy;
pub mod dump;
pub mod explain;
pub mod health;
pub mod index;
pub mod load;
pub mod location;
pub mod metrics;
pub mod model;
pub mod names;
pub mod net;
pub mod overview;
pub mod query_log;
pub mod ranking;
pub mod snapshot;
pub mod source;
pub mod status;
pub mod table;
pub mod wire;
pub mod zonefile;
