//! What a query over UDP costs: CPU time of the server process for each answer, beside the echo floor in the same minute.
//!
//! `cargo bench --bench query_cost`; `-- --help` lists the options. `peers` is the same with other name servers beside.

#[path = "../tests/common/mod.rs"]
mod common;
mod rig;

fn main() -> std::process::ExitCode {
    rig::main("query_cost", &["signpost"], &rig::Mix::ALL)
}
