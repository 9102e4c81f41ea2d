//! Every command in README.md, docs/ and benches/RESULTS.md is run, as it is written and in the order in which it is read, on a machine
//! that ends with the test; every example of a configuration is used. What others run stands in `elsewhere.rs`.
//!
//! A new command is run without any change here, if it can be run where the document has come to. If not: what has to be there
//! first goes into `story::BEFORE`, what it must have done into `story::AFTER`, what capitals in it stand for into `story::AS_RUN`,
//! and who runs what takes too long into `elsewhere.rs`. A new example goes into `story::EXAMPLES`.

#[path = "../common/mod.rs"]
mod common;

mod elsewhere;
mod extract;
mod machine;
mod story;

use std::fs;
use std::path::Path;

use extract::{Item, What};

/// A benchmark's results are no place for a reader to begin, so they come last.
fn documents() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let entries = fs::read_dir(root.join("docs")).expect("there are docs");
    let names = entries.filter_map(|entry| Some(format!("docs/{}", entry.ok()?.file_name().to_str()?)));
    let mut docs: Vec<String> = names.filter(|name| name.ends_with(".md")).collect();
    docs.sort();
    [vec!["README.md".to_owned()], docs, vec!["benches/RESULTS.md".to_owned()]].concat()
}

fn all_items() -> Vec<Item> {
    let read = |file: String| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(&file);
        let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{file}: {error}"));
        extract::items(&file, &text).unwrap_or_else(|error| panic!("{error}"))
    };
    documents().into_iter().flat_map(read).collect()
}

#[test]
fn what_others_run_they_run() {
    let items = all_items();
    let commands: Vec<&str> = items.iter().filter_map(command).collect();
    assert!(commands.len() > 60, "there are fewer commands than there were: {commands:?}");
    let wrong: Vec<String> = items
        .iter()
        .filter_map(|item| {
            let error = elsewhere::runs(command(item)?)?.err()?;
            Some(format!("{}: `{}`: {error}", item.place(), command(item)?))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(elsewhere::unused(&commands), [""; 0], "no document has these any more");
    // What stands for cargo where the commands are run takes this for granted.
    let manifest = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).expect("it is there");
    assert!(manifest.contains("\ndefault-run = \"signpost\"\n"), "`cargo run` runs something else");
}

#[test]
fn every_command_is_run_as_it_is_written() {
    let items = all_items();
    let (story, items): (Vec<Item>, Vec<Item>) =
        items.into_iter().partition(|item| command(item).is_none_or(|command| elsewhere::runs(command).is_none()));
    assert!(!items.is_empty());
    let failures = story::tell(&story);
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), story.len(), failures.join("\n\n"));
}

fn command(item: &Item) -> Option<&str> {
    match &item.what {
        What::Command { text, .. } => Some(text),
        What::Example { .. } => None,
    }
}

#[test]
#[ignore = "a relay of the other tests"]
fn relay() {
    common::tunnel::relay();
}
