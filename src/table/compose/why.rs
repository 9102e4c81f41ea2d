//! `TXT _explain.S.N.Z`: why a service's answers are as they are, for those who may know. In short what `signpost explain`
//! says, without an allocation: one record for each candidate that the view can see.

use std::fmt::{self, Write as _};

use super::super::FIXED;
use super::super::ready::fixed;
use super::super::record::{address_size, flag};
use super::{Scratch, Seen, Sight};
use crate::names::Labels;
use crate::ranking::{Band, Tier};
use crate::wire::response::Section;
use crate::wire::{Writer, pointer_to, rtype};

/// The label in front of a service's name, in wire form.
pub const EXPLAIN: &[u8] = b"\x08_explain";
/// Nobody should keep it.
const TTL: u32 = 0;

/// One character-string (RFC 1035 section 3.3). What does not fit is cut off.
struct Line {
    octets: [u8; 255],
    length: usize,
}

impl fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = &mut self.octets[self.length..];
        let count = text.len().min(room.len());
        room[..count].copy_from_slice(&text.as_bytes()[..count]);
        self.length += count;
        Ok(())
    }
}

impl Sight<'_> {
    /// Writes the records for the name at `owner`; false: no room, and the message is to be [truncated](Writer::truncate).
    /// What is [looked up](Sight::look_up) stands in the scratch.
    #[must_use]
    pub fn write_why(&self, writer: &mut Writer<'_>, owner: usize, scratch: &Scratch) -> bool {
        for (number, band) in (1..).zip(scratch.summary.bands().map(Some).chain([None])) {
            let here = |seen: &&Seen| match band {
                Some(band) => seen.standing.has_address() && seen.standing.band == band,
                // Behind all: what has no address.
                None => !seen.standing.has_address(),
            };
            for seen in scratch.seen.iter().filter(here) {
                let mut line = Line { octets: [0; 255], length: 0 };
                // A line has room for whatever comes: it is cut off.
                let _ = self.describe(&mut line, seen, band.map(|band| (number, band)), scratch);
                let length = FIXED + 1 + line.length;
                let Some(record) = writer.reserve_records(Section::Answer, length, 1) else { return false };
                let head = fixed(pointer_to(owner), rtype::TXT, TTL, (length - FIXED) as u16);
                record[..FIXED].copy_from_slice(&head);
                record[FIXED] = line.length as u8;
                record[FIXED + 1..].copy_from_slice(&line.octets[..line.length]);
            }
        }
        true
    }

    fn describe(&self, line: &mut Line, seen: &Seen, band: Option<(u8, Band)>, scratch: &Scratch) -> fmt::Result {
        match band {
            Some((number, _)) => write!(line, "band={number}")?,
            None => write!(line, "band=none")?,
        }
        let name = std::str::from_utf8(self.cluster_name(seen.cluster)).unwrap_or_default();
        let tier = match self.perspective.reach[seen.cluster.index()].tier {
            Tier::OWN_CLUSTER => "own-cluster",
            Tier::SAME_AVAILABILITY_ZONE => "same-availability-zone",
            Tier::SAME_REGION => "same-region",
            _ => "region",
        };
        let weight = if seen.standing.drained { 0 } else { seen.weight };
        write!(line, " cluster={name} tier={tier} weight={weight}")?;
        write!(line, " shed={}%", u32::from(seen.shedding.share) * 100 / 255)?;
        let words = [
            (seen.has(flag::IMPORT), " import"),
            (seen.shedding.overloaded, " overloaded"),
            (seen.standing.ready, " ready"),
            (!seen.standing.ready, " not-ready"),
            (seen.standing.drained, " drained"),
            (seen.standing.down.ipv4, " down=A"),
            (seen.standing.down.ipv6, " down=AAAA"),
            (seen.is_suspect(), " suspect"),
            (seen.is_silent(), " silent"),
        ];
        for (_, word) in words.iter().filter(|(on, _)| *on) {
            line.write_str(word)?;
        }
        for v4 in [true, false] {
            let taken = seen.standing.has_family(v4) && scratch.summary.choice(v4).takes(&seen.standing);
            if taken {
                line.write_str(if v4 { " answers=A" } else { " answers=AAAA" })?;
            }
        }
        let octets = self.record.octets();
        for alias in seen.aliases.into_iter().flat_map(|end| self.record.aliases(end)) {
            line.write_str(" alias=")?;
            for label in Labels::new(alias) {
                write!(line, "{}.", std::str::from_utf8(label).unwrap_or_default())?;
            }
        }
        for v4 in [true, false] {
            for at in seen.addresses.of(v4).addresses(v4) {
                let octets = &octets[at as usize..][..address_size(v4)];
                match (<[u8; 4]>::try_from(octets), <[u8; 16]>::try_from(octets)) {
                    (Ok(v4), _) => write!(line, " {}", std::net::Ipv4Addr::from(v4))?,
                    (_, Ok(v6)) => write!(line, " {}", std::net::Ipv6Addr::from(v6))?,
                    _ => {}
                }
            }
        }
        Ok(())
    }
}
