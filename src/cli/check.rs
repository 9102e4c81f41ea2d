//! `signpost check`: everything that can be known without asking an API server.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use crate::app;
use crate::config::{Config, Schema, Source};
use crate::index::{Index, Kind, Update};
use crate::model::{ClusterAddress, ClusterId, Exposure, Federated, Moment, Share};
use crate::names::{Name, service_name};
use crate::ranking::Ingress;
use crate::source;
use crate::source::status::Reason;
use crate::table::Publisher;
use crate::zonefile::{self, ZoneData};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Good,
    Problems,
}

/// Prints every problem, then the names that would be served if all zone files can be read.
pub fn check(path: &Path, out: &mut impl Write) -> io::Result<Verdict> {
    let config = match Config::load(path) {
        Ok(config) => Arc::new(config),
        Err(errors) => {
            for line in errors.to_string().lines() {
                writeln!(out, "problem: {line}")?;
            }
            return Ok(Verdict::Problems);
        }
    };
    let config = &config;
    let mut problems = 0;
    let (zones, broken) = zones(config, &mut problems, out)?;
    for problem in &app::read_places(config).1.problems {
        writeln!(out, "problem: {problem}")?;
        problems += 1;
    }
    let mut index = app::new_index(config);
    for (i, cluster) in config.clusters.iter().enumerate() {
        let id = ClusterId(i as u16);
        match &cluster.source {
            Source::Manifests { directory } => {
                let reading = source::manifests::read(directory, cluster, &config.limits);
                for trouble in &reading.problems {
                    let (word, counts) =
                        if is_normal(trouble.problem.reason()) { ("warning", 0) } else { ("problem", 1) };
                    writeln!(out, "{word}: {}: {trouble}", cluster.name)?;
                    problems += counts;
                }
                if reading.more_problems > 0 {
                    writeln!(out, "problem: {}: and {} more", cluster.name, reading.more_problems)?;
                    problems += 1;
                }
                fill(&mut index, id, reading);
            }
            Source::Kubeconfig { .. } | Source::InCluster | Source::Registered(_) => match prepare(cluster) {
                Ok(()) => writeln!(out, "{}: its services are known once its API server is asked", cluster.name)?,
                Err(problem) => {
                    writeln!(out, "problem: {problem}")?;
                    problems += 1;
                }
            },
        }
    }
    if let Some(secrets) = &config.cluster_secrets {
        match aside(source::kube::secrets::prepare(secrets)) {
            Ok(()) => writeln!(out, "clusterSecrets: who is registered is known once the API server is asked")?,
            Err(problem) => {
                writeln!(out, "problem: {problem}")?;
                problems += 1;
            }
        }
    }
    let services: Vec<Federated> = index.keys().iter().filter_map(|key| index.service(key)).collect();
    // What would be served depends on all of the zones.
    if broken.is_empty() {
        // A publisher of its own shows what compiling says. The seed only moves entries within its table.
        let (mut publisher, _reader) = Publisher::new(config.clone(), &zones, 0);
        for service in &services {
            for note in publisher.publish(&service.key, Some(service)) {
                writeln!(out, "warning: {}", note.sentence(&service.key, config))?;
            }
        }
        names(config, &services, out)?;
    }
    Ok(if problems == 0 { Verdict::Good } else { Verdict::Problems })
}

/// What any directory of manifests has, and what any cloud puts into a Service: left out, and nobody's mistake.
fn is_normal(reason: Reason) -> bool {
    matches!(reason, Reason::UnknownKind | Reason::IngressAddress)
}

/// The zones whose files are in order, and the names of the others. A start stops at the first problem; here all of
/// them are told, those between the zones too.
fn zones(config: &Config, problems: &mut usize, out: &mut impl Write) -> io::Result<(Vec<ZoneData>, Vec<Name>)> {
    let (mut zones, mut broken) = (Vec::new(), Vec::new());
    for zone in &config.zones {
        match zonefile::load(&zone.file, &zone.name) {
            Ok(data) => zones.push(data),
            Err(problem) => {
                writeln!(out, "problem: {problem}")?;
                *problems += 1;
                broken.push(zone.name.clone());
            }
        }
    }
    for problem in zonefile::check_delegations(&zones, &broken) {
        writeln!(out, "problem: {problem}")?;
        *problems += 1;
    }
    for warning in zones.iter().flat_map(|zone| &zone.warnings) {
        writeln!(out, "warning: {warning}")?;
    }
    Ok((zones, broken))
}

fn prepare(cluster: &crate::config::Cluster) -> Result<(), String> {
    aside(source::kube::prepare(cluster))
}

fn aside<T>(preparing: impl Future<Output = Result<T, source::kube::SourceError>>) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
    let prepared = runtime.block_on(preparing);
    runtime.shutdown_background();
    prepared.map(drop).map_err(|problem| problem.to_string())
}

fn fill(index: &mut Index, cluster: ClusterId, reading: source::manifests::Reading) {
    let mut objects = reading.by_kind();
    // Slices before the Services that would wait for them.
    for kind in [Kind::EndpointSlice, Kind::Service, Kind::ServiceExport, Kind::ServiceImport] {
        let objects = objects.remove(&kind).unwrap_or_default();
        index.apply(cluster, Update::Reset { kind, objects, keep: Vec::new() }, Moment::default());
    }
}

/// One line for each service and zone: the name, and what each cluster contributes.
fn names(config: &Config, services: &[Federated], out: &mut impl Write) -> io::Result<()> {
    for zone in config.zones.iter().filter(|zone| zone.schema.has_services()) {
        let mcs = zone.schema == Schema::Mcs;
        let apex = if mcs { zone.name.child(b"svc") } else { Ok(zone.name.clone()) };
        let is_in = |share: &&Share| if mcs { share.offered.is_some() } else { share.exported };
        let services = services
            .iter()
            .filter(|service| service.shares.iter().any(|share| is_in(&share)) || mcs && !service.imports.is_empty());
        let services: Vec<&Federated> = services.collect();
        writeln!(out, "zone {} serves {} service(s):", zone.name, services.len())?;
        for service in services {
            let Some(Ok(name)) =
                apex.as_ref().ok().map(|apex| service_name(&service.key.name, &service.key.namespace, apex))
            else {
                continue;
            };
            writeln!(out, "  {name}")?;
            for (cluster, import) in service.imports.iter().filter(|(_, import)| mcs && !import.addresses.is_empty()) {
                let addresses = import.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
                writeln!(out, "    {}: imported for its own clients as {addresses}", config.cluster(*cluster).name)?;
            }
            for share in service.shares.iter().filter(is_in) {
                let cluster = config.cluster(share.cluster);
                let ingress = Ingress::of(share, cluster);
                writeln!(out, "    {}: {}", cluster.name, contribution(share, &ingress))?;
            }
        }
    }
    Ok(())
}

fn contribution(share: &Share, ingress: &Ingress) -> String {
    let list = |addresses: &[std::net::IpAddr]| addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    let outside = match (share.exposure, &ingress.outside[..]) {
        (Exposure::ClusterOnly, _) => "to its own clients only".to_owned(),
        (Exposure::LoadBalancer, []) if share.hostnames.is_empty() => "no external address yet".to_owned(),
        (Exposure::LoadBalancer, addresses) => {
            let names = share.hostnames.iter().map(ToString::to_string);
            let all: Vec<String> = addresses.iter().map(ToString::to_string).chain(names).collect();
            format!("external {}", all.join(" "))
        }
    };
    let more: Vec<_> = ingress.inside.iter().filter(|address| !ingress.outside.contains(address)).copied().collect();
    let more = if more.is_empty() { String::new() } else { format!(", to clients inside of clusters {}", list(&more)) };
    let inside = match &share.cluster_address {
        ClusterAddress::Virtual(addresses) => format!("clusterIP {}", list(addresses)),
        ClusterAddress::Headless => format!("headless, {} ready endpoint(s)", share.pods.len()),
    };
    let ready = if share.ready { "ready" } else { "no ready endpoint" };
    format!("{outside}{more}, {inside}, {ready}")
}
