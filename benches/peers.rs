//! What a query over UDP costs Signpost and other authoritative name servers, with the same data, the same questions and
//! the same echo floor, in alternation.
//!
//! `cargo bench --bench peers`; `-- --help` lists the options. It installs nothing: a server that is not there is named,
//! with the package that brings it, and left out.

#[path = "../tests/common/mod.rs"]
mod common;
mod rig;

use rig::Mix;

fn main() -> std::process::ExitCode {
    let servers = ["signpost", "gdnsd", "nsd", "knot", "bind", "pdns", "coredns"];
    rig::main("peers", &servers, &[Mix::Mixed, Mix::A, Mix::NxDomain, Mix::Edns, Mix::Cookie, Mix::Case])
}
