//! A watch's body: one JSON event a line.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::list::MAX_OBJECT;

/// Longest line: one object and what is around it.
const MAX_LINE: usize = MAX_OBJECT + 1024;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    #[error("a line of more than {limit} octets")]
    TooLong { limit: usize },
    #[error("a line that is no watch event: {problem}")]
    Malformed { problem: String },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum EventKind {
    Added,
    Modified,
    Deleted,
    Bookmark,
    Error,
}

/// One event. The object is left raw: that it cannot be understood must not be the end of the watch.
#[derive(Debug, Deserialize)]
pub struct Event<'a> {
    #[serde(rename = "type")]
    pub kind: EventKind,
    #[serde(borrow)]
    pub object: &'a RawValue,
}

impl<'a> Event<'a> {
    pub fn parse(line: &'a [u8]) -> Result<Event<'a>, EventError> {
        serde_json::from_slice(line).map_err(|e| EventError::Malformed { problem: e.to_string() })
    }

    /// The object's `metadata.resourceVersion`, whatever else may be wrong with the object.
    pub fn resource_version(&self) -> Option<String> {
        #[derive(Deserialize)]
        struct Head {
            metadata: Meta,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Meta {
            resource_version: String,
        }
        let head: Head = serde_json::from_str(self.object.get()).ok()?;
        Some(head.metadata.resource_version).filter(|version| !version.is_empty())
    }
}

/// Cuts chunks of a body into lines.
#[derive(Debug, Default)]
pub struct Lines {
    held: Vec<u8>,
    /// Where the next line starts.
    start: usize,
    /// Up to where there is no line feed.
    searched: usize,
}

impl Lines {
    pub fn push(&mut self, chunk: &[u8]) {
        self.held.drain(..self.start);
        self.searched -= self.start;
        self.start = 0;
        self.held.extend_from_slice(chunk);
    }

    /// The next whole line that is not empty. What is left at the end of a body without a line feed is no line: the
    /// server did not finish it.
    pub fn next_line(&mut self) -> Result<Option<&[u8]>, EventError> {
        loop {
            let Some(offset) = self.held[self.searched..].iter().position(|&b| b == b'\n') else {
                self.searched = self.held.len();
                if self.searched - self.start > MAX_LINE {
                    return Err(EventError::TooLong { limit: MAX_LINE });
                }
                return Ok(None);
            };
            let end = self.searched + offset;
            let line = self.start..end;
            self.start = end + 1;
            self.searched = self.start;
            if line.len() > MAX_LINE {
                return Err(EventError::TooLong { limit: MAX_LINE });
            }
            if !self.held[line.clone()].iter().all(u8::is_ascii_whitespace) {
                return Ok(Some(&self.held[line]));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(text: &[u8], chunks: usize) -> Vec<String> {
        let mut lines = Lines::default();
        let mut found = Vec::new();
        for chunk in text.chunks(chunks) {
            lines.push(chunk);
            while let Some(line) = lines.next_line().unwrap() {
                found.push(String::from_utf8(line.to_vec()).unwrap());
            }
        }
        found
    }

    #[test]
    fn lines_in_chunks_of_any_size() {
        for chunks in 1..20 {
            assert_eq!(cut(b"one\n\ntwo\r\n \nthree\nfour", chunks), ["one", "two\r", "three"], "{chunks}");
        }
    }

    #[test]
    fn a_line_has_an_end() {
        let mut lines = Lines::default();
        let chunk = vec![b'x'; 1 << 20];
        let error = (0..20).find_map(|_| {
            lines.push(&chunk);
            lines.next_line().err()
        });
        assert_eq!(error, Some(EventError::TooLong { limit: MAX_LINE }));
    }

    #[test]
    fn events() {
        let event =
            Event::parse(br#"{"type":"ADDED","object":{"metadata":{"resourceVersion":"12"},"spec":7}}"#).unwrap();
        assert_eq!((event.kind, event.resource_version().as_deref()), (EventKind::Added, Some("12")));
        let event = Event::parse(br#"{"object":{"code":410},"type":"ERROR"}"#).unwrap();
        assert_eq!((event.kind, event.resource_version()), (EventKind::Error, None));
        for bad in
            ["", "{}", r#"{"type":"ADDED"}"#, r#"{"type":"SEEN","object":{}}"#, r#"{"type":"ADDED","object":{"a"}}"#]
        {
            assert!(Event::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
