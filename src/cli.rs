//! The command line.

mod check;
mod diagnose;
mod dump;
mod explain;
mod status;
mod steer;

use std::io::{IsTerminal, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use ipnet::IpNet;
use tracing_subscriber::EnvFilter;

use crate::app;
use crate::dump::Wanted;
use crate::explain::Asked;
use steer::{Order, Target, When};

/// Exit code for a configuration, zone file, manifest or environment that must be mended first.
const EXIT_PROBLEM: u8 = 1;

/// Authoritative DNS server for federations of Kubernetes clusters.
///
/// Answers A, AAAA and SRV for services of many clusters: a client inside a cluster gets that cluster's own clusterIP
/// first, then the other clusters' load balancers by distance; a client outside gets the load balancers.
#[derive(Debug, Parser)]
#[command(name = "signpost", version, max_term_width = 100)]
#[command(
    after_help = "Try it without any cluster:\n  signpost serve --config config/demo.yaml\n  dig -p 8053 @127.0.0.1 my-service.my-namespace.my-federation.my-domain.com"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve DNS until SIGTERM or SIGINT; SIGHUP reads the configuration again, SIGUSR2 starts another process that takes over.
    Serve {
        /// The configuration file; config/reference.yaml lists every key.
        #[arg(long, short, value_name = "FILE", env = "SIGNPOST_CONFIG")]
        config: PathBuf,
        /// How log lines are written (to standard error).
        #[arg(long, value_enum, default_value_t = LogFormat::Text)]
        log_format: LogFormat,
        /// Least level, or a filter such as `info,signpost::source=debug`.
        #[arg(long, value_name = "FILTER", default_value = "info", env = "SIGNPOST_LOG")]
        log: String,
        /// Takes over the sockets of the process that starts this one.
        #[arg(long, hide = true)]
        take_over: bool,
    },
    /// Validate a configuration with its zone files and manifests, and print the names that it would serve.
    ///
    /// Clusters behind an API server are not asked: only their kubeconfig is read. Exits with 1 when there is a problem.
    Check {
        /// The configuration file.
        #[arg(long, short, value_name = "FILE", env = "SIGNPOST_CONFIG")]
        config: PathBuf,
    },
    /// Say what a name is answered with, and why: view, place, each candidate with its rank and the reason for it.
    ///
    /// Asks the running server over its admin address. With --offline it answers itself, from the configuration and its
    /// manifests.
    Explain {
        /// The name that is asked for.
        name: String,
        /// The configuration file.
        #[arg(long, short, value_name = "FILE", env = "SIGNPOST_CONFIG")]
        config: PathBuf,
        /// The type that is asked for.
        #[arg(long = "type", short = 't', value_name = "TYPE", default_value = "A")]
        rtype: String,
        #[command(flatten)]
        who: Who,
        /// Does not ask the server.
        #[arg(long)]
        offline: bool,
        #[arg(long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// Look whether all that an instance needs is there, and say what to do where it is not.
    ///
    /// Configuration and zone files; the directory of `state`; of each cluster the API server, its clock, identity and rights; the server
    /// that runs here and each of its listeners over UDP and TCP; the SOA record of all name servers, and the delegation. Exits with 1
    /// when something failed.
    Diagnose {
        /// The configuration file.
        #[arg(long, short, value_name = "FILE", env = "SIGNPOST_CONFIG")]
        config: PathBuf,
        /// The DNS inside a cluster, which is to forward the zones to an instance: it is asked for them. May be given several times.
        #[arg(long, value_name = "ADDRESS[:PORT]", value_parser = diagnose::parse_stub)]
        stub: Vec<SocketAddr>,
    },
    /// Say how the running server is doing: its clusters, health, and what operators said.
    Status {
        /// The configuration file.
        #[arg(long, short, value_name = "FILE", env = "SIGNPOST_CONFIG")]
        config: PathBuf,
        #[arg(long, value_enum, default_value_t = Output::Table)]
        output: Output,
        /// Again every 2 s.
        #[arg(long)]
        watch: bool,
    },
    /// Print all that a zone answers with, in one view and from one place, as a zone file that other servers can load.
    ///
    /// Asks the running server over its admin address. With --offline it makes it of the configuration and its manifests. Where an
    /// answer is by chance (load that is shed, the mode single), it is one of those that could be given. A name without any record is held
    /// by one of the private type TYPE65280.
    Dump {
        /// The zone's name.
        zone: String,
        /// The configuration file.
        #[arg(long, short, value_name = "FILE", env = "SIGNPOST_CONFIG")]
        config: PathBuf,
        #[command(flatten)]
        who: Who,
        /// Does not ask the server.
        #[arg(long)]
        offline: bool,
    },
    /// Take a cluster, or one service of it, out of the answers, as long as others are there to be answered with.
    ///
    /// Says so in the cluster's own API (or in a file among its manifests), where all instances read it. Answers are kept for a short
    /// time only from one TTL before it on, and while it shifts.
    Drain {
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        when: When,
        /// Shifts step by step for so long, as in 30m.
        #[arg(long, value_name = "DURATION")]
        over: Option<String>,
    },
    /// Answer with it as before: takes back what `drain`, `force-up` or `force-down` said.
    Undrain {
        #[command(flatten)]
        target: Target,
        /// What `release` said.
        #[arg(long)]
        release: bool,
    },
    /// Take it for well, whatever probes and votes say.
    ForceUp {
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        when: When,
    },
    /// Remove whatever is Down, however much it is at once: of the instances in this cluster, or of those that decide alone.
    ///
    /// For ten minutes, if nothing else is said; `signpost undrain CLUSTER --release` takes it back.
    Release {
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        when: When,
    },
    /// Take it for dead, whatever probes and votes say. If all of a name's addresses are, all are answered with.
    ForceDown {
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        when: When,
    },
}

/// Who asks.
#[derive(Debug, clap::Args)]
struct Who {
    /// Where queries come from; without it, from this machine.
    #[arg(long, value_name = "ADDRESS", conflicts_with = "cluster")]
    client: Option<IpAddr>,
    /// The cluster that the client is inside of.
    #[arg(long)]
    cluster: Option<String>,
    /// The client subnet (RFC 7871) that comes with queries, as in 192.0.2.0/24.
    #[arg(long, value_name = "PREFIX")]
    subnet: Option<IpNet>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Output {
    Table,
    Json,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

pub fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Serve { config, log_format, log, take_over } => {
            if let Err(problem) = start_logging(log_format, &log) {
                eprintln!("signpost: {problem}");
                return ExitCode::from(EXIT_PROBLEM);
            }
            match app::serve(config, take_over) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => problem(&error.to_string()),
            }
        }
        Command::Diagnose { config, stub } => diagnose::run(&config, &stub),
        Command::Status { config, output, watch } => status::run(&config, output, watch),
        Command::Dump { zone, config, who: Who { client, cluster, subnet }, offline } => {
            let wanted = Wanted { zone, cluster, client, subnet };
            shown(dump::run(&config, &wanted, offline))
        }
        Command::Explain { name, config, rtype, who: Who { client, cluster, subnet }, offline, output } => {
            let asked = Asked { name, rtype, client, cluster, subnet };
            let explained = explain::run(&config, asked, offline).and_then(|explanation| match output {
                Output::Table => Ok(explanation.to_string()),
                Output::Json => serde_json::to_string_pretty(&explanation).map(|t| t + "\n").map_err(|e| e.to_string()),
            });
            shown(explained)
        }
        Command::Drain { target, when, over } => steer(target, Order::Drain { when, over }),
        Command::Undrain { target, release } => steer(target, Order::TakeBack { release }),
        Command::Release { target, when } => steer(target, Order::Release(when)),
        Command::ForceUp { target, when } => steer(target, Order::ForceUp(when)),
        Command::ForceDown { target, when } => steer(target, Order::ForceDown(when)),
        Command::Check { config } => match check::check(&config, &mut std::io::stdout().lock()) {
            Ok(check::Verdict::Good) => ExitCode::SUCCESS,
            Ok(check::Verdict::Problems) => ExitCode::from(EXIT_PROBLEM),
            // A reader that has seen enough, `signpost check | head`.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("signpost: cannot write: {error}");
                ExitCode::from(EXIT_PROBLEM)
            }
        },
    }
}

fn steer(target: Target, order: Order) -> ExitCode {
    match steer::run(target, order) {
        Ok(said) => {
            println!("{said}");
            ExitCode::SUCCESS
        }
        Err(error) => problem(&error),
    }
}

fn problem(text: &str) -> ExitCode {
    for line in text.lines() {
        eprintln!("signpost: {line}");
    }
    ExitCode::from(EXIT_PROBLEM)
}

/// On standard output, if it is something. A reader that has seen enough is no problem.
fn shown(text: Result<String, String>) -> ExitCode {
    match text.map(|text| std::io::stdout().write_all(text.as_bytes())) {
        Ok(Err(error)) if error.kind() != std::io::ErrorKind::BrokenPipe => problem(&error.to_string()),
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => problem(&error),
    }
}

fn start_logging(format: LogFormat, filter: &str) -> Result<(), String> {
    let filter: EnvFilter = filter.parse().map_err(|error| format!("--log {filter}: {error}"))?;
    // kube_client logs bodies that it cannot decode, whole and whoever wrote them, and an error that names no cluster for
    // every single try while an API server is away. Our own warnings name cluster and object, each trouble once.
    let quiet = "kube_client=off".parse().map_err(|error| format!("kube_client=off: {error}"))?;
    let filter = filter.add_directive(quiet);
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).with_target(false).init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
    Ok(())
}
