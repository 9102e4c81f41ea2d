//! `signpost drain`, `undrain`, `force-up`, `force-down`, `release`: says in a cluster what is to be done about it, for all instances to read.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use jiff::{SignedDuration, Timestamp};

use crate::config::{Cluster, Config, Registration, Source};
use crate::model::{Label, ServiceKey, parse_duration};
use crate::source::directive::{self, Data};
use crate::source::kube::client::Failure;
use crate::source::kube::directive::{delete, put};

/// About what, and with which rights.
#[derive(Debug, Args)]
pub struct Target {
    /// The cluster, or one service of it.
    #[arg(value_name = "CLUSTER[/NAMESPACE/SERVICE]")]
    target: String,
    /// The configuration file.
    #[arg(long, short, value_name = "FILE", env = "SIGNPOST_CONFIG")]
    config: PathBuf,
    /// With the rights of this kubeconfig; without it, with those of the configuration.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The context of that kubeconfig; without it, its current one.
    #[arg(long, value_name = "NAME", requires = "kubeconfig")]
    context: Option<String>,
}

/// When, and why.
#[derive(Debug, Args)]
pub struct When {
    /// From then on: a time as in 2026-01-31T18:00:00Z, or from now, as in 30m.
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// Until then; without it, until it is taken back with `signpost undrain`.
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// For people: it is shown wherever the directive is.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

/// What is to be done.
#[derive(Debug)]
pub enum Order {
    Drain { when: When, over: Option<String> },
    ForceUp(When),
    ForceDown(When),
    Release(When),
    TakeBack { release: bool },
}

/// A release is for a while.
const RELEASE: &str = "10m";

/// One sentence that says what was done, or what is wrong.
pub fn run(target: Target, order: Order) -> Result<String, String> {
    let config = Config::load(&target.config).map_err(|errors| errors.to_string())?;
    let source = target.kubeconfig.map(|file| Source::Kubeconfig { file, context: target.context });
    let (cluster, service) = find(&config, &target.target, source)?;
    let name = object_name(&order, service.as_ref());
    let Some(data) = data(&order, service.as_ref(), Timestamp::now())? else {
        return match take_back(&cluster, &name)? {
            true => Ok(format!("{}: answered for as before", target.target)),
            false => Err(format!("{}: there is no directive to take back", target.target)),
        };
    };
    // As every instance will read it.
    directive::read(&data).map_err(|problem| format!("{}: {problem}", target.target))?;
    write(&cluster, &name, &data)?;
    let mut said = format!("{}: {} from {}", target.target, data["action"], data["from"]);
    for word in ["over", "until"] {
        if let Some(value) = data.get(word) {
            said += &format!(" {word} {value}");
        }
    }
    let back = if matches!(order, Order::Release(_)) { " --release" } else { "" };
    Ok(said + &format!("; `signpost undrain {}{back}` takes it back", target.target))
}

/// `source`: instead of the configuration's.
fn find(config: &Config, target: &str, source: Option<Source>) -> Result<(Cluster, Option<ServiceKey>), String> {
    let (name, service) = match target.split_once('/') {
        None => (target, None),
        Some((name, service)) => {
            let key = service.parse().map_err(|error| format!("{target}: {service:?} {error}"))?;
            (name, Some(key))
        }
    };
    let found = config.clusters.iter().find(|cluster| cluster.name.as_str() == name).cloned();
    // One that may be registered has what all of those have, but no credentials here.
    let registered = || {
        let (secrets, _) = config.cluster_secrets.as_ref().zip(source.as_ref())?;
        let nothing = Registration { credentials: None, region: None };
        Some(secrets.cluster(&Label::parse(name).ok()?, &nothing))
    };
    let cluster = found.or_else(registered).ok_or_else(|| {
        let known: Vec<&str> = config.clusters.iter().map(|cluster| cluster.name.as_str()).collect();
        let more = if config.cluster_secrets.is_some() { "; a registered one needs --kubeconfig" } else { "" };
        format!("{target}: there is no cluster {name:?} in {}, but {}{more}", config.path.display(), known.join(", "))
    })?;
    let source = source.unwrap_or_else(|| cluster.source.clone());
    Ok((Cluster { source, ..cluster }, service))
}

/// One for each target, so that a new directive takes the place of the one before.
fn object_name(order: &Order, service: Option<&ServiceKey>) -> String {
    match service {
        None if matches!(order, Order::Release(_) | Order::TakeBack { release: true }) => {
            "directive.release".to_owned()
        }
        None => "directive".to_owned(),
        Some(ServiceKey { namespace, name }) => format!("directive.{namespace}.{name}"),
    }
}

/// `None`: what was said is to be taken back.
fn data(order: &Order, service: Option<&ServiceKey>, now: Timestamp) -> Result<Option<Data>, String> {
    let (action, when, over) = match order {
        Order::Drain { when, over } => ("drain", when, over.clone()),
        Order::ForceUp(when) => ("force-up", when, None),
        Order::ForceDown(when) => ("force-down", when, None),
        Order::Release(when) => ("release", when, None),
        Order::TakeBack { .. } => return Ok(None),
    };
    let from = when.from.as_deref().map_or(Ok(now), |text| time("--from", text, now))?;
    let usual = matches!(order, Order::Release(_)).then_some(RELEASE);
    let until = when.until.as_deref().or(usual).map(|text| time("--until", text, now)).transpose()?;
    if until.is_some_and(|until| until <= now) {
        return Err(format!("--until {}: is over", when.until.as_deref().unwrap_or_default()));
    }
    let written = |time: Timestamp| time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let fields = [
        ("action", Some(action.to_owned())),
        ("service", service.map(ToString::to_string)),
        ("from", Some(written(from))),
        ("until", until.map(written)),
        ("over", over),
        ("reason", when.reason.clone()),
    ];
    Ok(Some(fields.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect()))
}

fn time(option: &str, text: &str, now: Timestamp) -> Result<Timestamp, String> {
    if let Some(duration) = parse_duration(text) {
        let later = SignedDuration::try_from(duration).ok().and_then(|duration| now.checked_add(duration).ok());
        return later.ok_or_else(|| format!("{option} {text}: is too far away"));
    }
    let wrong = |_| format!("{option} {text}: is neither a time as in 2026-01-31T18:00:00Z nor one from now as in 30m");
    text.parse().map_err(wrong)
}

fn write(cluster: &Cluster, name: &str, data: &Data) -> Result<(), String> {
    if let Source::Manifests { directory } = &cluster.source {
        let file = file(directory, name);
        let text = directive::object(None, name, data).to_string() + "\n";
        return replace(&file, &text).map_err(|error| format!("{}: cannot be written: {error}", file.display()));
    }
    let namespace = namespace(cluster)?;
    in_api(cluster, put(cluster, namespace, name, data))
}

fn take_back(cluster: &Cluster, name: &str) -> Result<bool, String> {
    if let Source::Manifests { directory } = &cluster.source {
        let file = file(directory, name);
        return match fs::remove_file(&file) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(format!("{}: cannot be deleted: {error}", file.display())),
        };
    }
    let namespace = namespace(cluster)?;
    in_api(cluster, delete(cluster, namespace, name))
}

fn file(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("signpost.{name}.json"))
}

/// Whole or not at all.
fn replace(file: &Path, text: &str) -> io::Result<()> {
    // No manifest by its name.
    let new = file.with_extension("json.new");
    let mut written = fs::File::create(&new)?;
    let done =
        written.write_all(text.as_bytes()).and_then(|()| written.sync_all()).and_then(|()| fs::rename(&new, file));
    if done.is_err() {
        let _ = fs::remove_file(&new);
    }
    done
}

fn namespace(cluster: &Cluster) -> Result<&Label, String> {
    let missing = "the configuration does not say in which namespace directives are: set directives.namespace";
    cluster.directives.as_ref().ok_or_else(|| format!("{}: {missing}", cluster.name))
}

fn in_api<T>(cluster: &Cluster, work: impl Future<Output = Result<T, Failure>>) -> Result<T, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("cannot start the runtime: {error}"))?;
    runtime.block_on(work).map_err(|failure| {
        let hint = match &failure {
            Failure::Status(refusal) if refusal.code == 403 => {
                "; --kubeconfig FILE takes the rights of another one, which has the role signpost-operator of config/rbac/rbac.yaml"
            }
            _ => "",
        };
        format!("{}: {failure}{hint}", cluster.name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn when(from: Option<&str>, until: Option<&str>) -> When {
        let text = |text: Option<&str>| text.map(str::to_owned);
        When { from: text(from), until: text(until), reason: None }
    }

    #[test]
    fn what_is_written() {
        let now: Timestamp = "2026-01-31T18:00:00.5Z".parse().unwrap();
        let text = |order: &Order| {
            let service = "shop/cart".parse().ok();
            data(order, service.as_ref(), now).map(|data| serde_json::to_string(&data).unwrap())
        };
        let drain =
            |from, until, over: Option<&str>| Order::Drain { when: when(from, until), over: over.map(str::to_owned) };
        assert_eq!(
            text(&drain(None, Some("2h"), Some("10m"))).unwrap(),
            r#"{"action":"drain","from":"2026-01-31T18:00:00Z","over":"10m","service":"shop/cart","until":"2026-01-31T20:00:00Z"}"#
        );
        assert_eq!(
            text(&Order::ForceUp(when(Some("2026-02-01T00:00:00+01:00"), None))).unwrap(),
            r#"{"action":"force-up","from":"2026-01-31T23:00:00Z","service":"shop/cart"}"#
        );
        assert_eq!(text(&Order::TakeBack { release: false }).unwrap(), "null");
        for (order, words) in [
            (drain(None, Some("2026-01-31T17:00:00Z"), None), "--until 2026-01-31T17:00:00Z: is over"),
            (drain(None, Some("tomorrow"), None), "--until tomorrow: is neither a time"),
            (drain(Some("5"), None, None), "--from 5: is neither a time"),
            (drain(None, Some("9999999999999h"), None), "is too far away"),
        ] {
            assert!(text(&order).unwrap_err().contains(words), "{order:?}");
        }
    }
}
