//! MaxMind DB files (format 2.0), as far as tests need them.

use ipnet::IpNet;

/// A value of the data section.
#[derive(Clone)]
pub enum Value {
    Text(&'static str),
    Double(f64),
    #[allow(dead_code, reason = "not every test has autonomous systems")]
    Number(u32),
    Map(Vec<(&'static str, Value)>),
}

/// What a city database says of a place.
pub fn city(latitude: f64, longitude: f64, country: &'static str, continent: &'static str) -> Value {
    let code = |key, code| Value::Map(vec![(key, Value::Text(code))]);
    let location = vec![("latitude", Value::Double(latitude)), ("longitude", Value::Double(longitude))];
    Value::Map(vec![
        ("continent", code("code", continent)),
        ("country", code("iso_code", country)),
        ("location", Value::Map(location)),
    ])
}

/// Nothing, a node, or where a value stands in the data section.
#[derive(Clone, Copy)]
enum Record {
    Empty,
    Node(u32),
    Data(u32),
}

/// A file for both families with these networks, of which the longer ones count; each has the position of its value.
pub fn write(values: &[Value], networks: &[(IpNet, usize)]) -> Vec<u8> {
    let mut data = Vec::new();
    let offsets: Vec<u32> = values
        .iter()
        .map(|value| {
            let at = data.len() as u32;
            put(value, &mut data);
            at
        })
        .collect();
    let mut nodes = vec![[Record::Empty; 2]];
    let mut sorted = networks.to_vec();
    sorted.sort_by_key(|(net, _)| net.prefix_len());
    for (net, value) in sorted {
        let (bits, length) = match net {
            IpNet::V4(net) => (u128::from(net.network().to_bits()), 96 + u32::from(net.prefix_len())),
            IpNet::V6(net) => (net.network().to_bits(), u32::from(net.prefix_len())),
        };
        let mut node = 0;
        for depth in 0..length - 1 {
            let side = (bits >> (127 - depth) & 1) as usize;
            node = match nodes[node][side] {
                Record::Node(next) => next as usize,
                leaf => {
                    nodes.push([leaf; 2]);
                    nodes[node][side] = Record::Node(nodes.len() as u32 - 1);
                    nodes.len() - 1
                }
            };
        }
        nodes[node][(bits >> (128 - length) & 1) as usize] = Record::Data(offsets[value]);
    }
    let count = nodes.len() as u32;
    let mut file = Vec::new();
    for record in nodes.iter().flatten() {
        let number = match record {
            Record::Empty => count,
            Record::Node(node) => *node,
            Record::Data(offset) => count + 16 + offset,
        };
        file.extend_from_slice(&number.to_be_bytes());
    }
    file.extend_from_slice(&[0; 16]);
    file.extend_from_slice(&data);
    file.extend_from_slice(b"\xAB\xCD\xEFMaxMind.com");
    file.extend_from_slice(&metadata(count));
    file
}

fn put(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Text(text) => put_text(text, out),
        Value::Double(number) => {
            out.push(3 << 5 | 8);
            out.extend_from_slice(&number.to_be_bytes());
        }
        Value::Number(number) => put_number(6, *number, out),
        Value::Map(entries) => {
            out.push(7 << 5 | entries.len() as u8);
            for (key, value) in entries {
                put_text(key, out);
                put(value, out);
            }
        }
    }
}

/// Up to 28 octets.
fn put_text(text: &str, out: &mut Vec<u8>) {
    assert!(text.len() < 29, "{text}");
    out.push(2 << 5 | text.len() as u8);
    out.extend_from_slice(text.as_bytes());
}

fn put_number(kind: u8, number: u32, out: &mut Vec<u8>) {
    let octets = number.to_be_bytes();
    let octets = &octets[(number.leading_zeros() / 8) as usize..];
    out.push(kind << 5 | octets.len() as u8);
    out.extend_from_slice(octets);
}

fn metadata(nodes: u32) -> Vec<u8> {
    const U16: u8 = 5;
    const U32: u8 = 6;
    let mut out = vec![7 << 5 | 9];
    for (key, kind, number) in [
        ("binary_format_major_version", U16, 2),
        ("binary_format_minor_version", U16, 0),
        ("ip_version", U16, 6),
        ("record_size", U16, 32),
        ("node_count", U32, nodes),
    ] {
        put_text(key, &mut out);
        put_number(kind, number, &mut out);
    }
    put_text("build_epoch", &mut out);
    // A 64-bit number: an extended type.
    out.extend_from_slice(&[4, 2, 0x60, 0, 0, 0]);
    put_text("database_type", &mut out);
    put_text("Test", &mut out);
    put_text("description", &mut out);
    out.push(7 << 5);
    put_text("languages", &mut out);
    // An empty array: an extended type.
    out.extend_from_slice(&[0, 4]);
    out
}
