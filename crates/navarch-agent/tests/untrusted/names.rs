//! Questions, answers of other servers, tables of names, `resolv.conf`. The first byte says which.

use navarch_agent::dns::answer::{Domains, answer};
use navarch_agent::dns::message::{Code, Query, denies, is_answer, malformed};
use navarch_agent::dns::resolv::Resolv;
use navarch_agent::dns::table::Table;

/// A table with a name, a wildcard and an address of each family, encoded.
pub const TABLE: &[u8] = b"\x0a\x27\x0a\x05a.b.c\x12\x1e\x0a\x0810.0.0.1\x0a\x06fd00::\x12\x0aKubernetes\x0a\x13\x0a\x03*.d\x12\x0c\x0a\x0810.0.0.2*\x00";

pub fn run(data: &[u8]) {
    let Some((way, data)) = data.split_first() else { return };
    match way % 3 {
        0 => question(data),
        1 => {
            let table = Table::read(data);
            // Memory is in proportion to what came.
            assert!(table.bytes() <= data.len() * 32 + 64, "{} of {}", table.bytes(), data.len());
            for name in ["", "a", "a.b.c", "*.d"] {
                let _ = table.get(name).map(|known| known.addresses.len());
            }
        }
        _ => {
            let text = String::from_utf8_lossy(data);
            assert!(Resolv::parse(&text).servers.len() <= text.len());
        }
    }
}

fn question(message: &[u8]) {
    let table = Table::read(TABLE);
    assert!(!table.is_empty());
    let domains =
        Domains { namespace: "b".to_owned(), mesh: "c".to_owned(), search: Some("b.svc.c".to_owned()) };
    let _ = denies(message);
    let _ = is_answer(message, message);
    if let Some(answer) = malformed(message) {
        assert!(answer.len() == 12 && Query::read(&answer).is_err(), "an answer is a question");
    }
    let Ok(query) = Query::read(message) else { return };
    let bytes_max = query.udp_bytes();
    let made = answer(&table, &domains, &query, usize::from(message[0]), bytes_max);
    for made in made.into_iter().chain([query.answer(Code::Failed)]) {
        assert!(made.len() <= bytes_max, "{} bytes", made.len());
        assert!(is_answer(message, &made), "an answer to something else");
        assert!(Query::read(&made).is_err(), "an answer is a question");
    }
}
