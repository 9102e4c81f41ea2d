//! Parts of the test's own program that run beside it: ignored tests of it, started as programs of their own.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use super::namespace::Namespace;
use super::process::{Process, Run};
use super::signpost::START;
use super::wait_for;

/// Starts the ignored test `test` in the namespace, with a setting as in `NAME=VALUE`, and waits until it listens.
/// `name`: of its log in `directory`.
pub fn again(test: &str, setting: &str, name: &str, directory: &Path, namespace: &Namespace) -> Process {
    // Its log is read from the beginning.
    let _ = fs::remove_file(directory.join(format!("{name}.log")));
    let exe = std::env::current_exe().expect("the test is a program");
    let arguments = [setting, &exe.display().to_string(), "--ignored", "--exact", "--nocapture", test];
    let process = Process::start(Run {
        name,
        program: Path::new("/usr/bin/env"),
        arguments: arguments.map(str::to_owned).to_vec(),
        directory,
        namespace: Some(namespace),
    });
    wait_for(&format!("{name} that listens"), START, || match process.log() {
        log if log.contains(LISTENING) => Ok(()),
        log => process.check().and(Err(log)),
    });
    process
}

/// What such a program says once it listens.
const LISTENING: &str = "listening";

pub fn listener(address: SocketAddr) -> TcpListener {
    let listener = TcpListener::bind(address).expect("the address is there");
    println!("{LISTENING}");
    listener
}

/// A backend at that address. The test's program has to have [`backend`] as an ignored test of this name.
pub fn listen(namespace: &Namespace, directory: &Path, name: &str, address: &str) -> Process {
    again("backend", &format!("BACKEND={address}"), name, directory, namespace)
}

/// What runs there: it takes connections, and ends them.
pub fn backend() {
    let address = std::env::var("BACKEND").expect("an address").parse().expect("an address");
    listener(address).incoming().for_each(drop);
}
