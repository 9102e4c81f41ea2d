//! Names in wire form (RFC 1035 section 3.1), lower case.

use std::borrow::Borrow;
use std::fmt;

use crate::model::Label;

/// RFC 1035 section 2.3.4.
pub const MAX_NAME: usize = 255;

/// An absolute domain name: wire form, lower case, uncompressed, with the root's zero octet.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Box<[u8]>);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("a label is empty")]
    EmptyLabel,
    #[error("a label is longer than 63 octets")]
    LongLabel,
    #[error("the name is longer than 255 octets")]
    LongName,
    #[error("only ASCII is possible (write an internationalised name as its A-label, xn--...)")]
    NotAscii,
    #[error("the wire form is broken")]
    BrokenWire,
}

impl Name {
    /// From presentation form without escapes, with or without the final dot; letters are lower-cased.
    pub fn parse(text: &str) -> Result<Name, NameError> {
        let text = text.strip_suffix('.').unwrap_or(text);
        let mut wire = Vec::with_capacity(text.len() + 2);
        if !text.is_empty() {
            for label in text.split('.') {
                if !label.is_ascii() {
                    return Err(NameError::NotAscii);
                }
                push_label(&mut wire, label.as_bytes())?;
            }
        }
        wire.push(0);
        if wire.len() > MAX_NAME {
            return Err(NameError::LongName);
        }
        Ok(Name(wire.into()))
    }

    /// From uncompressed wire form; letters are lower-cased.
    pub fn from_wire(wire: &[u8]) -> Result<Name, NameError> {
        let mut at = 0;
        loop {
            match wire.get(at) {
                Some(0) if at + 1 == wire.len() => break,
                Some(&n @ 1..=63) => at += 1 + usize::from(n),
                _ => return Err(NameError::BrokenWire),
            }
        }
        if wire.len() > MAX_NAME {
            return Err(NameError::LongName);
        }
        Ok(Name(wire.to_ascii_lowercase().into()))
    }

    /// `label` put in front of this name.
    pub fn child(&self, label: &[u8]) -> Result<Name, NameError> {
        let mut wire = Vec::with_capacity(1 + label.len() + self.0.len());
        push_label(&mut wire, label)?;
        wire.extend_from_slice(&self.0);
        if wire.len() > MAX_NAME {
            return Err(NameError::LongName);
        }
        Ok(Name(wire.into()))
    }

    /// The name without its first label; `None` for the root.
    pub fn parent(&self) -> Option<Name> {
        let first = usize::from(self.0[0]);
        (first > 0).then(|| Name(self.0[1 + first..].into()))
    }

    pub fn as_wire(&self) -> &[u8] {
        &self.0
    }

    /// The labels without the root, the leftmost first.
    pub fn labels(&self) -> Labels<'_> {
        Labels(&self.0)
    }

    pub fn label_count(&self) -> usize {
        self.labels().count()
    }

    /// Whether this is `zone` or a name below it.
    pub fn is_at_or_below(&self, zone: &Name) -> bool {
        let mut rest: &[u8] = &self.0;
        while rest.len() > zone.0.len() {
            rest = &rest[1 + usize::from(rest[0])..];
        }
        rest == &*zone.0
    }
}

fn push_label(wire: &mut Vec<u8>, label: &[u8]) -> Result<(), NameError> {
    match label.len() {
        0 => Err(NameError::EmptyLabel),
        n @ 1..=63 => {
            wire.push(n as u8);
            wire.extend(label.iter().map(u8::to_ascii_lowercase));
            Ok(())
        }
        _ => Err(NameError::LongLabel),
    }
}

/// The first of names in wire form that stand one behind the other, and what is behind it.
pub fn split_name(octets: &[u8]) -> Option<(&[u8], &[u8])> {
    octets.split_at_checked(Labels::new(octets).map(|label| 1 + label.len()).sum::<usize>() + 1)
}

/// Whether two names in wire form and lower case are one: what `==` says, without its call.
#[inline]
pub fn is_same(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    // Blocks from both ends, which may overlap. Ranges and not `last_chunk`, which costs a comparison more.
    match a.len() {
        16..=32 => {
            let end = a.len() - 16;
            (block::<16>(a, 0) == block(b, 0)) & (block::<16>(a, end) == block(b, end))
        }
        33.. => {
            let end = a.len() - 16;
            let mut blocks = a.as_chunks::<16>().0.iter().zip(b.as_chunks::<16>().0);
            block::<16>(a, end) == block(b, end) && blocks.all(|(a, b)| a == b)
        }
        8.. => {
            let end = a.len() - 8;
            block::<8>(a, end) == block(b, end) && block::<8>(a, 0) == block(b, 0)
        }
        4.. => {
            let end = a.len() - 4;
            block::<4>(a, end) == block(b, end) && block::<4>(a, 0) == block(b, 0)
        }
        _ => a == b,
    }
}

/// What `to.copy_from_slice(from)` does, which is a call, without one where they are as long as most labels and names are.
#[inline(always)]
pub fn copy(from: &[u8], to: &mut [u8]) {
    assert_eq!(from.len(), to.len(), "one length");
    match from.len() {
        33..=64 => copy_ends::<32>(from, to),
        17..=32 => copy_ends::<16>(from, to),
        8..=16 => copy_ends::<8>(from, to),
        _ => to.copy_from_slice(from),
    }
}

/// The first and the last octets, which may overlap.
#[inline(always)]
fn copy_ends<const N: usize>(from: &[u8], to: &mut [u8]) {
    let end = from.len() - N;
    to[..N].copy_from_slice(block::<N>(from, 0));
    to[end..].copy_from_slice(block::<N>(from, end));
}

/// The octets from there on, which are there.
#[inline(always)]
pub fn block<const N: usize>(octets: &[u8], from: usize) -> &[u8; N] {
    octets[from..].first_chunk().expect("the caller has looked at the length")
}

/// `<service>.<namespace>.<zone>`, the key of the table.
pub fn service_name(service: &Label, namespace: &Label, zone: &Name) -> Result<Name, NameError> {
    let mut wire = Vec::with_capacity(MAX_NAME);
    write_service_name(&mut wire, service, namespace, zone)?;
    Ok(Name(wire.into()))
}

/// The wire form of [`service_name`], in the place of what `wire` holds.
pub fn write_service_name(
    wire: &mut Vec<u8>,
    service: &Label,
    namespace: &Label,
    zone: &Name,
) -> Result<(), NameError> {
    wire.clear();
    for label in [service, namespace] {
        let octets = label.as_bytes();
        wire.push(octets.len() as u8);
        wire.extend_from_slice(octets);
    }
    wire.extend_from_slice(&zone.0);
    if wire.len() > MAX_NAME {
        return Err(NameError::LongName);
    }
    Ok(())
}

/// The labels of a name in wire form, the root left out.
#[derive(Clone)]
pub struct Labels<'a>(&'a [u8]);

impl<'a> Labels<'a> {
    /// `wire` is uncompressed and well formed; it may lack the root's octet.
    pub fn new(wire: &'a [u8]) -> Self {
        Labels(wire)
    }
}

impl<'a> Iterator for Labels<'a> {
    type Item = &'a [u8];
    fn next(&mut self) -> Option<&'a [u8]> {
        let n = usize::from(*self.0.first()?);
        if n == 0 {
            return None;
        }
        let (label, rest) = self.0[1..].split_at(n);
        self.0 = rest;
        Some(label)
    }
}

impl Borrow<[u8]> for Name {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Name {
    /// Presentation form with a final dot; RFC 1035 section 5.1 escapes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.len() == 1 {
            return f.write_str(".");
        }
        for label in self.labels() {
            for &b in label {
                match b {
                    b'.' | b'\\' | b'"' | b';' | b'(' | b')' | b'@' | b'$' => write!(f, "\\{}", b as char)?,
                    0x21..=0x7e => write!(f, "{}", b as char)?,
                    _ => write!(f, "\\{b:03}")?,
                }
            }
            f.write_str(".")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_same_in_every_octet() {
        for length in 0..=80 {
            let name: Vec<u8> = (0..length).collect();
            assert!(is_same(&name, &name.clone()));
            for at in 0..name.len() {
                let mut other = name.clone();
                other[at] ^= 0x40;
                assert!(!is_same(&name, &other), "{length} octets, another one at {at}");
                assert!(!is_same(&name, &name[..at]));
            }
        }
    }

    #[test]
    fn copies_are_whole() {
        for length in 0..=80 {
            let name: Vec<u8> = (1..=length).collect();
            let mut target = vec![0; name.len()];
            copy(&name, &mut target);
            assert_eq!(target, name);
        }
    }

    #[test]
    fn presentation_and_wire() {
        let name = Name::parse("My-Service.ns.Example.com.").unwrap();
        assert_eq!(name.to_string(), "my-service.ns.example.com.");
        assert_eq!(name.as_wire(), b"\x0amy-service\x02ns\x07example\x03com\x00");
        assert_eq!(name.label_count(), 4);
        assert_eq!(Name::from_wire(name.as_wire()).unwrap(), name);
        assert_eq!(Name::parse(".").unwrap().to_string(), ".");
    }

    #[test]
    fn relations() {
        let zone = Name::parse("example.com").unwrap();
        let below = Name::parse("a.example.com").unwrap();
        assert!(below.is_at_or_below(&zone) && zone.is_at_or_below(&zone));
        assert!(!zone.is_at_or_below(&below));
        assert!(!Name::parse("anexample.com").unwrap().is_at_or_below(&zone));
        assert_eq!(below.parent(), Some(zone.clone()));
        assert_eq!(zone.child(b"A").unwrap(), below);
    }

    #[test]
    fn limits() {
        assert_eq!(Name::parse("a..b"), Err(NameError::EmptyLabel));
        assert_eq!(Name::parse(&"x".repeat(64)), Err(NameError::LongLabel));
        let long = vec!["x".repeat(63); 4].join(".");
        assert_eq!(Name::parse(&long), Err(NameError::LongName));
        assert_eq!(Name::parse("ä.example"), Err(NameError::NotAscii));
        for bad in [&b""[..], b"\x01a", b"\x01a\x00x", b"\xc0\x0c", b"\x40"] {
            assert_eq!(Name::from_wire(bad), Err(NameError::BrokenWire), "{bad:?}");
        }
    }
}
