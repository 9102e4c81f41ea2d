//! What the documents tell, done: a machine, two clusters, and one command after the other.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::extract::{Item, What};
use super::machine::{self, Machine};
use crate::common::cluster::{Cluster, built, workload};
use crate::common::dig::{Dig, addresses};
use crate::common::namespace::Namespace;
use crate::common::process::{Process, Run};
use crate::common::resolvers::{Kind, Server, sbin, unbound};
use crate::common::tunnel::Tunnel;
use crate::common::{same, try_wait_for};

/// Longest wait for anything, on a machine that does other things too.
const PATIENCE: Duration = Duration::from_secs(60);
/// The demo's service, and one in the two clusters.
const SERVICE: &str = "my-service.my-namespace.my-federation.my-domain.com";
const CART: &str = "cart.shop.my-federation.my-domain.com";
/// Of the load balancers in front of it.
const INGRESS: [&str; 2] = ["104.16.1.1", "104.16.2.1"];

type Done = Result<(), String>;
type Prepare = fn(&mut Story) -> Done;
/// At what a command printed, or at an example.
type Look = fn(&mut Story, &str) -> Done;

/// Words in capitals are the reader's to fill in: document, command as written, command as run.
const AS_RUN: &[(&str, &str, &str)] = &[
    (
        "README.md",
        "signpost explain --config FILE NAME",
        "signpost explain --config config/demo.yaml my-service.my-namespace.my-federation.my-domain.com",
    ),
    ("README.md", "signpost dump ZONE", "SIGNPOST_CONFIG=config/demo.yaml signpost dump my-federation.my-domain.com"),
    (
        "docs/operations.md",
        "signpost explain NAME --config /etc/signpost/signpost.yaml",
        "signpost explain cart.shop.my-federation.my-domain.com --config /etc/signpost/signpost.yaml",
    ),
    (
        "docs/operations.md",
        "signpost explain NAME",
        "SIGNPOST_CONFIG=/etc/signpost/signpost.yaml signpost explain cart.shop.my-federation.my-domain.com",
    ),
    (
        "docs/operations.md",
        "kubectl --kubeconfig FILE get --raw /readyz",
        "kubectl --kubeconfig berlin.kubeconfig get --raw /readyz",
    ),
    // In the demo's clusters, in which everybody may say something.
    (
        "docs/operations.md",
        "signpost force-up CLUSTER/NAMESPACE/SERVICE --until 1h",
        "SIGNPOST_CONFIG=config/demo.yaml signpost force-up cluster-2/my-namespace/my-service --until 1h",
    ),
    ("docs/operations.md", "signpost release CLUSTER", "SIGNPOST_CONFIG=config/demo.yaml signpost release cluster-2"),
    ("docs/operations.md", "signpost check --config FILE", "signpost check --config /etc/signpost/signpost.yaml"),
];

/// Commands that the documents say to try again: a token, a first measurement, a vote take their time.
const AGAIN: &[&str] = &["config/make-kubeconfig.sh ", "config/publish-load.sh "];

/// What has to be there before a command, as the text around it says.
const BEFORE: &[(&str, Prepare)] = &[
    ("signpost check --config signpost.yaml", |story| {
        story.machine.must("kubectl --context oregon apply -f config/rbac/rbac.yaml")?;
        story.retried("config/make-kubeconfig.sh oregon oregon.kubeconfig").map(drop)
    }),
    ("kubectl --context berlin --namespace signpost get leases,configmaps --selector signpost.dev/health", |story| {
        // An instance in Berlin, with the section and the kubeconfig that the text before has.
        let voter = story.config.replace("berlin.kubeconfig", "berlin-voter.kubeconfig");
        story.machine.write("voter.yaml", &(voter + &story.health));
        story.serve("signpost serve --config voter.yaml")
    }),
    ("useradd --system --no-create-home --shell /usr/sbin/nologin signpost", |story| story.end()),
    ("systemctl enable --now signpost", |story| {
        story.machine.must(
            "mkdir -p /etc/signpost && cp signpost.yaml my-federation.my-domain.com.zone *.kubeconfig /etc/signpost/ && \
             chown -R signpost:signpost /etc/signpost",
        )?;
        story.machine.must("test \"$(stat -c %a /etc/signpost/berlin.kubeconfig)\" = 600").map(drop)
    }),
    ("systemctl kill --kill-whom=main -s USR2 signpost", Story::remember_main_process),
    ("kill -USR2 \"$(pidof -s signpost)\"", Story::remember_main_process),
    ("target/release/signpost status --config config/demo.yaml", |story| {
        story.machine.must("systemctl stop signpost")?;
        story.serve("cargo run --release -- serve --config config/demo.yaml")
    }),
    ("signpost status --config /etc/signpost/signpost.yaml", |story| {
        story.end()?;
        story.machine.must("systemctl start signpost").map(drop)
    }),
];

/// What a command must have done, beyond that it succeeds: with what it printed.
const AFTER: &[(&str, Look)] = &[
    ("config/publish-load.sh berlin shop cart hpa", |story, _| same(story.load()?, 0.3)),
    (
        "config/publish-load.sh berlin shop cart prometheus http://prometheus:9090 \
         'sum(rate(http_requests_total{service=\"cart\"}[1m])) / 2000'",
        |story, _| match story.load()? {
            // 100 requests in a second, of which the first minute sees less.
            load if load > 0.0 && load < 0.06 => Ok(()),
            load => Err(format!("the load is {load}")),
        },
    ),
    ("kubectl --context berlin get serviceloads --all-namespaces", |_, said| has(said, "shop        cart")),
    ("signpost check --config signpost.yaml", |_, said| has(said, "berlin")),
    ("signpost serve --config signpost.yaml", |story, _| {
        // From the Internet, the load balancers of both clusters.
        story.answers("192.0.2.1:53", CART, &INGRESS)
    }),
    ("kubectl --context berlin --namespace signpost-clusters label secret tokyo signpost.dev/cluster=", |story, _| {
        // With the rights of the account that the configuration has. Nobody serves with it, which is a warning.
        let shown = story.machine.must("signpost diagnose --config cluster-secrets.yaml || true")?;
        has(&shown, "passed  clusterSecrets: 1 Secrets with the label signpost.dev/cluster in signpost-clusters")?;
        has(&shown, "passed  cluster tokyo: its API server answers")
    }),
    (
        "kubectl --context berlin --namespace signpost get leases,configmaps --selector signpost.dev/health",
        |_, said| has(said, "lease.coordination.k8s.io/"),
    ),
    (
        "kubectl --context berlin --namespace shop annotate service cart signpost.dev/probe='https path=/healthz host=cart.example.com'",
        |story, _| {
            // The instance with a section `health` reads it, and has nothing to say against it.
            let shown =
                story.waited("signpost explain cart.shop.my-federation.my-domain.com --config voter.yaml", "https")?;
            has(&shown, "/healthz")
        },
    ),
    (
        "target/release/signpost drain cluster-2 --config config/demo.yaml --until 1h --reason \"a new rack\"",
        |story, said| {
            has(said, "cluster-2: drain from")?;
            story.answers("127.0.0.1:8053", SERVICE, &["104.197.117.10", "104.197.38.157"])
        },
    ),
    (
        "target/release/signpost explain my-service.my-namespace.my-federation.my-domain.com --config config/demo.yaml",
        |_, said| has(said, "a new rack"),
    ),
    ("target/release/signpost undrain cluster-2 --config config/demo.yaml", |story, _| {
        story.answers("127.0.0.1:8053", SERVICE, &["104.197.117.10", "104.197.74.77", "104.197.38.157"])
    }),
    ("kubectl apply -k config/deploy/stub", |_, said| has(said, "deployment.apps/signpost created")),
    ("systemctl enable --now signpost", |story, _| {
        story.machine.must("systemctl is-enabled signpost && systemctl is-active signpost")?;
        let process = story.main_process()?;
        let user = story.machine.must(&format!("stat -c %U /proc/{process}"))?;
        same(user.trim(), "signpost")?;
        story.answers("192.0.2.1:53", CART, &INGRESS)
    }),
    ("systemctl reload signpost", |story, _| {
        story.waited("journalctl --unit signpost --no-pager", "configuration reloaded").map(drop)
    }),
    ("systemctl kill --kill-whom=main -s USR2 signpost", |story, _| story.taken_over()),
    ("kill -USR2 \"$(pidof -s signpost)\"", |story, _| story.taken_over()),
    ("target/release/signpost status --config config/demo.yaml", |_, said| has(said, "cluster-3")),
    ("target/release/signpost dump my-federation.my-domain.com --config config/demo.yaml --offline", |_, said| {
        has(said, "104.197.38.157")
    }),
    ("signpost status --config /etc/signpost/signpost.yaml", |_, said| has(said, "oregon")),
    ("signpost explain NAME --config /etc/signpost/signpost.yaml", |_, said| has(said, INGRESS[1])),
    ("kubectl --kubeconfig FILE get --raw /readyz", |_, said| same(said.trim(), "ok")),
];

/// Examples by the line that they begin with.
const EXAMPLES: &[(&str, Look)] = &[
    // The picture at the top of the README.
    ("   cluster-1            cluster-2            cluster-3           Services and EndpointSlices,", |_, _| Ok(())),
    ("zones:", |story, example| {
        story.config = example.to_owned();
        story.machine.write("signpost.yaml", example);
        // "The same NS and address records in Signpost's own zone file", of which the demo's is the beginning.
        let zone = story.machine.read("zones/my-federation.my-domain.com.zone");
        let zone: Vec<&str> = zone.lines().filter(|line| !line.contains("AAAA")).collect();
        let zone = zone.join("\n").replacen("127.0.0.1", "192.0.2.1", 1).replacen("127.0.0.1", "198.51.100.1", 1);
        story.machine.write("my-federation.my-domain.com.zone", &(zone + "\n"));
        Ok(())
    }),
    ("health:", |story, example| {
        story.health = example.to_owned();
        story.with_section("health.yaml", example)
    }),
    ("listeners:", |story, example| {
        story.end()?;
        story.with_section("internal.yaml", example)
    }),
    ("state:", |story, example| story.with_section("state.yaml", example)),
    ("clusterSecrets:", |story, example| {
        // The clusters are at the machine's own addresses.
        story.with_section("cluster-secrets.yaml", &format!("{example}  localServers: true\n"))
    }),
    ("my-federation.my-domain.com.      NS  ns1.my-federation.my-domain.com.", Story::delegation),
    ("my-federation.my-domain.com:53 {", Story::coredns),
    ("stub-zone:", Story::unbound),
    // These two need a node with addresses of its own.
    ("# Beside the blocks of node-local-dns.", |_, _| {
        resolvers("recipe(\"docs/stub.md\", \"NodeLocal DNSCache\", \"\")")
    }),
    ("apiVersion: v1", |_, _| resolvers("recipe(\"docs/stub.md\", \"kube-dns\", \"\")")),
];

/// For whoever has written a new command.
const HINT: &str = "\n(tests/documented/main.rs says what to do with a command that cannot be run just so)";

pub struct Story {
    server: Option<Process>,
    _prometheus: Process,
    _tunnels: Vec<Tunnel>,
    machine: Machine,
    _clusters: Vec<Cluster>,
    /// The README's configuration, and its section `health`.
    config: String,
    health: String,
    main_process: String,
    folder: TempDir,
}

/// Does all of it; what went wrong, by file and line.
pub fn tell(items: &[Item]) -> Vec<String> {
    machine::needs_root();
    let begin = Instant::now();
    let mut story = Story::begin();
    println!("a machine and two clusters after {:.1} s", begin.elapsed().as_secs_f32());
    let mut failures = unused(items);
    for item in items {
        let since = Instant::now();
        let (outcome, what) = match &item.what {
            What::Command { text, shown } => (story.command(item, text, shown.as_deref()), text.as_str()),
            What::Example { language, text } => {
                (story.example(language, text), text.lines().next().unwrap_or_default())
            }
        };
        let time = since.elapsed().as_secs_f32();
        println!("{time:5.1} s  {}: {what}", item.place());
        if let Err(error) = outcome {
            let known =
                BEFORE.iter().map(|(text, _)| text).chain(AFTER.iter().map(|(text, _)| text)).any(|text| *text == what);
            let hint = if known { "" } else { HINT };
            failures.push(format!("{}: `{what}`\n{error}{hint}", item.place()));
        }
    }
    if let Err(error) = story.end() {
        failures.push(error);
    }
    println!("all after {:.1} s", begin.elapsed().as_secs_f32());
    failures
}

/// What is said above of commands and examples that no document has any more.
fn unused(items: &[Item]) -> Vec<String> {
    let mut there = BTreeSet::new();
    let mut in_file = BTreeSet::new();
    for item in items {
        match &item.what {
            What::Command { text, .. } => {
                there.insert(text.as_str());
                in_file.insert((item.file.as_str(), text.as_str()));
            }
            What::Example { text, .. } => {
                there.insert(text.lines().next().unwrap_or_default());
            }
        }
    }
    let before = BEFORE.iter().map(|(text, _)| *text);
    let after = AFTER.iter().map(|(text, _)| *text);
    let examples = EXAMPLES.iter().map(|(text, _)| *text);
    let gone = before.chain(after).chain(examples).filter(|text| !there.contains(text));
    let gone_as_run =
        AS_RUN.iter().filter(|(file, text, _)| !in_file.contains(&(*file, *text))).map(|(_, text, _)| *text);
    gone.chain(gone_as_run)
        .map(|text| format!("tests/documented/story.rs: no document has `{text}` any more"))
        .collect()
}

/// What tests/resolvers.rs reads from the document and uses.
fn resolvers(words: &str) -> Done {
    has(include_str!("../resolvers.rs"), words)
}

fn has(said: &str, words: &str) -> Done {
    if said.contains(words) { Ok(()) } else { Err(format!("{words:?} is not in:\n{said}")) }
}

impl Story {
    fn begin() -> Story {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let (clusters, machine) = thread::scope(|scope| {
            let machine = scope.spawn(|| Machine::start(root, &programs()));
            (Cluster::start_all(&["berlin", "oregon"]), machine.join().expect("the reason is in the panic above"))
        });
        let mut tunnels = Vec::new();
        for (n, cluster) in clusters.iter().enumerate() {
            let tunnel = Tunnel::start(machine.network(), cluster.address, 6443 + u16::try_from(n).expect("two"));
            let config = cluster.kubectl(&["config", "view", "--flatten"]);
            let config = config.replace(&cluster.address.to_string(), &tunnel.address.to_string());
            machine.write(&format!("/root/.kube/{}", cluster.name), &config);
            // Another name for the second one.
            machine.write("/root/.kube/tokyo", &config.replace(&cluster.name, "tokyo"));
            tunnels.push(tunnel);
        }
        let merge = "cd /root/.kube && KUBECONFIG=berlin:oregon:tokyo kubectl config view --flatten >config";
        machine.must(merge).unwrap_or_else(|error| panic!("{error}"));
        machine.write("/usr/local/bin/cargo", CARGO);
        machine.write("/usr/local/bin/make", MAKE);
        machine.must("chmod +x /usr/local/bin/cargo /usr/local/bin/make").unwrap_or_else(|error| panic!("{error}"));
        for (cluster, address) in clusters.iter().zip(INGRESS) {
            cluster.apply(&workload("shop", "cart", 1));
            cluster.set_ingress("shop", "cart", &[address]);
        }
        autoscaler(&clusters[0]);
        let prometheus = prometheus(&machine, folder.path());
        Story {
            server: None,
            _prometheus: prometheus,
            _tunnels: tunnels,
            machine,
            _clusters: clusters,
            config: String::new(),
            health: String::new(),
            main_process: String::new(),
            folder,
        }
    }

    fn command(&mut self, item: &Item, written: &str, shown: Option<&str>) -> Done {
        let filled_in = AS_RUN.iter().find(|(file, text, _)| *file == item.file && *text == written);
        let line = filled_in.map_or(written, |(_, _, line)| line);
        for (_, before) in BEFORE.iter().filter(|(text, _)| *text == written) {
            before(self)?;
        }
        let said = if line.contains("signpost serve ") || line.contains("-- serve ") {
            self.serve(line)?;
            String::new()
        } else if AGAIN.iter().any(|script| line.starts_with(script)) {
            self.retried(line)?
        } else {
            self.machine.must(line)?
        };
        if line.starts_with("dig ") {
            dug(&said)?;
        }
        // kubectl is content with nothing, a reader is not.
        if line.starts_with("kubectl ") && line.contains(" get ") && said.is_empty() {
            return Err("there is nothing to be seen".to_owned());
        }
        if let Some(shown) = shown {
            as_shown(line, &said, shown)?;
        }
        for (_, after) in AFTER.iter().filter(|(text, _)| *text == written) {
            after(self, &said)?;
        }
        Ok(())
    }

    fn example(&mut self, language: &str, example: &str) -> Done {
        let first = example.lines().next().unwrap_or_default();
        match EXAMPLES.iter().find(|(text, _)| *text == first) {
            Some((_, used)) => used(self, example),
            None => Err(format!(
                "no use is known for this example of {language:?}: say in tests/documented/story.rs, EXAMPLES, what to do with it"
            )),
        }
    }

    fn retried(&self, line: &str) -> Result<String, String> {
        try_wait_for(PATIENCE, || self.machine.must(line))
    }

    /// What a command says once it says this.
    fn waited(&self, line: &str, words: &str) -> Result<String, String> {
        try_wait_for(PATIENCE, || self.machine.must(line).and_then(|said| has(&said, words).map(|()| said)))
    }

    /// In another terminal. What was served before has ended: both have the same ports.
    fn serve(&mut self, line: &str) -> Done {
        self.end()?;
        let path = line.split_once("--config ").ok_or("it has no --config")?.1;
        let config: Value =
            serde_saphyr::from_str(&self.machine.read(path)).map_err(|error| format!("{path}: {error}"))?;
        let admin = config["admin"]["address"].as_str().ok_or_else(|| format!("{path} has no admin address"))?;
        let process = self.machine.start_there(line, self.folder.path());
        let ready = format!("curl --silent --show-error --fail http://{admin}/readyz");
        let outcome = try_wait_for(PATIENCE, || match process.check() {
            Err(ended) => Ok(Err(ended)),
            Ok(()) => self.machine.must(&ready).map(|_| Ok(())),
        });
        outcome.map_err(|error| format!("{error}; its log: {}", process.log()))??;
        self.server = Some(process);
        Ok(())
    }

    /// Of what was served last: as with Ctrl-C, to which the only right end is exit code 0.
    fn end(&mut self) -> Done {
        let Some(server) = self.server.take() else { return Ok(()) };
        server.check()?;
        self.machine.must("kill -INT $(pidof signpost)")?;
        let status = try_wait_for(PATIENCE, || server.ended().ok_or_else(|| server.log()))?;
        if status.success() { Ok(()) } else { Err(format!("it ended with {status}: {}", server.log())) }
    }

    /// The README's configuration with a section in place of that which it has, or beside the others: `signpost check` is content.
    fn with_section(&self, path: &str, section: &str) -> Done {
        self.machine.write(path, &replaced(&self.config, section));
        self.machine.must(&format!("target/release/signpost check --config {path}")).map(drop)
    }

    fn load(&self) -> Result<f64, String> {
        let line = "kubectl --context berlin --namespace shop get serviceload cart --output 'jsonpath={.spec.load}'";
        self.machine.must(line)?.parse().map_err(|error| format!("{error}"))
    }

    fn answers(&self, server: &str, name: &str, want: &[&str]) -> Done {
        answers(self.machine.network(), server, name, want)
    }

    fn main_process(&self) -> Result<String, String> {
        Ok(self.machine.must("systemctl show signpost --property MainPID --value")?.trim().to_owned())
    }

    fn remember_main_process(&mut self) -> Done {
        self.main_process = self.main_process()?;
        Ok(())
    }

    /// Another process is the main one and the only one, and answers.
    fn taken_over(&mut self) -> Done {
        try_wait_for(PATIENCE, || {
            let now = self.main_process()?;
            let all = self.machine.must("pidof signpost")?;
            if now != self.main_process && all.trim() == now { Ok(()) } else { Err(format!("{now} of {all}")) }
        })?;
        self.machine.must("systemctl is-active signpost")?;
        self.answers("192.0.2.1:53", CART, &INGRESS)
    }

    /// A root and a parent with these records, two instances at the addresses that they have, and a resolver that knows the root only.
    fn delegation(&mut self, records: &str) -> Done {
        self.serve("signpost serve --config signpost.yaml")?;
        let second = self.config.replace("192.0.2.1:53", "198.51.100.1:53").replace("8055", "8056");
        self.machine.write("second.yaml", &second);
        let logs = tempfile::tempdir().map_err(|error| error.to_string())?;
        let second = self.machine.start_there("signpost serve --config second.yaml", logs.path());
        let network = self.machine.network();
        let root = "$TTL 3600\n. SOA root-ns. host. 1 3600 600 86400 60\n. NS root-ns.\nroot-ns. A 127.0.9.1\n\
                    my-domain.com. NS ns.my-domain.com.\nns.my-domain.com. A 127.0.9.2\n";
        let parent = format!(
            "$TTL 3600\nmy-domain.com. SOA ns.my-domain.com. host.my-domain.com. 1 3600 600 86400 60\nmy-domain.com. NS ns.my-domain.com.\n\
             ns.my-domain.com. A 127.0.9.2\n{records}"
        );
        let hints = ". 3600 IN NS root-ns.\nroot-ns. 3600 IN A 127.0.9.1\n";
        let _root = Server::start_in(network, &Kind::Nsd { zone: ".", text: root }, "127.0.9.1");
        let _parent = Server::start_in(network, &Kind::Knot { zone: "my-domain.com", text: &parent }, "127.0.9.2");
        let _resolver = Server::start_in(network, &Kind::UnboundRoot { hints }, "127.0.9.53");
        // Either of them.
        for server in ["192.0.2.1:53", "198.51.100.1:53", "127.0.9.53:53"] {
            self.answers(server, CART, &INGRESS).map_err(|error| format!("{error}; {}", second.log()))?;
        }
        second.kill();
        self.answers("127.0.9.53:53", &format!("berlin.{CART}"), &INGRESS[..1])
    }

    /// The stub of a resolver on another host, at the address of Berlin's internal view: what Berlin's clients get. `number`: the host's.
    fn stubbed(&mut self, number: u8, program: PathBuf, arguments: &[&str], files: &[(&str, String)]) -> Done {
        self.serve("signpost serve --config internal.yaml")?;
        let host = self.machine.network().leaf(number);
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        for (file, content) in files {
            fs::write(folder.path().join(file), content).map_err(|error| error.to_string())?;
        }
        let resolver = Process::start(Run {
            name: "resolver",
            program: &program,
            arguments: arguments.iter().map(|word| (*word).to_owned()).collect(),
            directory: folder.path(),
            namespace: Some(&host),
        });
        let line = "kubectl --context berlin --namespace shop get service cart --output 'jsonpath={.spec.clusterIP}'";
        let own = self.machine.must(line)?;
        answers(&host, "127.0.0.1:53", CART, &[&own, INGRESS[1]])
            .map_err(|error| format!("{error}; {}", resolver.log()))
    }

    fn coredns(&mut self, corefile: &str) -> Done {
        self.stubbed(8, built().join("coredns"), &["-conf", "Corefile"], &[("Corefile", corefile.to_owned())])
    }

    fn unbound(&mut self, stub: &str) -> Done {
        let here = tempfile::tempdir().map_err(|error| error.to_string())?;
        let server = unbound(SocketAddr::from(([127, 0, 0, 1], 53)), here.path());
        self.stubbed(9, sbin("unbound"), &["-d", "-c", "unbound.conf"], &[("unbound.conf", server + stub)])
    }
}

/// Once these are the addresses in the answer, in any order.
fn answers(network: &Namespace, server: &str, name: &str, want: &[&str]) -> Done {
    let server: SocketAddr = server.parse().map_err(|error| format!("{server}: {error}"))?;
    let dig = Dig::inside(network, server);
    let want = addresses(want);
    try_wait_for(PATIENCE, || same(dig.address_set(name, "A")?, want.clone()))
        .map_err(|error| format!("{server}: {error}"))
}

/// A configuration with one section replaced or added. Sections begin at the left edge.
fn replaced(config: &str, section: &str) -> String {
    let key = section.split_inclusive(':').next().unwrap_or_default();
    let mut skips = false;
    let mut kept = String::new();
    for line in config.split_inclusive('\n') {
        if !line.starts_with([' ', '\n']) {
            skips = line.starts_with(key);
        }
        if !skips {
            kept.push_str(line);
        }
    }
    kept + section
}

/// dig is content with any answer, a reader is not.
fn dug(said: &str) -> Done {
    let records = said.lines().filter(|line| !line.is_empty() && !line.starts_with(';')).count();
    let wrong = said.lines().any(|line| line.contains("status: ") && !line.contains("status: NOERROR"));
    if records > 0 && !wrong { Ok(()) } else { Err(format!("no records: {said}")) }
}

/// What a document shows is what is printed. A set of records has no order.
fn as_shown(line: &str, said: &str, shown: &str) -> Done {
    let lines = |text: &str| {
        let mut lines: Vec<String> = text.trim().lines().map(|line| line.trim_end().to_owned()).collect();
        if line.starts_with("dig ") {
            lines.sort();
        }
        lines
    };
    if lines(said) == lines(shown) {
        Ok(())
    } else {
        Err(format!("the document shows:\n{shown}\nand it says:\n{said}"))
    }
}

/// That of the machine, or the one that was built: into the machine's own folder.
fn programs() -> Vec<PathBuf> {
    let named = env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from);
    named
        .into_iter()
        .chain([built()])
        .map(|folder| folder.join("kubectl"))
        .filter(|path| path.is_file())
        .take(1)
        .collect()
}

/// Six of ten Pods at half of what is wanted of them.
fn autoscaler(cluster: &Cluster) {
    cluster.apply(
        "apiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nmetadata: {name: cart, namespace: shop}\nspec:\n\
         \x20 scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: cart}\n\
         \x20 maxReplicas: 10\n\
         \x20 metrics: [{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 80}}}]\n",
    );
    let status = "{\"status\":{\"currentReplicas\":6,\"desiredReplicas\":6,\"conditions\":[],\"currentMetrics\":[{\"type\":\"Resource\",\
                  \"resource\":{\"name\":\"cpu\",\"current\":{\"averageUtilization\":40,\"averageValue\":\"1\"}}}]}}";
    cluster.kubectl(&["-n", "shop", "patch", "hpa", "cart", "--subresource=status", "--type=merge", "-p", status]);
}

/// A real one, for which the service has 100 requests a second.
fn prometheus(machine: &Machine, folder: &Path) -> Process {
    let rules = "groups: [{name: cart, rules: [{record: http_requests_total, labels: {service: cart}, expr: vector(time() * 100)}]}]\n";
    fs::write(folder.join("rules.yml"), rules).expect("the folder is ours");
    let config = "global: {evaluation_interval: 1s}\nrule_files: [rules.yml]\n";
    fs::write(folder.join("prometheus.yml"), config).expect("the folder is ours");
    let arguments = [
        "--config.file=prometheus.yml",
        "--storage.tsdb.path=data",
        "--web.listen-address=127.0.0.1:9090",
        "--log.level=warn",
    ];
    Process::start(Run {
        name: "prometheus",
        program: Path::new("prometheus"),
        arguments: arguments.map(str::to_owned).to_vec(),
        directory: folder,
        namespace: Some(machine.network()),
    })
}

/// In place of cargo, which would build a release: what the tests have built, for the two commands that come to it.
const CARGO: &str = r#"#!/bin/sh
case "$*" in
"install --path .") [ -f Cargo.toml ] && exec install -D -m 755 target/release/signpost "$HOME/.cargo/bin/signpost" ;;
"run --release -- "*)
    shift 3
    exec target/release/signpost "$@"
    ;;
esac
echo "cargo $*: it is not known here what that builds; say in tests/documented/elsewhere.rs who runs it" >&2
exit 101
"#;

const MAKE: &str = r#"#!/bin/sh
echo "make $*: it is not known here what that builds; say in tests/documented/elsewhere.rs who runs it" >&2
exit 101
"#;
