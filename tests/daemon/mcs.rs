//! `config/clusterset.yaml` as the README shows it, and what changes in its manifests.

use std::fs;
use std::process::Command;

use super::server::{DEADLINE, Demo, Server};
use crate::common::dig::Dig;
use crate::common::{same, wait_for};

const CART: &str = "cart.shop.svc.clusterset.local";

fn data(dig: &Dig<'_>, name: &str, kind: &str) -> Result<Vec<String>, String> {
    Ok(dig.ask(name, kind)?.data())
}

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

fn signpost(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_signpost")).args(arguments).output().expect("it can be run");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("it prints text")
}

#[test]
fn the_clusterset_of_the_readme() {
    let server = Server::start(Demo::clusterset(), &[]);
    let (berlin, oregon) = (server.external(), server.internal());
    let own = strings(&["10.10.0.80", "104.198.20.80"]);
    assert_eq!(data(&berlin, CART, "A"), Ok(own.clone()));
    assert_eq!(data(&oregon, CART, "A"), Ok(strings(&["10.20.200.80"])));
    for dig in [&berlin, &oregon] {
        assert_eq!(data(dig, &format!("_http._tcp.{CART}"), "SRV"), Ok(vec![format!("0 100 80 {CART}.")]));
        assert_eq!(data(dig, "dns-version.clusterset.local", "TXT"), Ok(strings(&["\"1.0.0\""])));
    }
    let config = server.demo.config().display().to_string();
    let explained = signpost(&["explain", "--config", &config, "--cluster", "oregon", CART]);
    for part in [
        "zone       clusterset.local.",
        "10.20.200.80*                band 1: own cluster; the addresses of its ServiceImport",
        "left out: this cluster's clients have its ServiceImport",
    ] {
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words(&explained).contains(&words(part)), "{part:?} is not in\n{explained}");
    }
    let checked = signpost(&["check", "--config", &config]);
    for part in
        ["zone clusterset.local. serves 1 service(s)", CART, "oregon: imported for its own clients as 10.20.200.80"]
    {
        assert!(checked.contains(part), "{part:?} is not in\n{checked}");
    }

    // An export that is taken back, and an import that is none.
    let manifest = |file: &str| server.demo.path().join("config/clusterset").join(file);
    let cart = fs::read_to_string(manifest("oregon/cart.yaml")).expect("it is there");
    fs::write(manifest("oregon/cart.yaml"), cart.split("---").next().expect("a first document")).expect("ours");
    wait_for("berlin alone exports it", DEADLINE, || same(data(&berlin, CART, "A")?, strings(&["10.10.0.80"])));
    let import = fs::read_to_string(manifest("oregon/cart-import.yaml")).expect("it is there");
    fs::write(manifest("oregon/cart-import.yaml"), import.replace("10.20.200.80", "10.20.200.800")).expect("ours");
    wait_for("a warning", DEADLINE, || {
        let place =
            ["cart-import.yaml", "line 9", "ServiceImport shop/cart", "spec.ips[0]: \"10.20.200.800\" is not an IP"];
        server.log_has(&place)
    });
    assert_eq!(data(&oregon, CART, "A"), Ok(strings(&["10.20.200.80"])), "its last good state stays");
    fs::remove_file(manifest("oregon/cart-import.yaml")).expect("it is there");
    wait_for("no import: what is exported", DEADLINE, || same(data(&oregon, CART, "A")?, strings(&["104.198.10.80"])));

    // The older export of the two says what the port is. An export without a date is the youngest of all.
    let other = cart.replace("port: 80", "port: 8080").replace("name: cart\n  namespace: shop\n---", "---");
    fs::write(manifest("oregon/cart.yaml"), other).expect("ours");
    let berlins = fs::read_to_string(manifest("berlin/cart.yaml")).expect("it is there");
    let dated = berlins.replace(
        "kind: ServiceExport\nmetadata:",
        "kind: ServiceExport\nmetadata:\n  creationTimestamp: 2026-01-01T00:00:00Z",
    );
    assert_ne!(dated, berlins);
    fs::write(manifest("berlin/cart.yaml"), dated).expect("ours");
    wait_for("both again", DEADLINE, || same(data(&berlin, CART, "A")?, own.clone()));
    wait_for("the conflict is told", DEADLINE, || {
        server.log_has(&["oregon shop/cart: port \"http\" has another number in an older ServiceExport"])
    });
    assert_eq!(data(&oregon, &format!("_http._tcp.{CART}"), "SRV"), Ok(vec![format!("0 100 80 {CART}.")]));
    assert_eq!(server.metric("signpost_names_left_out{reason=\"export_conflict\"}"), 1.0);
}
