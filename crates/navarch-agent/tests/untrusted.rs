//! What comes from anybody on the machine or the network: no bytes panic. The same functions are the targets
//! of the fuzzer (`fuzz/`); here they see good input that was changed at random, always the same.

#[path = "untrusted/names.rs"]
mod names;
#[path = "untrusted/pages.rs"]
mod pages;
#[path = "untrusted/relay.rs"]
mod relay;

/// Inputs for each target.
const CASES: usize = 20_000;

/// Runs a target with every seed, and with seeds that were changed.
fn check(target: fn(&[u8]), ways: u8, seeds: &[Vec<u8>]) {
    // Numbers of xorshift (Marsaglia 2003).
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below.max(1) as u64) as usize
    };
    target(&[]);
    for way in 0..ways {
        seeds.iter().for_each(|seed| target(&[&[way], &seed[..]].concat()));
    }
    for _ in 0..CASES {
        let mut input = seeds[next(seeds.len())].clone();
        for _ in 0..=next(4) {
            let at = next(input.len());
            match next(4) {
                0 if !input.is_empty() => input[at] ^= 1 << next(8),
                1 if !input.is_empty() => input[at] = next(256) as u8,
                2 => input.truncate(at),
                _ => input.insert(at, next(256) as u8),
            }
        }
        input.insert(0, next(usize::from(ways)) as u8);
        target(&input);
    }
}

#[test]
fn no_question_for_a_name_panics() {
    let question = |name: &[u8], kind: u8| {
        [b"\0\x07\x01\0\0\x01\0\0\0\0\0\x01", name, &[0, 0, kind, 0, 1], b"\0\0\x29\x05\0\0\0\0\0\0\0"]
            .concat()
    };
    let seeds = [
        question(b"\x01a\x01b\x01c", 1),
        question(b"\x01x\x01d\x01b\x03svc\x01c", 28),
        names::TABLE.to_vec(),
        b"nameserver 10.0.0.1\nsearch a b\n".to_vec(),
    ];
    check(names::run, 3, &seeds);
}

#[test]
fn nothing_that_peers_say_of_themselves_panics() {
    let header = b"ChQKCU5BTUVTUEFDRRIHGgVzaG9wMQ==".to_vec();
    check(pages::run, 2, &[pages::PAGE.as_bytes().to_vec(), header, b"a;b;c;d;e".to_vec()]);
}

#[test]
fn nothing_that_is_said_on_a_stream_panics() {
    let piece = |who: u8, message: &[u8]| [&[who, message.len() as u8], message].concat();
    let listeners = b"type.googleapis.com/envoy.config.listener.v3.Listener";
    let names = b"type.googleapis.com/istio.networking.nds.v1.NameTable";
    let field = |tag: u8, bytes: &[u8]| [&[tag, bytes.len() as u8], bytes].concat();
    // Requests of both protocols, and answers with a name table (envoy/service/discovery/v3/discovery.proto).
    let (of_state, of_delta) = (field(0x22, listeners), field(0x12, listeners));
    let any = [field(0x0a, names), field(0x12, b"x")].concat();
    let head = [field(0x22, names), field(0x2a, b"n")].concat();
    let state = [field(0x0a, b"1"), field(0x12, &any), head.clone()].concat();
    let resource = [field(0x1a, b"t"), field(0x0a, b"1"), field(0x12, &any)].concat();
    let delta = [field(0x0a, b"1"), field(0x12, &resource), head].concat();
    let seeds = [
        [piece(2, b""), piece(6, &of_state), piece(1, &state)].concat(),
        [piece(2, b""), piece(6, &of_delta), piece(1, &delta)].concat(),
    ];
    check(relay::run, 4, &seeds);
}

#[test]
fn nothing_that_a_connection_begins_with_panics() {
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let block = b"\x83\x41\x08tmp%2Fxs\x40\x01b\x01c\x84";
    let request = [b"\0\0\x10\x01\x04\0\0\0\x01", &block[..]].concat();
    let padded = [b"\0\0\x18\x01\x2c\0\0\0\x03\x02\0\0\0\0\x10", &block[..], b"\0\0"].concat();
    let data = b"\0\0\x04\0\0\0\0\0\x01abcd";
    let seeds = [[&preface[..], &request, data, &padded].concat()];
    check(|said| relay::run(&[&[4], said].concat()), 1, &seeds);
}
