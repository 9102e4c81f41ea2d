//! The command line.

mod check;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use tracing_subscriber::EnvFilter;

use crate::app;

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
    /// Serve DNS until SIGTERM or SIGINT; SIGHUP reads the configuration again.
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
    },
    /// Validate a configuration with its zone files and manifests, and print the names that it would serve.
    ///
    /// Clusters behind an API server are not asked: only their kubeconfig is read. Exits with 1 when there is a problem.
    Check {
        /// The configuration file.
        #[arg(long, short, value_name = "FILE", env = "SIGNPOST_CONFIG")]
        config: PathBuf,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

pub fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Serve { config, log_format, log } => {
            if let Err(problem) = start_logging(log_format, &log) {
                eprintln!("signpost: {problem}");
                return ExitCode::from(EXIT_PROBLEM);
            }
            match app::serve(config) {
                Ok(()) => ExitCode::SUCCESS,
                Err(problem) => {
                    for line in problem.to_string().lines() {
                        eprintln!("signpost: {line}");
                    }
                    ExitCode::from(EXIT_PROBLEM)
                }
            }
        }
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
