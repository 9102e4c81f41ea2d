//! The next process: it is started by this one, gets its sockets, and this one ends when it serves. Whatever goes wrong before that,
//! this one goes on.

use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, timeout_at};

use crate::net::hand_over::{Inherited, Line, Role};

/// How a process is told that it is one: its standard input is the line to the one before.
pub const TAKE_OVER: &str = "--take-over";
/// Beside the time that it waits for clusters: to start, read files and connect.
const PATIENCE: Duration = Duration::from_secs(60);

/// What this process was started with, which may be another program on disk by now.
#[derive(Debug, Clone)]
pub struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
}

impl Program {
    /// To be called at the start: later, the path of a program that was replaced is not what it was.
    pub fn this() -> io::Result<Program> {
        let mut words = std::env::args_os();
        // As it was called, so that a link may lead to another one by now; one that was looked for is where it was found.
        let path = match words.next().map(PathBuf::from).filter(|path| path.components().count() > 1) {
            Some(path) => std::path::absolute(path)?,
            None => std::env::current_exe()?,
        };
        Ok(Program { path, arguments: words.filter(|argument| argument != TAKE_OVER).collect() })
    }
}

/// It has been started, and does not serve yet.
pub struct Successor {
    child: Child,
    /// `None`: the line has ended.
    ready: Option<JoinHandle<io::Result<()>>>,
    until: Instant,
}

impl Successor {
    /// `wait`: for how long it may wait for clusters.
    pub fn start<'s>(
        program: &Program,
        wait: Duration,
        sockets: impl Iterator<Item = (Role, SocketAddr, BorrowedFd<'s>)>,
    ) -> io::Result<Successor> {
        let (ours, theirs) = Line::pair()?;
        let child = Command::new(&program.path)
            .args(&program.arguments)
            .arg(TAKE_OVER)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .spawn()?;
        // What does not fit into the line waits until it is read.
        let sockets: Vec<(Role, SocketAddr, OwnedFd)> = sockets
            .map(|(role, address, socket)| Ok((role, address, socket.try_clone_to_owned()?)))
            .collect::<io::Result<_>>()?;
        let ready = spawn_blocking(move || {
            ours.hand_over(sockets.iter().map(|(role, address, socket)| (*role, *address, socket.as_fd())))?;
            drop(sockets);
            ours.await_ready()
        });
        Ok(Successor { child, ready: Some(ready), until: Instant::now() + wait + PATIENCE })
    }

    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Until it serves. `Err`: it does not, and why. Whoever waits may turn to something else and wait again.
    pub async fn serves(&mut self) -> Result<(), String> {
        if let Some(ready) = &mut self.ready {
            let end = timeout_at(self.until, ready).await;
            self.ready = None;
            match end {
                Ok(Ok(Ok(()))) => return Ok(()),
                Ok(Ok(Err(_))) => {}
                Ok(Err(panic)) => return Err(panic.to_string()),
                Err(_) => return Err("it did not become ready in time".to_owned()),
            }
        }
        match timeout_at(self.until, self.child.wait()).await {
            Ok(Ok(status)) => Err(format!("it ended with {status}")),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("it took the sockets, and does not go on".to_owned()),
        }
    }

    /// It is not wanted any more.
    pub fn stop(&mut self) {
        let pid = self.child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        // It may have ended by itself.
        let _ = pid.map(|pid| kill_process(pid, Signal::TERM));
    }
}

/// The line to the process that started this one, and its sockets.
pub struct Predecessor {
    line: Line,
}

impl Predecessor {
    /// From the standard input.
    pub fn take_over() -> io::Result<(Predecessor, Inherited)> {
        let line = Line::from(io::stdin().as_fd().try_clone_to_owned()?);
        let inherited = line.take_over()?;
        Ok((Predecessor { line }, inherited))
    }

    /// This one serves. The other one may have gone.
    pub fn serves(&self) -> io::Result<()> {
        self.line.say_ready()
    }
}
