//! The invariants of `lib.rs` that the compiler does not hold, held by reading the sources.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Which of our modules a module may name. The order is the flow's; a new edge is a design change with its own commit.
const EDGES: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("courtesy", &[]),
    ("names", &["model"]),
    ("wire", &["names"]),
    ("config", &["names", "model", "location", "health"]),
    ("index", &["courtesy", "model"]),
    ("source", &["config", "courtesy", "model", "index", "health"]),
    ("snapshot", &["config", "model", "index", "source"]),
    ("load", &["courtesy", "model"]),
    ("location", &["model"]),
    ("health", &["model", "location"]),
    ("zonefile", &["names"]),
    ("ranking", &["config", "model", "location"]),
    ("table", &["config", "names", "model", "health", "load", "location", "ranking", "zonefile", "wire"]),
    ("answer", &["table", "wire", "names", "model"]),
    ("net", &["answer", "table", "wire", "config", "model", "metrics", "query_log"]),
    ("query_log", &["answer", "config", "metrics"]),
    ("metrics", &["answer"]),
    ("explain", &["answer", "config", "location", "model", "ranking", "table", "wire"]),
    ("dump", &["config", "explain", "model", "names", "table", "wire", "zonefile"]),
    ("status", &["explain"]),
    ("overview", &["model"]),
    ("admin", &["dump", "explain", "metrics", "overview", "status"]),
    (
        "cli",
        &[
            "app", "config", "dump", "explain", "index", "model", "names", "ranking", "source", "status", "table",
            "wire", "zonefile",
        ],
    ),
    (
        "app",
        &[
            "config",
            "courtesy",
            "source",
            "index",
            "health",
            "load",
            "names",
            "model",
            "location",
            "ranking",
            "table",
            "zonefile",
            "answer",
            "net",
            "metrics",
            "admin",
            "dump",
            "explain",
            "overview",
            "query_log",
            "snapshot",
            "status",
        ],
    ),
];

/// Modules without clock, socket, file, environment or random source, and what would be one.
const PURE: &[&str] = &["model", "names", "wire", "index", "load", "health", "location", "ranking", "table", "answer"];
const IMPURE: &[&str] = &[
    "std::time::Instant",
    "SystemTime",
    "Instant::now",
    "std::fs",
    "std::env",
    "std::net::UdpSocket",
    "std::net::TcpStream",
    "std::thread",
    "std::process",
    "tokio",
    "getrandom",
    "RandomState",
    "async fn",
];

/// A crate → the only places that may name it.
const CRATES: &[(&str, &[&str])] = &[
    ("kube::", &["source/"]),
    ("k8s_openapi", &["source/"]),
    ("prometheus::", &["metrics.rs", "metrics/"]),
    ("hickory_resolver", &["app/federation/hostnames.rs", "cli/diagnose.rs"]),
    ("hickory_proto", &["cli/diagnose", "explain.rs", "query_log.rs", "zonefile.rs", "zonefile/"]),
    ("libc::", &["net/", "table/arena.rs"]),
    ("seize", &["table/map.rs"]),
    ("axum", &["admin.rs", "admin/"]),
    ("h2::", &["app/prober/"]),
    ("hyper::", &["app/prober/"]),
    ("tokio_rustls", &["app/prober/"]),
    ("ring::", &["admin/page.rs", "snapshot.rs"]),
    ("base64::", &["admin/page.rs"]),
    ("sd_notify", &["app.rs"]),
];

struct SourceFile {
    /// Relative to `src`.
    path: String,
    /// Without comments, and without what follows `#[cfg(test)]`.
    code: String,
}

fn sources() -> Vec<SourceFile> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    assert!(files.len() > 20, "the sources are not where this test looks for them");
    let read = |file: PathBuf| {
        let text = fs::read_to_string(&file).unwrap();
        let text = text.split("\n#[cfg(test)]\nmod ").next().unwrap_or_default();
        let code: Vec<&str> = text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect();
        SourceFile { path: file.strip_prefix(&root).unwrap().to_str().unwrap().to_owned(), code: code.join("\n") }
    };
    let is_test = |path: &str| path.ends_with("tests.rs") || path.contains("/tests/") || path.contains("/simulator");
    files.into_iter().map(read).filter(|file| !is_test(&file.path)).collect()
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
}

/// `table/compile.rs` → `table`.
fn module(path: &str) -> &str {
    let first = path.split('/').next().unwrap_or(path);
    first.strip_suffix(".rs").unwrap_or(first)
}

/// The modules of ours that a file names: `crate::x`, and each member of `use crate::{x, y}`.
fn named(code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        let word = |text: &str| text.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect::<String>();
        match rest.strip_prefix('{') {
            Some(list) => {
                let list = list.split('}').next().unwrap_or_default();
                found.extend(list.split(',').map(|part| word(part.trim())).filter(|w| !w.is_empty()));
            }
            None => {
                found.insert(word(rest));
            }
        }
    }
    found
}

#[test]
fn modules_name_only_what_the_design_allows() {
    let mut wrong = Vec::new();
    for file in sources() {
        let own = module(&file.path);
        if own == "lib" || own == "main" {
            continue;
        }
        let (_, allowed) = EDGES.iter().find(|(name, _)| *name == own).unwrap_or_else(|| {
            panic!("src/{} belongs to no module that this test knows", file.path);
        });
        for name in named(&file.code) {
            if name != own && !allowed.contains(&name.as_str()) {
                wrong.push(format!("src/{} names crate::{name}", file.path));
            }
        }
    }
    assert!(wrong.is_empty(), "edges that the design does not have:\n{}", wrong.join("\n"));
}

#[test]
fn the_core_is_pure() {
    let mut wrong = Vec::new();
    for file in sources().iter().filter(|file| PURE.contains(&module(&file.path))) {
        for word in IMPURE.iter().filter(|word| file.code.contains(**word)) {
            wrong.push(format!("src/{} says {word}", file.path));
        }
    }
    assert!(wrong.is_empty(), "time, randomness and addresses are arguments here:\n{}", wrong.join("\n"));
}

#[test]
fn crates_stay_in_their_place() {
    let mut wrong = Vec::new();
    for file in sources() {
        for (name, places) in CRATES {
            let whole = |(at, _): (usize, &str)| {
                let before = file.code[..at].chars().next_back();
                !before.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':')
            };
            if file.code.match_indices(name).any(whole) && !places.iter().any(|p| file.path.starts_with(p)) {
                wrong.push(format!("src/{} names {name}", file.path));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// System calls that move batches; entries shared by pointer, and their memory.
const UNSAFE: &[&str] = &["net/udp.rs", "table/arena.rs", "table/map.rs"];

#[test]
fn unsafe_is_in_three_files() {
    for file in sources() {
        let has = file.code.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').any(|word| word == "unsafe");
        assert!(!has || UNSAFE.contains(&&*file.path), "unsafe in src/{}", file.path);
    }
}

#[test]
fn there_is_one_writer() {
    let files = sources();
    let table = files.iter().find(|file| file.path == "table/mod.rs").unwrap();
    let at = table.code.find("pub struct Publisher").expect("the publisher is in table/mod.rs");
    let attributes = table.code[..at].rsplit("\n\n").next().unwrap();
    assert!(!attributes.contains("Clone"), "Publisher must not be Clone");
    assert!(!table.code.contains("impl Clone for Publisher"));
}

#[test]
fn every_task_is_joined() {
    // A spawned task whose handle is thrown away can end unseen.
    for file in sources() {
        for (n, line) in file.code.lines().enumerate() {
            let line = line.trim_start();
            let detached = line.starts_with("tokio::spawn(") || line.starts_with("std::thread::spawn(");
            assert!(!detached, "src/{}:{} starts a task and drops its handle", file.path, n + 1);
        }
    }
}

#[test]
fn every_dependency_says_why() {
    let manifest = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).unwrap();
    let mut inside = false;
    let mut reason = false;
    for line in manifest.lines() {
        if line.starts_with('[') {
            inside = line == "[dependencies]" || line == "[dev-dependencies]";
            reason = false;
        } else if line.starts_with('#') {
            reason = true;
        } else if inside && line.contains('=') {
            assert!(reason, "no reason above `{line}` in Cargo.toml");
            reason = false;
        }
    }
}
