//! Questions and answers on the wire (RFC 1035, section 4), as far as the agent has to read and write them:
//! the header and one question; addresses and an alias.

use std::net::IpAddr;

const HEADER: usize = 12;
/// Bytes of a message over UDP if whoever asks says nothing else (RFC 1035, 4.2.1).
const UDP_BYTES: usize = 512;
/// And at most: more is cut into pieces on the way (DNS Flag Day 2020).
const UDP_BYTES_MAX: usize = 1232;
const NAME_BYTES_MAX: usize = 255;
const LABEL_BYTES_MAX: usize = 63;

/// Bits of the header's second word.
const RESPONSE: u16 = 1 << 15;
const OPCODE: u16 = 0xf << 11;
const AUTHORITATIVE: u16 = 1 << 10;
const TRUNCATED: u16 = 1 << 9;
const RECURSION_DESIRED: u16 = 1 << 8;
const RECURSION_AVAILABLE: u16 = 1 << 7;

/// Types and the class of questions.
pub const A: u16 = 1;
const CNAME: u16 = 5;
pub const AAAA: u16 = 28;
const OPT: u16 = 41;
pub const ANY: u16 = 255;
const INTERNET: u16 = 1;

/// A pointer to the name in the question.
const QUESTION: u16 = 0xc000 | HEADER as u16;
/// How long an answer may be kept.
const TTL_SECONDS: u32 = 30;

/// What became of a question (RFC 1035, 4.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    NoError = 0,
    Malformed = 1,
    Failed = 2,
}

/// Why something is not a question that can be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unread {
    /// It is too short to be answered, or is an answer itself: whoever answers that never ends.
    Noise,
    /// It can be answered with that it cannot be read.
    Malformed,
    /// It is something else than one question about the Internet: for others to answer.
    Foreign,
}

/// One question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query<'m> {
    id: u16,
    flags: u16,
    /// The name in lower case, without the dot at its end. Nothing if it has bytes in it that names of hosts
    /// do not have: it stands for none.
    pub name: Option<String>,
    pub kind: u16,
    /// The question as it stands in the message.
    question: &'m [u8],
    /// The bytes that whoever asks takes over UDP, if EDNS says it (RFC 6891, 6.2.3).
    edns: Option<u16>,
}

/// Reads numbers and names from the front.
#[derive(Clone)]
struct Reader<'m> {
    message: &'m [u8],
    at: usize,
}

impl<'m> Reader<'m> {
    fn take(&mut self, count: usize) -> Option<&'m [u8]> {
        let end = self.at.checked_add(count)?;
        let taken = self.message.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    fn number(&mut self) -> Option<u16> {
        let bytes: [u8; 2] = self.take(2)?.try_into().ok()?;
        Some(u16::from_be_bytes(bytes))
    }

    /// The labels of a name that is written in full, as it is in a question.
    fn labels(&mut self) -> Option<Vec<&'m [u8]>> {
        let start = self.at;
        let mut labels = Vec::new();
        loop {
            let length = usize::from(*self.take(1)?.first()?);
            if length == 0 {
                return Some(labels);
            }
            if length > LABEL_BYTES_MAX || self.at + length - start >= NAME_BYTES_MAX {
                return None;
            }
            labels.push(self.take(length)?);
        }
    }
}

impl<'m> Query<'m> {
    /// Reads a message.
    ///
    /// # Errors
    /// If it is not a question that can be answered here.
    pub fn read(message: &'m [u8]) -> Result<Self, Unread> {
        let mut reader = Reader { message, at: 0 };
        let mut header = [0u16; 6];
        for number in &mut header {
            *number = reader.number().ok_or(Unread::Noise)?;
        }
        let [id, flags, questions, answers, authorities, more] = header;
        if flags & RESPONSE != 0 {
            return Err(Unread::Noise);
        }
        if flags & OPCODE != 0 {
            return Err(Unread::Foreign);
        }
        if questions != 1 || answers != 0 || authorities != 0 {
            return Err(Unread::Malformed);
        }
        let labels = reader.labels().ok_or(Unread::Malformed)?;
        let kind = reader.number().ok_or(Unread::Malformed)?;
        let class = reader.number().ok_or(Unread::Malformed)?;
        if class != INTERNET && class != ANY {
            return Err(Unread::Foreign);
        }
        let question = message.get(HEADER..reader.at).ok_or(Unread::Malformed)?;
        Ok(Query { id, flags, name: text(&labels), kind, question, edns: edns(reader, more) })
    }

    /// Bytes that an answer over UDP may have.
    #[must_use]
    pub fn udp_bytes(&self) -> usize {
        let stated = self.edns.map_or(UDP_BYTES, usize::from);
        stated.clamp(UDP_BYTES, UDP_BYTES_MAX)
    }

    /// An answer without any record.
    #[must_use]
    pub fn answer(&self, code: Code) -> Vec<u8> {
        self.records(code, None, &[], usize::MAX)
    }

    /// An answer: the name is an alias of another, if there is one, and has these addresses. What does not
    /// fit into `bytes_max` is left out, and the answer says so.
    #[must_use]
    pub fn records(
        &self,
        code: Code,
        alias: Option<&str>,
        addresses: &[IpAddr],
        bytes_max: usize,
    ) -> Vec<u8> {
        let own = if self.edns.is_some() { OPT_BYTES } else { 0 };
        let mut out = Vec::with_capacity(HEADER + self.question.len() + own + addresses.len() * 28);
        let mut flags = RESPONSE | RECURSION_AVAILABLE | (self.flags & RECURSION_DESIRED) | code as u16;
        if code == Code::NoError {
            flags |= AUTHORITATIVE;
        }
        for number in [self.id, flags, 1, 0, 0, u16::from(self.edns.is_some())] {
            out.extend(number.to_be_bytes());
        }
        out.extend(self.question);
        let mut owner = QUESTION;
        let mut count: u16 = 0;
        let mut is_cut = false;
        if let Some(alias) = alias.and_then(encoded) {
            is_cut = out.len() + RECORD + alias.len() + own > bytes_max;
            if !is_cut {
                put_record(&mut out, owner, CNAME, &alias);
                owner = 0xc000 | (out.len() - alias.len()) as u16;
                count += 1;
            }
        }
        for address in addresses.iter().take_while(|_| !is_cut) {
            let before = out.len();
            match address {
                IpAddr::V4(address) => put_record(&mut out, owner, A, &address.octets()),
                IpAddr::V6(address) => put_record(&mut out, owner, AAAA, &address.octets()),
            }
            if out.len() + own > bytes_max || count == u16::MAX {
                out.truncate(before);
                flags |= TRUNCATED;
                break;
            }
            count += 1;
        }
        if is_cut {
            flags |= TRUNCATED;
        }
        out[2..4].copy_from_slice(&flags.to_be_bytes());
        out[6..8].copy_from_slice(&count.to_be_bytes());
        if self.edns.is_some() {
            // The root, OPT, our bytes, no flags, nothing in it.
            out.push(0);
            out.extend(OPT.to_be_bytes());
            out.extend((UDP_BYTES_MAX as u16).to_be_bytes());
            out.extend([0; 6]);
        }
        out
    }
}

const OPT_BYTES: usize = 11;
/// Bytes of a record without what is in it, whose owner is a pointer.
const RECORD: usize = 12;

/// The answer to a message whose question cannot be read: its header, and that.
#[must_use]
pub fn malformed(message: &[u8]) -> Option<Vec<u8>> {
    let mut reader = Reader { message, at: 0 };
    let (id, flags) = (reader.number()?, reader.number()?);
    let flags = RESPONSE | (flags & (OPCODE | RECURSION_DESIRED)) | Code::Malformed as u16;
    Some([id, flags, 0, 0, 0, 0].into_iter().flat_map(u16::to_be_bytes).collect())
}

/// Whether a message of a server answers this question: what comes in on a socket may be anybody's.
#[must_use]
pub fn is_answer(question: &[u8], answer: &[u8]) -> bool {
    let head = |message: &[u8]| {
        let mut reader = Reader { message, at: 0 };
        let (id, flags, questions) = (reader.number()?, reader.number()?, reader.number()?);
        reader.at = HEADER;
        let asked = match questions {
            0 => None,
            _ => {
                let labels = reader.labels()?;
                Some((text(&labels), reader.number()?, reader.number()?))
            }
        };
        Some((id, flags & RESPONSE != 0, asked))
    };
    match (head(question), head(answer)) {
        // An answer that says nothing but an error may leave the question out.
        (Some((asked, _, question)), Some((id, true, answer))) => {
            asked == id && (answer.is_none() || answer == question)
        }
        _ => false,
    }
}

/// Whether an answer says that there is no such name.
#[must_use]
pub fn denies(answer: &[u8]) -> bool {
    answer.get(3).is_some_and(|flags| flags & 0xf == 3)
}

/// A name as a text in lower case.
fn text(labels: &[&[u8]]) -> Option<String> {
    let mut text = String::new();
    for label in labels {
        if !label.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_*".contains(byte)) {
            return None;
        }
        if !text.is_empty() {
            text.push('.');
        }
        text.extend(label.iter().map(|byte| char::from(byte.to_ascii_lowercase())));
    }
    Some(text)
}

/// A name on the wire; nothing if it is none.
fn encoded(name: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(name.len() + 2);
    for label in name.split('.') {
        let length = u8::try_from(label.len()).ok().filter(|length| (1..=63).contains(length))?;
        out.push(length);
        out.extend(label.as_bytes());
    }
    out.push(0);
    (out.len() <= NAME_BYTES_MAX).then_some(out)
}

fn put_record(out: &mut Vec<u8>, owner: u16, kind: u16, data: &[u8]) {
    out.extend(owner.to_be_bytes());
    out.extend(kind.to_be_bytes());
    out.extend(INTERNET.to_be_bytes());
    out.extend(TTL_SECONDS.to_be_bytes());
    out.extend((data.len() as u16).to_be_bytes());
    out.extend(data);
}

/// What EDNS says of the bytes that are taken, if it is among the records that follow the question.
fn edns(mut reader: Reader<'_>, records: u16) -> Option<u16> {
    // There is one at most, and signatures of transactions besides.
    for _ in 0..records.min(4) {
        let is_root = reader.labels()?.is_empty();
        let (kind, class) = (reader.number()?, reader.number()?);
        if kind == OPT && is_root {
            return Some(class);
        }
        reader.take(4)?;
        let length = usize::from(reader.number()?);
        reader.take(length)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A question with EDNS, or without it.
    pub(crate) fn question(name: &str, kind: u16, edns: Option<u16>) -> Vec<u8> {
        let flags = RECURSION_DESIRED;
        let header = [7, flags, 1, 0, 0, u16::from(edns.is_some())];
        let mut out: Vec<u8> = header.into_iter().flat_map(u16::to_be_bytes).collect();
        out.extend(encoded(name).unwrap_or(vec![0]));
        out.extend(kind.to_be_bytes());
        out.extend(INTERNET.to_be_bytes());
        if let Some(bytes) = edns {
            out.push(0);
            out.extend([OPT, bytes].into_iter().flat_map(u16::to_be_bytes));
            out.extend([0; 6]);
        }
        out
    }

    #[test]
    fn a_question_is_read() {
        let message = question("Web.Shop", A, Some(1400));
        let query = Query::read(&message).expect("a question");
        assert_eq!((query.name.as_deref(), query.kind, query.udp_bytes()), (Some("web.shop"), A, 1232));
        let message = question("web", AAAA, None);
        assert_eq!(Query::read(&message).expect("a question").udp_bytes(), 512);
        let message = question("a b", A, None);
        assert_eq!(Query::read(&message).expect("a question").name, None);
    }

    #[test]
    fn what_is_no_question_is_known() {
        let check = |change: fn(&mut Vec<u8>), expected: Unread| {
            let mut message = question("web", A, None);
            change(&mut message);
            assert_eq!(Query::read(&message), Err(expected));
        };
        check(|message| message.truncate(11), Unread::Noise);
        check(|message| message[2] |= 0x80, Unread::Noise);
        check(|message| message[2] |= 0x28, Unread::Foreign);
        check(|message| message[5] = 2, Unread::Malformed);
        check(|message| message.truncate(14), Unread::Malformed);
        check(|message| message[12] = 0xc0, Unread::Malformed);
        // A label in place of the end of the name.
        check(|message| message[16] = 5, Unread::Malformed);
        check(|message| *message.last_mut().expect("bytes") = 3, Unread::Foreign);
        check(
            |message| {
                let label = [&[63][..], &[b'a'; 63]].concat().repeat(4);
                message.splice(12..16, label);
            },
            Unread::Malformed,
        );
        assert_eq!(malformed(&question("web", A, None)).map(|answer| answer[3]), Some(1));
    }

    #[test]
    fn an_answer_fits() {
        let message = question("web.shop", A, Some(600));
        let query = Query::read(&message).expect("a question");
        let addresses: Vec<IpAddr> = (0..100).map(|last| [10, 0, 0, last].into()).collect();
        let cut = query.records(Code::NoError, None, &addresses, query.udp_bytes());
        assert!(cut.len() <= 600 && cut[2] & 2 != 0, "{}", cut.len());
        let count = usize::from(u16::from_be_bytes([cut[6], cut[7]]));
        assert_eq!(cut.len(), message.len() + count * 16);
        assert!(is_answer(&message, &cut) && !denies(&cut));
        let whole = query.records(Code::NoError, Some("web.shop.svc.cluster.local"), &addresses, 65535);
        assert_eq!((whole[2] & 2, u16::from_be_bytes([whole[6], whole[7]])), (0, 101));
    }

    #[test]
    fn an_answer_is_to_the_question() {
        let message = question("web.shop", A, None);
        let query = Query::read(&message).expect("a question");
        let answer = query.answer(Code::Failed);
        assert!(is_answer(&message, &answer) && !is_answer(&message, &message));
        let mut other = answer.clone();
        other[1] ^= 1;
        assert!(!is_answer(&message, &other));
        let mut case = answer.clone();
        case[13] ^= 0x20;
        assert!(is_answer(&message, &case));
        assert!(!is_answer(&question("web.shop", AAAA, None), &answer));
    }
}
