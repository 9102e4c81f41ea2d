//! Alerts, the dashboard and what is written about them: by Prometheus' own tools, and against what is exported.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

fn at(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: &str) -> String {
    fs::read_to_string(at(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// All names of metrics in a text.
fn metrics(text: &str) -> BTreeSet<String> {
    let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let found = text.split(|c| !is_name(c)).filter(|word| word.starts_with("signpost_") && word.len() > 9);
    // The parts of a histogram.
    let whole =
        |word: &str| ["_bucket", "_count", "_sum"].iter().find_map(|part| Some(word.strip_suffix(part)?.to_owned()));
    found.map(|word| whole(word).unwrap_or_else(|| word.to_owned())).collect()
}

/// What the program can export: every metric is named once, as a word of its own.
fn exported() -> BTreeSet<String> {
    let source = read("src/metrics.rs");
    let code = source.split("#[cfg(test)]").next().expect("there is code");
    let quoted = code.split('"').filter(|word| word.starts_with("signpost_"));
    quoted.map(str::to_owned).collect()
}

fn promtool(arguments: &[&str]) {
    let output = Command::new("promtool").args(arguments).output().expect("promtool can be run");
    let said = [output.stdout, output.stderr].map(|octets| String::from_utf8_lossy(&octets).into_owned()).concat();
    assert!(output.status.success(), "promtool {arguments:?}: {said}");
}

fn rules() -> Vec<Value> {
    let alerts: Value = serde_saphyr::from_str(&read("config/monitoring/alerts.yaml")).expect("YAML");
    alerts["groups"][0]["rules"].as_array().expect("rules").clone()
}

fn panels() -> Vec<Value> {
    let dashboard: Value = serde_json::from_str(&read("config/monitoring/dashboard.json")).expect("JSON");
    dashboard["panels"].as_array().expect("panels").clone()
}

fn expressions() -> Vec<String> {
    let panels = panels();
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    targets.map(|target| target["expr"].as_str().expect("an expression").to_owned()).collect()
}

#[test]
fn alerts_fire_when_they_should() {
    promtool(&["check", "rules", at("config/monitoring/alerts.yaml").to_str().expect("UTF-8")]);
    promtool(&["test", "rules", at("config/monitoring/alerts_test.yaml").to_str().expect("UTF-8")]);
}

/// As rules, Prometheus reads the dashboard's expressions, too.
#[test]
fn the_dashboard_asks_what_can_be_asked() {
    let expressions = expressions();
    assert!(expressions.len() > 20);
    let filled =
        |expr: &str| expr.replace("$__rate_interval", "5m").replace("$instance", ".*").replace("$cluster", ".*");
    let rule = |(n, expr): (usize, &String)| json!({"record": format!("panel:{n}"), "expr": filled(expr)});
    let rules: Vec<Value> = expressions.iter().enumerate().map(rule).collect();
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(file.path(), json!({"groups": [{"name": "panels", "rules": rules}]}).to_string()).expect("it is ours");
    promtool(&["check", "rules", file.path().to_str().expect("UTF-8")]);
    let panels = panels();
    let ids: BTreeSet<u64> = panels.iter().filter_map(|panel| panel["id"].as_u64()).collect();
    assert_eq!(ids.len(), panels.len(), "each panel has a number of its own");
    for (n, panel) in panels.iter().enumerate() {
        let edges = |panel: &Value| ["x", "y", "w", "h"].map(|key| panel["gridPos"][key].as_u64().expect("a number"));
        let [x, y, w, h] = edges(panel);
        assert!(x + w <= 24, "{}", panel["title"]);
        for other in &panels[..n] {
            let [ox, oy, ow, oh] = edges(other);
            let apart = x >= ox + ow || ox >= x + w || y >= oy + oh || oy >= y + h;
            assert!(apart, "{} is over {}", panel["title"], other["title"]);
        }
    }
}

#[test]
fn what_is_named_is_exported_and_what_is_exported_is_explained() {
    let exported = exported();
    assert!(exported.len() > 40, "{exported:?}");
    let text = read("docs/operations.md");
    let rules = rules();
    let expressions: String =
        rules.iter().map(|rule| rule["expr"].as_str().expect("an expression").to_owned() + "\n").collect();
    for (what, names) in [
        ("an alert", metrics(&expressions)),
        ("the dashboard", metrics(&self::expressions().join("\n"))),
        ("docs/operations.md", metrics(&text)),
        ("README.md", metrics(&read("README.md"))),
    ] {
        for name in names {
            // `signpost_health_*` in prose stands for all of them.
            let known =
                exported.contains(&name) || exported.iter().any(|full| name.ends_with('_') && full.starts_with(&name));
            let is_prefix = exported.iter().any(|full| full.starts_with(&format!("{name}_")));
            assert!(known || is_prefix, "{what} names {name}, which there is not");
        }
    }
    let explained = metrics(&text);
    for name in &exported {
        assert!(explained.contains(name), "docs/operations.md does not explain {name}");
    }
    for rule in &rules {
        let name = rule["alert"].as_str().expect("a name");
        assert!(text.contains(&format!("\n### {name}\n")), "docs/operations.md says nothing of {name}");
        let page = format!("docs/operations.md#{}", name.to_lowercase());
        assert_eq!(rule["annotations"]["runbook"], page.as_str());
        assert!(matches!(rule["labels"]["severity"].as_str(), Some("warning" | "critical")), "{name}");
    }
}
