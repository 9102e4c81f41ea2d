//! `signpost explain` and the admin server's `/explain`.

use std::collections::BTreeSet;

use super::server::{DEADLINE, EXTERNAL, INTERNAL, SERVICE, Server};
use super::startup::run;

/// Exit code, output and errors.
fn explain(server: &Server, words: &[&str]) -> (Option<i32>, String, String) {
    let config = server.demo.config().display().to_string();
    let output = run(server.demo.path(), &[], &[&["explain", "--config", &config], words].concat());
    let text = |octets| String::from_utf8(octets).expect("text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn the_running_server_explains_itself() {
    let server = Server::demo();
    // What dig shows is what is explained.
    let (code, text, errors) = explain(&server, &[SERVICE]);
    assert_eq!((code, errors.as_str()), (Some(0), ""), "{text}");
    assert!(text.contains("view       external (the listener is for everybody)"), "{text}");
    let answered: BTreeSet<&str> = text.split_whitespace().filter_map(|word| word.strip_suffix('*')).collect();
    assert_eq!(answered, BTreeSet::from_iter(EXTERNAL.into_iter().chain([""])), "{text}");

    let (code, text, _) = explain(&server, &[SERVICE, "--cluster", "cluster-1", "--output", "json"]);
    assert_eq!(code, Some(0), "{text}");
    let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(json["view"], "internal to cluster-1");
    let candidates = json["service"]["candidates"].as_array().expect("a list");
    let seen: Vec<(u64, &str)> = candidates
        .iter()
        .map(|c| (c["band"].as_u64().expect("a number"), c["answered"][0].as_str().expect("an address")))
        .collect();
    assert_eq!(seen, [(1, INTERNAL[0]), (2, INTERNAL[1]), (3, INTERNAL[2])]);
    let reasons: Vec<&str> = candidates.iter().filter_map(|c| c["reason"].as_str()).collect();
    assert_eq!(reasons, ["band 1: own cluster", "band 2: same region", "band 3: another region"]);

    // Without a server the same can be said from what is on disk.
    let (_, offline, _) = explain(&server, &[SERVICE, "--cluster", "cluster-1", "--output", "json", "--offline"]);
    assert_eq!(serde_json::from_str::<serde_json::Value>(&offline).expect("JSON"), json);
    assert_eq!(explain(&server, &["nowhere.example"]).0, Some(0));

    for (words, complaint) in [
        (&["a..b"][..], "is not a name"),
        (&[SERVICE, "--type", "AAAAA"], "is not a type"),
        (&[SERVICE, "--cluster", "mars"], "there is no cluster \"mars\""),
        (&[SERVICE, "--cluster", "cluster-2"], "no listener gives the internal view of \"cluster-2\""),
    ] {
        for offline in [&[][..], &["--offline"]] {
            let (code, text, errors) = explain(&server, &[words, offline].concat());
            assert_eq!((code, text.as_str()), (Some(1), ""), "{words:?}");
            assert!(errors.starts_with("signpost: ") && errors.contains(complaint), "{words:?}: {errors}");
        }
    }
    for path in ["/explain", "/explain?name=a&client=b", "/explain?name=a&subnet=1.2.3.4/99"] {
        let (status, body) = server.admin(path).expect("admin answers");
        assert_eq!(status, "400", "{path}: {body}");
    }

    let Server { process, demo, ports } = server;
    process.terminate(DEADLINE);
    let config = demo.config().display().to_string();
    let output = run(demo.path(), &[], &["explain", "--config", &config, SERVICE]);
    let errors = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(1));
    assert!(errors.contains(&format!("127.0.0.1:{}", ports.admin)) && errors.contains("--offline"), "{errors}");
}
