use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::index::Update;
use crate::model::ClusterId;
use crate::source::status::{ErrorReason, Reason, Status};
use crate::source::{Feed, Message, Number};

/// What is waited for takes a second at most, or ten for a rescan; a loaded machine gets more.
const DEADLINE: Duration = Duration::from_secs(40);

fn cluster() -> Cluster {
    Cluster::named("one")
}

fn limits() -> Limits {
    Limits {
        udp_workers: 1,
        udp_receive_buffer: 1,
        tcp_connections: 1,
        tcp_connections_per_client: 1,
        tcp_idle: Duration::from_secs(1),
        tcp_idle_internal: Duration::from_secs(1),
        sync_wait: Duration::from_secs(1),
        lame_duck: Duration::ZERO,
        manifest_size: 16 << 20,
        manifest_files: 100,
        objects_per_cluster: 10_000,
        endpoints_per_service: 1000,
    }
}

fn service(name: &str, port: u32) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\n  namespace: shop\nspec:\n  type: LoadBalancer\n  \
         clusterIP: 10.0.0.1\n  ports:\n  - port: {port}\nstatus:\n  loadBalancer:\n    ingress:\n    - ip: 198.51.100.7\n"
    )
}

fn slice(name: &str) -> String {
    format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: {name}-1\n  namespace: shop\n  \
         labels: {{kubernetes.io/service-name: {name}}}\naddressType: IPv4\nendpoints:\n- addresses: [10.1.0.5]\nports: null\n"
    )
}

fn directory(files: &[(&str, &str)]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(directory.path().join(name), text).unwrap();
    }
    directory
}

fn names(reading: &Reading) -> Vec<String> {
    reading.services.iter().map(|service| service.key.to_string()).collect()
}

/// Each problem with the directory's own name left out.
fn problems(directory: &TempDir, reading: &Reading) -> Vec<String> {
    let prefix = format!("{}/", directory.path().display());
    reading.problems.iter().map(|trouble| trouble.to_string().replace(&prefix, "")).collect()
}

#[test]
fn every_shape_that_kubectl_prints() {
    let items = |text: &str| text.lines().map(|line| format!("  {line}\n")).collect::<String>();
    let item = |text: &str| format!("-{}", &items(text)[1..]);
    let list = format!("apiVersion: v1\nkind: List\nitems:\n{}{}", item(&service("b", 1)), item(&slice("b")));
    let multi = format!("# head\n---\n{}\n---\n{}---\n", service("c", 1), slice("c"));
    let json = r#"{"apiVersion": "v1", "kind": "ServiceList", "items": [{"metadata": {"name": "d", "namespace": "shop"}}]}
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "e"}, "spec": {"ports": [{"port": 1}]}}"#;
    let slices = format!("apiVersion: discovery.k8s.io/v1\nkind: EndpointSliceList\nitems:\n{}", item(&slice("d")));
    let directory = directory(&[
        ("a.yaml", &service("a", 1)),
        ("b.yml", &list),
        ("c.yaml", &multi),
        ("d.json", json),
        ("e.yaml", &slices),
        ("empty.yaml", "apiVersion: v1\nkind: List\nitems: []\n"),
        ("notes.txt", "not a manifest"),
        ("z.yaml~", &service("z", 0)),
        (".z.yaml", &service("z", 0)),
        ("#z.yaml#", &service("z", 0)),
        (".z.yaml.swp", "\u{0}"),
    ]);
    fs::create_dir(directory.path().join("below.yaml")).unwrap();
    fs::write(directory.path().join("below.yaml/z.yaml"), service("z", 0)).unwrap();
    let reading = read(directory.path(), &cluster(), &limits());
    assert_eq!(problems(&directory, &reading), Vec::<String>::new());
    assert_eq!(names(&reading), ["shop/a", "shop/b", "shop/c", "shop/d", "default/e"]);
    let slices: Vec<&str> = reading.slices.iter().map(|slice| &*slice.name).collect();
    assert_eq!(slices, ["b-1", "c-1", "d-1"]);
}

#[test]
fn every_problem_has_its_place() {
    let bad_list = "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Service\n  metadata: {name: l, namespace: shop}\n  \
                    spec:\n    ports:\n    - port: x\n- 5\n";
    let cases: &[(&str, &str, Reason)] = &[
        (&service("a", 0), "document 1, line 10: Service shop/a: spec.ports[0].port: \"0\" is", Reason::Port),
        (
            &format!("---\n{}---\n{}", service("a", 1), service("b", 70000)),
            "document 2, line 26: Service shop/b: spec.ports[0].port: \"70000\" is",
            Reason::Port,
        ),
        (&service("a", 1).replace("198.51.100.7", "999.1.1.1"), "line 14: Service shop/a: status", Reason::Address),
        (&service("A", 1), "line 4: Service shop/A: metadata.name", Reason::Name),
        (bad_list, "line 9: Service shop/l: items[0].spec.ports[0].port: invalid type", Reason::Type),
        (bad_list, "line 10: items[1]: expected a Kubernetes object, found a number", Reason::Type),
        ("a: [\n", "document 1, line", Reason::Syntax),
        ("a: 1\n--- \n\"x", "document 2, line", Reason::Syntax),
        ("kind: Service\n", "document 1, line 1: apiVersion: expected a text", Reason::Type),
        ("apiVersion: v1\nkind: [Service]\n", "line 2: kind: expected a text, found a list", Reason::Type),
        ("apiVersion: apps/v1\nkind: Deployment\n", "document 1, line 1: kind \"Deployment\" of", Reason::UnknownKind),
        ("apiVersion: serving.knative.dev/v1\nkind: Service\n", "kind \"Service\" of", Reason::UnknownKind),
        ("apiVersion: v1\nkind: service\n", "kind \"service\" of", Reason::UnknownKind),
        ("apiVersion: v1\nkind: List\nitems: null\n", "line 3: items: \"null\" where a list", Reason::List),
        ("apiVersion: v1\nkind: List\n", "line 1: items: \"null\" where a list", Reason::List),
        ("apiVersion: v1\nkind: List\nitems: {}\n", "line 3: items: expected a list, found a map", Reason::Type),
        ("just text", "the document: expected a Kubernetes object, found a text", Reason::Type),
        ("\n  \n", "is empty", Reason::Syntax),
    ];
    for &(text, expected, reason) in cases {
        let directory = directory(&[("bad.yaml", text), ("good.yaml", &service("good", 1))]);
        let reading = read(directory.path(), &cluster(), &limits());
        let problems = problems(&directory, &reading);
        assert!(problems.iter().any(|p| p.starts_with("bad.yaml") && p.contains(expected)), "{text}\n{problems:#?}");
        assert!(reading.problems.iter().any(|trouble| trouble.problem.reason() == reason), "{text}\n{problems:#?}");
        assert_eq!(reading.services.last().unwrap().key.to_string(), "shop/good");
    }
}

#[test]
fn the_first_of_two_is_used() {
    let directory = directory(&[("a.yaml", &service("x", 1)), ("b.yaml", &service("x", 2))]);
    let reading = read(directory.path(), &cluster(), &limits());
    assert_eq!(reading.services.len(), 1);
    assert_eq!(reading.services[0].ports[0].number.get(), 1);
    assert_eq!(
        problems(&directory, &reading),
        ["b.yaml, document 1, line 1: Service shop/x: is already in a.yaml, document 1, which is used"]
    );
}

#[test]
fn a_hundred_bad_among_good() {
    let mut text = String::new();
    for i in 0..100 {
        let bad = ["\tx", "a: [", "a: 'b", "kind: 5", "- 1"][i % 5];
        text += &format!("---\n{bad}\n---\n{}", service(&format!("s{i}"), 1));
    }
    let directory = directory(&[("a.yaml", &text), ("b.yaml", &service("b", 1))]);
    let reading = read(directory.path(), &cluster(), &limits());
    assert_eq!(reading.services.len(), 101);
    assert_eq!(reading.problems.len(), 100, "{:#?}", problems(&directory, &reading));
}

#[test]
fn limits_are_told_and_hold() {
    let many = (0..30).map(|i| format!("---\n{}", service(&format!("s{i}"), 1))).collect::<String>();
    let directory = directory(&[("a.yaml", &many), ("b.yaml", &service("b", 1)), ("c.yaml", &service("c", 1))]);
    let small = Limits { manifest_size: 1_000, ..limits() };
    let reading = read(directory.path(), &cluster(), &small);
    assert_eq!(names(&reading), ["shop/b", "shop/c"]);
    assert_eq!(problems(&directory, &reading), ["a.yaml: has more than 1000 octets"]);
    let few = Limits { manifest_files: 2, ..limits() };
    let reading = read(directory.path(), &cluster(), &few);
    assert_eq!((reading.services.len(), reading.problems[0].problem.reason()), (31, Reason::Limit));
    let few = Limits { objects_per_cluster: 10, ..limits() };
    let reading = read(directory.path(), &cluster(), &few);
    assert_eq!((reading.services.len(), reading.problems.len()), (10, 22));
    let rubbish = "- 1\n---\n".repeat(MAX_PROBLEMS + 100);
    fs::write(directory.path().join("a.yaml"), rubbish).unwrap();
    let reading = read(directory.path(), &cluster(), &limits());
    assert_eq!((reading.problems.len(), reading.more_problems), (MAX_PROBLEMS, 100));
}

/// The parser's own budget ends at about 5,200.
#[test]
fn six_thousand_services_in_one_file() {
    let mut text = "apiVersion: v1\nkind: List\nitems:\n".to_owned();
    for i in 0..6_000 {
        // managedFields and the like make up half of what kubectl prints.
        let object = service(&format!("s{i}"), 1) + &format!("managed: [{}]\n", "x, ".repeat(40));
        text += &object
            .lines()
            .enumerate()
            .fold(String::new(), |all, (n, line)| all + if n == 0 { "- " } else { "  " } + line + "\n");
    }
    let directory = directory(&[("all.yaml", &text)]);
    let reading = read(directory.path(), &cluster(), &limits());
    assert_eq!(problems(&directory, &reading), Vec::<String>::new());
    assert_eq!(reading.services.len(), 6_000);
}

#[test]
fn a_link_that_leads_nowhere_is_told() {
    let directory = directory(&[("b.yaml", &service("b", 1))]);
    symlink("nowhere", directory.path().join("a.yaml")).unwrap();
    let reading = read(directory.path(), &cluster(), &limits());
    assert_eq!((names(&reading), reading.problems.len()), (vec!["shop/b".to_owned()], 1));
    assert_eq!(reading.problems[0].problem.reason(), Reason::Unreadable);
}

#[test]
fn bytes_of_any_kind() {
    let directory = tempfile::tempdir().unwrap();
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let good = format!("{}---\n{}", service("a", 1), slice("a"));
    for i in 0..300 {
        let mut bytes = good.clone().into_bytes();
        for _ in 0..=i % 7 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let at = (state >> 33) as usize % bytes.len();
            bytes[at] = (state >> 24) as u8;
        }
        let name = if i % 2 == 0 { "x.yaml" } else { "x.json" };
        fs::write(directory.path().join(name), bytes).unwrap();
        let reading = read(directory.path(), &cluster(), &limits());
        assert!(reading.listed);
    }
}

#[test]
fn what_has_not_changed_is_not_read_again() {
    let directory = directory(&[("a.yaml", &service("a", 1)), ("b.yaml", &service("b", 1)), ("c.yaml", "")]);
    let path = |name: &str| directory.path().join(name);
    let mut known = Digests::new();
    let mut digest = |seconds| {
        let now = SystemTime::now() + Duration::from_secs(seconds);
        let digest = super::digest(directory.path(), &limits(), &mut known, now).unwrap();
        (digest, known.clone())
    };
    let read = read(directory.path(), &cluster(), &limits()).digest;
    let (first, young) = digest(0);
    assert_eq!((first, young.len()), (read, 0), "what was written just now may be written again at the same time");
    let (later, old) = digest(60);
    assert_eq!((later, old.len()), (read, 3));

    // Of the same length, and then with the time that it had.
    let modified = fs::metadata(path("a.yaml")).unwrap().modified().unwrap();
    fs::write(path("a.yaml"), service("a", 2)).unwrap();
    fs::File::options().write(true).open(path("a.yaml")).unwrap().set_modified(modified).unwrap();
    fs::remove_file(path("b.yaml")).unwrap();
    let (edited, _) = digest(60);
    assert_ne!(edited, read);
    assert_eq!(edited, super::read(directory.path(), &cluster(), &limits()).digest);

    // What is known of a file goes before what is in it.
    let mut wrong = digest(60).1;
    wrong.get_mut(OsStr::new("c.yaml")).unwrap().1 ^= 1;
    assert_ne!(super::digest(directory.path(), &limits(), &mut wrong, SystemTime::now()), Some(edited));
}

/// A running source, and what its messages come to.
struct World {
    directory: TempDir,
    updates: mpsc::Receiver<Message>,
    status: Arc<Status>,
    relist: Arc<Notify>,
    stop: CancellationToken,
    task: JoinHandle<()>,
    /// Key and first port of each Service, as an index would have them.
    services: BTreeMap<String, u16>,
    slices: BTreeSet<String>,
    others: Vec<Object>,
}

impl World {
    fn start(directory: TempDir, path: &Path) -> World {
        let (sender, updates) = mpsc::channel(4);
        let status = Arc::new(Status::new(Instant::now()));
        let (relist, stop) = (Arc::new(Notify::new()), CancellationToken::new());
        let feed = Feed {
            cluster: Number::new(ClusterId(3)),
            config: Arc::new(cluster()),
            updates: sender,
            status: status.clone(),
            relist: relist.clone(),
            discovered: Arc::default(),
            stop: stop.clone(),
            limits: Arc::new(limits()),
        };
        let task = tokio::spawn(run(path.to_owned(), feed, Memory::default()));
        let (services, slices, others) = (BTreeMap::new(), BTreeSet::new(), Vec::new());
        World { directory, updates, status, relist, stop, task, services, slices, others }
    }

    fn with(files: &[(&str, &str)]) -> World {
        let directory = directory(files);
        let path = directory.path().to_owned();
        World::start(directory, &path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    /// In one step: no reader sees it empty.
    fn replace(&self, name: &str, text: &str) {
        self.write(".beside", text);
        fs::rename(self.path(".beside"), self.path(name)).unwrap();
    }

    fn apply(&mut self, (number, update): Message) {
        assert_eq!(number.get(), ClusterId(3));
        let Update::Reset { kind, objects, keep } = update else { panic!("{update:?}") };
        match kind {
            Kind::Service => {
                let keep: BTreeSet<String> = keep.iter().map(|k| format!("{}/{}", k.namespace, k.name)).collect();
                self.services.retain(|name, _| keep.contains(name));
                self.services.extend(objects.into_iter().map(|object| match object {
                    Object::Service(service) => (service.key.to_string(), service.ports[0].number.get()),
                    other => panic!("{other:?}"),
                }));
            }
            Kind::EndpointSlice => {
                let keep: BTreeSet<String> = keep.iter().map(|k| k.name.to_string()).collect();
                self.slices.retain(|name| keep.contains(name));
                self.slices.extend(objects.into_iter().map(|object| match object {
                    Object::Slice(slice) => slice.name.to_string(),
                    other => panic!("{other:?}"),
                }));
            }
            _ => self.others.extend(objects),
        }
    }

    /// Waits until the Services are these.
    async fn becomes(&mut self, expected: &[(&str, u16)]) {
        let expected: BTreeMap<String, u16> =
            expected.iter().map(|(name, port)| (format!("shop/{name}"), *port)).collect();
        self.until(&format!("{expected:?}"), |world| world.services == expected).await;
    }

    async fn until(&mut self, what: &str, condition: impl Fn(&World) -> bool) {
        let deadline = tokio::time::Instant::now() + DEADLINE;
        while !condition(self) {
            // Counters change without a message, so they are looked at from time to time.
            let look = tokio::time::Instant::now() + Duration::from_millis(20);
            if let Ok(message) = tokio::time::timeout_at(look, self.updates.recv()).await {
                self.apply(message.expect("the source runs"));
            }
            assert!(tokio::time::Instant::now() < deadline, "not {what}, but {:?}", self.services);
        }
    }

    async fn end(self) {
        self.stop.cancel();
        tokio::time::timeout(DEADLINE, self.task).await.expect("it ends when told to").unwrap();
    }
}

#[tokio::test]
async fn edits_show_and_breaks_do_not() {
    let mut world = World::with(&[("a.yaml", &service("a", 1)), ("b.yaml", &service("b", 1))]);
    world.becomes(&[("a", 1), ("b", 1)]).await;
    world.write("a.yaml", &service("a", 2));
    world.becomes(&[("a", 2), ("b", 1)]).await;
    world.write("c.yaml", &format!("{}---\n{}", service("c", 3), slice("c")));
    world.becomes(&[("a", 2), ("b", 1), ("c", 3)]).await;
    world.until("a slice", |world| world.slices.len() == 1).await;

    // Broken in six ways, each time with another change that shows that it was read.
    let breaks = [
        "a: [".to_owned(),
        service("a", 70000),
        String::new(),
        service("a", 9).replace("Service", "Servise"),
        "apiVersion: v1\nkind: List\nitems: null".to_owned(),
        "\u{1}\u{2}".to_owned(),
    ];
    for (i, text) in breaks.iter().enumerate() {
        world.write("a.yaml", text);
        let port = i as u16 + 10;
        world.write("b.yaml", &service("b", port.into()));
        world.becomes(&[("a", 2), ("b", port), ("c", 3)]).await;
    }
    world.write("a.yaml", &service("a", 4));
    world.write("c.yaml", &format!("a: [\n---\n{}---\n{}", service("c2", 5), slice("c")));
    world.becomes(&[("a", 4), ("b", 15), ("c", 3), ("c2", 5)]).await;
    // Who is broken and said elsewhere is not kept: it is as said there.
    world.write("b.yaml", &service("c", 6));
    world.becomes(&[("a", 4), ("c", 6), ("c2", 5)]).await;
    fs::remove_file(world.path("b.yaml")).unwrap();
    fs::remove_file(world.path("c.yaml")).unwrap();
    world.becomes(&[("a", 4)]).await;
    world.until("no slice", |world| world.slices.is_empty()).await;
    fs::remove_file(world.path("a.yaml")).unwrap();
    world.becomes(&[]).await;
    assert!(world.status.last_heard().is_some());
    assert_eq!(world.status.skips(Reason::Port), 1);
    world.end().await;
}

#[tokio::test]
async fn an_editors_way_of_saving() {
    let mut world = World::with(&[("a.yaml", &service("a", 1))]);
    world.becomes(&[("a", 1)]).await;
    // Beside it, then over it.
    world.replace("a.yaml", &service("a", 2));
    world.becomes(&[("a", 2)]).await;
    // The old one aside, then a new one.
    fs::rename(world.path("a.yaml"), world.path("a.yaml~")).unwrap();
    world.write("a.yaml", &service("a", 3));
    world.becomes(&[("a", 3)]).await;
    world.end().await;
}

/// What kubelet does with a ConfigMap that is mounted.
#[tokio::test]
async fn a_mounted_config_map_is_swapped() {
    let directory = directory(&[]);
    let path = |name: &str| directory.path().join(name);
    for (version, port) in [("..1", 1), ("..2", 2)] {
        fs::create_dir(path(version)).unwrap();
        fs::write(path(version).join("a.yaml"), service("a", port)).unwrap();
    }
    symlink("..1", path("..data")).unwrap();
    symlink("..data/a.yaml", path("a.yaml")).unwrap();
    let mount = directory.path().to_owned();
    let mut world = World::start(directory, &mount);
    world.becomes(&[("a", 1)]).await;
    symlink("..2", world.path("..data_tmp")).unwrap();
    fs::rename(world.path("..data_tmp"), world.path("..data")).unwrap();
    world.becomes(&[("a", 2)]).await;
    world.end().await;
}

#[tokio::test]
async fn a_directory_that_vanishes() {
    let directory = directory(&[]);
    let (here, there) = (directory.path().join("here"), directory.path().join("there"));
    fs::create_dir(&here).unwrap();
    fs::write(here.join("a.yaml"), service("a", 1)).unwrap();
    let mut world = World::start(directory, &here);
    world.becomes(&[("a", 1)]).await;
    for port in [2, 3] {
        let errors = world.status.errors(ErrorReason::Directory);
        fs::rename(&here, &there).unwrap();
        world.until("an error", |world| world.status.errors(ErrorReason::Directory) > errors).await;
        world.becomes(&[("a", port - 1)]).await;
        // One comes back by its name, the other is made anew, perhaps with the same inode.
        if port == 2 {
            fs::rename(&there, &here).unwrap();
        } else {
            fs::remove_dir_all(&there).unwrap();
            fs::create_dir(&here).unwrap();
        }
        fs::write(here.join("a.yaml"), service("a", port.into())).unwrap();
        world.becomes(&[("a", port)]).await;
        // And it is followed again.
        fs::write(here.join("b.yaml"), service("b", port.into())).unwrap();
        world.becomes(&[("a", port), ("b", port)]).await;
        fs::remove_file(here.join("b.yaml")).unwrap();
        world.becomes(&[("a", port)]).await;
    }
    assert_eq!(world.status.skips(Reason::Unreadable), 2, "told once for each time that it was away");
    world.end().await;
}

/// Faster than anybody could look; on many file systems the new one even has the old one's inode.
#[tokio::test]
async fn a_directory_made_anew_is_followed() {
    let directory = directory(&[]);
    let here = directory.path().join("here");
    let renew = |port: u32| {
        fs::create_dir(&here).unwrap();
        fs::write(here.join("a.yaml"), service("a", port)).unwrap();
    };
    renew(1);
    let mut world = World::start(directory, &here);
    world.becomes(&[("a", 1)]).await;
    for port in [2, 4, 6] {
        fs::remove_dir_all(&here).unwrap();
        renew(port.into());
        world.becomes(&[("a", port)]).await;
        fs::write(here.join("a.yaml"), service("a", u32::from(port) + 1)).unwrap();
        world.becomes(&[("a", port + 1)]).await;
    }
    world.end().await;
}

/// Opening and closing files are events too; answering one's own would never end.
#[tokio::test]
async fn reading_is_no_reason_to_read_again() {
    let mut world = World::with(&[("a.yaml", &service("a", 1))]);
    world.becomes(&[("a", 1)]).await;
    world.replace("a.yaml", &service("a", 2));
    world.becomes(&[("a", 2)]).await;
    // Events of the replacement that come late are read for once more; then, until the rescan, nothing.
    let mut heard = 0;
    let mut last = world.status.last_heard();
    for _ in 0..40 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        heard += usize::from(world.status.last_heard() != last);
        last = world.status.last_heard();
    }
    assert!(heard <= 4, "{heard} readings in two seconds of silence");
    world.end().await;
}

#[tokio::test]
async fn a_link_to_a_directory_is_turned() {
    let directory = directory(&[]);
    let path = |name: &str| directory.path().join(name);
    for (version, port) in [("v1", 1), ("v2", 2)] {
        fs::create_dir(path(version)).unwrap();
        fs::write(path(version).join("a.yaml"), service("a", port)).unwrap();
    }
    symlink("v1", path("current")).unwrap();
    let current = path("current");
    let mut world = World::start(directory, &current);
    world.becomes(&[("a", 1)]).await;
    symlink("v2", world.path("next")).unwrap();
    fs::rename(world.path("next"), &current).unwrap();
    world.becomes(&[("a", 2)]).await;
    world.end().await;
}

/// What a link leads to lies elsewhere, where nothing is watched: the rescan finds it.
#[tokio::test]
async fn what_the_system_does_not_report_is_found() {
    let elsewhere = directory(&[("a", &service("a", 1))]);
    let directory = directory(&[]);
    symlink(elsewhere.path().join("a"), directory.path().join("a.yaml")).unwrap();
    let path = directory.path().to_owned();
    let mut world = World::start(directory, &path);
    world.becomes(&[("a", 1)]).await;
    fs::write(elsewhere.path().join("a"), service("a", 2)).unwrap();
    world.becomes(&[("a", 2)]).await;
    world.end().await;
}

#[tokio::test]
async fn a_relist_is_answered_and_the_same_is_not_said_twice() {
    let mut world = World::with(&[("a.yaml", &service("a", 1)), ("bad.yaml", "a: [")]);
    world.becomes(&[("a", 1)]).await;
    world.until("read", |world| world.status.lists() == 1).await;
    for asked in 1..=3 {
        world.relist.notify_one();
        world.until("another list", |world| world.status.lists() == asked + 1).await;
    }
    assert_eq!((world.status.relists(), world.status.skips(Reason::Syntax)), (3, 1));
    // Touched, not changed: heard of, and nothing is sent. What changes next is then the fifth list.
    let heard = world.status.last_heard();
    world.replace("a.yaml", &service("a", 1));
    world.until("heard", |world| world.status.last_heard() > heard).await;
    world.replace("a.yaml", &service("a", 2));
    world.becomes(&[("a", 2)]).await;
    world.until("read", |world| world.status.lists() >= 5).await;
    assert_eq!(world.status.lists(), 5);
    world.end().await;
}

#[tokio::test]
async fn a_directory_that_is_not_there_yet() {
    let directory = directory(&[]);
    let later = directory.path().join("later");
    let mut world = World::start(directory, &later);
    world.until("an error", |world| world.status.errors(ErrorReason::Directory) > 0).await;
    assert_eq!(world.status.lists(), 0, "an absent directory is no empty one");
    assert_eq!(world.status.last_heard(), None);
    fs::create_dir(&later).unwrap();
    fs::write(later.join("a.yaml"), service("a", 1)).unwrap();
    world.becomes(&[("a", 1)]).await;
    world.end().await;
}

#[tokio::test]
async fn it_ends_while_nobody_listens() {
    let world = World::with(&[("a.yaml", &service("a", 1))]);
    for _ in 0..10 {
        world.relist.notify_one();
        tokio::task::yield_now().await;
    }
    world.end().await;
}

#[test]
fn addresses_come_through() {
    let directory = directory(&[("a.yaml", &service("a", 1))]);
    let reading = read(directory.path(), &cluster(), &limits());
    assert_eq!(reading.services[0].ingress, ["198.51.100.7".parse::<IpAddr>().unwrap()]);
}
