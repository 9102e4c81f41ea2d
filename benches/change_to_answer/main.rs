//! How long after a cluster's API has acknowledged a change the first answer shows it.
//!
//! A real API server (`make testbed`), one Signpost, and clients that ask. First one change at a time, then many a second
//! beside a load of queries. `cargo bench --bench change_to_answer`; `-- --help` lists the options.

#[path = "../support/addresses.rs"]
mod addresses;
mod arrivals;
#[path = "../support/bulk.rs"]
#[allow(dead_code, reason = "each benchmark uses its own part of this")]
mod bulk;
#[path = "../../tests/common/mod.rs"]
mod common;
#[path = "../support/load.rs"]
mod load;
mod one_by_one;
#[path = "../support/options.rs"]
mod options;
mod rate;
mod resolver;
#[path = "../support/trains.rs"]
mod trains;
#[path = "../support/usage.rs"]
#[allow(dead_code, reason = "each benchmark uses its own part of this")]
mod usage;

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use kube::Client;
use kube::config::{Config, KubeConfigOptions, Kubeconfig};

use common::cluster::{self, Cluster, User};

const HELP: &str = "\
  --quick        20 changes one at a time, then 2 s at the rate, 1,000 services
  --rate N       changes a second, tried; 1000
  --seconds N    for which they are made, at each kind of change; 10, at most 600
  --services N   that are there, and take turns in changing; 10000
  --load N       queries meanwhile, in percent of what one worker can answer; 50, at most 90
  --only PARTS   of: one (change at a time), service, etcd, slice; separated by commas";

const PARTS: [&str; 4] = ["one", "service", "etcd", "slice"];

#[derive(Debug, Clone)]
struct Options {
    /// Without a test bed nothing is measured, and that is no failure.
    quick: bool,
    /// Changes that are made one at a time.
    changes: u32,
    rate: u32,
    time: Duration,
    services: u32,
    /// Percent.
    load: u32,
    parts: Vec<String>,
}

impl Options {
    fn read(mut words: impl Iterator<Item = String>) -> Result<Options, String> {
        let mut options = Options {
            quick: false,
            changes: 300,
            rate: 1_000,
            time: Duration::from_secs(10),
            services: 10_000,
            load: 50,
            parts: PARTS.map(String::from).to_vec(),
        };
        while let Some(word) = words.next() {
            let mut number = |least, most| options::number(&word, words.next(), least, most);
            match word.as_str() {
                // cargo says so to every benchmark.
                "--bench" => {}
                "--quick" => {
                    options.quick = true;
                    (options.changes, options.services, options.time) = (20, 1_000, Duration::from_secs(2));
                }
                "--rate" => options.rate = number(1, 100_000)?,
                "--seconds" => options.time = Duration::from_secs(number(1, 600)?.into()),
                "--services" => options.services = number(1, bulk::MOST)?,
                "--load" => options.load = number(0, 90)?,
                "--only" => {
                    let parts = words.next().ok_or_else(|| format!("{word} needs a value"))?;
                    options.parts = parts.split(',').map(str::to_owned).collect();
                    if let Some(part) = options.parts.iter().find(|part| !PARTS.contains(&part.as_str())) {
                        return Err(format!("{part} is no part; there are {}", PARTS.join(", ")));
                    }
                }
                other => return Err(format!("{other} is no option; there are:\n{HELP}")),
            }
        }
        if u64::from(options.rate) * options.time.as_secs() >= 1 << 24 {
            return Err("--rate times --seconds must be below 16,777,216: each change has an address of its own".into());
        }
        Ok(options)
    }

    fn has(&self, part: &str) -> bool {
        self.parts.iter().any(|one| one == part)
    }
}

fn main() -> ExitCode {
    let outcome =
        Options::read(std::env::args().skip(1)).map_err(Into::into).and_then(|options| match cluster::needs() {
            Err(missing) if options.quick => {
                println!("change_to_answer: not measured: {missing}");
                Ok(())
            }
            needs => needs.map_err(Into::into).and_then(|()| bench(&options)),
        });
    options::finish("change_to_answer", outcome)
}

fn bench(options: &Options) -> Result<(), Box<dyn Error>> {
    println!("{}\n", usage::machine());
    if options.has("one") {
        one_by_one::bench(options.changes)?;
    }
    if options.has("service") || options.has("etcd") || options.has("slice") {
        rate::bench(options)?;
    }
    Ok(())
}

/// A connection of its own, as admin. kubectl would need 100 ms for each.
async fn client(cluster: &Cluster) -> Result<Client, Box<dyn Error>> {
    let file = Kubeconfig::read_from(cluster.kubeconfig_of(User::Admin))?;
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

/// Returns with the acknowledgement.
async fn patch(client: &Client, path: &str, patch: String) -> Result<(), Box<dyn Error>> {
    let request =
        http::Request::patch(path).header("content-type", "application/merge-patch+json").body(patch.into_bytes())?;
    client.request_text(request).await?;
    Ok(())
}
