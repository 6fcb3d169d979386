//! What comes from anybody on the machine or the network: no bytes panic. The same functions are the targets
//! of the fuzzer (`fuzz/`); here they see good input that was changed at random, always the same.

#[path = "untrusted/names.rs"]
mod names;
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
fn nothing_that_is_said_on_a_stream_panics() {
    let piece = |who: u8, message: &[u8]| [&[who, message.len() as u8], message].concat();
    let listeners = b"\x22\x34type.googleapis.com/envoy.config.listener.v3.Listener";
    let names = b"\x22\x39type.googleapis.com/istio.networking.nds.v1.NameTable";
    let request = [&b"\x12\x36"[..], &[b"\x22\x34", &listeners[2..]].concat()].concat();
    let response = [&b"\x0a\x011"[..], &names[..], b"\x2a\x01n", b"\x12\x06\x0a\x01v\x12\x01x"].concat();
    let seeds = [
        [piece(4, listeners), piece(2, b""), piece(1, &response), piece(4, &request)].concat(),
        [piece(4, &request), piece(1, &response), piece(2, b""), piece(0, names)].concat(),
    ];
    check(relay::run, 4, &seeds);
}
