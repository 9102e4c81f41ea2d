//! A majority of clusters decides what is Down: three real clusters, an instance of the program in each, every one in a network
//! namespace of its own with a wire to one in which real servers listen.

mod common;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use common::again::{self, listen};
use common::cluster::{Cluster, Controllers, User};
use common::dig::{Dig, third_octets};
use common::namespace::Namespace;
use common::process::Process;
use common::shared::{Shared, Turn};
use common::signpost::{MemberSource, Ports, Setup, Signpost, ZONE, metric};
use common::tunnel::{self, Tunnel};
use common::{same, stays, try_wait_for, wait_for};

/// Where `web` listens, and where the others do that are always there.
const PORT: u16 = 8080;
const OTHERS: u16 = 9090;
/// Other addresses of each cluster, so that one is a third of what it has.
const MORE: u16 = 2;
/// From a death to the last answer that names it, and from a return to the first one that does (HEALTH.md).
const GONE: Duration = Duration::from_secs(20);
const BACK: Duration = Duration::from_secs(30);
/// Probes every second make the rest quicker; what is said of them is bounded by heartbeats all the same.
const QUICK: &str = "interval: 1s, timeout: 1s, fall: 2, rise: 2";
/// A loaded machine may be slow; what is measured is printed.
const PATIENCE: Duration = Duration::from_secs(60);

static CLUSTERS: Shared<Vec<Cluster>> = Shared::new(|| {
    std::thread::scope(|scope| {
        let names = ["cluster-1", "cluster-2", "cluster-3"];
        let starts = names.map(|name| scope.spawn(move || Cluster::start_with(name, Controllers::None)));
        starts.into_iter().map(|start| start.join().expect("the reason is in the panic above")).collect()
    })
});

/// What listens; started by the tests as a program of its own.
#[test]
#[ignore = "a backend of the other tests"]
fn backend() {
    again::backend();
}

/// An instance's way to an API server.
#[test]
#[ignore = "a relay of the other tests"]
fn relay() {
    tunnel::relay();
}

fn address(cluster: usize, n: u16) -> String {
    format!("104.16.{cluster}.{n}")
}

fn service(namespace: &str, name: &str, port: u16) -> String {
    format!(
        "---
apiVersion: v1
kind: Namespace
metadata: {{name: {namespace}}}
---
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: {namespace}}}
spec: {{type: LoadBalancer, allocateLoadBalancerNodePorts: false, ports: [{{name: http, port: {port}}}]}}
"
    )
}

struct Instance {
    namespace: Namespace,
    /// To each cluster's API server.
    tunnels: Vec<Tunnel>,
    signpost: Signpost,
}

impl Instance {
    fn start(namespace: Namespace, tunnels: Vec<Tunnel>, setup: &Setup) -> Instance {
        let signpost = Signpost::spawn(setup, Ports::inside(), Some(&namespace));
        Instance { namespace, tunnels, signpost }
    }
}

struct World {
    instances: Vec<Instance>,
    backends: Vec<Option<Process>>,
    /// Which address of each cluster `web` has.
    at: [u16; 3],
    _others: Process,
    hub: Namespace,
    directory: tempfile::TempDir,
    /// Of the services.
    namespace: &'static str,
    clusters: Turn<Vec<Cluster>>,
}

impl World {
    /// Three clusters with the service `web`, a backend for each of them, and an instance in each, all of which are heard.
    fn new(namespace: &'static str, rules: &str) -> World {
        let clusters = CLUSTERS.turn();
        clusters.iter().for_each(Cluster::repair);
        for (n, cluster) in (1..).zip(clusters.iter()) {
            // Those of another test lead to where nobody listens any more.
            cluster.kubectl(&["delete", "services", "--all-namespaces", "--selector=test=1"]);
            let more = (0..MORE).map(|n| service(namespace, &format!("more-{n}"), OTHERS)).collect::<String>();
            cluster.apply(&(service(namespace, "web", PORT) + &more));
            cluster.kubectl(&["-n", namespace, "label", "services", "--all", "test=1"]);
            cluster.set_ingress(namespace, "web", &[&address(n, 1)]);
            (0..MORE).for_each(|i| cluster.set_ingress(namespace, &format!("more-{i}"), &[&address(n, 2 + i)]));
        }
        let hub = Namespace::new();
        let directory = tempfile::tempdir().expect("a temporary folder");
        for cluster in 1..=3 {
            for n in 1..=1 + MORE {
                hub.run(&format!("ip address add {}/32 dev lo", address(cluster, n)));
            }
        }
        let _others = listen(&hub, directory.path(), "others", &format!("0.0.0.0:{OTHERS}"));
        let instances = (1..=3).map(|own| instance(&hub, &clusters, own, rules)).collect();
        let backends = vec![None, None, None];
        let at = [1; 3];
        let mut world = World { instances, at, backends, _others, hub, directory, namespace, clusters };
        (1..=3).for_each(|cluster| world.start(cluster));
        world.expect("all three", PATIENCE, &[1, 2, 3]);
        for own in 1..=3 {
            wait_for("all are heard", PATIENCE, || {
                let metrics = world.metrics(own)?;
                let heard = (1..=3).filter(|n| metric(&metrics, &voter(*n)) == Some(1.0)).count();
                let own = metric(&metrics, "signpost_health_own_vote");
                same((heard, own), (3, Some(1.0))).map_err(|why| format!("{why}\n{metrics}"))
            });
        }
        world
    }

    fn start(&mut self, cluster: usize) {
        let (name, at) = (format!("backend-{cluster}"), address(cluster, self.at[cluster - 1]));
        let address = format!("{at}:{PORT}");
        self.backends[cluster - 1] = Some(listen(&self.hub, self.directory.path(), &name, &address));
    }

    fn kill(&mut self, cluster: usize) {
        self.backends[cluster - 1].take().expect("it runs").kill();
    }

    /// Gives `web` an address that it never had.
    fn renew(&mut self, cluster: usize, n: u16) {
        self.kill(cluster);
        self.at[cluster - 1] = n;
        let new = address(cluster, n);
        self.hub.run(&format!("ip address add {new}/32 dev lo"));
        self.start(cluster);
        self.clusters[cluster - 1].set_ingress(self.namespace, "web", &[&new]);
        let all = f64::from(3 * (1 + MORE));
        for own in 1..=3 {
            wait_for("all are Up", PATIENCE, || {
                let metrics = self.metrics(own)?;
                same(metric(&metrics, "signpost_health_endpoints{health=\"up\"}"), Some(all)).map_err(|_| metrics)
            });
        }
    }

    /// Which clusters an instance's answer to a client outside has.
    fn answered(&self, instance: usize) -> Result<BTreeSet<u8>, String> {
        let Instance { namespace, signpost, .. } = &self.instances[instance - 1];
        signpost.check()?;
        let dig = Dig::inside(namespace, signpost.ports.external);
        let name = format!("web.{}.{ZONE}", self.namespace);
        Ok(third_octets(&dig.addresses(&name, "A")?))
    }

    /// All instances answer with these.
    fn answer(&self, clusters: &[u8]) -> Result<(), String> {
        let expected: BTreeSet<u8> = clusters.iter().copied().collect();
        for instance in 1..=3 {
            same(self.answered(instance)?, expected.clone()).map_err(|why| format!("instance {instance}: {why}"))?;
        }
        Ok(())
    }

    /// How long it takes.
    fn expect(&self, what: &str, deadline: Duration, clusters: &[u8]) -> Duration {
        let begun = Instant::now();
        if let Err(why) = try_wait_for(deadline, || self.answer(clusters)) {
            let logs = self.instances.iter().map(|instance| instance.signpost.log() + "\n").collect::<String>();
            panic!(
                "after {deadline:?} still not: {what}; last: {why}\n{logs}\n{}",
                self.metrics(1).unwrap_or_default()
            );
        }
        begun.elapsed()
    }

    fn metrics(&self, instance: usize) -> Result<String, String> {
        self.get(instance, "/metrics")
    }

    fn get(&self, instance: usize, path: &str) -> Result<String, String> {
        let Instance { namespace, signpost, .. } = &self.instances[instance - 1];
        signpost.get_inside(namespace, path)
    }

    fn waits_for_metric(&self, instance: usize, name: &str, value: f64) {
        wait_for(name, PATIENCE, || same(metric(&self.metrics(instance)?, name), Some(value)));
    }
}

fn voter(n: usize) -> String {
    format!("signpost_health_voter_replicas{{cluster=\"cluster-{n}\"}}")
}

fn instance(hub: &Namespace, clusters: &[Cluster], own: usize, rules: &str) -> Instance {
    let namespace = hub.leaf(own as u8);
    let tunnel =
        |(n, cluster): (u16, &Cluster)| Tunnel::start(&namespace, cluster.address, 7_000 + 10 * own as u16 + n);
    let tunnels: Vec<Tunnel> = (1..).zip(clusters).map(tunnel).collect();
    let source = |(n, (cluster, tunnel)): (usize, (&Cluster, &Tunnel))| {
        let user = if n == own { User::Voter } else { User::Reader };
        MemberSource::Kubeconfig(cluster.kubeconfig_through_as(tunnel.address, user))
    };
    let mut setup = Setup::new((1..).zip(clusters.iter().zip(&tunnels)).map(source).collect());
    setup.sections = format!("health: {{quorum: majority, cluster: cluster-{own}, replica: r{own}, {rules}}}\n");
    Instance::start(namespace, tunnels, &setup)
}

/// `SIGNPOST_RUNS` says how often; the distribution is printed.
#[test]
fn a_backend_that_dies_is_out_of_all_answers_and_back_when_it_is_back() {
    let runs: usize = std::env::var("SIGNPOST_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(1);
    let mut world = World::new("dies", "interval: 5s");
    let (mut gone, mut back) = (Vec::new(), Vec::new());
    for run in 0..runs {
        let dead = 1 + run % 3;
        if run >= 3 {
            // What comes and goes within ten minutes comes back later and later.
            world.renew(dead, 20 + run as u16);
        }
        let left: Vec<u8> = (1..=3).filter(|n| usize::from(*n) != dead).collect();
        world.kill(dead);
        gone.push(world.expect("without it", PATIENCE, &left).as_secs_f64());
        world.start(dead);
        back.push(world.expect("with it again", 3 * PATIENCE, &[1, 2, 3]).as_secs_f64());
        eprintln!("run {run}: out of all answers after {:.1} s, back after {:.1} s", gone[run], back[run]);
    }
    for (what, times, bound) in [("out", &mut gone, GONE), ("back", &mut back, BACK)] {
        times.sort_by(f64::total_cmp);
        let [least, middle, most] = [0, times.len() / 2, times.len() - 1].map(|n| times[n]);
        eprintln!(
            "{what} in {runs} runs: {least:.1} s to {most:.1} s, half of them within {middle:.1} s; bound {bound:?}"
        );
    }
}

#[test]
fn one_instance_that_is_cut_off_removes_nothing() {
    let world = World::new("cut", QUICK);
    let Instance { namespace, tunnels, .. } = &world.instances[0];
    namespace.run("ip link set hub down");
    tunnels.iter().for_each(|tunnel| tunnel.proxy.go_silent());
    world.waits_for_metric(1, "signpost_health_isolated", 1.0);
    // Longer than anybody is believed who is silent.
    stays("nobody removes anything", Duration::from_secs(25), || world.answer(&[1, 2, 3]));
    for (instance, heard) in [(1, 0.0), (2, 0.0), (3, 0.0)] {
        world.waits_for_metric(instance, &voter(1), heard);
    }
    world.waits_for_metric(2, &voter(3), 1.0);
    namespace.run("ip link set hub up");
    namespace.run("ip route add default via 10.0.1.1");
    tunnels.iter().for_each(|tunnel| tunnel.proxy.forward());
    world.waits_for_metric(1, "signpost_health_isolated", 0.0);
    world.waits_for_metric(2, &voter(1), 1.0);
    world.waits_for_metric(1, &voter(2), 1.0);
}

#[test]
fn two_clusters_that_cannot_reach_the_third_remove_it() {
    let world = World::new("two", QUICK);
    let block = |instance: usize| {
        world.instances[instance - 1].namespace.run(&format!("ip route add blackhole {}/32", address(3, 1)));
    };
    block(1);
    let suspects = |instance: usize, health: &str| {
        world.waits_for_metric(instance, &format!("signpost_health_endpoints{{health=\"{health}\"}}"), 1.0);
    };
    // One is not enough: it goes behind the others of its band.
    (1..=3).for_each(|instance| suspects(instance, "suspect"));
    stays("one removes nothing", Duration::from_secs(5), || world.answer(&[1, 2, 3]));
    let explained = world.get(2, &format!("/explain?name=web.two.{ZONE}")).expect("an explanation");
    let explained: serde_json::Value = serde_json::from_str(&explained).expect("JSON");
    let judged = &explained["service"]["health"][2];
    let words = |field: &str| {
        let votes = judged["votes"].as_array().expect("votes").iter();
        votes.map(|vote| vote[field].as_str().expect("a word").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(judged["endpoint"], format!("{}:{PORT}", address(3, 1)), "{explained}");
    assert_eq!((&judged["cluster"], &judged["health"]), (&"cluster-3".into(), &"suspect".into()), "{explained}");
    assert_eq!(words("cluster"), ["cluster-1", "cluster-2", "cluster-3"]);
    assert_eq!(words("vote"), ["down", "up", "abstains"], "the owner abstains on its own: {explained}");
    assert!(judged["votes"][0]["heardSeconds"].as_f64().is_some_and(|age| age < 20.0), "{explained}");
    block(2);
    world.expect("without the third", PATIENCE, &[1, 2]);
    for instance in [1, 2] {
        world.instances[instance - 1].namespace.run(&format!("ip route del blackhole {}/32", address(3, 1)));
    }
    world.expect("all three again", PATIENCE, &[1, 2, 3]);
}

#[test]
fn an_api_server_that_dies_removes_nothing() {
    let world = World::new("api", QUICK);
    world.clusters[1].kill();
    stays("nothing is removed", Duration::from_secs(25), || world.answer(&[1, 2, 3]));
    (1..=3).for_each(|instance| world.waits_for_metric(instance, &voter(2), 0.0));
    world.waits_for_metric(2, "signpost_health_own_vote", 0.0);
    world.clusters[1].restart();
    (1..=3).for_each(|instance| world.waits_for_metric(instance, &voter(2), 1.0));
}

#[test]
fn if_all_die_all_are_answered_for_a_short_time() {
    let mut world = World::new("all", QUICK);
    (1..=3).for_each(|cluster| world.kill(cluster));
    let ttls = |world: &World| -> Result<Vec<String>, String> {
        let Instance { namespace, signpost, .. } = &world.instances[0];
        Ok(Dig::inside(namespace, signpost.ports.external).ask(&format!("web.all.{ZONE}"), "A")?.ttls())
    };
    wait_for("all three, for five seconds", PATIENCE, || same(ttls(&world)?, vec!["5".to_owned(); 3]));
    let metrics = world.metrics(1).expect("metrics");
    let open = metric(&metrics, "signpost_answers_failed_open_total{transport=\"udp\",view=\"external\"}");
    assert!(open.is_some_and(|count| count >= 1.0), "{metrics}");
    world.start(1);
    world.expect("the one that is back", PATIENCE, &[1]);
}

#[test]
fn a_cluster_that_writes_what_it_likes_has_one_vote() {
    let world = World::new("evil", QUICK);
    let evil = &world.clusters[2];
    // What the other two have alone. Its order goes by the client, so that answers can be compared octet by octet.
    for (n, cluster) in (1..).zip(&world.clusters[..2]) {
        cluster.apply(&service("evil", "rest", OTHERS));
        cluster.kubectl(&["-n", "evil", "label", "service", "rest", "test=1"]);
        let sticky = "{\"spec\": {\"sessionAffinity\": \"ClientIP\"}}";
        cluster.kubectl(&["-n", "evil", "patch", "service", "rest", "--patch", sticky]);
        cluster.set_ingress("evil", "rest", &[&address(n, 2)]);
    }
    let rest = || -> Result<Vec<String>, String> {
        let mut all = Vec::new();
        for Instance { namespace, signpost, .. } in &world.instances {
            for (name, kind) in [("rest", "A"), ("rest", "AAAA"), ("rest", "SRV"), ("_http._tcp.rest", "SRV")] {
                let dig = Dig::inside(namespace, signpost.ports.external).with("+qid=1").with("+nocookie");
                all.push(format!("{:?}", dig.ask(&format!("{name}.evil.{ZONE}"), kind)?));
            }
        }
        Ok(all)
    };
    let before = wait_for("what the other two have", PATIENCE, || match rest()? {
        all if all.concat().matches(&address(1, 2)).count() + all.concat().matches(&address(2, 2)).count() >= 6 => {
            Ok(all)
        }
        all => Err(all.join("\n")),
    });
    // What the instance in there wrote, with every word turned round, and replicas that nobody runs.
    let lease = evil.kubectl(&["-n", "signpost", "get", "lease", "r3", "-o", "json"]);
    let report =
        evil.kubectl(&["-n", "signpost", "get", "configmap", "r3.0", "-o", "jsonpath={.data['report\\.json']}"]);
    let mut report: serde_json::Value = serde_json::from_str(&report).expect("JSON");
    let all: serde_json::Value = [1, 2, 3]
        .map(|n| (format!("cluster-{n}"), serde_json::json!([format!("{}:{PORT}", address(n, 1))])))
        .into_iter()
        .collect();
    (report["up"], report["down"]) = (serde_json::json!({}), all);
    let mut lease: serde_json::Value = serde_json::from_str(&lease).expect("JSON");
    let labels = lease["metadata"]["labels"].clone();
    let generations = lease["metadata"]["annotations"]["signpost.dev/generations"].as_str().expect("text").to_owned();
    report["generation"] = generations.parse::<u64>().expect("one shard").into();
    let replicas = ["a0", "a1", "a2", "a3", "a4", "a5", "a6", "a7"];
    for beat in 1..=2 {
        for name in replicas {
            lease["metadata"] = serde_json::json!({
                "name": name, "namespace": "signpost", "labels": labels,
                "annotations": {
                    "signpost.dev/incarnation": report["incarnation"], "signpost.dev/generations": generations,
                    "signpost.dev/beat": format!("{beat:016x}"),
                },
            });
            let map = serde_json::json!({
                "apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {"name": format!("{name}.0"), "namespace": "signpost", "labels": labels},
                "data": {"report.json": report.to_string()},
            });
            evil.apply(&serde_json::json!({"apiVersion": "v1", "kind": "List", "items": [map, lease]}).to_string());
        }
    }
    // A service of its own where another cluster's is, and one that is called as theirs is and not offered.
    evil.apply(&service("evil", "stolen", OTHERS));
    evil.kubectl(&["-n", "evil", "label", "service", "stolen", "test=1"]);
    evil.set_ingress("evil", "stolen", &[&address(1, 2)]);
    evil.apply(
        &service("evil", "rest", OTHERS).replace("type: LoadBalancer, allocateLoadBalancerNodePorts: false, ", ""),
    );
    evil.kubectl(&["-n", "evil", "label", "service", "rest", "test=1"]);
    // Junk beside it: each costs a count.
    for (n, text) in ["", "{", "{\"version\":2}", "[]"].iter().enumerate() {
        let map = serde_json::json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": format!("junk-{n}.0"), "namespace": "signpost", "labels": labels},
            "data": {"report.json": text},
        });
        evil.apply(&map.to_string());
    }
    world.waits_for_metric(1, "signpost_health_endpoints{health=\"suspect\"}", 3.0);
    stays("order only", Duration::from_secs(10), || {
        world.answer(&[1, 2, 3])?;
        same(rest()?, before.clone())
    });
    let metrics = world.metrics(1).expect("metrics");
    let skipped = |reason: &str| {
        metric(&metrics, &format!("signpost_objects_skipped_total{{cluster=\"cluster-3\",reason=\"{reason}\"}}"))
    };
    assert!(skipped("syntax") >= Some(3.0) && skipped("version") >= Some(1.0), "{metrics}");
    assert_eq!((metric(&metrics, &voter(1)), metric(&metrics, &voter(2))), (Some(1.0), Some(1.0)));
    for name in replicas {
        evil.kubectl(&["-n", "signpost", "delete", "lease", name]);
        evil.kubectl(&["-n", "signpost", "delete", "configmap", &format!("{name}.0")]);
    }
    evil.kubectl(&["-n", "signpost", "delete", "configmap", "junk-0.0", "junk-1.0", "junk-2.0", "junk-3.0"]);
    world.waits_for_metric(1, "signpost_health_endpoints{health=\"suspect\"}", 0.0);
}

#[test]
fn without_the_right_to_write_it_abstains_and_says_so() {
    let world = World::new("rights", QUICK);
    let cluster = &world.clusters[0];
    cluster.kubectl(&["-n", "signpost", "delete", "rolebinding", "signpost-voter"]);
    wait_for("a warning", PATIENCE, || match world.instances[0].signpost.log() {
        log if log.contains("cannot write what it sees") && log.contains("403") => Ok(()),
        log => Err(log),
    });
    (1..=3).for_each(|instance| world.waits_for_metric(instance, &voter(1), 0.0));
    world.waits_for_metric(1, "signpost_health_own_vote", 0.0);
    // The right to read it, too: the cluster abstains here, and its services are answered for.
    assert_eq!(world.answer(&[1, 2, 3]), Ok(()));
    cluster.restore_rights();
    (1..=3).for_each(|instance| world.waits_for_metric(instance, &voter(1), 1.0));
    // What somebody deletes is written once more.
    cluster.kubectl(&["-n", "signpost", "delete", "configmap", "r1.0"]);
    let there = ["-n", "signpost", "get", "configmap", "r1.0", "-o", "name"];
    wait_for("the report again", PATIENCE, || cluster.try_kubectl(&there));
    (1..=3).for_each(|instance| world.waits_for_metric(instance, &voter(1), 1.0));
}

/// `cargo test --test majority writes -- --ignored --nocapture`
#[test]
#[ignore = "prints figures, for five minutes"]
fn writes_per_minute() {
    const MINUTE: Duration = Duration::from_secs(60);
    const ENDPOINTS: usize = 10_000;
    /// Addresses of one service.
    const EACH: usize = 50;
    let clusters = CLUSTERS.turn();
    let cluster = &clusters[0];
    cluster.repair();
    cluster.kubectl(&["delete", "services", "--all-namespaces", "--selector=test=1"]);
    let directory = tempfile::tempdir().expect("a temporary folder");
    let address = |n: usize| format!("104.32.{}.{}", n / 250, 1 + n % 250);
    let of = |first: usize| {
        let ingress: Vec<String> = (first..first + EACH).map(|n| format!("{{ip: {}}}", address(n))).collect();
        format!(
            "---\n{{apiVersion: v1, kind: Service, metadata: {{name: s-{first}, namespace: n}}, spec: {{type: LoadBalancer, \
             clusterIP: 10.1.0.1, ports: [{{name: http, port: {OTHERS}}}]}}, status: {{loadBalancer: {{ingress: [{}]}}}}}}\n",
            ingress.join(", ")
        )
    };
    let text: String = (0..ENDPOINTS).step_by(EACH).map(of).collect();
    std::fs::write(directory.path().join("all.yaml"), text).expect("the folder is ours");
    println!("writes in a minute in one cluster, {ENDPOINTS} endpoints");
    println!("{:>9} {:>9} {:>9} {:>34}", "instances", "Leases", "reports", "reports, 60 endpoints go Down");
    for replicas in [1, 3, 8] {
        let hub = Namespace::new();
        hub.run("ip route add local 104.32.0.0/16 dev lo");
        let _listener = listen(&hub, directory.path(), "listener", &format!("0.0.0.0:{OTHERS}"));
        let instances: Vec<Instance> = (1..=replicas)
            .map(|n| {
                let namespace = hub.leaf(n);
                let tunnel = Tunnel::start(&namespace, cluster.address, 7_100 + u16::from(n));
                let kubeconfig = cluster.kubeconfig_through_as(tunnel.address, User::Voter);
                let manifests = MemberSource::Manifests(directory.path().to_owned());
                let mut setup = Setup::new(vec![MemberSource::Kubeconfig(kubeconfig), manifests]);
                setup.sections = format!("health: {{quorum: majority, cluster: cluster-1, replica: w{n}}}\n");
                Instance::start(namespace, vec![tunnel], &setup)
            })
            .collect();
        let read = |name: &str| -> Result<f64, String> {
            let of = |instance: &Instance| instance.signpost.get_inside(&instance.namespace, "/metrics");
            let value = |metrics: String| metric(&metrics, name).ok_or(metrics);
            instances.iter().map(|instance| of(instance).and_then(value)).sum()
        };
        let up = f64::from(replicas) * ENDPOINTS as f64;
        wait_for("all are Up", 3 * PATIENCE, || same(read("signpost_health_endpoints{health=\"up\"}")?, up));
        let writes = |kind| read(&format!("signpost_health_writes_total{{object=\"{kind}\"}}")).expect("metrics");
        // What was seen last is written by then.
        std::thread::sleep(Duration::from_secs(10));
        let (leases, reports) = (writes("lease"), writes("report"));
        std::thread::sleep(MINUTE);
        let quiet = (writes("lease") - leases, writes("report") - reports);
        let reports = writes("report");
        for n in 0..60 {
            hub.run(&format!("ip route add blackhole {}/32 table local", address(n * 7)));
            std::thread::sleep(Duration::from_secs(1));
        }
        let busy = writes("report") - reports;
        println!("{replicas:>9} {:>9} {:>9} {busy:>34}", quiet.0, quiet.1);
    }
}
