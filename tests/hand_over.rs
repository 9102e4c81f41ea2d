//! A restart without a lost query: the running program starts the next one, hands its sockets over, and goes.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::dig::Dig;
use common::signpost::{MemberSource, Setup, Signpost, ZONE, http_get};
use common::{same, wait_for};

/// From a signal to what comes of it, on a machine that does other things too.
const SHOWS: Duration = Duration::from_secs(30);

fn setup(directory: &Path, sections: &str) -> Setup {
    let manifests = directory.join("cluster-1");
    fs::create_dir_all(&manifests).expect("the folder is ours");
    let service = "{apiVersion: v1, kind: Service, metadata: {name: web, namespace: n}, spec: {type: LoadBalancer, clusterIP: 10.0.0.1, \
                   ports: [{name: http, port: 80}]}, status: {loadBalancer: {ingress: [{ip: 104.16.0.1}]}}}\n";
    fs::write(manifests.join("web.yaml"), service).expect("the folder is ours");
    let mut setup = Setup::new(vec![MemberSource::Manifests(manifests)]);
    setup.sections = sections.to_owned();
    setup
}

/// Of the process that was started last.
fn newest(log: &str) -> Option<u32> {
    let (_, after) = log.rsplit_once("another process is to take over process=")?;
    after.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

fn taken_over(log: &str) -> usize {
    log.matches("another process has taken over; stopping").count()
}

fn whole_log(signpost: &Signpost) -> String {
    fs::read_to_string(signpost.log_file()).expect("its log")
}

fn signal(process: u32, signal: &str) {
    let status = Command::new("kill").args([&format!("-{signal}"), &process.to_string()]).status().expect("kill");
    assert!(status.success(), "kill -{signal} {process}");
}

fn is_there(process: u32) -> bool {
    // A child that nobody waits for stays as a zombie, where the first process does not.
    let status = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    status.rsplit_once(") ").is_some_and(|(_, state)| !state.starts_with('Z'))
}

/// Another one takes over from `process`; which one that is.
fn replace(signpost: &Signpost, process: u32) -> u32 {
    let before = taken_over(&whole_log(signpost));
    signal(process, "USR2");
    wait_for("another process", SHOWS, || {
        let log = whole_log(signpost);
        same(taken_over(&log), before + 1).map_err(|_| log.clone())?;
        if is_there(process) {
            Err("the old one is still there".to_owned())
        } else {
            Ok(newest(&log).expect("its number"))
        }
    })
}

/// Queries without pause, each with a port and a number of its own, and how many of them got no answer.
struct Asking {
    asked: AtomicU64,
    lost: AtomicU64,
    stop: AtomicBool,
}

impl Asking {
    fn new() -> Asking {
        Asking { asked: AtomicU64::new(0), lost: AtomicU64::new(0), stop: AtomicBool::new(false) }
    }

    fn ask(&self, server: std::net::SocketAddr) {
        let mut query = b"\0\0\x01\0\0\x01\0\0\0\0\0\0\x03web\x01n".to_vec();
        for label in ZONE.split('.') {
            query.push(label.len() as u8);
            query.extend_from_slice(label.as_bytes());
        }
        query.extend_from_slice(b"\0\0\x01\0\x01");
        let mut buffer = [0; 512];
        let mut number = 0_u16;
        while !self.stop.load(Ordering::Relaxed) {
            // Another port, so that each worker's socket has its share.
            let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
            socket.set_read_timeout(Some(Duration::from_secs(10))).expect("a time-out");
            socket.connect(server).expect("loopback");
            for _ in 0..64 {
                number = number.wrapping_add(1);
                query[..2].copy_from_slice(&number.to_be_bytes());
                self.asked.fetch_add(1, Ordering::Relaxed);
                let sent = socket.send(&query).is_ok();
                let answered =
                    sent && socket.recv(&mut buffer).is_ok_and(|length| length > 12 && buffer[..2] == query[..2]);
                if !answered || buffer[3] & 15 != 0 {
                    self.lost.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }
}

/// The same from a generator that is not ours: 2,000 queries a second over eight sockets that stay.
struct Witness {
    process: std::process::Child,
}

impl Witness {
    fn start(directory: &Path, server: std::net::SocketAddr) -> Witness {
        let questions = directory.join("questions");
        fs::write(&questions, format!("web.n.{ZONE} A\n")).expect("the folder is ours");
        let said = fs::File::create(directory.join("dnsperf.log")).expect("the folder is ours");
        let process = Command::new("dnsperf")
            // Ten minutes at most: it is told to stop.
            .args([
                "-s",
                &server.ip().to_string(),
                "-p",
                &server.port().to_string(),
                "-Q",
                "2000",
                "-c",
                "8",
                "-l",
                "600",
                "-t",
                "10",
            ])
            .arg("-d")
            .arg(&questions)
            .stdout(said.try_clone().expect("a descriptor"))
            .stderr(said)
            .spawn()
            .expect("dnsperf can be run");
        Witness { process }
    }

    /// Gives how many were sent and lost.
    fn end(mut self, directory: &Path) -> (u64, u64) {
        signal(self.process.id(), "INT");
        let ended = self.process.wait().expect("it is ours");
        let said = fs::read_to_string(directory.join("dnsperf.log")).expect("its log");
        let number = |what: &str| -> u64 {
            let line = said
                .lines()
                .find_map(|line| line.trim().strip_prefix(what))
                .unwrap_or_else(|| panic!("{ended}: {said}"));
            line.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("{what}: {said}"))
        };
        (number("Queries sent:"), number("Queries lost:"))
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Fifty restarts under load, and each answer comes.
#[test]
fn fifty_restarts_lose_nothing() {
    let directory = tempfile::tempdir().expect("a temporary folder");
    let signpost = Signpost::start(&setup(directory.path(), ""));
    let witness = Witness::start(directory.path(), signpost.ports.external);
    let asking = Asking::new();
    let mut process = signpost.id();
    let mut processes = BTreeSet::from([process]);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| asking.ask(signpost.ports.external));
        }
        let begun = Instant::now();
        for _ in 0..50 {
            process = replace(&signpost, process);
            assert!(processes.insert(process), "each is another one");
            // Over TCP, too, and about itself.
            let tcp = Dig::at(signpost.ports.external).with("+tcp");
            assert_eq!(tcp.addresses(&format!("web.n.{ZONE}"), "A").expect("an answer").len(), 1);
            let ready = http_get(signpost.ports.admin, "/readyz").expect("it is there");
            assert!(ready.starts_with("HTTP/1.1 200 "), "{ready}");
        }
        asking.stop.store(true, Ordering::Relaxed);
        let asked = asking.asked.load(Ordering::Relaxed);
        println!("50 restarts in {:?}, {asked} queries", begun.elapsed());
    });
    let (asked, lost) = (asking.asked.load(Ordering::Relaxed), asking.lost.load(Ordering::Relaxed));
    let (sent, lost_there) = witness.end(directory.path());
    println!("dnsperf: {sent} queries, {lost_there} lost");
    assert!(sent > 1_000, "{sent} queries say little");
    assert_eq!(lost_there, 0, "of {sent}, says dnsperf");
    assert!(asked > 10_000, "{asked} queries say little");
    assert_eq!(lost, 0, "of {asked} queries:\n{}", signpost.log());
    signal(process, "TERM");
    wait_for("the end", SHOWS, || if is_there(process) { Err(signpost.log()) } else { Ok(()) });
    let log = whole_log(&signpost);
    assert!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");
}

/// A program that does not start, or a configuration that is broken, is no reason to stop.
#[test]
fn what_does_not_start_does_not_take_over() {
    let directory = tempfile::tempdir().expect("a temporary folder");
    let signpost = Signpost::start(&setup(directory.path(), ""));
    let config = fs::read_to_string(signpost.config()).expect("it is ours");
    fs::write(signpost.config(), config.replace("syncWait", "syncWeight")).expect("it is ours");
    signal(signpost.id(), "USR2");
    let said = |words: &str| if whole_log(&signpost).contains(words) { Ok(()) } else { Err(whole_log(&signpost)) };
    wait_for("what is wrong", SHOWS, || said("limits.syncWeight: unknown key; expected one of "));
    let words = "no other process takes over, and this one goes on: it ended with exit status: 1";
    wait_for("that nothing came of it", SHOWS, || said(words));
    let answered = || Dig::at(signpost.ports.external).addresses(&format!("web.n.{ZONE}"), "A");
    assert_eq!(answered().expect("an answer").len(), 1);
    // Nor does a reload of it do anything.
    signal(signpost.id(), "HUP");
    wait_for("that it stays as it was", SHOWS, || said("the configuration stays as it was: "));
    assert_eq!(answered().expect("an answer").len(), 1);
    // Mended, it does, with what is new in it.
    fs::write(signpost.config(), config.replace("ttl: 180", "ttl: 77")).expect("it is ours");
    let process = replace(&signpost, signpost.id());
    let reply = Dig::at(signpost.ports.external).ask(&format!("web.n.{ZONE}"), "A").expect("an answer");
    assert_eq!(reply.ttls(), ["77"]);
    signal(process, "TERM");
    wait_for("the end", SHOWS, || if is_there(process) { Err(signpost.log()) } else { Ok(()) });
}

/// Who is stopped while another one starts takes that one along.
#[test]
fn stopped_while_another_one_starts() {
    let directory = tempfile::tempdir().expect("a temporary folder");
    let kubeconfig = directory.path().join("kubeconfig");
    let text = "apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters: [{name: k, cluster: {server: 'http://127.0.0.1:1'}}]\n\
                users: [{name: u, user: {token: t}}]\ncontexts: [{name: c, context: {cluster: k, user: u}}]\n";
    fs::write(&kubeconfig, text).expect("the folder is ours");
    let mut setup = setup(directory.path(), "");
    // It is waited for, and never comes.
    setup.clusters.extend(
        Setup::new(vec![MemberSource::Manifests(PathBuf::new()), MemberSource::Kubeconfig(kubeconfig)]).clusters.pop(),
    );
    setup.sync_wait = Duration::from_secs(5);
    let signpost = Signpost::start(&setup);
    signal(signpost.id(), "USR2");
    let other = wait_for("another process", SHOWS, || newest(&whole_log(&signpost)).ok_or_else(|| signpost.log()));
    signal(signpost.id(), "USR2");
    let words = "no other process takes over, and this one goes on: one has been started, and does not serve yet";
    wait_for(
        "one at a time",
        SHOWS,
        || if whole_log(&signpost).contains(words) { Ok(()) } else { Err(signpost.log()) },
    );
    assert!(is_there(other));
    signal(signpost.id(), "TERM");
    wait_for("the end of both", SHOWS, || match (is_there(signpost.id()), is_there(other)) {
        (false, false) => Ok(()),
        both => Err(format!("{both:?}: {}", signpost.log())),
    });
}

/// What a supervisor is told, and that the sockets are answered from for a while after SIGTERM.
#[test]
fn a_supervisor_is_told() {
    let directory = tempfile::tempdir().expect("a temporary folder");
    let path = directory.path().join("notify");
    let socket = std::os::unix::net::UnixDatagram::bind(&path).expect("a socket");
    socket.set_read_timeout(Some(SHOWS)).expect("a time-out");
    let told = || {
        let mut buffer = [0; 512];
        let length = socket.recv(&mut buffer).expect("something is told");
        String::from_utf8_lossy(&buffer[..length]).trim().to_owned()
    };
    let mut setup = setup(directory.path(), "");
    setup.lame_duck = Duration::from_secs(3);
    setup.through = vec!["env".to_owned(), format!("NOTIFY_SOCKET={}", path.display())];
    let signpost = Signpost::start(&setup);
    assert_eq!(told(), "READY=1");
    signal(signpost.id(), "HUP");
    let reloading = told();
    assert!(reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{reloading}");
    assert_eq!(told(), "READY=1");
    let process = replace(&signpost, signpost.id());
    assert_eq!(told(), format!("MAINPID={process}"));
    signal(process, "TERM");
    wait_for("not ready", SHOWS, || {
        let ready = http_get(signpost.ports.admin, "/readyz").map_err(|error| error.to_string())?;
        if ready.starts_with("HTTP/1.1 503 ") { Ok(()) } else { Err(ready) }
    });
    let answered = Dig::at(signpost.ports.external).addresses(&format!("web.n.{ZONE}"), "A");
    assert_eq!(answered.expect("it still answers").len(), 1);
    assert_eq!(told(), "STOPPING=1");
    wait_for("the end", SHOWS, || if is_there(process) { Err(signpost.log()) } else { Ok(()) });
}
