//! What cannot start says why in one sentence, and exits with 1.

use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::path::Path;
use std::process::Output;

use super::server::{Demo, PROGRAM, Ports};
use crate::common::process::command_in;

/// Runs it until it ends by itself; a server that starts after all is ended after 20 s with another code.
pub fn run(directory: &Path, before: &[&str], arguments: &[&str]) -> Output {
    let words = [before, &["timeout", "20", PROGRAM], arguments].concat();
    let mut command = command_in(None, Path::new(words[0]), &words[1..]);
    command.current_dir(directory).env_remove("SIGNPOST_CONFIG").env_remove("SIGNPOST_LOG");
    command.env_remove("KUBERNETES_SERVICE_HOST").output().expect("timeout (coreutils) can be run")
}

/// The whole of standard error, run in the demo's folder so that paths are the ones that were written.
fn refusal(demo: &Demo, before: &[&str]) -> String {
    let output = run(demo.path(), before, &["serve", "--config", "config/demo.yaml"]);
    let error = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert_eq!(String::from_utf8(output.stdout).expect("text"), "");
    error
}

fn demo_on_free_ports() -> (Demo, Ports) {
    let (demo, ports) = (Demo::new(), Ports::free());
    demo.write_config(&ports.set(&demo.read_config()));
    (demo, ports)
}

#[test]
fn a_port_is_taken() {
    let (demo, ports) = demo_on_free_ports();
    let said =
        |address: &str, key: &str| format!("signpost: another process listens on {address}; stop it or change {key}\n");
    {
        let _udp = UdpSocket::bind(("127.0.0.1", ports.external)).expect("the port is free");
        assert_eq!(refusal(&demo, &[]), said(&format!("127.0.0.1:{}/udp", ports.external), "listeners"));
    }
    {
        let _tcp = TcpListener::bind(("127.0.0.1", ports.internal)).expect("the port is free");
        assert_eq!(refusal(&demo, &[]), said(&format!("127.0.0.1:{}/tcp", ports.internal), "listeners"));
    }
    let _tcp = TcpListener::bind(("127.0.0.1", ports.admin)).expect("the port is free");
    assert_eq!(refusal(&demo, &[]), said(&format!("127.0.0.1:{}/tcp", ports.admin), "admin.address"));
}

#[test]
fn an_address_that_is_not_ours() {
    let (demo, ports) = demo_on_free_ports();
    // TEST-NET-1 is on no machine.
    demo.edit_config(&format!("127.0.0.1:{}", ports.external), "192.0.2.1:5353");
    let want = "signpost: no network interface has the address 192.0.2.1; add it to one or change listeners\n";
    assert_eq!(refusal(&demo, &[]), want);
}

#[test]
fn a_port_that_needs_a_privilege() {
    let start = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").expect("Linux tells");
    assert_eq!(start.trim(), "1024", "this machine lets everybody use port 53: the test cannot tell anything here");
    let (demo, ports) = demo_on_free_ports();
    demo.edit_config(&format!(":{}\"", ports.external), ":53\"");
    let want = "signpost: no permission to listen on 127.0.0.1:53/udp: a port below 1024 needs CAP_NET_BIND_SERVICE; \
                grant it or give listeners a port from 1024 on\n";
    // Root without capabilities, so that the test's own folder can still be read; for others it changes nothing.
    let without: &[&str] = match rustix::process::geteuid().is_root() {
        true => &["setpriv", "--bounding-set=-all", "--inh-caps=-all"],
        false => &[],
    };
    assert_eq!(refusal(&demo, without), want);
}

#[test]
fn zone_files() {
    let (demo, _) = demo_on_free_ports();
    let zone = demo.path().join("zones/my-federation.my-domain.com.zone");
    let text = fs::read_to_string(&zone).expect("the demo is there");
    fs::write(&zone, text.replacen("127.0.0.1", "127.0.0", 1)).expect("the folder is ours");
    let line = text.lines().position(|line| line.contains("127.0.0.1")).expect("the demo has it") + 1;
    assert_eq!(
        refusal(&demo, &[]),
        format!(
            "signpost: config/../zones/my-federation.my-domain.com.zone:{line}: the address \"127.0.0\" is wrong: \
             expected an IPv4 address like 192.0.2.1\n"
        )
    );
    fs::remove_file(&zone).expect("the folder is ours");
    let place = place(&demo, "../zones/");
    assert_eq!(
        refusal(&demo, &[]),
        format!(
            "signpost: config/demo.yaml:{place}: zones[0].file: the zone file \
             \"config/../zones/my-federation.my-domain.com.zone\": No such file or directory (os error 2)\n"
        )
    );
}

/// Line and column of a text in the configuration.
fn place(demo: &Demo, text: &str) -> String {
    let config = demo.read_config();
    let found = config.lines().enumerate().find_map(|(n, line)| Some((n + 1, line.find(text)? + 1)));
    let (line, column) = found.unwrap_or_else(|| panic!("{text} is not in {config}"));
    format!("{line}:{column}")
}

#[test]
fn sources() {
    let (demo, _) = demo_on_free_ports();
    let good = demo.read_config();
    let with = |source: &str| demo.write_config(&good.replace("manifests: demo/cluster-2", source));
    with("manifests: demo/cluster-9");
    assert_eq!(
        refusal(&demo, &[]),
        format!(
            "signpost: config/demo.yaml:{}: clusters[1].manifests: the manifests' directory \"config/demo/cluster-9\": \
             No such file or directory (os error 2)\n",
            place(&demo, "demo/cluster-9")
        )
    );
    with("kubeconfig: {file: nowhere.kubeconfig}");
    assert_eq!(
        refusal(&demo, &[]),
        format!(
            "signpost: config/demo.yaml:{}: clusters[1].kubeconfig.file: the kubeconfig \"config/nowhere.kubeconfig\": \
             No such file or directory (os error 2)\n",
            place(&demo, "nowhere.kubeconfig")
        )
    );
    with("kubeconfig: {file: example.kubeconfig, context: other}");
    assert_eq!(
        refusal(&demo, &[]),
        "signpost: cluster cluster-2: kubeconfig config/example.kubeconfig has no context \"other\" (it has: cluster-2)\n"
    );
    fs::write(demo.path().join("config/broken.kubeconfig"), "clusters: [\n").expect("the folder is ours");
    with("kubeconfig: {file: broken.kubeconfig}");
    let said = refusal(&demo, &[]);
    let start =
        "signpost: cluster cluster-2: kubeconfig config/broken.kubeconfig: is no kubeconfig: see line 1, column ";
    assert!(said.starts_with(start) && said.lines().count() == 1, "{said}");
    with("inCluster: true");
    let said = refusal(&demo, &[]);
    let start = "signpost: cluster cluster-2: not in a pod with a service account: ";
    assert!(said.starts_with(start) && said.lines().count() == 1, "{said}");
}

#[test]
fn configurations() {
    let (demo, _) = demo_on_free_ports();
    demo.edit_config("ttl: 180", "ttl: 1");
    let (line, column) =
        place(&demo, "ttl: 1").split_once(':').map(|(l, c)| (l.to_owned(), c.to_owned())).expect("both");
    let column = column.parse::<usize>().expect("a number") + "ttl: ".len();
    let want = format!("signpost: config/demo.yaml:{line}:{column}: zones[0].ttl: 1 is out of range: 5 to 86400 s\n");
    assert_eq!(refusal(&demo, &[]), want);
    fs::remove_file(demo.config()).expect("the folder is ours");
    let want = "signpost: config/demo.yaml: cannot be read: No such file or directory (os error 2)\n";
    assert_eq!(refusal(&demo, &[]), want);
    let output = run(demo.path(), &[], &["serve"]);
    assert_eq!(output.status.code(), Some(2), "the command line's own errors");
    let error = String::from_utf8(output.stderr).expect("text");
    assert!(error.contains("--config <FILE>"), "{error}");
    let output = run(demo.path(), &[], &["serve", "--config", "x", "--log", "a=b=c"]);
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).expect("text");
    assert!(error.starts_with("signpost: --log a=b=c: "), "{error}");
}

#[test]
fn help_for_people() {
    let demo = Demo::new();
    let text = |arguments: &[&str]| {
        let output = run(demo.path(), &[], arguments);
        assert_eq!(output.status.code(), Some(0));
        String::from_utf8(output.stdout).expect("text")
    };
    let all = text(&["--help"]);
    for word in ["serve", "check", "dig -p 8053 @127.0.0.1", "--config config/demo.yaml"] {
        assert!(all.contains(word), "{word}: {all}");
    }
    let serve = text(&["serve", "--help"]);
    for word in ["--config <FILE>", "SIGNPOST_CONFIG", "--log-format", "json", "SIGHUP", "config/reference.yaml"] {
        assert!(serve.contains(word), "{word}: {serve}");
    }
    assert!(text(&["check", "--help"]).contains("Exits with 1"));
    assert_eq!(text(&["--version"]), format!("signpost {}\n", env!("CARGO_PKG_VERSION")));
}
