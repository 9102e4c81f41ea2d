//! What a cluster's API lets us do, looked at once, for people.

use std::time::Duration;

use jiff::Timestamp;

use super::client::{Api, Failure};
use super::resource::{Presence, Resource};
use crate::config::{Cluster, Namespaces};
use crate::index::Kind;
use crate::source::kinds;

/// From head to end of one question.
const PATIENCE: Duration = Duration::from_secs(10);
/// Clocks that are this much apart make certificates and `--until` wrong.
const APART: f64 = 5.0;

/// How something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Passed,
    Warned,
    Failed,
}

/// One thing that was looked at, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub verdict: Verdict,
    pub text: String,
}

impl Finding {
    pub fn passed(text: impl Into<String>) -> Finding {
        Finding { verdict: Verdict::Passed, text: text.into() }
    }

    pub fn warned(text: impl Into<String>) -> Finding {
        Finding { verdict: Verdict::Warned, text: text.into() }
    }

    pub fn failed(text: impl Into<String>) -> Finding {
        Finding { verdict: Verdict::Failed, text: text.into() }
    }
}

/// Asks the API of a cluster that has one. The first failure to reach it is the last finding.
pub async fn examine(cluster: &Cluster) -> Vec<Finding> {
    let api = match Api::begun(cluster).await {
        Ok(api) => api,
        Err(failure) => return vec![Finding::failed(format!("credentials: {failure}"))],
    };
    let mut findings = Vec::new();
    match api.date(PATIENCE).await {
        Ok(date) => {
            findings.push(Finding::passed("its API server answers"));
            let apart = date.map(|date| Timestamp::now().duration_since(date).as_secs_f64());
            findings.extend(apart.filter(|apart| apart.abs() > APART).map(|apart| {
                Finding::warned(format!(
                    "its clock and ours are {:.0} s apart: certificates and times of directives go by them; set both by NTP",
                    apart.abs()
                ))
            }));
        }
        Err(failure) => {
            findings.push(Finding::failed(format!(
                "its API server does not answer ({failure}): the address and the certificate authority in the kubeconfig, and \
                 the network between"
            )));
            return findings;
        }
    }
    findings.push(match api.uid().await {
        Ok(uid) => Finding::passed(format!("it is the cluster {uid}")),
        Err(failure) => Finding::warned(format!(
            "the namespace kube-system may not be read ({failure}): a cluster that is exchanged for another will not be noticed; \
             config/rbac has the right"
        )),
    });
    for kind in kinds(cluster) {
        findings.push(may_list(&api, cluster, kind).await);
    }
    findings
}

/// The first scope stands for all: rights are given alike.
async fn may_list(api: &Api, cluster: &Cluster, kind: Kind) -> Finding {
    let resource = Resource::of(kind);
    let namespace = match &cluster.namespaces {
        _ if kind.is_vote() => cluster.voter.as_ref(),
        _ if kind == Kind::Directive => cluster.directives.as_ref(),
        Namespaces::Only(list) if resource.is_namespaced => list.first(),
        Namespaces::Only(_) | Namespaces::All => None,
    };
    let namespace = namespace.map(|namespace| namespace.as_str());
    let place = namespace.map_or(String::new(), |namespace| format!(" in {namespace}"));
    let mut last = None;
    for version in 0..resource.versions.len() {
        let target = format!("{}?limit=1{}", resource.path(version, namespace), resource.selector);
        match api.get(&target, "a list", PATIENCE).await {
            Ok(_) => return Finding::passed(format!("{} may be listed{place}", resource.plural)),
            Err(failure) => last = Some(failure),
        }
    }
    let code = match &last {
        Some(Failure::Status(refusal)) => refusal.code,
        _ => 0,
    };
    let why = last.map(|failure| failure.to_string()).unwrap_or_default();
    let what = resource.plural;
    match (resource.presence, code) {
        (Presence::Optional, 403 | 404) => Finding::passed(format!("{what} are not there, and need not be")),
        (Presence::Asked, 404) => Finding::warned(format!(
            "{what} are not installed ({why}), and the configuration asks for them: install the Multi-Cluster Services API"
        )),
        (Presence::Steered, 403 | 404) => Finding::warned(format!(
            "{what}{place} may not be listed ({why}): nothing is drained or forced from here; apply config/rbac"
        )),
        (Presence::Voted, 403 | 404) => Finding::warned(format!(
            "{what}{place} may not be listed ({why}): the cluster abstains from votes; apply config/rbac"
        )),
        (_, 403) => {
            Finding::failed(format!("{what}{place} may not be listed ({why}): apply config/rbac, and bind the account"))
        }
        _ => Finding::failed(format!("{what}{place} cannot be listed: {why}")),
    }
}
