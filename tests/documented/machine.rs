//! A machine within this one, on which documented commands can be run as they are written: `useradd` and `systemctl`, too.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use tempfile::TempDir;

use crate::common::namespace::Namespace;
use crate::common::process::{Process, Run, command_in};
use crate::common::wait_for;

/// Until systemd is there, on a machine that does other things too.
const START: Duration = Duration::from_secs(60);
/// Longest command.
const PATIENCE: &str = "60";
/// Where commands are run: a copy of the repository.
pub const HOME: &str = "/srv/signpost";

pub struct Machine {
    /// Its network, and the process that all others end with.
    network: Option<Namespace>,
    /// Its first process, by the number that it has outside.
    init: u32,
    group: String,
    folder: TempDir,
}

pub fn needs_root() {
    let root = rustix::process::geteuid().is_root();
    assert!(root, "this test makes a machine of its own, with systemd and users, and has to be run by root");
}

impl Machine {
    /// `repository`: what is copied there. `more`: programs beside those of this machine.
    pub fn start(repository: &Path, more: &[PathBuf]) -> Machine {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let logs = tempfile::tempdir().expect("a temporary folder can be made");
        let group = format!("signpost-documented-{}", std::process::id());
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/documented/machine.sh");
        let words = [Path::new("--mount"), Path::new("bash"), &script, folder.path(), Path::new(&group), repository];
        let program = Path::new(env!("CARGO_BIN_EXE_signpost"));
        let words = words.into_iter().chain([program]).chain(more.iter().map(PathBuf::as_path));
        let holder = Process::start(Run {
            name: "machine",
            program: Path::new("unshare"),
            arguments: words.map(|word| word.display().to_string()).collect(),
            directory: logs.path(),
            namespace: None,
        });
        let id = holder.id();
        let init = wait_for("the first process of a machine within this one", START, || {
            holder.check()?;
            let children =
                fs::read_to_string(format!("/proc/{id}/task/{id}/children")).map_err(|error| error.to_string())?;
            let init = children.trim().parse::<u32>().map_err(|_| holder.log())?;
            let name = fs::read_to_string(format!("/proc/{init}/comm")).map_err(|error| error.to_string())?;
            if name.trim() == "systemd" { Ok(init) } else { Err(holder.log()) }
        });
        let machine = Machine { network: Some(Namespace::held_by(holder, logs)), init, group, folder };
        wait_for("systemd", START, || {
            let output = machine.run("systemctl is-system-running");
            let said = String::from_utf8_lossy(&output.stdout);
            if output.status.success() { Ok(()) } else { Err(format!("{said}{}", text(&output.stderr))) }
        });
        machine
    }

    pub fn network(&self) -> &Namespace {
        self.network.as_ref().expect("it is there until the end")
    }

    /// The words in front of a command line that is to be run there.
    fn words(&self, limit: Option<&str>) -> Vec<String> {
        let enter = format!(
            "nsenter --target {} --mount --pid --net --uts --ipc --cgroup --root --wd -- env -i --chdir={HOME} HOME=/root LANG=C.UTF-8 \
             PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/root/.cargo/bin",
            self.init
        );
        let limit = limit.map(|seconds| format!(" timeout {seconds}")).unwrap_or_default();
        let words = enter + &limit + " bash -c";
        words.split(' ').map(str::to_owned).collect()
    }

    /// As a reader would in a terminal.
    pub fn run(&self, line: &str) -> Output {
        let words = [self.words(Some(PATIENCE)), vec![line.to_owned()]].concat();
        let mut command: Command = command_in(None, Path::new(&words[0]), &words[1..]);
        command.current_dir("/").output().expect("nsenter can be run")
    }

    /// For what a test does by itself there: it has to succeed. What it prints.
    pub fn must(&self, line: &str) -> Result<String, String> {
        let output = self.run(line);
        match output.status.success() {
            true => Ok(text(&output.stdout)),
            false => Err(format!("{line}: {}{}", text(&output.stdout), text(&output.stderr))),
        }
    }

    /// In a terminal of its own, as long as it takes.
    pub fn start_there(&self, line: &str, logs: &Path) -> Process {
        let words = [self.words(None), vec![line.to_owned()]].concat();
        Process::start(Run {
            name: "server",
            program: Path::new(&words[0]),
            arguments: words[1..].to_vec(),
            directory: logs,
            namespace: None,
        })
    }

    /// One of its files, as it is seen from outside.
    pub fn file(&self, path: &str) -> PathBuf {
        let inside = Path::new(HOME).join(path);
        let relative = inside.strip_prefix("/").expect("an absolute path");
        Path::new("/proc").join(self.init.to_string()).join("root").join(relative)
    }

    pub fn write(&self, path: &str, content: &str) {
        let file = self.file(path);
        fs::create_dir_all(file.parent().expect("it is in a folder")).expect("all is ours there");
        fs::write(&file, content).unwrap_or_else(|error| panic!("{path}: {error}"));
    }

    pub fn read(&self, path: &str) -> String {
        fs::read_to_string(self.file(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }
}

impl Drop for Machine {
    /// A control group outlives its processes.
    fn drop(&mut self) {
        // Its first process ends with this one, and all others with that.
        self.network = None;
        let line = "mount -t cgroup2 none \"$1\" && find \"$1/$2\" -depth -type d -exec rmdir {} +";
        let groups = self.folder.path().join("groups");
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", line, "sh"]).arg(&groups).arg(&self.group);
        // Processes need a moment to be gone.
        let gone = crate::common::try_wait_for(START, || match command.output() {
            Ok(output) if output.status.success() => Ok(()),
            Ok(output) => Err(text(&output.stderr)),
            Err(error) => Err(error.to_string()),
        });
        if let Err(error) = gone {
            eprintln!("the control group {} is left: {error}", self.group);
        }
    }
}

pub fn text(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets).into_owned()
}
