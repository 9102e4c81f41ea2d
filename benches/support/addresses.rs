//! A quick look at answers that hold nothing but addresses.

use std::net::Ipv4Addr;

/// The addresses in an answer to a query of this length, whose owners are all compressed. `None`: it is no answer with
/// nothing but addresses, or not to this query.
pub fn of<'a>(query: &[u8], answer: &'a [u8]) -> Option<impl Iterator<Item = Ipv4Addr> + 'a> {
    const RECORD: usize = 16;
    let records = answer.get(query.len()..)?;
    let is_ours = answer[..2] == query[..2] && answer[12..query.len()] == query[12..];
    let no_error = answer[2] & 0x80 != 0 && answer[3] & 0x0F == 0;
    let count = usize::from(u16::from_be_bytes([answer[6], answer[7]]));
    let only_addresses = records.len() == count * RECORD;
    (is_ours && no_error && only_addresses).then(|| {
        records.chunks_exact(RECORD).map(|record| Ipv4Addr::new(record[12], record[13], record[14], record[15]))
    })
}
