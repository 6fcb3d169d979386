//! Numbers of changes, written into configuration so that they can be found again in encoded resources.

use std::net::Ipv4Addr;

use navarch_envoy::XdsType;

/// Where a word with a number starts.
const WORD: &[u8] = b"nvbench-";
/// Where the address with a number starts: 100.64.0.0/10 is used for nothing else.
const ADDRESS: &[u8] = b"100.";
const RANGE: u32 = 0x6440_0000;
/// The bits of an address that are the number.
const NUMBER: u32 = 0x003f_ffff;

/// A word with a number: a name in Kubernetes, a path in a route.
#[must_use]
pub fn word(number: u32) -> String {
    format!("nvbench-{number}-x")
}

/// An address with a number below four million.
#[must_use]
pub fn address(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(RANGE | (number & NUMBER))
}

/// The largest number in an encoded resource of this type.
#[must_use]
pub fn find(ty: XdsType, message: &[u8]) -> Option<u32> {
    match ty {
        XdsType::Eds => positions(message, ADDRESS).filter_map(|at| read_address(message, at)).max(),
        _ => positions(message, WORD).filter_map(|at| read_word(message.get(at + WORD.len()..)?)).max(),
    }
}

fn positions<'a>(text: &'a [u8], needle: &'static [u8]) -> impl Iterator<Item = usize> + 'a {
    text.windows(needle.len()).enumerate().filter(move |(_, window)| *window == needle).map(|(at, _)| at)
}

fn read_word(rest: &[u8]) -> Option<u32> {
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(rest.get(..digits)?).ok()?.parse().ok()
}

/// The byte before a string in protobuf is its length, which says where the address ends: the next byte may
/// look like a digit.
fn read_address(message: &[u8], at: usize) -> Option<u32> {
    let length = usize::from(*message.get(at.checked_sub(1)?)?);
    let text = std::str::from_utf8(message.get(at..at + length)?).ok()?;
    let address: Ipv4Addr = text.parse().ok()?;
    let address = u32::from(address);
    (address & !NUMBER == RANGE).then_some(address & NUMBER)
}

#[cfg(test)]
mod tests {
    use super::*;
    use navarch_envoy::wire::put_field;

    #[test]
    fn numbers_are_found_again() {
        for number in [0, 1, 255, 256, 65_535, 4_194_303] {
            let mut message = Vec::new();
            put_field(&mut message, 0x12, address(number).to_string().as_bytes());
            put_field(&mut message, 0x32, b"5");
            assert_eq!(find(XdsType::Eds, &message), Some(number));
            let text = format!("outbound|80|{}|s1.n1.svc.cluster.local", word(number));
            assert_eq!(find(XdsType::Cds, text.as_bytes()), Some(number));
        }
        let mut other = Vec::new();
        put_field(&mut other, 0x12, b"100.128.0.1");
        assert_eq!(find(XdsType::Eds, &other), None);
        assert_eq!(find(XdsType::Rds, b"/nvbench-7-x /nvbench-12-x /nvbench-9-x"), Some(12));
        for nothing in ["nvbench-", "nvbench-x", "100.", "", "nvbench-99999999999-x"] {
            assert_eq!(find(XdsType::Rds, nothing.as_bytes()), None, "{nothing}");
            assert_eq!(find(XdsType::Eds, nothing.as_bytes()), None, "{nothing}");
        }
    }
}
