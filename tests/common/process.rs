//! A program that runs beside the test and never outlives it.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};

use super::namespace::Namespace;
use super::try_wait_for;

/// Characters of a log that a panic message shows.
const LOG_TAIL: usize = 4000;

/// Ends with `Drop`, together with all that it started. Should the test end without unwinding, the kernel kills it.
pub struct Process {
    name: String,
    child: Mutex<Child>,
    group: Pid,
    log: PathBuf,
}

/// What is to be run, and where.
pub struct Run<'a> {
    pub name: &'a str,
    pub program: &'a Path,
    pub arguments: Vec<String>,
    /// Gets the log; it must live as long as the process.
    pub directory: &'a Path,
    pub namespace: Option<&'a Namespace>,
}

impl Process {
    pub fn start(run: Run<'_>) -> Process {
        let log = run.directory.join(format!("{}.log", run.name));
        // Appended to: what a program said before it was started again is still of interest.
        let out = File::options().create(true).append(true).open(&log).expect("the log's folder is there");
        let mut command = command_in(run.namespace, run.program, &run.arguments);
        command.current_dir(run.directory).stdin(Stdio::null());
        command.stdout(out.try_clone().expect("a file can be shared")).stderr(out);
        let child = spawn(command).unwrap_or_else(|e| panic!("{} cannot be started: {e}", run.program.display()));
        let group = Pid::from_child(&child);
        Process { name: run.name.to_string(), child: Mutex::new(child), group, log }
    }

    pub fn id(&self) -> u32 {
        self.group.as_raw_nonzero().get().unsigned_abs()
    }

    /// An error with the end of the log, once the program has ended.
    pub fn check(&self) -> Result<(), String> {
        match self.ended() {
            None => Ok(()),
            Some(status) => Err(format!("{} has ended with {status}; its log ends with:\n{}", self.name, self.log())),
        }
    }

    pub fn ended(&self) -> Option<ExitStatus> {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        child.try_wait().expect("the child is ours to wait for")
    }

    /// To the program and all that it started.
    pub fn signal(&self, signal: Signal) {
        if self.ended().is_none() {
            kill_process_group(self.group, signal).unwrap_or_else(|e| panic!("{signal:?} to {}: {e}", self.name));
        }
    }

    /// At once, and gone when this returns.
    pub fn kill(&self) {
        // Even if the program itself has ended, others of its group may still be there.
        let _ = kill_process_group(self.group, Signal::KILL);
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = child.wait();
    }

    /// Asks it to stop and gives its status.
    pub fn terminate(&self, deadline: Duration) -> ExitStatus {
        self.signal(Signal::TERM);
        try_wait_for(deadline, || self.ended().ok_or_else(String::new)).unwrap_or_else(|_| {
            panic!("{} is still there {deadline:?} after SIGTERM; its log ends with:\n{}", self.name, self.log())
        })
    }

    /// Where all that it prints goes.
    pub fn log_file(&self) -> &Path {
        &self.log
    }

    /// The end of what it has printed.
    pub fn log(&self) -> String {
        let all = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&all[all.len().saturating_sub(LOG_TAIL)..]).into_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A command that the kernel kills with this test process, run in the namespace if there is one.
pub fn command_in<S: AsRef<OsStr>>(namespace: Option<&Namespace>, program: &Path, arguments: &[S]) -> Command {
    // Entering a namespace changes credentials, and that clears the death signal: so it is set after.
    let mut words: Vec<&OsStr> = Vec::new();
    let enter = namespace.map(Namespace::enter).unwrap_or_default();
    words.extend(enter.iter().map(OsStr::new));
    words.extend(["setpriv", "--pdeathsig", "KILL", "--"].map(OsStr::new));
    words.push(program.as_os_str());
    words.extend(arguments.iter().map(S::as_ref));
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).process_group(0);
    command
}

/// Spawns from one thread that lives as long as the test process. The death signal comes when the *thread* that spawned
/// ends, and a test's thread may end long before the processes that it shares with other tests.
fn spawn(command: Command) -> io::Result<Child> {
    type Job = (Command, mpsc::Sender<io::Result<Child>>);
    static SPAWNER: OnceLock<mpsc::Sender<Job>> = OnceLock::new();
    let jobs = SPAWNER.get_or_init(|| {
        let (jobs, queue) = mpsc::channel::<Job>();
        thread::spawn(move || {
            for (mut command, reply) in queue {
                let _ = reply.send(command.spawn());
            }
        });
        jobs
    });
    let (reply, child) = mpsc::channel();
    jobs.send((command, reply)).expect("the spawning thread never ends");
    child.recv().expect("every job is replied to")
}
