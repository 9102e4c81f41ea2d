//! The text of a zone file (RFC 1035 section 5.1): entries of tokens, and what a token says as a name or a string.

use super::Reason;
use crate::names::{MAX_NAME, Name};

/// A word of an entry, escapes still in it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Token<'a> {
    /// Without the quotes around it.
    pub raw: &'a str,
    pub quoted: bool,
    pub line: u32,
}

/// The entries of a file, one after the other.
pub(super) struct Entries<'a> {
    text: &'a str,
    at: usize,
    line: u32,
}

/// One entry: what stands on a line, or on several inside parentheses.
#[derive(Debug, Default)]
pub(super) struct Entry<'a> {
    pub line: u32,
    /// Whether it begins with white space, which means: the owner of the entry before.
    pub blank: bool,
    pub tokens: Vec<Token<'a>>,
}

impl<'a> Entries<'a> {
    pub fn new(text: &'a str) -> Self {
        // Editors of some systems put a byte order mark in front of UTF-8.
        Entries { text: text.strip_prefix('\u{feff}').unwrap_or(text), at: 0, line: 1 }
    }

    /// Fills `entry` with the next one that has tokens; false at the end of the file.
    pub fn next_into(&mut self, entry: &mut Entry<'a>) -> Result<bool, (u32, Reason)> {
        loop {
            if self.at >= self.text.len() {
                return Ok(false);
            }
            entry.tokens.clear();
            entry.line = self.line;
            entry.blank = matches!(self.peek(), Some(b' ' | b'\t'));
            self.entry(&mut entry.tokens)?;
            if !entry.tokens.is_empty() {
                return Ok(true);
            }
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn entry(&mut self, tokens: &mut Vec<Token<'a>>) -> Result<(), (u32, Reason)> {
        // The lines of the parentheses that are open.
        let mut open: Vec<u32> = Vec::new();
        while let Some(byte) = self.peek() {
            match byte {
                b'\n' => {
                    self.at += 1;
                    self.line += 1;
                    if open.is_empty() {
                        return Ok(());
                    }
                }
                b' ' | b'\t' | b'\r' => self.at += 1,
                b';' => self.at += self.text[self.at..].find('\n').unwrap_or(self.text.len() - self.at),
                b'(' => {
                    open.push(self.line);
                    self.at += 1;
                }
                b')' => {
                    open.pop().ok_or((self.line, Reason::StrayParenthesis))?;
                    self.at += 1;
                }
                b'"' => {
                    let start = self.at + 1;
                    self.quoted()?;
                    tokens.push(Token { raw: &self.text[start..self.at - 1], quoted: true, line: self.line });
                }
                _ => {
                    let start = self.at;
                    self.word()?;
                    tokens.push(Token { raw: &self.text[start..self.at], quoted: false, line: self.line });
                }
            }
        }
        match open.first() {
            Some(&line) => Err((line, Reason::OpenParenthesis)),
            None => Ok(()),
        }
    }

    /// Goes behind the quote that closes the one at the present place. RFC 1035 allows a line end in quotes; here a
    /// quote that is not closed on its line is an error, because that is nearly always a forgotten one.
    fn quoted(&mut self) -> Result<(), (u32, Reason)> {
        self.at += 1;
        loop {
            match self.peek() {
                None | Some(b'\n') => return Err((self.line, Reason::OpenQuote)),
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => self.escape()?,
                Some(byte) => {
                    self.printable(byte)?;
                    self.at += 1;
                }
            }
        }
    }

    /// Goes to the end of a word. Quotes inside one (`alpn="h2,h3"`, RFC 9460 section 2.1) belong to it.
    fn word(&mut self) -> Result<(), (u32, Reason)> {
        while let Some(byte) = self.peek() {
            match byte {
                b' ' | b'\t' | b'\r' | b'\n' | b';' | b'(' | b')' => break,
                b'\\' => self.escape()?,
                b'"' => self.quoted()?,
                _ => {
                    self.printable(byte)?;
                    self.at += 1;
                }
            }
        }
        Ok(())
    }

    /// Over a backslash and the character that it protects.
    fn escape(&mut self) -> Result<(), (u32, Reason)> {
        self.at += 1;
        match self.text[self.at..].chars().next() {
            None | Some('\n' | '\r') => Err((self.line, Reason::BadEscape)),
            Some(c) => {
                self.at += c.len_utf8();
                Ok(())
            }
        }
    }

    fn printable(&self, byte: u8) -> Result<(), (u32, Reason)> {
        match byte {
            b'\t' | b' '..=0x7e | 0x80.. => Ok(()),
            _ => Err((self.line, Reason::ControlCharacter { octet: byte })),
        }
    }
}

/// One decoded octet, and whether it was escaped.
fn octets(raw: &str) -> impl Iterator<Item = Result<(u8, bool), Reason>> + '_ {
    let bytes = raw.as_bytes();
    let mut at = 0;
    std::iter::from_fn(move || {
        let &byte = bytes.get(at)?;
        at += 1;
        if byte != b'\\' {
            return Some(Ok((byte, false)));
        }
        let Some(&next) = bytes.get(at) else { return Some(Err(Reason::BadEscape)) };
        if !next.is_ascii_digit() {
            at += 1;
            return Some(Ok((next, true)));
        }
        // RFC 1035 section 5.1: \DDD is decimal.
        let digits = bytes.get(at..at + 3).and_then(|d| std::str::from_utf8(d).ok());
        at += 3;
        match digits.filter(|d| d.bytes().all(|b| b.is_ascii_digit())).and_then(|d| d.parse().ok()) {
            Some(octet) => Some(Ok((octet, true))),
            None => {
                at = bytes.len();
                Some(Err(Reason::BadEscape))
            }
        }
    })
}

/// A name as written: `@`, relative to `origin`, or absolute. It is lower-cased.
pub(super) fn name(token: &Token<'_>, origin: &Name) -> Result<Name, Reason> {
    let broken = |why: &str| Reason::BadName { text: clip(token.raw), why: why.to_string() };
    if token.quoted {
        return Err(broken("a name is written without quotes"));
    }
    match token.raw {
        "@" => return Ok(origin.clone()),
        "." => return Ok(Name::parse(".").expect("the root is a name")),
        _ => {}
    }
    let mut wire: Vec<u8> = vec![0];
    let mut label = 0;
    for octet in octets(token.raw) {
        match octet? {
            (b'.', false) => {
                if wire[label] == 0 {
                    return Err(broken("a label is empty"));
                }
                label = wire.len();
                wire.push(0);
            }
            (byte, escaped) => {
                if !byte.is_ascii() && !escaped {
                    return Err(broken(
                        "only ASCII is possible (write an internationalised name as its A-label, xn--...)",
                    ));
                }
                if wire[label] == 63 {
                    return Err(broken("a label is longer than 63 octets"));
                }
                if wire.len() >= MAX_NAME {
                    return Err(broken("the name is longer than 255 octets"));
                }
                wire[label] += 1;
                wire.push(byte);
            }
        }
    }
    // A final dot left an empty label, which is the root.
    if wire[label] != 0 {
        wire.extend_from_slice(origin.as_wire());
    }
    Name::from_wire(&wire).map_err(|e| broken(&e.to_string()))
}

/// The octets of a character string of any length.
pub(super) fn string(token: &Token<'_>) -> Result<Vec<u8>, Reason> {
    octets(token.raw).map(|o| o.map(|(byte, _)| byte)).collect()
}

/// Seconds, or RFC 2308's relatives of them: `1h30m`, `2D`, `1w`.
pub(super) fn seconds(text: &str) -> Option<u32> {
    let mut total: u32 = 0;
    let mut digits: Option<u32> = None;
    for c in text.chars() {
        if let Some(digit) = c.to_digit(10) {
            digits = Some(digits.unwrap_or(0).checked_mul(10)?.checked_add(digit)?);
            continue;
        }
        let unit = match c.to_ascii_lowercase() {
            's' => 1,
            'm' => 60,
            'h' => 3_600,
            'd' => 86_400,
            'w' => 604_800,
            _ => return None,
        };
        total = total.checked_add(digits.take()?.checked_mul(unit)?)?;
    }
    match digits {
        Some(rest) => total.checked_add(rest),
        None => (!text.is_empty()).then_some(total),
    }
}

/// What an error shows of a text: 80 characters show what is wrong with any token.
pub(super) fn clip(text: &str) -> String {
    const SHOWN: usize = 80;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_string(),
    }
}

/// The line of the octet `at`, counted from 1.
pub(super) fn line_of(bytes: &[u8], at: usize) -> u32 {
    let lines = bytes[..at].iter().filter(|b| **b == b'\n').count() + 1;
    u32::try_from(lines).unwrap_or(u32::MAX)
}
