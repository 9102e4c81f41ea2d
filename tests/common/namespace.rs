//! A network of the test's own: only loopback, every port free, no privilege needed.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use super::process::{Process, Run};
use super::wait_for;

/// Longest time that making a namespace may take, on a loaded machine.
const START: Duration = Duration::from_secs(20);

pub struct Namespace {
    holder: Process,
    /// Whether it has users of its own, too, so that it needs no privilege.
    own_users: bool,
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
        Namespace { holder, own_users: true, _directory: directory }
    }

    /// That of root's process, which has no users of its own.
    pub fn held_by(holder: Process, directory: TempDir) -> Namespace {
        Namespace { holder, own_users: false, _directory: directory }
    }

    /// Another one, with a wire to this one: `10.0.N.1` is this end of it and `10.0.N.2` the other one's. All but loopback leads here.
    pub fn leaf(&self, n: u8) -> Namespace {
        let directory = tempfile::tempdir().expect("a temporary folder can be made");
        let script = "ip link set lo up && echo ready && exec sleep infinity";
        let holder = Process::start(Run {
            name: "namespace",
            program: Path::new("unshare"),
            arguments: ["-n", "setpriv", "--pdeathsig", "KILL", "sh", "-c", script].map(String::from).to_vec(),
            directory: directory.path(),
            namespace: Some(self),
        });
        wait_for("a namespace beside another one", START, || match holder.log() {
            log if log.contains("ready") => Ok(()),
            log => holder.check().and(Err(log)),
        });
        let leaf = Namespace { holder, own_users: self.own_users, _directory: directory };
        let wire = format!("wire{n}");
        self.run(&format!("ip link add {wire} type veth peer name hub netns {}", leaf.holder.id()));
        self.run(&format!("ip address add 10.0.{n}.1/24 dev {wire}"));
        self.run(&format!("ip link set {wire} up"));
        leaf.run(&format!("ip address add 10.0.{n}.2/24 dev hub"));
        leaf.run("ip link set hub up");
        leaf.run(&format!("ip route add default via 10.0.{n}.1"));
        leaf
    }

    /// Runs a command in here, which must succeed.
    pub fn run(&self, command: &str) {
        let words = [self.enter(), command.split(' ').map(String::from).collect()].concat();
        let output = Command::new(&words[0]).args(&words[1..]).output().expect("nsenter can be run");
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// The words in front of a command that is to run in here.
    pub fn enter(&self) -> Vec<String> {
        let users: &[&str] = if self.own_users { &["--user", "--preserve-credentials"] } else { &[] };
        let id = self.holder.id().to_string();
        [&["nsenter", "--target", &id, "--net"], users, &["--"]].concat().into_iter().map(String::from).collect()
    }
}
