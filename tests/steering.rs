//! What operators say: the program as they run it, over manifests.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use common::dig::{Dig, third_octets};
use common::signpost::{MemberSource, Setup, Signpost, ZONE, http_get, metric};
use common::{same, stays, wait_for};

/// From a command to the answers that show it, on a machine that does other things too.
const SHOWS: Duration = Duration::from_secs(20);

struct World {
    signpost: Signpost,
    directory: tempfile::TempDir,
}

impl World {
    /// Three clusters with the services `n/web` and `n/shop`.
    fn new() -> World {
        let directory = tempfile::tempdir().expect("a temporary folder");
        let source = |cluster: usize| {
            let manifests = directory.path().join(format!("cluster-{cluster}"));
            fs::create_dir(&manifests).expect("the folder is ours");
            let service = |name: &str, last: u8| {
                format!(
                    "---\n{{apiVersion: v1, kind: Service, metadata: {{name: {name}, namespace: n}}, spec: {{type: LoadBalancer, \
                     clusterIP: 10.{cluster}.0.{last}, ports: [{{name: http, port: 80}}]}}, status: {{loadBalancer: {{ingress: \
                     [{{ip: 104.16.{cluster}.{last}}}]}}}}}}\n"
                )
            };
            fs::write(manifests.join("all.yaml"), service("web", 1) + &service("shop", 2)).expect("the folder is ours");
            MemberSource::Manifests(manifests)
        };
        let setup = Setup::new([1, 2, 3].map(source).into());
        let world = World { signpost: Signpost::start(&setup), directory };
        world.expect("web", &[1, 2, 3]);
        world
    }

    fn answered(&self, name: &str) -> Result<BTreeSet<u8>, String> {
        let dig = Dig::at(self.signpost.ports.external);
        Ok(third_octets(&dig.addresses(&format!("{name}.n.{ZONE}"), "A")?))
    }

    /// From now to when it is answered with these.
    fn expect(&self, name: &str, clusters: &[u8]) -> Duration {
        let (expected, begun): (BTreeSet<u8>, _) = (clusters.iter().copied().collect(), Instant::now());
        wait_for(&format!("{name}: {clusters:?}"), SHOWS, || same(self.answered(name)?, expected.clone()));
        begun.elapsed()
    }

    fn ttls(&self, name: &str) -> Result<Vec<String>, String> {
        Ok(Dig::at(self.signpost.ports.external).ask(&format!("{name}.n.{ZONE}"), "A")?.ttls())
    }

    fn explained(&self, name: &str) -> Result<String, String> {
        http_get(self.signpost.ports.admin, &format!("/explain?name={name}.n.{ZONE}"))
            .map_err(|error| error.to_string())
    }

    fn says(&self, words: &[&str]) {
        self.signpost.command(words).unwrap_or_else(|error| panic!("{words:?}: {error}"));
    }
}

#[test]
fn drained_and_back() {
    let world = World::new();
    world.says(&["drain", "cluster-2/n/web", "--reason", "a new rack"]);
    let took = world.expect("web", &[1, 3]);
    println!("drained after {took:?}");
    assert_eq!(world.answered("shop"), Ok(BTreeSet::from([1, 2, 3])), "one service of it");
    let show = |path: &str| -> serde_json::Value {
        let text = http_get(world.signpost.ports.admin, path).expect("the admin server answers");
        let body = text.split_once("\r\n\r\n").expect("a head").1;
        serde_json::from_str(body).unwrap_or_else(|error| panic!("{path}: {error}: {text}"))
    };
    let drained = show("/services?only=drained");
    assert_eq!((&drained["total"], &drained["matching"], &drained["complete"]), (&2.into(), &1.into(), &true.into()));
    assert_eq!(drained["services"][0]["name"], "web");
    let states = drained["services"][0]["clusters"].as_array().expect("its clusters").iter();
    assert_eq!(states.map(|share| share["state"].clone()).collect::<Vec<_>>(), ["fine", "drained", "fine"]);
    assert_eq!(drained["services"][0]["clusters"][1]["addresses"], serde_json::json!(["104.16.2.1"]));
    let changes = show("/changes");
    let told = changes["changes"].as_array().expect("a list").iter().rev().find(|change| change["kind"] == "directive");
    let told = told.expect("the drain is told");
    assert_eq!(
        (&told["cluster"], &told["service"], &told["text"]),
        (&"cluster-2".into(), &"n/web".into(), &"is drained".into())
    );
    assert_eq!(show(&format!("/changes?after={}", changes["last"]))["changes"], serde_json::json!([]));
    for bad in ["/services?only=dwon", "/services?limit=0", "/services?limit=x", "/changes?after=x"] {
        let refused = http_get(world.signpost.ports.admin, bad).expect("an answer");
        assert!(refused.starts_with("HTTP/1.1 400 "), "{bad}: {refused}");
    }
    let explained = world.explained("web").expect("an explanation");
    for part in
        ["\"action\": \"drain\"", "\"phase\": \"active\"", "\"reason\": \"a new rack\"", "\"service\": \"n/web\""]
    {
        assert!(explained.contains(part), "{part}: {explained}");
    }
    let table = world.signpost.command(&["explain", &format!("web.n.{ZONE}")]).expect("an explanation");
    assert!(table.contains("directive  drain cluster-2/n/web: active from "), "{table}");
    // What stands in files is known without the server, too.
    let offline = world.signpost.command(&["explain", &format!("web.n.{ZONE}"), "--offline"]).expect("an explanation");
    for part in ["directive  drain cluster-2/n/web: active from ", "left out: drained, and others are not"] {
        assert!(offline.contains(part), "{offline}");
    }
    let dumped = world.signpost.command(&["dump", ZONE, "--offline"]).expect("a zone");
    assert!(dumped.contains("104.16.1.1") && dumped.contains("104.16.3.1"), "{dumped}");
    let status = world.signpost.command(&["status"]).expect("a status");
    assert!(status.contains("directive  drain cluster-2/n/web: active from "), "{status}");
    let json = world.signpost.command(&["status", "--output", "json"]).expect("a status");
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!((&json["notReady"], &json["clusters"][1]["services"]), (&serde_json::json!([]), &serde_json::json!(2)));
    assert_eq!(json["directives"][0]["reason"], "a new rack");
    let metrics = http_get(world.signpost.ports.admin, "/metrics").expect("metrics");
    let name = "signpost_directives{action=\"drain\",cluster=\"cluster-2\",phase=\"active\"}";
    assert_eq!(metric(&metrics, name), Some(1.0), "{metrics}");
    world.signpost.reload();
    stays("it is drained still", Duration::from_secs(2), || same(world.answered("web")?, BTreeSet::from([1, 3])));
    world.says(&["undrain", "cluster-2/n/web"]);
    world.expect("web", &[1, 2, 3]);

    world.says(&["drain", "cluster-1"]);
    world.expect("web", &[2, 3]);
    world.expect("shop", &[2, 3]);
    // The last one of a service is answered with, and somebody is told.
    world.says(&["drain", "cluster-2"]);
    world.says(&["drain", "cluster-3/n/web"]);
    world.expect("shop", &[3]);
    wait_for("all of them, for a short time", SHOWS, || same(world.ttls("web")?, vec!["5".to_owned(); 3]));
    let warned = |log: String| if log.contains("no cluster is left that is not drained") { Ok(()) } else { Err(log) };
    wait_for("a warning", SHOWS, || warned(world.signpost.log()));
    for target in ["cluster-1", "cluster-2", "cluster-3/n/web"] {
        world.says(&["undrain", target]);
    }
    world.expect("web", &[1, 2, 3]);
    wait_for("the usual time again", SHOWS, || same(world.ttls("web")?, vec!["180".to_owned(); 3]));
}

#[test]
fn by_the_clock() {
    let world = World::new();
    // In two minutes: sooner than answers of before are forgotten, so that new ones are kept for a short time only.
    world.says(&["drain", "cluster-2/n/web", "--from", "2m", "--until", "1h"]);
    wait_for("the shortest time", SHOWS, || same(world.ttls("web")?, vec!["5".to_owned(); 3]));
    assert_eq!(world.answered("web"), Ok(BTreeSet::from([1, 2, 3])), "it is not time yet");
    // A new directive takes the place of the one before, and ends by itself.
    world.says(&["drain", "cluster-2/n/web", "--until", "6s"]);
    world.expect("web", &[1, 3]);
    world.expect("web", &[1, 2, 3]);
    let explained = world.explained("web").expect("an explanation");
    assert!(explained.contains("\"phase\": \"over\""), "{explained}");
    // Bit by bit: nobody is left out at first, and more and more often it is not the first one.
    world.says(&["drain", "cluster-2/n/web", "--over", "10s"]);
    wait_for("shifting", SHOWS, || match world.explained("web")? {
        explained if explained.contains("\"phase\": \"shifting\"") => Ok(()),
        explained => Err(explained),
    });
    assert_eq!(world.answered("web"), Ok(BTreeSet::from([1, 2, 3])));
    world.expect("web", &[1, 3]);
    // The same of a whole cluster.
    world.says(&["undrain", "cluster-2/n/web"]);
    world.says(&["drain", "cluster-3", "--over", "10s"]);
    wait_for("shifting", SHOWS, || match world.explained("shop")? {
        explained if explained.contains("\"shed\": 5") || explained.contains("\"shed\": 6") => Ok(()),
        explained => Err(explained),
    });
    world.expect("shop", &[1, 2]);
}

#[test]
fn forced() {
    let world = World::new();
    world.says(&["force-down", "cluster-3"]);
    world.expect("web", &[1, 2]);
    world.expect("shop", &[1, 2]);
    world.says(&["force-up", "cluster-3/n/web"]);
    world.expect("web", &[1, 2, 3]);
    stays("the other one stays out", Duration::from_secs(2), || same(world.answered("shop")?, BTreeSet::from([1, 2])));
    world.says(&["undrain", "cluster-3"]);
    world.expect("shop", &[1, 2, 3]);
}

#[test]
fn what_is_wrong_is_said() {
    let world = World::new();
    for (words, complaint) in [
        (&["drain", "cluster-9"][..], "there is no cluster \"cluster-9\" in "),
        (&["drain", "cluster-9"], "but cluster-1, cluster-2, cluster-3"),
        (&["drain", "cluster-1/web"], "cluster-1/web: \"web\" is not NAMESPACE/SERVICE"),
        (&["drain", "cluster-1/n/We b"], "is not NAMESPACE/SERVICE"),
        (&["drain", "cluster-1", "--until", "soon"], "--until soon: is neither a time"),
        (&["drain", "cluster-1", "--until", "2020-01-01T00:00:00Z"], "--until 2020-01-01T00:00:00Z: is over"),
        (&["drain", "cluster-1", "--from", "2h", "--until", "1h"], "data.until"),
        (&["drain", "cluster-1", "--over", "2d"], "data.over: \"2d\" is not a time from 1s to 24h"),
        (&["force-up", "cluster-1", "--over", "1m"], "unexpected argument '--over'"),
        (&["release", "cluster-1/n/web"], "data.service: \"n/web\" is there, and a release is of a cluster"),
        (&["undrain", "cluster-1", "--release"], "there is no directive to take back"),
        (&["undrain", "cluster-1/n/web"], "there is no directive to take back"),
    ] {
        let said = world.signpost.command(words).expect_err("it is wrong");
        assert!(said.contains(complaint), "{words:?}: {said}");
    }
    assert_eq!(world.answered("web"), Ok(BTreeSet::from([1, 2, 3])));
    // By hand, and wrong: the file and the key are named, nothing of it is done, and what was said before stays.
    world.says(&["drain", "cluster-2/n/web"]);
    world.expect("web", &[1, 3]);
    let file = world.directory.path().join("cluster-2/signpost.directive.n.web.json");
    let good = fs::read_to_string(&file).expect("the command wrote it");
    fs::write(&file, good.replace("\"from\"", "\"form\"")).expect("the folder is ours");
    wait_for("a warning", SHOWS, || match world.signpost.log() {
        log if log.contains("signpost.directive.n.web.json") && log.contains("data.form") => Ok(()),
        log => Err(log),
    });
    stays("it is drained", Duration::from_secs(2), || same(world.answered("web")?, BTreeSet::from([1, 3])));
}
