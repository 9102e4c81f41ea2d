//! What it costs to keep what was heard of a cluster, and to begin with it: the publisher's part, the disk's, and reading it.
//!
//! `cargo bench --bench snapshots`; after `--`: `--quick` for the smaller sizes only. The list of the same objects, entered into an
//! empty index, stands beside it.

#[path = "support/world.rs"]
#[allow(dead_code, reason = "one cluster of it is enough here")]
mod world;

use std::env;
use std::error::Error;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use signpost::index::{Index, Kind, SlicePolicy};
use signpost::model::{ClusterId, Moment};
use signpost::snapshot::{self, Draft, Snapshot};
use world::World;

const QUICK: [u32; 2] = [1_000, 20_000];
const FULL: [u32; 3] = [1_000, 20_000, 200_000];
/// As `app/keeper.rs` asks for them.
const PIECE: usize = 256;
const CLUSTER: ClusterId = ClusterId(0);

fn main() -> ExitCode {
    let quick = env::args().any(|argument| argument == "--quick");
    let sizes = if quick { &QUICK[..] } else { &FULL[..] };
    println!(
        "{:>9}  {:>9}  {:>9}  {:>9}  {:>9}  {:>9}  {:>9}  {:>9}",
        "services", "names", "a piece", "all", "octets", "on disk", "restored", "listed"
    );
    for services in sizes {
        if let Err(error) = measure(*services) {
            eprintln!("{services} services: {error}");
            return ExitCode::FAILURE;
        }
    }
    println!(
        "\nnames: the one look at all of them; a piece: {PIECE} services; all: of the publisher's time; on disk: written, synced and \
         renamed; restored: read, checked and entered; listed: entered from memory"
    );
    ExitCode::SUCCESS
}

fn measure(services: u32) -> Result<(), Box<dyn Error>> {
    let world = World { services, clusters: 1, endpoints: 3 };
    let lists = [Kind::Service, Kind::EndpointSlice].map(|kind| world.list(0, kind, 0..world.services));
    let mut index = Index::new(vec![SlicePolicy::Expected]);
    let begun = Instant::now();
    for list in lists {
        index.apply(CLUSTER, list, Moment::default());
    }
    let listed = begun.elapsed();
    assert!(index.is_synced(CLUSTER));

    let begun = Instant::now();
    let names = index.names(CLUSTER);
    let for_names = begun.elapsed();
    let mut pieces: Vec<Vec<u8>> = Vec::new();
    let (mut longest, begun) = (Duration::ZERO, Instant::now());
    for keys in names.chunks(PIECE) {
        let begun = Instant::now();
        let mut lines = Vec::new();
        keys.iter().filter_map(|key| index.kept(CLUSTER, key)).for_each(|kept| snapshot::put_service(&mut lines, kept));
        longest = longest.max(begun.elapsed());
        pieces.push(lines);
    }
    let all = begun.elapsed() + for_names;
    let octets: usize = pieces.iter().map(Vec::len).sum();

    let directory = tempfile::tempdir()?;
    let head = serde_json::from_value(serde_json::json!({
        "format": snapshot::FORMAT,
        "cluster": "c",
        "written": "2026-01-01T00:00:00Z",
        "rules": {"manifests": false, "export": "all", "namespaces": "all"},
        "uid": null,
        "versions": [],
    }))?;
    let begun = Instant::now();
    let mut draft = Draft::begin(directory.path(), &head)?;
    for lines in &pieces {
        draft.append(lines)?;
    }
    draft.finish()?;
    let written = begun.elapsed();

    let begun = Instant::now();
    let Snapshot { objects, overdue, .. } = snapshot::read(directory.path(), &head.cluster)?.ok_or("there is none")?;
    let mut restored = Index::new(vec![SlicePolicy::Expected]);
    restored.restore(CLUSTER, objects, &overdue, Moment::default());
    let took = begun.elapsed();
    assert_eq!(restored.counts(CLUSTER), index.counts(CLUSTER));

    let ms = |time: Duration| format!("{:.2} ms", time.as_secs_f64() * 1e3);
    let (names, longest, all) = (ms(for_names), ms(longest), ms(all));
    let (written, took, listed) = (ms(written), ms(took), ms(listed));
    println!("{services:>9}  {names:>9}  {longest:>9}  {all:>9}  {octets:>9}  {written:>9}  {took:>9}  {listed:>9}");
    Ok(())
}
