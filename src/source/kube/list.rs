//! A Kubernetes list, decoded while it arrives: bytes in, one raw object at a time out.
//!
//! A list of 100,000 Services is 108 MB of JSON. Only the object that is being received is held, and when all of
//! an object is in one chunk of the body, not even that is copied.

use serde::Deserialize;

/// Largest single object: twelve times what etcd stores by default (1.5 MiB), for JSON is wordier than protobuf.
pub const MAX_OBJECT: usize = 18 << 20;
/// Largest of the list's own members (kind, apiVersion, metadata): a continue token is well below 4 KiB.
const MAX_MEMBER: usize = 64 << 10;

/// Why a body is no list. All of these mean "nothing was heard", never "the list is empty".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    #[error("octet {at} of the body: expected {expected}")]
    Syntax { at: u64, expected: &'static str },
    #[error("the body ended after {at} octets, before the list did")]
    Truncated { at: u64 },
    #[error("octet {at} of the body: a value of more than {limit} octets")]
    TooLarge { at: u64, limit: usize },
    #[error("the list has no {member}")]
    Missing { member: &'static str },
    #[error("the list's {member} is not understood: {problem}")]
    Member { member: &'static str, problem: String },
    #[error("object {index} of the list is not JSON: {problem}")]
    Object { index: usize, problem: String },
}

/// What a list says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListHead {
    pub api_version: String,
    pub kind: String,
    pub resource_version: String,
    /// Where the next page starts; `None` on the last one.
    pub continue_token: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ListMeta {
    resource_version: Option<String>,
    r#continue: Option<String>,
}

/// A push parser for `{"kind":…,"apiVersion":…,"metadata":{…},"items":[…]}`, its members in any order.
#[derive(Debug, Default)]
pub struct ListDecoder {
    place: Place,
    scan: Scan,
    /// The part of the present value that came in earlier chunks.
    held: Vec<u8>,
    at: u64,
    items: Items,
    kind: Option<String>,
    api_version: Option<String>,
    meta: Option<ListMeta>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Items {
    #[default]
    NotSeen,
    Seen {
        objects: usize,
    },
}

/// Where in the text the decoder is. Exits are in `ListDecoder::step`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Start,
    /// After `{`: a key or the end.
    FirstKey,
    /// After a comma between members.
    NextKey,
    Key,
    Colon(Member),
    /// Before a member's value.
    Before(Member),
    Value(Member),
    AfterMember,
    /// After `[`: an object or the end.
    FirstItem,
    NextItem,
    Item,
    AfterItem,
    End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Member {
    Kind,
    ApiVersion,
    Metadata,
    Items,
    Other,
}

impl ListDecoder {
    /// Takes the next octets of the body and hands each object that ends in them to `each`, as raw JSON.
    pub fn feed<F>(&mut self, chunk: &[u8], each: &mut F) -> Result<(), ListError>
    where
        F: FnMut(&[u8]) -> Result<(), String>,
    {
        let mut rest = chunk;
        while let Some(&byte) = rest.first() {
            let used = match self.place {
                Place::Key => self.take(rest, MAX_MEMBER, Self::key)?,
                Place::Value(member) => self.take(rest, MAX_MEMBER, |this, raw| this.member(member, raw))?,
                Place::Item => self.take(rest, MAX_OBJECT, |this, raw| this.item(raw, each))?,
                _ => self.step(byte)?,
            };
            self.at += used as u64;
            rest = &rest[used..];
        }
        Ok(())
    }

    /// The body has ended: in order, and after all of the list?
    pub fn finish(self) -> Result<ListHead, ListError> {
        if self.place != Place::End {
            return Err(ListError::Truncated { at: self.at });
        }
        let missing = |member| ListError::Missing { member };
        if self.items == Items::NotSeen {
            return Err(missing("items"));
        }
        let meta = self.meta.ok_or(missing("metadata"))?;
        Ok(ListHead {
            api_version: self.api_version.ok_or(missing("apiVersion"))?,
            kind: self.kind.ok_or(missing("kind"))?,
            resource_version: meta
                .resource_version
                .filter(|version| !version.is_empty())
                .ok_or(missing("metadata.resourceVersion"))?,
            continue_token: meta.r#continue.filter(|token| !token.is_empty()),
        })
    }

    /// One structural octet, or the start of a value (which is then not consumed). Returns the octets used.
    fn step(&mut self, byte: u8) -> Result<usize, ListError> {
        if matches!(byte, b' ' | b'\t' | b'\r' | b'\n') {
            return Ok(1);
        }
        let (next, used) = match (self.place, byte) {
            (Place::Start, b'{') => (Place::FirstKey, 1),
            (Place::FirstKey | Place::NextKey, b'"') => (Place::Key, 0),
            (Place::FirstKey | Place::AfterMember, b'}') => (Place::End, 1),
            (Place::Colon(member), b':') => (Place::Before(member), 1),
            (Place::Before(Member::Items), b'[') => {
                if self.items != Items::NotSeen {
                    return Err(self.expected("one member \"items\""));
                }
                self.items = Items::Seen { objects: 0 };
                (Place::FirstItem, 1)
            }
            // A nil slice in Go is written as null.
            (Place::Before(member), _) => (Place::Value(member), 0),
            (Place::AfterMember, b',') => (Place::NextKey, 1),
            (Place::FirstItem | Place::AfterItem, b']') => (Place::AfterMember, 1),
            (Place::FirstItem | Place::NextItem, b'{') => (Place::Item, 0),
            (Place::AfterItem, b',') => (Place::NextItem, 1),
            (place, _) => return Err(self.expected(place.expected())),
        };
        self.place = next;
        Ok(used)
    }

    /// Octets of a value; `done` gets all of it when its end is here. Returns the octets used.
    fn take<F>(&mut self, rest: &[u8], limit: usize, done: F) -> Result<usize, ListError>
    where
        F: FnOnce(&mut Self, &[u8]) -> Result<(), ListError>,
    {
        let end = self.scan.advance(rest);
        let part = &rest[..end.unwrap_or(rest.len())];
        if self.held.len() + part.len() > limit {
            return Err(ListError::TooLarge { at: self.at, limit });
        }
        if end.is_none() {
            self.held.extend_from_slice(part);
        } else {
            self.scan = Scan::default();
            if self.held.is_empty() {
                done(self, part)?;
            } else {
                let mut held = std::mem::take(&mut self.held);
                held.extend_from_slice(part);
                done(self, &held)?;
                held.clear();
                self.held = held;
            }
        }
        Ok(part.len())
    }

    fn key(&mut self, raw: &[u8]) -> Result<(), ListError> {
        let name: String = serde_json::from_slice(raw).map_err(|_| self.expected("a member's name"))?;
        self.place = Place::Colon(match name.as_str() {
            "kind" => Member::Kind,
            "apiVersion" => Member::ApiVersion,
            "metadata" => Member::Metadata,
            "items" => Member::Items,
            _ => Member::Other,
        });
        Ok(())
    }

    fn member(&mut self, member: Member, raw: &[u8]) -> Result<(), ListError> {
        fn read<'a, T: Deserialize<'a>>(member: &'static str, raw: &'a [u8]) -> Result<T, ListError> {
            serde_json::from_slice(raw).map_err(|e| ListError::Member { member, problem: e.to_string() })
        }
        match member {
            Member::Kind => self.kind = Some(read("kind", raw)?),
            Member::ApiVersion => self.api_version = Some(read("apiVersion", raw)?),
            Member::Metadata => self.meta = Some(read("metadata", raw)?),
            Member::Items if raw == b"null" && self.items == Items::NotSeen => {
                self.items = Items::Seen { objects: 0 };
            }
            Member::Items => return Err(self.expected("one array of items")),
            Member::Other => {
                read::<serde::de::IgnoredAny>("unknown member", raw)?;
            }
        }
        self.place = Place::AfterMember;
        Ok(())
    }

    fn item<F>(&mut self, raw: &[u8], each: &mut F) -> Result<(), ListError>
    where
        F: FnMut(&[u8]) -> Result<(), String>,
    {
        let Items::Seen { objects } = &mut self.items else {
            unreachable!("an item is only met inside of items");
        };
        let index = *objects;
        *objects += 1;
        each(raw).map_err(|problem| ListError::Object { index, problem })?;
        self.place = Place::AfterItem;
        Ok(())
    }

    fn expected(&self, expected: &'static str) -> ListError {
        ListError::Syntax { at: self.at, expected }
    }
}

impl Place {
    fn expected(self) -> &'static str {
        match self {
            Place::Start => "{",
            Place::FirstKey => "a member or }",
            Place::NextKey | Place::Key => "a member",
            Place::Colon(_) => ":",
            Place::Before(_) | Place::Value(_) => "a value",
            Place::AfterMember => ", or }",
            Place::FirstItem => "an object or ]",
            Place::NextItem | Place::Item => "an object",
            Place::AfterItem => ", or ]",
            Place::End => "nothing after the list",
        }
    }
}

/// Finds the end of one JSON value without understanding it; whoever parses the value checks its insides.
#[derive(Debug, Default)]
struct Scan {
    begun: bool,
    depth: u32,
    in_string: bool,
    escaped: bool,
}

impl Scan {
    /// The length of the part of `bytes` that belongs to the value, once its end is known.
    fn advance(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut i = 0;
        while let Some(&byte) = bytes.get(i) {
            if self.in_string {
                if self.escaped {
                    self.escaped = false;
                } else if byte == b'\\' {
                    self.escaped = true;
                } else if byte == b'"' {
                    self.in_string = false;
                    if self.depth == 0 {
                        return Some(i + 1);
                    }
                } else {
                    // Most octets are inside of strings: skip to the next one that can matter.
                    i += bytes[i..].iter().position(|b| matches!(b, b'"' | b'\\')).unwrap_or(bytes.len() - i);
                    continue;
                }
            } else {
                match byte {
                    b'"' => self.in_string = true,
                    b'{' | b'[' => self.depth = self.depth.saturating_add(1),
                    // Outside of brackets these end a number, true, false or null, and are not part of it.
                    b'}' | b']' | b',' | b':' | b' ' | b'\t' | b'\r' | b'\n' if self.depth == 0 && self.begun => {
                        return Some(i);
                    }
                    b'}' | b']' => {
                        self.depth = self.depth.saturating_sub(1);
                        if self.depth == 0 {
                            return Some(i + 1);
                        }
                    }
                    _ => {}
                }
            }
            self.begun = true;
            i += 1;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = r#" {"kind":"ServiceList","apiVersion":"v1", "extra": [1, {"a":"]}"}, null, "\"" ],
        "metadata":{"resourceVersion":"42","continue":""},
        "items":[{"a":"}\\\"]"},{},{"b":{"c":[1,2,{"d":null}]}} , {"n":-1.5e3,"t":true}]} "#;

    fn decode(text: &[u8], split: &[usize]) -> Result<(ListHead, Vec<String>), ListError> {
        let mut decoder = ListDecoder::default();
        let mut objects = Vec::new();
        let mut each = |raw: &[u8]| {
            serde_json::from_slice::<serde_json::Value>(raw).map_err(|e| e.to_string())?;
            objects.push(String::from_utf8(raw.to_vec()).unwrap());
            Ok(())
        };
        let mut from = 0;
        for &to in split.iter().chain([&text.len()]) {
            decoder.feed(&text[from..to], &mut each)?;
            from = to;
        }
        Ok((decoder.finish()?, objects))
    }

    #[test]
    fn wherever_the_body_is_cut_into_chunks() {
        let whole = decode(LIST.as_bytes(), &[]).unwrap();
        assert_eq!(whole.1, [r#"{"a":"}\\\"]"}"#, "{}", r#"{"b":{"c":[1,2,{"d":null}]}}"#, r#"{"n":-1.5e3,"t":true}"#]);
        assert_eq!(
            whole.0,
            ListHead {
                api_version: "v1".into(),
                kind: "ServiceList".into(),
                resource_version: "42".into(),
                continue_token: None
            }
        );
        for at in 0..=LIST.len() {
            assert_eq!(decode(LIST.as_bytes(), &[at]).unwrap(), whole, "cut at {at}");
        }
        let single: Vec<usize> = (0..LIST.len()).collect();
        assert_eq!(decode(LIST.as_bytes(), &single).unwrap(), whole);
    }

    #[test]
    fn every_prefix_is_an_error() {
        let text = LIST.trim();
        for end in 0..text.len() {
            assert!(decode(&text.as_bytes()[..end], &[]).is_err(), "{:?}", &text[..end]);
        }
    }

    #[test]
    fn empty_lists_are_lists() {
        for items in ["[]", " [ ] ", "null"] {
            let text =
                format!(r#"{{"items":{items},"metadata":{{"resourceVersion":"7"}},"kind":"X","apiVersion":"v1"}}"#);
            let (head, objects) = decode(text.as_bytes(), &[]).unwrap();
            assert_eq!((head.resource_version.as_str(), objects.len()), ("7", 0));
        }
    }

    #[test]
    fn what_is_no_list() {
        for (text, part) in [
            ("<html>", "expected {"),
            ("[]", "expected {"),
            ("{}", "no items"),
            (r#"{"kind":"X","apiVersion":"v1","items":[]}"#, "no metadata"),
            (r#"{"kind":"X","apiVersion":"v1","items":[],"metadata":{}}"#, "no metadata.resourceVersion"),
            (r#"{"kind":"X","apiVersion":"v1","items":[],"metadata":{"resourceVersion":""}}"#, "resourceVersion"),
            (r#"{"kind":"X","apiVersion":"v1","items":[],"metadata":{"resourceVersion":7}}"#, "metadata is not"),
            (r#"{"apiVersion":"v1","items":[],"metadata":{"resourceVersion":"7"}}"#, "no kind"),
            (r#"{"kind":"X","items":[],"metadata":{"resourceVersion":"7"}}"#, "no apiVersion"),
            (r#"{"kind":"X","apiVersion":"v1","metadata":{"resourceVersion":"7"}}"#, "no items"),
            (r#"{"items":{}}"#, "array of items"),
            (r#"{"items":[]],"kind":"X"}"#, "expected , or }"),
            (r#"{"items":[1]}"#, "an object or ]"),
            (r#"{"items":[{},]}"#, "expected an object"),
            (r#"{"items":[{}{}]}"#, "expected , or ]"),
            (r#"{"items":[{"a":}]}"#, "object 0 of the list is not JSON"),
            (r#"{"items":[],"items":[]}"#, "one member"),
            (r#"{"a":tru}"#, "unknown member"),
            (r#"{"a" 1}"#, "expected :"),
            (r#"{"kind":"X","apiVersion":"v1","items":[],"metadata":{"resourceVersion":"7"}} {}"#, "nothing after"),
        ] {
            let error = decode(text.as_bytes(), &[]).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn no_object_is_held_beyond_its_limit() {
        let mut decoder = ListDecoder::default();
        decoder.feed(br#"{"items":[{"a":""#, &mut |_| Ok(())).unwrap();
        let chunk = vec![b'x'; 1 << 20];
        let error = (0..=18).find_map(|_| decoder.feed(&chunk, &mut |_| Ok(())).err()).unwrap();
        assert!(matches!(error, ListError::TooLarge { limit: MAX_OBJECT, .. }), "{error}");
        assert!(decoder.held.len() <= MAX_OBJECT);
    }
}
