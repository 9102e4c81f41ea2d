//! What is measured: a server as a process of its own, and the echo floor.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use signpost::metrics::{Metrics, UdpCounters};
use signpost::net::udp::{self, Batch, Handler, Worker};
use signpost::table::Random;
use tempfile::TempDir;

use super::buffers;
use super::generator::interrupted;
use super::peers;
use super::questions::{Addresses, Mix, check, write_train};
use super::world::{self, RECEIVE_BUFFER};
use crate::common::process::{Process, Run};
use crate::common::{free_port, local, try_wait_for};

/// Longest time from the start to the first answer, on a loaded machine. gdnsd computes for 10 s with 10,000 resources: it looks
/// for the name of each in a list.
const START: Duration = Duration::from_secs(120);
/// For one answer, before the server is asked again.
const PATIENCE: Duration = Duration::from_millis(100);
pub const SIGNPOST: &str = "signpost";
/// An earlier build of it.
const BEFORE: &str = "before";
/// The argument that makes this program the echo server.
pub const ECHO: &str = "--echo";

/// All that can be measured.
pub fn names() -> impl Iterator<Item = &'static str> {
    [SIGNPOST].into_iter().chain(peers::names())
}

/// A server and the folder that it works in.
pub struct Server {
    pub name: &'static str,
    pub version: String,
    pub address: SocketAddr,
    /// Which ones it is to answer with.
    pub addresses: Addresses,
    /// Octets of the receive buffer of its sockets, or why it was left as it is.
    pub receive_buffer: Result<usize, String>,
    process: Process,
    _directory: TempDir,
}

/// What is to be run in a folder to have a server at an address.
pub struct Recipe<'a> {
    pub name: &'static str,
    pub version: String,
    pub program: &'a Path,
    /// Which ones its answers are to have.
    pub addresses: Addresses,
    /// Writes what it needs; returns its arguments.
    pub prepare: &'a dyn Fn(&Path, SocketAddr) -> io::Result<Vec<String>>,
}

impl Server {
    /// Returns when it has given a right answer. An error says what it has printed.
    pub fn start(recipe: Recipe<'_>, cores: &[usize]) -> Result<Server, String> {
        let addresses = recipe.addresses;
        Server::start_and_ask(recipe, cores, &|answer| check(answer, addresses, 0))
    }

    /// `signpost serve` with one UDP worker on each core and the whole world in manifests.
    /// `before`: the program of another build. `places`: prefixes whose place it knows. `load`: one cluster is loaded.
    pub fn signpost(before: Option<&Path>, cores: &[usize], places: u32, load: bool) -> Result<Server, String> {
        let name = before.map_or(SIGNPOST, |_| BEFORE);
        let program = before.unwrap_or(Path::new(env!("CARGO_BIN_EXE_signpost")));
        let prepare = |directory: &Path, address| {
            let config = world::write_signpost(directory, address, local(free_port()), cores.len(), places, load)?;
            Ok(vec!["serve".into(), "--config".into(), config.display().to_string()])
        };
        let version = version(program, &["--version"]);
        let addresses = if places > 0 && !load { Addresses::NearestFirst } else { Addresses::All };
        Server::start(Recipe { name, version, program, addresses, prepare: &prepare }, cores)
    }

    /// This program again, as an echo server whose answers have `length` octets, with one worker on each core.
    pub fn echo(length: usize, cores: &[usize]) -> Result<Server, String> {
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let words = |address: SocketAddr| [ECHO.into(), address.to_string(), length.to_string()];
        let prepare = |_: &Path, address| Ok(words(address).into());
        let (name, version, addresses) = ("floor", String::new(), Addresses::All);
        let recipe = Recipe { name, version, program: &program, addresses, prepare: &prepare };
        Server::start_and_ask(recipe, cores, &|_| Ok(()))
    }

    fn start_and_ask(
        recipe: Recipe<'_>,
        cores: &[usize],
        right: &dyn Fn(&[u8]) -> Result<(), String>,
    ) -> Result<Server, String> {
        let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
        let address = local(free_port());
        let arguments = (recipe.prepare)(directory.path(), address).map_err(|error| error.to_string())?;
        // taskset becomes the program, whose threads and children inherit the cores.
        let list = cores.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let mut words = vec!["--cpu-list".to_owned(), list, recipe.program.display().to_string()];
        words.extend(arguments);
        let process = Process::start(Run {
            name: recipe.name,
            program: Path::new("taskset"),
            arguments: words,
            directory: directory.path(),
            namespace: None,
        });
        let receive_buffer = Err("not set yet".into());
        let Recipe { name, version, addresses, .. } = recipe;
        let mut server = Server { name, version, address, addresses, receive_buffer, process, _directory: directory };
        let mut random = Random::new(2);
        let answered = try_wait_for(START, || {
            if let Err(end) = interrupted().map_err(|error| error.to_string()).and_then(|()| server.process.check()) {
                return Ok(Err(end));
            }
            right(&server.ask(&mut random).map_err(|error| error.to_string())?).map(Ok)
        });
        answered.map_err(|last| format!("{last}; it has printed:\n{}", server.process.log()))??;
        if let &[core] = cores {
            server.is_pinned(core)?;
        }
        let processes = server.processes().map_err(|error| error.to_string())?;
        server.receive_buffer = buffers::set(&processes, address, RECEIVE_BUFFER).map_err(|error| error.to_string());
        Ok(server)
    }

    fn ask(&self, random: &mut Random) -> io::Result<Vec<u8>> {
        let client = UdpSocket::bind(local(0))?;
        client.set_read_timeout(Some(PATIENCE))?;
        let mut query = Vec::new();
        write_train(Mix::A, 1, 0, &mut query, random);
        client.send_to(&query, self.address)?;
        let mut answer = vec![0; 2048];
        let length = client.recv(&mut answer)?;
        answer.truncate(length);
        Ok(answer)
    }

    /// Time on a core since the start, of all threads of all its processes, user and system.
    pub fn cpu(&self) -> io::Result<Duration> {
        Ok(Duration::from_nanos(self.cpu_of_threads()?.values().sum()))
    }

    /// Nanoseconds on a core since its start, of each thread.
    pub fn cpu_of_threads(&self) -> io::Result<BTreeMap<String, u64>> {
        let mut each = BTreeMap::new();
        for task in self.tasks()? {
            // One that has ended meanwhile.
            let Ok(text) = fs::read_to_string(format!("{task}/schedstat")) else { continue };
            let first = text.split(' ').next().and_then(|field| field.parse::<u64>().ok());
            each.insert(task, first.ok_or(io::ErrorKind::InvalidData)?);
        }
        Ok(each)
    }

    /// Kibioctets of resident memory.
    pub fn resident(&self) -> io::Result<u64> {
        let mut sum = 0;
        for process in self.processes()? {
            let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
            sum += line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0);
        }
        Ok(sum)
    }

    /// Its own process and those that it has started: all of its process group.
    fn processes(&self) -> io::Result<Vec<u32>> {
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let name = entry?.file_name();
            let Some(id) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
            let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
            // Behind the name, which ends with the last parenthesis: state, parent, process group.
            let group = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(2)?.parse::<u32>().ok());
            if group == Some(self.process.id()) {
                found.push(id);
            }
        }
        if found.is_empty() { Err(io::ErrorKind::NotFound.into()) } else { Ok(found) }
    }

    fn tasks(&self) -> io::Result<Vec<String>> {
        let mut found = Vec::new();
        for process in self.processes()? {
            let Ok(tasks) = fs::read_dir(format!("/proc/{process}/task")) else { continue };
            found.extend(tasks.flatten().map(|task| task.path().display().to_string()));
        }
        Ok(found)
    }

    /// A server that chooses its cores itself would be measured on two.
    fn is_pinned(&self, core: usize) -> Result<(), String> {
        for task in self.tasks().map_err(|error| error.to_string())? {
            let status = fs::read_to_string(format!("{task}/status")).unwrap_or_default();
            let cores = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
            if cores.is_some_and(|cores| cores.trim() != core.to_string()) {
                return Err(format!("{} has a thread that is not kept to core {core}", self.name));
            }
        }
        Ok(())
    }
}

/// The first line with a number and a point that a program prints.
pub fn version(program: &Path, arguments: &[&str]) -> String {
    let Ok(output) = Command::new(program).args(arguments).output() else { return "unknown".into() };
    let text = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    let words = text.split(|c: char| c.is_whitespace() || "(),".contains(c));
    let mut numbers = words.map(|word| word.trim_start_matches(|c: char| !c.is_ascii_digit()));
    numbers.find(|word| word.contains('.')).map_or_else(|| "unknown".into(), str::to_owned)
}

/// The floor: the loop of the UDP workers, one on each core, with nothing in it but a flipped bit.
pub fn serve_echo(address: &str, length: &str) -> io::Result<()> {
    let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidInput, what.to_owned());
    let address = address.parse().map_err(|_| invalid(address))?;
    let length = length.parse().map_err(|_| invalid(length))?;
    let cores = udp::allowed_cores();
    let workers = u16::try_from(cores.len()).map_err(|_| invalid("too many cores"))?;
    let (_, sockets) = udp::bind(address, workers, RECEIVE_BUFFER)?;
    let threads: Vec<_> = sockets.into_iter().zip(cores).map(|(socket, core)| echo(socket, core, length)).collect();
    threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| io::Error::other("a worker has panicked"))?)
}

fn echo(socket: udp::Socket, core: usize, length: usize) -> thread::JoinHandle<io::Result<()>> {
    thread::spawn(move || {
        udp::pin_to(core);
        let (worker, _stopper) = Worker::with_handler(socket, Echo { length, counters: Metrics::new().udp_worker() });
        worker.run()
    })
}

struct Echo {
    length: usize,
    counters: UdpCounters,
}

impl Handler for Echo {
    fn handle(&mut self, batch: &mut Batch) {
        for place in 0..batch.received() {
            let Some(query) = batch.query(place) else { continue };
            query.buffer[2] |= 0x80;
            batch.reply(place, self.length);
        }
    }

    fn counters(&mut self) -> &mut UdpCounters {
        &mut self.counters
    }
}
