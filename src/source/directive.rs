//! How a directive is written down, and read again: a ConfigMap, by people with kubectl too.
//!
//! ```yaml
//! metadata:
//!   name: directive.shop.cart
//!   labels: {signpost.dev/directive: ""}
//! data: {action: drain, service: shop/cart, from: 2026-01-31T18:00:00Z, until: 2026-01-31T20:00:00Z, over: 10m, reason: a new rack}
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::problem::{Fault, Problem};
use super::slim;
use crate::model::directive::{Action, Directive, MOST_OVER};
use crate::model::{Label, parse_duration};

/// What the ConfigMap holds.
pub type Data = BTreeMap<String, String>;

/// All that may be in it.
pub const KEYS: [&str; 6] = ["action", "service", "from", "until", "over", "reason"];

/// The whole object. A file among manifests need not name a namespace.
pub fn object(namespace: Option<&Label>, name: &str, data: &Data) -> Value {
    let mut metadata = json!({
        "name": name,
        "labels": {"app.kubernetes.io/managed-by": "signpost", slim::DIRECTIVE: ""},
    });
    if let Some(namespace) = namespace {
        metadata["namespace"] = json!(namespace.as_str());
    }
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})
}

/// What they say together. Whatever is wrong with it, nothing of it is to be done.
pub fn read(data: &Data) -> Result<Directive, Problem> {
    let field =
        |key: &str, fault| Problem::field(format!("data.{key}"), data.get(key).map_or("", String::as_str), fault);
    if let Some(key) = data.keys().find(|key| !KEYS.contains(&key.as_str())) {
        return Err(field(key, Fault::UnknownKey));
    }
    let text = |key: &str| data.get(key).map(String::as_str);
    let time = |key: &str| match text(key) {
        None => Ok(None),
        Some(text) => {
            let time = text.parse().ok().filter(|time| *time >= Timestamp::UNIX_EPOCH);
            time.map(Some).ok_or_else(|| field(key, Fault::NotATime))
        }
    };
    let (from, until) = (time("from")?, time("until")?);
    if let (Some(from), Some(until)) = (from, until)
        && until <= from
    {
        return Err(field("until", Fault::EndsBefore));
    }
    let over = match text("over") {
        None => None,
        Some(text) => {
            let over = parse_duration(text).filter(|over| (Duration::from_secs(1)..=MOST_OVER).contains(over));
            Some(over.ok_or_else(|| field("over", Fault::NotAShift))?)
        }
    };
    let action = match (text("action"), over) {
        (Some("drain"), over) => Action::Drain { over: over.unwrap_or_default() },
        (Some("force-up"), None) => Action::ForceUp,
        (Some("force-down"), None) => Action::ForceDown,
        (Some("release"), None) if data.contains_key("service") => return Err(field("service", Fault::NotOfAService)),
        (Some("release"), None) => Action::Release,
        (Some("force-up" | "force-down" | "release"), Some(_)) => return Err(field("over", Fault::NotAShift)),
        _ => return Err(field("action", Fault::NotAnAction)),
    };
    if over.is_some() && from.is_none() {
        return Err(field("over", Fault::NoBeginning));
    }
    let service = match text("service") {
        None => None,
        Some(text) => Some(text.parse().map_err(|_| field("service", Fault::NotAService))?),
    };
    Ok(Directive { service, action, from, until, reason: text("reason").unwrap_or_default().into() })
}
