//! `signpost diagnose`: what is there passes, and what is not is named, with what to do.

mod common;
#[path = "common/scripted_api.rs"]
mod scripted_api;

use std::fs;
use std::time::Duration;

use common::resolvers::{Kind as Resolver, Server};
use common::signpost::{MemberSource, Setup, Signpost, ZONE};
use scripted_api::{Ask, Fault, Kind, ScriptedApi, status};
use tempfile::TempDir;

struct World {
    /// The API servers live with it.
    _runtime: tokio::runtime::Runtime,
    apis: Vec<ScriptedApi>,
    directory: TempDir,
}

impl World {
    fn new() -> World {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let directory = tempfile::tempdir().expect("a temporary folder");
        let apis: Vec<ScriptedApi> = (0..3).map(|_| runtime.block_on(ScriptedApi::start())).collect();
        for (number, api) in (1..).zip(&apis) {
            api.set_uid(&format!("uid-{number}"));
            fs::write(directory.path().join(format!("{number}.kubeconfig")), api.kubeconfig("good")).expect("ours");
        }
        World { _runtime: runtime, apis, directory }
    }

    fn setup(&self) -> Setup {
        let source = |number| MemberSource::Kubeconfig(self.directory.path().join(format!("{number}.kubeconfig")));
        let mut setup = Setup::new([1, 2, 3].map(source).into());
        setup.sync_wait = Duration::from_secs(1);
        setup.sections = format!("state: {{directory: '{}'}}\n", self.directory.path().join("state").display());
        setup
    }
}

fn diagnose(signpost: &Signpost) -> (bool, String) {
    let (status, said) = signpost.run(&["diagnose"]);
    (status.success(), said)
}

/// Lines that begin so.
fn lines<'s>(said: &'s str, verdict: &str) -> Vec<&'s str> {
    said.lines().filter(|line| line.starts_with(verdict)).collect()
}

#[test]
fn what_is_in_order_passes() {
    let world = World::new();
    // Name servers of which no address is known here, so that only the delegation is asked for.
    let setup = || Setup { name_servers: vec![], records: "@ NS ns1.elsewhere.example.\n".to_owned(), ..world.setup() };
    let other = Signpost::start(&setup());
    let resolver = Server::start(&Resolver::UnboundStub { zone: ZONE, servers: &[other.ports.external] });
    let mut setup = setup();
    setup.sections += &format!("resolvers: ['{}']\n", resolver.address);
    let signpost = Signpost::start(&setup);
    let (well, said) = diagnose(&signpost);
    assert!(well, "{said}");
    assert_eq!(lines(&said, "WARNED"), Vec::<&str>::new(), "{said}");
    assert_eq!(lines(&said, "FAILED"), Vec::<&str>::new(), "{said}");
    for part in [
        "signpost.yaml: configuration and zone files are in order",
        "state can be written to",
        "cluster cluster-1: its API server answers",
        "cluster cluster-2: it is the cluster uid-2",
        "cluster cluster-3: endpointslices may be listed",
        "cluster cluster-3: serviceloads are not there, and need not be",
        "server: it runs (version ",
        &format!("listener {}: answers for {ZONE}. over UDP", signpost.ports.internal),
        &format!("listener {}: answers for {ZONE}. over TCP", signpost.ports.external),
        "finds its name servers ns1.elsewhere.example.",
    ] {
        assert!(lines(&said, "passed").iter().any(|line| line.contains(part)), "{part}: {said}");
    }
    assert!(said.ends_with(" passed, 0 warned, 0 failed\n"), "{said}");

    // The DNS of a cluster that forwards it, one that forwards it to nobody, one that knows nothing of it, and none at all.
    let forwards = |zone: &str, server| Server::start(&Resolver::CoreDns { zone, server });
    let good = forwards(ZONE, signpost.ports.internal);
    let astray = forwards(ZONE, common::local(common::free_port()));
    let without = forwards("elsewhere.example", signpost.ports.internal);
    let nobody = common::local(common::free_port());
    let stubs = [good.address, astray.address, without.address, nobody].map(|at| format!("--stub={at}"));
    let (status, said) = signpost.run(&[&["diagnose"][..], &stubs.each_ref().map(String::as_str)].concat());
    assert!(!status.success(), "{said}");
    for (verdict, server, part) in [
        ("passed", good.address, "forwards it: serial "),
        ("FAILED", astray.address, "says SERVFAIL: it forwards it to something that does not answer"),
        ("FAILED", without.address, "says Query Refused and has no SOA record of it: it is not forwarded"),
        ("FAILED", nobody, "does not answer"),
    ] {
        let found =
            lines(&said, verdict).into_iter().find(|line| line.contains(&format!("stub {server}, zone {ZONE}.: ")));
        assert!(found.is_some_and(|line| line.contains(part)), "{verdict} {part}: {said}");
    }
    let refused = signpost.command(&["diagnose", "--stub", "kube-dns"]).expect_err("it is no address").to_string();
    assert!(refused.contains("is not the address of a DNS server"), "{refused}");
}

#[test]
fn what_is_not_is_named() {
    let world = World::new();
    let forbidden = || Fault::Status(403, "", status(403, "Forbidden"));
    // For the server's own tries, and for ours.
    for _ in 0..200 {
        world.apis[1].fault(Ask::List(Kind::Service), forbidden());
    }
    world.apis[2].set_up(false);
    let mut setup = world.setup();
    setup.sections = "state: {directory: /proc/signpost}\nresolvers: ['127.0.0.1:1']\n".to_owned();
    let signpost = Signpost::start(&setup);
    let (well, said) = diagnose(&signpost);
    assert!(!well, "{said}");
    for (verdict, part) in [
        ("FAILED", "state: /proc/signpost cannot be written to"),
        ("passed", "cluster cluster-1: services may be listed"),
        ("FAILED", "cluster cluster-2: services may not be listed (status 403"),
        ("passed", "cluster cluster-2: endpointslices may be listed"),
        ("FAILED", "cluster cluster-3: its API server does not answer"),
        ("FAILED", "server: it has never heard cluster-2"),
        ("FAILED", "server: it has never heard cluster-3"),
        ("passed", "over TCP"),
        ("WARNED", "ns1.my-federation.my-domain.com. at 127.0.0.1 does not answer"),
        ("WARNED", "the resolver 127.0.0.1:1 does not answer"),
    ] {
        assert!(lines(&said, verdict).iter().any(|line| line.contains(part)), "{verdict} {part}: {said}");
    }
    // Without a server, and with a configuration that is none.
    let config = signpost.config();
    let text = fs::read_to_string(&config).expect("it is ours");
    let port = signpost.ports.admin.port();
    fs::write(&config, text.replace(&format!("'127.0.0.1:{port}'}}"), "'127.0.0.1:1'}")).expect("it is ours");
    let (_, said) = diagnose(&signpost);
    assert!(
        lines(&said, "WARNED").iter().any(|line| line.contains("server: none runs with this configuration here")),
        "{said}"
    );
    fs::write(&config, "zones: 7\n").expect("it is ours");
    let (well, said) = diagnose(&signpost);
    assert!(!well && lines(&said, "FAILED").len() == 1 && said.contains("zones: expected"), "{said}");
}
