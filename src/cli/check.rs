//! `signpost check`: everything that can be known without asking an API server.

use std::io::{self, Write};
use std::path::Path;

use crate::app::{self, AppError, Loaded};
use crate::config::{Config, Source};
use crate::index::{Index, Kind, Object, Update};
use crate::model::{ClusterAddress, ClusterId, Exposure, Federated, Moment, Share};
use crate::names::service_name;
use crate::ranking::Ingress;
use crate::source;
use crate::source::status::Reason;
use crate::table::Publisher;
use crate::zonefile;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Good,
    Problems,
}

/// Prints every problem, then the names that would be served.
pub fn check(path: &Path, out: &mut impl Write) -> io::Result<Verdict> {
    let loaded = match Loaded::load(path) {
        Ok(loaded) => loaded,
        Err(first) => {
            for line in every_problem(path, &first) {
                writeln!(out, "problem: {line}")?;
            }
            return Ok(Verdict::Problems);
        }
    };
    let Loaded { config, zones } = &loaded;
    let mut problems = 0;
    for warning in zones.iter().flat_map(|zone| &zone.warnings) {
        writeln!(out, "warning: {warning}")?;
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
            Source::Kubeconfig { .. } | Source::InCluster => match prepare(cluster) {
                Ok(()) => writeln!(out, "{}: its services are known once its API server is asked", cluster.name)?,
                Err(problem) => {
                    writeln!(out, "problem: {problem}")?;
                    problems += 1;
                }
            },
        }
    }
    // A publisher of its own shows what compiling says. The seed only moves entries within its table.
    let (mut publisher, _reader) = Publisher::new(config.clone(), zones, 0);
    let mut services: Vec<Federated> = index.keys().filter_map(|key| index.service(key)).collect();
    services.sort_by(|a, b| a.key.cmp(&b.key));
    for service in &services {
        for note in publisher.publish(&service.key, Some(service)) {
            writeln!(out, "warning: {}", note.sentence(&service.key, config))?;
        }
    }
    names(config, &services, out)?;
    Ok(if problems == 0 { Verdict::Good } else { Verdict::Problems })
}

/// What any directory of manifests has, and what any cloud puts into a Service: left out, and nobody's mistake.
fn is_normal(reason: Reason) -> bool {
    matches!(reason, Reason::UnknownKind | Reason::IngressHostname | Reason::IngressAddress)
}

/// A start stops at the first zone file that is in error; here all of them are told.
fn every_problem(path: &Path, first: &AppError) -> Vec<String> {
    if let (AppError::ZoneFile(_), Ok(config)) = (first, Config::load(path)) {
        let broken = config.zones.iter().filter_map(|zone| zonefile::load(&zone.file, &zone.name).err());
        return broken.map(|problem| problem.to_string()).collect();
    }
    first.to_string().lines().map(str::to_owned).collect()
}

fn prepare(cluster: &crate::config::Cluster) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
    let prepared = runtime.block_on(source::kube::prepare(cluster));
    runtime.shutdown_background();
    prepared.map(drop).map_err(|problem| problem.to_string())
}

fn fill(index: &mut Index, cluster: ClusterId, reading: source::manifests::Reading) {
    let services = reading.services.into_iter().map(Object::Service).collect();
    let slices = reading.slices.into_iter().map(Object::Slice).collect();
    for (kind, objects) in [(Kind::EndpointSlice, slices), (Kind::Service, services)] {
        index.apply(cluster, Update::Reset { kind, objects, keep: Vec::new() }, Moment::default());
    }
}

/// One line for each service and zone: the name, and what each cluster contributes.
fn names(config: &Config, services: &[Federated], out: &mut impl Write) -> io::Result<()> {
    let federations = config.zones.iter().filter(|zone| zone.schema == crate::config::Schema::Federation);
    for zone in federations {
        writeln!(out, "zone {} serves {} service(s):", zone.name, services.len())?;
        for service in services {
            let Ok(name) = service_name(&service.key.name, &service.key.namespace, &zone.name) else { continue };
            writeln!(out, "  {name}")?;
            for share in &service.shares {
                let cluster = config.cluster(share.cluster);
                let external = Ingress::of(share, cluster).published;
                writeln!(out, "    {}: {}", cluster.name, contribution(share, &external))?;
            }
        }
    }
    Ok(())
}

fn contribution(share: &Share, external: &[std::net::IpAddr]) -> String {
    let list = |addresses: &[std::net::IpAddr]| addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    let outside = match (share.exposure, external) {
        (Exposure::ClusterOnly, _) => "to its own clients only".to_owned(),
        (Exposure::LoadBalancer, []) => "no external address yet".to_owned(),
        (Exposure::LoadBalancer, addresses) => format!("external {}", list(addresses)),
    };
    let inside = match &share.cluster_address {
        ClusterAddress::Virtual(addresses) => format!("clusterIP {}", list(addresses)),
        ClusterAddress::Headless => format!("headless, {} ready endpoint(s)", share.pods.len()),
    };
    let ready = if share.ready { "ready" } else { "no ready endpoint" };
    format!("{outside}, {inside}, {ready}")
}
