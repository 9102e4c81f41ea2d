//! The text of a file → its documents, each parsed on its own, so that a broken one does not take its neighbours.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_saphyr::Spanned;

use crate::source::problem::Problem;

/// Deepest nesting of a document. A Service with its managedFields has about 12 levels; the decoder is recursive.
const MAX_DEPTH: usize = 64;
/// Most nodes that aliases may add to a document: a few lines of nested aliases expand to billions.
const MAX_ALIASED: usize = 100_000;

/// One document of a file.
#[derive(Debug, Clone, Copy)]
pub struct Document<'a> {
    /// Counted from 1.
    pub number: u32,
    /// The line of the file on which `text` begins, counted from 1.
    pub line: u64,
    text: &'a str,
    syntax: Syntax,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Syntax {
    Yaml,
    Json,
}

/// A document that is not what its syntax demands.
#[derive(Debug, PartialEq, Eq)]
pub struct Broken {
    /// In the file.
    pub line: Option<u64>,
    pub problem: Problem,
}

/// The documents of a file. What JSON text holds after its first error is not looked at: JSON has no mark at which a
/// reader could find its feet again.
pub fn split(text: &str, syntax: Syntax) -> Vec<Document<'_>> {
    match syntax {
        Syntax::Yaml => split_yaml(text.strip_prefix('\u{feff}').unwrap_or(text)),
        Syntax::Json => split_json(text.strip_prefix('\u{feff}').unwrap_or(text)),
    }
}

impl Document<'_> {
    /// Null is an empty document, which templates leave behind.
    pub fn parse(&self) -> Result<Value, Broken> {
        match self.syntax {
            Syntax::Yaml => serde_saphyr::from_str_with_options(self.text, options()).map_err(|error| {
                let line = error.location().map(|at| self.line_of(at.line()));
                Broken { line, problem: Problem::syntax(without_location(&error.to_string())) }
            }),
            Syntax::Json => serde_json::from_str(self.text).map_err(|error| {
                let line = Some(self.line_of(error.line() as u64));
                Broken { line, problem: Problem::syntax(without_location(&error.to_string())) }
            }),
        }
    }

    /// The lines of the file on which the fields with these paths stand, in one pass over the document; only called
    /// for objects that have something wrong with them.
    pub fn lines<'p>(&self, paths: &'p [String]) -> BTreeMap<&'p str, u64> {
        let mut found = BTreeMap::new();
        let wanted = paths.iter().map(|path| Wanted { path, rest: steps(path) });
        let wanted: Vec<Wanted<'p>> = wanted.filter(|wanted| !wanted.rest.is_empty()).collect();
        let found_ref = &mut found;
        // The document was parsed before, so an error could only mean that a path leads through an alias or a
        // merged key; then the line is not known, and the number of the document has to do.
        let _ = serde_saphyr::with_deserializer_from_str_with_options(self.text, options(), |deserializer| {
            Walk { wanted, found: found_ref }.deserialize(deserializer)
        });
        found.values_mut().for_each(|line| *line = self.line_of(*line));
        found
    }

    fn line_of(&self, line_in_text: u64) -> u64 {
        self.line + line_in_text.saturating_sub(1)
    }
}

/// YAML 1.2 section 9.1.2: at the beginning of a line, `---` and `...` followed by white space are marks even inside
/// quoted and block scalars, so no parser is needed to find them.
fn split_yaml(text: &str) -> Vec<Document<'_>> {
    let mut documents = Vec::new();
    let mut add = |line: u64, text| {
        // Without its own mark, what holds comments and directives only is no document.
        if !is_blank(text) {
            documents.push(Document { number: documents.len() as u32 + 1, line, text, syntax: Syntax::Yaml });
        }
    };
    let (mut start, mut start_line) = (0, 1);
    let mut at = 0;
    for (i, line) in text.split_inclusive('\n').enumerate() {
        let number = i as u64 + 1;
        if is_mark(line, "---") {
            add(start_line, &text[start..at]);
            (start, start_line) = (at, number);
        } else if is_mark(line, "...") {
            add(start_line, &text[start..at]);
            (start, start_line) = (at + line.len(), number + 1);
        }
        at += line.len();
    }
    add(start_line, &text[start..]);
    documents
}

fn is_mark(line: &str, mark: &str) -> bool {
    line.strip_prefix(mark).is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

fn is_blank(text: &str) -> bool {
    text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#') || line.starts_with('%'))
}

fn split_json(text: &str) -> Vec<Document<'_>> {
    let mut documents = Vec::new();
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<IgnoredAny>();
    let (mut start, mut line) = (0, 1);
    loop {
        let good = matches!(values.next(), Some(Ok(_)));
        let end = if good { values.byte_offset() } else { text.len() };
        let piece = &text[start..end];
        if !piece.trim().is_empty() {
            documents.push(Document { number: documents.len() as u32 + 1, line, text: piece, syntax: Syntax::Json });
        }
        if !good {
            return documents;
        }
        line += piece.bytes().filter(|b| *b == b'\n').count() as u64;
        start = end;
    }
}

fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        // The parser's own budget ends at about 5,200 Services. Ours is the size of a file; what is left are the
        // ways in which a small file can cost much.
        budget: serde_saphyr::budget! {
            max_reader_input_bytes: None,
            max_events: usize::MAX,
            max_nodes: usize::MAX,
            max_total_scalar_bytes: usize::MAX,
            max_depth: MAX_DEPTH,
            flow_nesting_limit: MAX_DEPTH,
        },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: MAX_ALIASED },
        // A port named `on`, or 08: what was meant is text or a mistake, and neither is to be read as something else.
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        non_finite_float_policy: serde_saphyr::NonFiniteFloatPolicy::AsString,
        with_snippet: false,
    }
}

/// Parsers count lines from the beginning of the document; ours are the file's.
fn without_location(message: &str) -> &str {
    let end = [" at line ", " (line "].iter().filter_map(|mark| message.rfind(mark)).max();
    end.map_or(message, |end| &message[..end])
}

/// A step of a path like `items[3].metadata.labels[kubernetes.io/service-name]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step<'p> {
    Key(&'p str),
    Index(usize),
}

struct Wanted<'p> {
    path: &'p str,
    /// The steps still to go, the next one last.
    rest: Vec<Step<'p>>,
}

/// The steps of a path, the last one first.
fn steps(path: &str) -> Vec<Step<'_>> {
    let mut steps = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        if let Some((inside, after)) = rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            steps.push(inside.parse().map_or(Step::Key(inside), Step::Index));
            rest = after;
        } else {
            let key = rest.strip_prefix('.').unwrap_or(rest);
            let end = key.find(['.', '[']).unwrap_or(key.len());
            // An empty key would not get further; what is left leads nowhere.
            if end == 0 {
                break;
            }
            steps.push(Step::Key(&key[..end]));
            rest = &key[end..];
        }
    }
    steps.reverse();
    steps
}

/// Goes down only where something is wanted, and passes over the rest.
struct Walk<'p, 'f> {
    wanted: Vec<Wanted<'p>>,
    found: &'f mut BTreeMap<&'p str, u64>,
}

/// What is wanted below a map or a list, by the next step if it is of that sort.
fn below<'p, K: Ord>(wanted: Vec<Wanted<'p>>, key: fn(Step<'p>) -> Option<K>) -> BTreeMap<K, Vec<Wanted<'p>>> {
    let mut below: BTreeMap<K, Vec<Wanted<'p>>> = BTreeMap::new();
    for mut wanted in wanted {
        if let Some(key) = wanted.rest.pop().and_then(key) {
            below.entry(key).or_default().push(wanted);
        }
    }
    below
}

impl<'de, 'p> DeserializeSeed<'de> for Walk<'p, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.wanted.iter().any(|wanted| wanted.rest.is_empty()) {
            let node = Spanned::<IgnoredAny>::deserialize(deserializer)?;
            self.found.extend(self.wanted.iter().map(|wanted| (wanted.path, node.referenced.line())));
            return Ok(());
        }
        match self.wanted.first().and_then(|wanted| wanted.rest.last()) {
            Some(Step::Key(_)) => deserializer.deserialize_map(self),
            Some(Step::Index(_)) => deserializer.deserialize_seq(self),
            None => IgnoredAny::deserialize(deserializer).map(|_| ()),
        }
    }
}

impl<'de, 'p> Visitor<'de> for Walk<'p, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("what the path leads through")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut below = below(self.wanted, |step| match step {
            Step::Key(key) => Some(key),
            Step::Index(_) => None,
        });
        while let Some(key) = map.next_key::<String>()? {
            match below.remove(key.as_str()) {
                Some(wanted) => map.next_value_seed(Walk { wanted, found: &mut *self.found })?,
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let mut below = below(self.wanted, |step| match step {
            Step::Key(_) => None,
            Step::Index(index) => Some(index),
        });
        for i in 0.. {
            let more = match below.remove(&i) {
                Some(wanted) => seq.next_element_seed(Walk { wanted, found: &mut *self.found })?.is_some(),
                None => seq.next_element::<IgnoredAny>()?.is_some(),
            };
            if !more {
                break;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn yaml(text: &str) -> Vec<(u32, u64, Result<Value, Option<u64>>)> {
        let documents = split(text, Syntax::Yaml);
        documents.iter().map(|d| (d.number, d.line, d.parse().map_err(|broken| broken.line))).collect()
    }

    #[test]
    fn documents_are_split_at_their_marks() {
        assert_eq!(yaml(""), []);
        assert_eq!(yaml("# nothing\n\n"), []);
        assert_eq!(yaml("a: 1"), [(1, 1, Ok(json!({"a": 1})))]);
        assert_eq!(
            yaml("\u{feff}# head\n---\na: 1\n--- # two\nb: |\n  ---\n  x\n...\n# between\n---\r\nc: 3\r\n---"),
            [
                (1, 2, Ok(json!({"a": 1}))),
                (2, 4, Ok(json!({"b": "---\nx\n"}))),
                (3, 10, Ok(json!({"c": 3}))),
                (4, 12, Ok(Value::Null)),
            ]
        );
        assert_eq!(yaml("%YAML 1.2\n---\na: 1\n"), [(1, 2, Ok(json!({"a": 1})))]);
        assert_eq!(yaml("---x: 1\n"), [(1, 1, Ok(json!({"---x": 1})))]);
        assert_eq!(yaml("--- {a: 1}\n--- # nothing\n"), [(1, 1, Ok(json!({"a": 1}))), (2, 2, Ok(Value::Null))]);
    }

    #[test]
    fn a_broken_document_is_alone() {
        let documents = yaml("a: 1\n---\nb:\n  - x\n c: [\n---\nd: 4\n");
        assert_eq!(documents[0].2, Ok(json!({"a": 1})));
        assert!(matches!(documents[1], (2, 2, Err(Some(5..=6)))), "{documents:?}");
        assert_eq!(documents[2], (3, 6, Ok(json!({"d": 4}))));
    }

    #[test]
    fn messages_have_no_line_of_their_own() {
        for text in ["---\na: [\n", "a: 1\na: 2\n", "a: *nobody\n", "a: @b\n", "a: 'b\n"] {
            let broken = split(text, Syntax::Yaml)[0].parse().unwrap_err();
            assert!(broken.line.is_some(), "{broken:?}");
            assert!(!broken.problem.to_string().contains("line "), "{broken:?}");
        }
        let broken = split("{\"a\": }", Syntax::Json)[0].parse().unwrap_err();
        assert!(!broken.problem.to_string().contains("line "), "{broken:?}");
    }

    #[test]
    fn hostile_documents_end_soon() {
        let deep = format!("a: {}", "[".repeat(100_000));
        let block = (0..2_000).map(|i| format!("{}a:\n", " ".repeat(i))).collect::<String>();
        let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
        for i in 1..12 {
            let above = format!("*a{}, ", i - 1).repeat(9);
            laughs += &format!("a{i}: &a{i} [{above}]\n");
        }
        for text in [deep, block, laughs] {
            let documents = split(&text, Syntax::Yaml);
            assert!(documents[0].parse().is_err());
            documents[0].lines(&["a.a.a".to_owned()]);
        }
        let deep = "[".repeat(100_000);
        assert!(split(&deep, Syntax::Json)[0].parse().is_err());
    }

    #[test]
    fn words_are_read_as_they_are_meant() {
        let parsed = split("a: on\nb: 08\nc: .inf\nd: true\ne: 8", Syntax::Yaml)[0].parse().unwrap();
        assert_eq!(parsed, json!({"a": "on", "b": "08", "c": ".inf", "d": true, "e": 8}));
    }

    #[test]
    fn json_documents() {
        let text = "{\"a\": 1}\n{\"b\":\n 2} \n\n {\"c\": }\n{\"d\": 4}";
        let documents = split(text, Syntax::Json);
        let parsed: Vec<_> = documents.iter().map(|d| d.parse().map_err(|broken| broken.line)).collect();
        assert_eq!(parsed, [Ok(json!({"a": 1})), Ok(json!({"b": 2})), Err(Some(5))]);
        assert_eq!(documents[1].lines(&["b".to_owned()]), BTreeMap::from([("b", 3)]));
    }

    #[test]
    fn lines_of_paths() {
        let text = "x: 1\n---\nitems:\n- a: 1\n- metadata:\n    labels:\n      k.io/s: x\n  spec:\n    ports:\n    - port: 0\n";
        let documents = split(text, Syntax::Yaml);
        let paths: Vec<String> =
            ["items[1].spec.ports[0].port", "items[1].metadata.labels[k.io/s]", "items[7].a", "..", "items[0].a"]
                .map(str::to_owned)
                .into();
        let lines = documents[1].lines(&paths);
        assert_eq!(
            lines,
            BTreeMap::from([
                ("items[0].a", 4),
                ("items[1].metadata.labels[k.io/s]", 7),
                ("items[1].spec.ports[0].port", 10),
            ])
        );
    }
}
