//! A client's connection on the Unix socket, with an authority that every server understands.
//!
//! gRPC's C++ core (and with it those in Python, Ruby, PHP and C#) names the path of a Unix socket as the
//! `:authority` of its requests, percent-encoded: `tmp%2Fxds.sock`. That is not a host (RFC 9113, 8.3.1; RFC
//! 3986, 3.2.2 allows it as a registered name), and `h2` ends such streams with PROTOCOL_ERROR before anybody
//! is asked. On this socket the authority says nothing, so that it is replaced where it is written out, and
//! all else is left as it is. That keeps the compression of headers in step: the entry that the client's and
//! the server's table get has the same place, and on the server's side it is not the larger one (RFC 7541,
//! 4.1), so that the server has every entry that the client believes it to have.

use std::io::{self, IoSlice};
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What a client begins with (RFC 9113, 3.4).
const PREFACE_BYTES: usize = 24;
/// The head of a frame (RFC 9113, 4.1).
const HEAD_BYTES: usize = 9;
/// Longer frames than this the server refuses: it does not ask for them (RFC 9113, 6.5.2).
const FRAME_BYTES_MAX: usize = 1 << 14;

/// The type of frames with which requests begin, and its flags (RFC 9113, 6.2).
const HEADERS: u8 = 1;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
const END_HEADERS: u8 = 0x4;

/// The authority in HPACK's table of well-known headers (RFC 7541, appendix A).
const AUTHORITY: u64 = 1;
const NAME: &[u8] = b":authority";
/// What it becomes, which is as short as a host can be.
const REPLACED: &[u8] = &[1, b'a'];

/// The connection.
#[derive(Debug)]
pub struct Readable<Io> {
    io: Io,
    state: State,
    /// Read ahead, or rewritten: what the server gets next.
    ready: Vec<u8>,
    given: usize,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// So many bytes are handed on as they come, then a frame begins.
    Pass(usize),
    /// The head of a frame is read into what is ready.
    Head,
    /// A frame of headers is read into what is ready, until it has so many bytes.
    Headers(usize),
}

impl<Io> Readable<Io> {
    /// A connection on which nothing was said.
    pub fn new(io: Io) -> Self {
        Readable { io, state: State::Pass(PREFACE_BYTES), ready: Vec::new(), given: 0 }
    }
}

impl<Io: AsyncRead + Unpin> Readable<Io> {
    /// Hands on bytes as they come, at most so many. Gives how many.
    fn pass(&mut self, cx: &mut Context<'_>, left: usize, out: &mut ReadBuf<'_>) -> Poll<io::Result<usize>> {
        let room = out.remaining().min(left);
        let mut part = ReadBuf::new(out.initialize_unfilled_to(room));
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut part))?;
        let count = part.filled().len();
        out.advance(count);
        Poll::Ready(Ok(count))
    }

    /// Reads until so many bytes are ready; `false` if the client says no more.
    fn fill(&mut self, cx: &mut Context<'_>, wanted: usize) -> Poll<io::Result<bool>> {
        while let Some(missing @ 1..) = wanted.checked_sub(self.ready.len()) {
            let before = self.ready.len();
            self.ready.resize(wanted, 0);
            let mut part = ReadBuf::new(&mut self.ready[before..]);
            let read = Pin::new(&mut self.io).poll_read(cx, &mut part);
            let count = part.filled().len();
            debug_assert!(count <= missing);
            self.ready.truncate(before + count);
            match read {
                Poll::Ready(Ok(())) if count == 0 => return Poll::Ready(Ok(false)),
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(true))
    }

    /// Gives what is ready.
    fn give(&mut self, out: &mut ReadBuf<'_>) {
        let count = out.remaining().min(self.ready.len() - self.given);
        out.put_slice(&self.ready[self.given..self.given + count]);
        self.given += count;
        if self.given == self.ready.len() {
            self.ready.clear();
            self.given = 0;
        }
    }
}

impl<Io: AsyncRead + Unpin> AsyncRead for Readable<Io> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            match this.state {
                State::Pass(_) if !this.ready.is_empty() || out.remaining() == 0 => {
                    this.give(out);
                    return Poll::Ready(Ok(()));
                }
                State::Pass(0) => this.state = State::Head,
                State::Pass(left) => {
                    let count = ready!(this.pass(cx, left, out))?;
                    this.state = State::Pass(left - count);
                    return Poll::Ready(Ok(()));
                }
                State::Head => {
                    if !ready!(this.fill(cx, HEAD_BYTES))? {
                        // The server is to see what there is, and the end.
                        this.state = State::Pass(usize::MAX);
                        continue;
                    }
                    let bytes = frame_bytes(&this.ready);
                    // What does not end in this frame is longer than any that a client of this socket sends.
                    let is_whole = this.ready[3] == HEADERS && this.ready[4] & END_HEADERS != 0;
                    this.state = match is_whole && bytes <= FRAME_BYTES_MAX {
                        true => State::Headers(bytes),
                        false => State::Pass(bytes),
                    };
                }
                State::Headers(bytes) => {
                    this.state = match ready!(this.fill(cx, HEAD_BYTES + bytes))? {
                        true => {
                            if let Some(frame) = rewritten(&this.ready) {
                                this.ready = frame;
                            }
                            State::Pass(0)
                        }
                        false => State::Pass(usize::MAX),
                    };
                }
            }
        }
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for Readable<Io> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// The bytes of a frame behind its head.
fn frame_bytes(head: &[u8]) -> usize {
    head[..3].iter().fold(0, |bytes, byte| bytes << 8 | usize::from(*byte))
}

/// A frame of headers with another authority; nothing if it has none that is written out, or is not
/// understood: the server says what is wrong with it.
fn rewritten(frame: &[u8]) -> Option<Vec<u8>> {
    let (head, payload) = frame.split_at_checked(HEAD_BYTES)?;
    let flags = head[4];
    let before = if flags & PADDED != 0 { 1 } else { 0 } + if flags & PRIORITY != 0 { 5 } else { 0 };
    let padding = if flags & PADDED != 0 { usize::from(*payload.first()?) } else { 0 };
    let (before, rest) = payload.split_at_checked(before)?;
    let (block, padding) = rest.split_at_checked(rest.len().checked_sub(padding)?)?;
    let value = authority(block)?;
    let mut out = Vec::with_capacity(frame.len());
    out.extend([0; HEAD_BYTES]);
    out.extend(before);
    out.extend(&block[..value.start]);
    out.extend(REPLACED);
    out.extend(&block[value.end..]);
    out.extend(padding);
    let bytes = u32::try_from(out.len() - HEAD_BYTES).ok()?.to_be_bytes();
    out[..3].copy_from_slice(&bytes[1..]);
    out[3..HEAD_BYTES].copy_from_slice(&head[3..]);
    Some(out)
}

/// Where in a block of headers the value of the authority is written out, its length included (RFC 7541, 6).
fn authority(block: &[u8]) -> Option<Range<usize>> {
    let mut at = 0;
    while let Some(first) = block.get(at) {
        // Indexed; literal that is added to the table; another size of the table; literals that are not
        // added.
        let (prefix, is_literal) = match first {
            0x80.. => (7, false),
            0x40.. => (6, true),
            0x20.. => (5, false),
            _ => (4, true),
        };
        let index = integer(block, &mut at, prefix)?;
        if !is_literal {
            continue;
        }
        // gRPC's C++ core writes names out, and not compressed.
        let is_authority = match index {
            0 => text(block, &mut at)? == NAME,
            index => index == AUTHORITY,
        };
        let start = at;
        let value = text(block, &mut at)?;
        if is_authority {
            return (!value.is_empty()).then_some(start..at);
        }
    }
    None
}

/// Goes behind a text; gives its bytes, as they are.
fn text<'b>(block: &'b [u8], at: &mut usize) -> Option<&'b [u8]> {
    let bytes = usize::try_from(integer(block, at, 7)?).ok()?;
    let found = block.get(*at..)?.get(..bytes)?;
    *at += bytes;
    Some(found)
}

/// A number, of which the first byte has so many bits (RFC 7541, 5.1).
fn integer(block: &[u8], at: &mut usize, prefix: u32) -> Option<u64> {
    let mut next = || {
        let byte = block.get(*at).copied();
        *at += 1;
        byte
    };
    let full: u8 = (1 << prefix) - 1;
    let mut value = u64::from(next()? & full);
    if value < u64::from(full) {
        return Some(value);
    }
    // More than four bytes are more than a block has.
    for shift in [0, 7, 14, 21] {
        let byte = next()?;
        value += u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let bytes = u32::try_from(payload.len()).expect("short").to_be_bytes();
        [&bytes[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    /// `:method POST`, `:authority` as it is given, `:path /`.
    fn block(authority: &[u8]) -> Vec<u8> {
        [&[0x83], authority, &[0x84]].concat()
    }

    fn written(first: u8, value: &str) -> Vec<u8> {
        [&[first, u8::try_from(value.len()).expect("short")], value.as_bytes()].concat()
    }

    #[test]
    fn an_authority_that_is_written_out_is_replaced() {
        let check = |authority: Vec<u8>, expected: Option<Vec<u8>>| {
            for (flags, before, behind) in [
                (END_HEADERS, vec![], vec![]),
                (END_HEADERS | PRIORITY, vec![0, 0, 0, 0, 9], vec![]),
                (END_HEADERS | PADDED, vec![3], vec![0; 3]),
                (END_HEADERS | PADDED | PRIORITY, vec![2, 0, 0, 0, 0, 9], vec![0; 2]),
            ] {
                let with = |authority: &[u8]| {
                    frame(HEADERS, flags, &[before.as_slice(), &block(authority), &behind].concat())
                };
                let expected = expected.as_ref().map(|authority| with(authority));
                assert_eq!(rewritten(&with(&authority)), expected, "{authority:?}");
            }
        };
        let path = "tmp%2Fx.sock";
        for first in [0x41, 0x01, 0x11] {
            check(written(first, path), Some(written(first, "a")));
        }
        let named = |value: &str| {
            let text = |text: &str| written(0, text).split_off(1);
            [vec![0x40], text(":authority"), text(value)].concat()
        };
        check(named(path), Some(named("a")));
        // Behind a name that is written out, and another size of the table.
        let other = [&[0x3f, 0x61][..], &[0x40, 1, b'x'], &written(1, "yz")[1..]].concat();
        check(
            [other.clone(), written(0x41, path)].concat(),
            Some([other.clone(), written(0x41, "a")].concat()),
        );
        check(other, None);
        // One that the table has, one that is empty, one that ends too early.
        check(vec![0xbe], None);
        check(written(0x41, ""), None);
        check(vec![0x41, 100, b'a'], None);
    }

    #[tokio::test]
    async fn all_else_is_left_as_it_is() {
        let path = block(&written(0x41, "tmp%2Fx.sock"));
        let sent = |headers: &[u8]| {
            let long = vec![7; 70_000];
            [PREFACE.to_vec(), frame(4, 0, &[]), headers.to_vec(), frame(0, 0, &long), headers.to_vec()]
                .concat()
        };
        let replaced = frame(HEADERS, END_HEADERS, &block(&written(0x41, "a")));
        for (headers, expected) in [
            (frame(HEADERS, END_HEADERS, &path), replaced),
            // One that goes on in the next frame, and the end in the middle of one.
            (frame(HEADERS, 0, &path), frame(HEADERS, 0, &path)),
        ] {
            for cut in [0, 1, 5, 9, 20] {
                let mut from = sent(&headers);
                let mut to = sent(&expected);
                from.truncate(from.len() - cut);
                if cut > 0 {
                    to.truncate(to.len() - expected.len());
                    to.extend(&headers[..headers.len() - cut]);
                }
                for piece in [1, 7, 100_000] {
                    let (mut client, server) = tokio::io::duplex(piece);
                    let from = from.clone();
                    tokio::spawn(async move { client.write_all(&from).await });
                    let mut reader = Readable::new(server);
                    let mut found = Vec::new();
                    reader.read_to_end(&mut found).await.expect("read");
                    assert_eq!(found, to, "{cut} {piece}");
                }
            }
        }
    }
}
