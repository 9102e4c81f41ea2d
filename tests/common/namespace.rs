//! A network of the test's own: only loopback, every port free, no privilege needed.

use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

use super::process::{Process, Run};
use super::wait_for;

/// Longest time that making a namespace may take, on a loaded machine.
const START: Duration = Duration::from_secs(20);

pub struct Namespace {
    holder: Process,
    _directory: TempDir,
}

impl Namespace {
    pub fn new() -> Namespace {
        let directory = tempfile::tempdir().expect("a temporary folder can be made");
        // All of 127.0.0.0/8 is there once loopback is up.
        let script = "ip link set lo up && echo ready && exec sleep infinity";
        let holder = Process::start(Run {
            name: "namespace",
            program: Path::new("unshare"),
            arguments: ["-rn", "setpriv", "--pdeathsig", "KILL", "sh", "-c", script].map(String::from).to_vec(),
            directory: directory.path(),
            namespace: None,
        });
        wait_for("a network namespace by `unshare -rn`", START, || match holder.log() {
            log if log.contains("ready") => Ok(()),
            log => holder.check().and(Err(log)),
        });
        Namespace { holder, _directory: directory }
    }

    /// The words in front of a command that is to run in here.
    pub fn enter(&self) -> Vec<String> {
        ["nsenter", "--target", &self.holder.id().to_string(), "--user", "--net", "--preserve-credentials", "--"]
            .map(String::from)
            .to_vec()
    }
}
