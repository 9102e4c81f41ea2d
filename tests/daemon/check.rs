//! `signpost check`.

use std::fs;

use super::input;
use super::server::Demo;
use super::startup::run;

fn check(demo: &Demo) -> (Option<i32>, String) {
    let output = run(demo.path(), &[], &["check", "--config", "config/demo.yaml"]);
    assert_eq!(String::from_utf8(output.stderr).expect("text"), "");
    (output.status.code(), String::from_utf8(output.stdout).expect("text"))
}

const DEMO: &str = "\
zone my-federation.my-domain.com. serves 1 service(s):
  my-service.my-namespace.my-federation.my-domain.com.
    cluster-1: external 104.197.117.10, clusterIP 10.0.153.185, ready
    cluster-2: external 104.197.74.77, clusterIP 10.8.14.62, ready
    cluster-3: external 104.197.38.157, clusterIP 10.16.201.4, ready
";

#[test]
fn the_demo() {
    assert_eq!(check(&Demo::new()), (Some(0), DEMO.to_owned()));
}

#[test]
fn every_problem_is_listed() {
    let demo = Demo::new();
    let all = input::all();
    for (n, bad) in all.iter().enumerate() {
        // A name of its own each, or they would be duplicates.
        let text = bad.text.replace("victim", &format!("victim-{n}"));
        fs::write(demo.manifest(2, &format!("bad-{n:02}.yaml")), text).expect("the folder is ours");
    }
    let (code, text) = check(&demo);
    assert_eq!(code, Some(1), "{text}");
    // An object of a kind that is not read is a warning: any directory of manifests has some.
    let place =
        |line: &&str| line.split_once(": cluster-2: config/").map(|(word, _)| ["problem", "warning"].contains(&word));
    let problems: Vec<&str> = text.lines().filter(|line| place(line) == Some(true)).collect();
    for (n, bad) in all.iter().enumerate() {
        let start = format!(": cluster-2: config/demo/cluster-2/bad-{n:02}.yaml");
        let of_it = problems.iter().filter(|line| line.contains(&start)).count();
        assert_eq!(of_it, 1, "{}: {text}", bad.what);
    }
    assert_eq!(problems.len(), all.len(), "{text}");
    assert!(text.contains(DEMO.split_once('\n').expect("two lines").1), "what is good is still listed: {text}");
}

#[test]
fn configuration_and_zone_file() {
    let demo = Demo::new();
    demo.edit_config("ttl: 180", "ttl: 1\n    tll: 2\n    negativeTtl: 0");
    let (code, text) = check(&demo);
    assert_eq!(code, Some(1));
    assert!(text.starts_with("problem: config/demo.yaml:") && text.contains("tll"), "{text}");
    demo.edit_config("\n    tll: 2", "");
    let (code, text) = check(&demo);
    assert_eq!(code, Some(1));
    assert_eq!(text.lines().count(), 2, "every value out of range is told: {text}");
    assert!(text.contains("zones[0].ttl") && text.contains("zones[0].negativeTtl"), "{text}");
    let demo = Demo::new();
    demo.edit_config("manifests: demo/cluster-2", "kubeconfig: {file: example.kubeconfig, context: other}");
    let (code, text) = check(&demo);
    assert_eq!(code, Some(1));
    assert!(text.contains("problem: cluster cluster-2: kubeconfig config/example.kubeconfig has no context"), "{text}");
}

/// Zone files, delegations between them, manifests and kubeconfigs: one run tells of all.
#[test]
fn problems_of_every_sort_at_once() {
    let demo = Demo::new();
    let soa = "$TTL 60\n@ SOA ns1 hostmaster 1 60 60 60 60\n@ NS ns1\nns1 A 127.0.0.1\n";
    // Two zones that their parent does not delegate, one whose parent is broken, one that is delegated.
    let zones = [
        ("example.com", format!("{soa}d NS ns1\nb NS ns1\n")),
        ("a.example.com", soa.to_owned()),
        ("b.example.com", format!("{soa}www A 127.0.0\n")),
        ("x.b.example.com", soa.to_owned()),
        ("c.example.com", format!("{soa}www A 127.0.1\n")),
        ("d.example.com", soa.to_owned()),
    ];
    let mut lines = String::new();
    for (name, text) in &zones {
        fs::write(demo.path().join(format!("zones/{name}.zone")), text).expect("the folder is ours");
        lines += &format!("  - {{name: {name}, schema: static, file: ../zones/{name}.zone}}\n");
    }
    demo.edit_config("\nclusters:", &format!("{lines}\nclusters:"));
    demo.edit_config("manifests: demo/cluster-3", "kubeconfig: {file: example.kubeconfig, context: other}");
    fs::write(demo.manifest(2, "my-service.yaml"), "metadata: [\n").expect("the folder is ours");
    let (code, text) = check(&demo);
    assert_eq!(code, Some(1), "{text}");
    let problems: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("problem: ")).collect();
    let undelegated = |child: &str| {
        format!(
            "the zone {child}. is inside the zone example.com., whose file doesn't delegate it; add NS records for \
             {child}. there"
        )
    };
    let want = [
        "config/../zones/b.example.com.zone:5: the address \"127.0.0\" is wrong".to_owned(),
        "config/../zones/c.example.com.zone:5: the address \"127.0.1\" is wrong".to_owned(),
        undelegated("a.example.com"),
        undelegated("c.example.com"),
        "cluster-2: config/demo/cluster-2/my-service.yaml".to_owned(),
        "cluster cluster-3: kubeconfig config/example.kubeconfig has no context".to_owned(),
    ];
    assert_eq!(problems.len(), want.len(), "{text}");
    for (problem, want) in problems.iter().zip(&want) {
        assert!(problem.starts_with(want), "{want}: {text}");
    }
    assert!(!text.contains("serves"), "what would be served is not known: {text}");

    // The same once the files can be read.
    for name in ["b.example.com", "c.example.com"] {
        fs::write(demo.path().join(format!("zones/{name}.zone")), soa).expect("the folder is ours");
    }
    let (code, text) = check(&demo);
    assert_eq!(code, Some(1), "{text}");
    for child in ["a.example.com", "c.example.com"] {
        assert!(text.contains(&format!("problem: {}\n", undelegated(child))), "{text}");
    }
    let x = "problem: the zone x.b.example.com. is inside the zone b.example.com.,";
    assert!(text.contains(x) && text.contains(" serves 1 service(s)"), "{text}");
}

#[test]
fn static_precedence_is_told_when_it_bites() {
    let demo = Demo::new();
    let zone = demo.path().join("zones/my-federation.my-domain.com.zone");
    let text = fs::read_to_string(&zone).expect("the demo is there");
    fs::write(&zone, format!("{text}\nmy-service.my-namespace IN A 192.0.2.9\n")).expect("the folder is ours");
    let (code, text) = check(&demo);
    assert_eq!(code, Some(0), "a warning is no problem: {text}");
    let warnings: Vec<&str> = text.lines().filter(|line| line.starts_with("warning: ")).collect();
    assert_eq!(warnings.len(), 1, "{text}");
    assert!(warnings[0].contains("my-service") && warnings[0].contains("my-namespace"), "{text}");
}
