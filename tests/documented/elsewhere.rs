//! Commands that other scripts and tests run, or that are these scripts.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What runs such a command.
struct Elsewhere {
    command: &'static str,
    /// The script or the test that does.
    file: &'static str,
    /// What has to stand in it.
    words: &'static [&'static str],
}

const HELM: &[&str] = &["block.contains(\"helm install\")", "shell(install[0]);"];

/// Builds and measurements: too long to be done within a test, and done by the checks of every change, or on purpose.
const ELSEWHERE: &[Elsewhere] = &[
    Elsewhere { command: "make test", file: ".ci/run", words: &["\nmake test "] },
    Elsewhere { command: "make lint", file: ".ci/run", words: &["\nmake lint\n"] },
    Elsewhere { command: "make budget", file: ".ci/run", words: &["\nmake budget "] },
    // `make test` does it first, and builds.
    Elsewhere { command: "make testbed", file: "Makefile", words: &["\ntest: testbed "] },
    Elsewhere { command: "cargo build", file: "tests/run.sh", words: &["\n\"$cargo\" test --locked --no-run"] },
    // These are the scripts.
    Elsewhere {
        command: "make bench",
        file: "Makefile",
        words: &["\nbench: ", "\n\t$(CARGO) bench --locked --no-fail-fast -- --quick\n"],
    },
    Elsewhere {
        command: "make bench-peers",
        file: "Makefile",
        words: &["\nbench-peers: ", "\n\t$(CARGO) bench --locked --bench peers\n"],
    },
    Elsewhere {
        command: "make image",
        file: "Makefile",
        words: &["\nimage: static ", "\n\t$(BUILDER) build --target ready --tag $(IMAGE) .\n"],
    },
    // In a cluster where `kubectl apply -k` did not make the same objects before. It is this block that is run there.
    Elsewhere { command: "kubectl create namespace signpost", file: "tests/chart.rs", words: HELM },
    Elsewhere {
        command: "kubectl label namespace signpost pod-security.kubernetes.io/enforce=restricted",
        file: "tests/chart.rs",
        words: HELM,
    },
    Elsewhere {
        command: "helm install signpost config/helm/signpost --namespace signpost --values config/helm/example.yaml",
        file: "tests/chart.rs",
        words: HELM,
    },
    // The same tests as in `make test`, for longer.
    Elsewhere {
        command: "cargo test --release --lib simulator -- --ignored --nocapture",
        file: "src/health/simulator/mutants.rs",
        words: &["#[ignore = \"ten thousand cluster-years"],
    },
    Elsewhere {
        command: "SIGNPOST_RUNS=20 cargo test --test majority a_backend -- --nocapture",
        file: "tests/majority.rs",
        words: &["\"SIGNPOST_RUNS\"", "\nfn a_backend"],
    },
    Elsewhere {
        command: "cargo test --test majority writes -- --ignored --nocapture",
        file: "tests/majority.rs",
        words: &["`cargo test --test majority writes -- --ignored --nocapture`", "\nfn writes_per_minute"],
    },
    Elsewhere {
        command: "PAGE_PICTURES=/tmp cargo test --test page",
        file: "tests/page.rs",
        words: &["\"PAGE_PICTURES\"", "\nfn the_page_in_a_browser"],
    },
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> Result<String, String> {
    fs::read_to_string(root().join(path)).map_err(|error| format!("{path}: {error}"))
}

/// `None`: nobody else runs it. An error: whoever is said to run it does not.
pub fn runs(command: &str) -> Option<Result<(), String>> {
    if let Some(arguments) = command.strip_prefix("cargo bench --bench ") {
        return Some(benchmark(arguments));
    }
    let entry = ELSEWHERE.iter().find(|entry| entry.command == command)?;
    Some(look(entry))
}

/// Entries for what no document has any more.
pub fn unused(commands: &[&str]) -> Vec<&'static str> {
    ELSEWHERE.iter().map(|entry| entry.command).filter(|command| !commands.contains(command)).collect()
}

fn look(entry: &Elsewhere) -> Result<(), String> {
    let text = read(entry.file)?;
    if let Some(missing) = entry.words.iter().find(|words| !text.contains(**words)) {
        return Err(format!("{} is said to run it, and does not have {missing:?}", entry.file));
    }
    let Some(target) = entry.command.strip_prefix("make ") else { return Ok(()) };
    // Says what it would do, and does nothing.
    let made = Command::new("make")
        .args(["--dry-run", "--directory"])
        .arg(root())
        .arg(target)
        .env_remove("MAKEFLAGS")
        .output()
        .map_err(|error| format!("make cannot be run: {error}"))?;
    if made.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&made.stderr).into_owned()) }
}

/// `make bench` runs every benchmark of Cargo.toml, quickly. NAME stands for any of them.
fn benchmark(arguments: &str) -> Result<(), String> {
    let mut words = arguments.split(' ');
    let name = words.next().unwrap_or_default();
    if name == "NAME" {
        return Ok(());
    }
    if !read("Cargo.toml")?.contains(&format!("[[bench]]\nname = \"{name}\"\n")) {
        return Err(format!("Cargo.toml has no benchmark {name:?}"));
    }
    let sources =
        [format!("benches/{name}.rs"), format!("benches/{name}"), "benches/rig".into(), "benches/support".into()];
    let text: String = sources.iter().flat_map(|path| sources_in(&root().join(path))).collect();
    let options = words.filter(|word| word.len() > 2 && word.starts_with("--"));
    match options.into_iter().find(|option| !text.contains(&format!("\"{option}\""))) {
        Some(unknown) => Err(format!("the benchmark {name} has no option {unknown}")),
        None => Ok(()),
    }
}

fn sources_in(path: &PathBuf) -> Vec<String> {
    match fs::read_dir(path) {
        Ok(entries) => entries.flatten().flat_map(|entry| sources_in(&entry.path())).collect(),
        Err(_) => fs::read_to_string(path).into_iter().collect(),
    }
}
