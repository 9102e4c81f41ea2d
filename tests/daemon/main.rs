//! The program as its users run it: the demo, changes under a running server, signals, what it says when it cannot start.

#[path = "../common/mod.rs"]
mod common;
#[path = "../support/mmdb.rs"]
mod mmdb;

mod check;
mod demo;
mod explain;
mod hostnames;
mod input;
mod load;
mod mcs;
mod metrics;
mod not_ready;
mod places;
mod server;
mod signals;
mod startup;
mod system_calls;
mod views;
