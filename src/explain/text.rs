//! An explanation as a table for people.

use std::fmt;

use super::{Answer, Directed, Explanation, Freshness, Judged, Place, Service, Share, Told, Voted};

/// Rows of cells, each column as wide as its widest one.
pub fn columns<const N: usize>(f: &mut fmt::Formatter<'_>, indent: &str, rows: &[[String; N]]) -> fmt::Result {
    let width = |n: usize| rows.iter().map(|row| row[n].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    for row in rows {
        let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        writeln!(f, "{indent}{}", cells.join("  ").trim_end())?;
    }
    Ok(())
}

/// Seconds in the largest unit that they fill.
pub fn age(seconds: f64) -> String {
    let units = [(86_400.0, "d"), (3_600.0, "h"), (60.0, "min")];
    let unit = units.iter().find(|(length, _)| seconds >= *length);
    unit.map_or_else(|| format!("{seconds:.0} s"), |(length, unit)| format!("{:.0} {unit}", (seconds / length).floor()))
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Explanation { asked, view, view_by, place, zone, service, answer } = self;
        writeln!(f, "question   {} {}", asked.name, asked.rtype)?;
        writeln!(f, "view       {view} ({view_by})")?;
        if let Some(place) = place {
            writeln!(f, "place      {place}")?;
        }
        writeln!(f, "zone       {}", zone.as_deref().unwrap_or("none of ours"))?;
        if let Some(service) = service {
            write!(f, "{service}")?;
        }
        write!(f, "{answer}")
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.matched {
            Some(matched) => {
                match (&matched.region, matched.latitude.zip(matched.longitude)) {
                    (Some(region), _) => write!(f, "{region}")?,
                    (None, Some((north, east))) => write!(f, "{north}, {east}")?,
                    (None, None) => write!(f, "known")?,
                }
                write!(f, " ({} is in {}, by {})", self.address, matched.prefix, matched.by)?;
            }
            None => write!(f, "unknown ({} is in no prefix that tells clusters apart)", self.address)?,
        }
        write!(f, ", {}", self.by)?;
        self.scope.map_or(Ok(()), |scope| write!(f, ", scope /{scope}"))
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let families = if self.families.is_empty() { "no address".to_owned() } else { self.families.join(" and ") };
        writeln!(f, "service    {}, {families}, TTL {} s", self.name, self.ttl)?;
        writeln!(f)?;
        let head = ["BAND", "CLUSTER", "DISTANCE", "WEIGHT", "SHEDS", "READY", "ADDRESSES", "REASON"];
        let mut rows = vec![head.map(str::to_owned)];
        for share in &self.candidates {
            let dash = || "-".to_owned();
            let mark = |(given, answered)| if answered { format!("{given}*") } else { given };
            let addresses: Vec<String> = share.given().into_iter().map(mark).collect();
            rows.push([
                share.band.map_or_else(dash, |band| band.to_string()),
                share.cluster.clone(),
                share.distance.map_or_else(dash, |km| format!("{km} km")),
                share.weight.to_string(),
                format!("{} %", share.shed),
                if share.ready { "yes" } else { "no" }.to_owned(),
                if addresses.is_empty() { dash() } else { addresses.join(" ") },
                share.reason.clone(),
            ]);
        }
        columns(f, "  ", &rows)?;
        if self.candidates.iter().flat_map(Share::given).any(|(_, answered)| answered) {
            writeln!(f, "  * in this answer")?;
        }
        writeln!(f)?;
        let Service { health, directives, loads, freshness, .. } = self;
        if health.is_empty() && directives.is_empty() && loads.is_empty() && freshness.is_empty() {
            return Ok(());
        }
        for fresh in freshness {
            writeln!(f, "{fresh}")?;
        }
        for told in loads {
            writeln!(f, "load       {told}")?;
        }
        for directed in &self.directives {
            writeln!(f, "directive  {directed}")?;
        }
        for judged in &self.health {
            let votes: Vec<String> = judged.votes.iter().map(ToString::to_string).collect();
            let Judged { cluster, endpoint, probe, health, .. } = judged;
            writeln!(f, "health     {endpoint} of {cluster} by {probe}: {health} ({})", votes.join(", "))?;
        }
        writeln!(f)
    }
}

impl fmt::Display for Freshness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Freshness { cluster, heard_seconds, silent, snapshot } = self;
        if let Some(written) = snapshot {
            write!(
                f,
                "stale      {cluster} was not heard since the start: it is answered for as its snapshot of {written} has it"
            )?;
        } else {
            let heard = heard_seconds.map_or_else(|| "never".to_owned(), |seconds| format!("{} ago", age(seconds)));
            write!(f, "heard      {cluster} {heard}")?;
        }
        if *silent { write!(f, "; silent, so that others as near come first") } else { Ok(()) }
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Told { cluster, load, by, expires_seconds } = self;
        write!(f, "{load} of {cluster}, by {by}")?;
        expires_seconds.map_or(Ok(()), |seconds| write!(f, ", for another {}", age(seconds)))
    }
}

impl fmt::Display for Directed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Directed { cluster, service, action, phase, from, until, reason } = self;
        write!(f, "{action} {cluster}")?;
        if let Some(service) = service {
            write!(f, "/{service}")?;
        }
        write!(f, ": {phase}")?;
        for (word, time) in [("from", from), ("until", until)] {
            if let Some(time) = time {
                write!(f, " {word} {time}")?;
            }
        }
        // It is somebody's words, on one line.
        let reason: String = reason.chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect();
        if reason.is_empty() { Ok(()) } else { write!(f, " ({reason})") }
    }
}

impl fmt::Display for Voted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.cluster, self.heard_seconds) {
            (None, _) => write!(f, "this instance: {}", self.vote),
            (Some(cluster), Some(age)) => write!(f, "{cluster}: {}, heard {age:.0} s ago", self.vote),
            (Some(cluster), None) => write!(f, "{cluster}: not heard"),
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags = [(self.authoritative, ", authoritative"), (self.truncated, ", truncated")];
        let flags: String = flags.iter().filter(|(on, _)| *on).map(|(_, word)| *word).collect();
        writeln!(f, "answer     {}{flags}", self.rcode)?;
        for (title, records) in
            [("", &self.answers), ("authority:", &self.authority), ("additional:", &self.additional)]
        {
            if !title.is_empty() && !records.is_empty() {
                writeln!(f, "  {title}")?;
            }
            records.iter().try_for_each(|record| writeln!(f, "  {record}"))?;
        }
        Ok(())
    }
}
