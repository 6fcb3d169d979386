//! The words of a script.

/// A word of the language.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token<'s> {
    Name(&'s str),
    /// A reserved word or a mark.
    Word(&'static str),
    Number,
    Text,
    End,
}

/// Why a script cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// From 1.
    pub line: usize,
    pub words: String,
}

const RESERVED: [&str; 21] = [
    "and", "break", "do", "else", "elseif", "end", "false", "for", "function", "if", "in", "local", "nil",
    "not", "or", "repeat", "return", "then", "true", "until", "while",
];

/// Marks, longer ones before their beginnings.
const MARKS: [&str; 27] = [
    "...", "..", ".", "==", "~=", "<=", ">=", "::", "+", "-", "*", "/", "%", "^", "#", "<", ">", "=", "(",
    ")", "{", "}", "[", "]", ";", ":", ",",
];

/// Cuts a script into words.
#[derive(Debug)]
pub struct Lexer<'s> {
    text: &'s str,
    at: usize,
    pub line: usize,
}

impl<'s> Lexer<'s> {
    /// A first line that starts with `#` is none of the script.
    pub fn new(text: &'s str) -> Self {
        let at = if text.starts_with('#') { text.find('\n').unwrap_or(text.len()) } else { 0 };
        Lexer { text, at, line: 1 }
    }

    pub fn problem(&self, words: impl Into<String>) -> Problem {
        Problem { line: self.line, words: words.into() }
    }

    /// The next word.
    pub fn token(&mut self) -> Result<Token<'s>, Problem> {
        self.skip_blanks()?;
        let rest = self.rest();
        let Some(first) = rest.bytes().next() else { return Ok(Token::End) };
        if is_letter(first) {
            let length = rest.bytes().position(|byte| !is_letter(byte) && !byte.is_ascii_digit());
            let name = rest.get(..length.unwrap_or(rest.len())).unwrap_or(rest);
            self.at += name.len();
            let reserved = RESERVED.iter().find(|word| **word == name);
            return Ok(reserved.map_or(Token::Name(name), |word| Token::Word(word)));
        }
        let second = rest.as_bytes().get(1).copied().unwrap_or_default();
        if first.is_ascii_digit() || (first == b'.' && second.is_ascii_digit()) {
            return self.number();
        }
        if first == b'"' || first == b'\'' {
            return self.quoted(first);
        }
        if let Some(level) = long_bracket(rest) {
            self.long(level, "string")?;
            return Ok(Token::Text);
        }
        match MARKS.iter().find(|mark| rest.starts_with(**mark)) {
            Some(mark) => {
                self.at += mark.len();
                Ok(Token::Word(mark))
            }
            None => {
                let symbol = rest.chars().next().unwrap_or_default();
                Err(self.problem(format!("unexpected symbol {symbol:?}")))
            }
        }
    }

    fn rest(&self) -> &'s str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn skip_blanks(&mut self) -> Result<(), Problem> {
        loop {
            let rest = self.rest();
            if let Some(comment) = rest.strip_prefix("--") {
                self.at += 2;
                match long_bracket(comment) {
                    Some(level) => self.long(level, "comment")?,
                    None => self.at += comment.find('\n').unwrap_or(comment.len()),
                }
                continue;
            }
            match rest.bytes().next() {
                Some(b'\n') => self.line += 1,
                Some(b' ' | b'\t' | b'\r' | 0x0b | 0x0c) => {}
                _ => return Ok(()),
            }
            self.at += 1;
        }
    }

    /// `[[...]]`, `[=[...]=]`, from its first bracket on.
    fn long(&mut self, level: usize, what: &str) -> Result<(), Problem> {
        let close = format!("]{}]", "=".repeat(level));
        let rest = self.rest();
        let Some(end) = rest.find(&close) else {
            return Err(self.problem(format!("unfinished long {what}")));
        };
        self.line += rest.get(..end).unwrap_or_default().matches('\n').count();
        self.at += end + close.len();
        Ok(())
    }

    fn number(&mut self) -> Result<Token<'s>, Problem> {
        let bytes = self.rest().as_bytes();
        let is_hex = bytes.get(1).is_some_and(|byte| byte.eq_ignore_ascii_case(&b'x'));
        let exponent: &[u8] = if is_hex { b"pP" } else { b"eE" };
        let mut length = 0;
        while let Some(byte) = bytes.get(length) {
            let is_sign = matches!(byte, b'+' | b'-')
                && length > 0
                && bytes.get(length - 1).is_some_and(|before| exponent.contains(before));
            if !(byte.is_ascii_alphanumeric() || *byte == b'.' || is_sign) {
                break;
            }
            length += 1;
        }
        let text = self.rest().get(..length).unwrap_or_default();
        self.at += length;
        match is_number(&text.to_ascii_lowercase()) {
            true => Ok(Token::Number),
            false => Err(self.problem(format!("malformed number {text}"))),
        }
    }

    fn quoted(&mut self, quote: u8) -> Result<Token<'s>, Problem> {
        let bytes = self.text.as_bytes();
        self.at += 1;
        loop {
            match bytes.get(self.at) {
                None | Some(b'\n') => return Err(self.problem("unfinished string")),
                Some(b'\\') => self.escape(bytes)?,
                Some(byte) => {
                    self.at += 1;
                    if *byte == quote {
                        return Ok(Token::Text);
                    }
                }
            }
        }
    }

    fn escape(&mut self, bytes: &[u8]) -> Result<(), Problem> {
        let invalid = "invalid escape sequence";
        self.at += 1;
        let Some(byte) = bytes.get(self.at).copied() else { return Err(self.problem("unfinished string")) };
        self.at += 1;
        let digits = |from: usize, is_meant: fn(&u8) -> bool, most: usize| {
            bytes.get(from..).unwrap_or_default().iter().take(most).take_while(|byte| is_meant(byte)).count()
        };
        match byte {
            b'a' | b'b' | b'f' | b'n' | b'r' | b't' | b'v' | b'\\' | b'"' | b'\'' => {}
            // An end of line may have two characters.
            b'\n' | b'\r' => {
                self.line += 1;
                let other = if byte == b'\n' { b'\r' } else { b'\n' };
                self.at += usize::from(bytes.get(self.at) == Some(&other));
            }
            b'z' => {
                while let Some(byte) = bytes.get(self.at).filter(|byte| byte.is_ascii_whitespace()) {
                    self.line += usize::from(*byte == b'\n');
                    self.at += 1;
                }
            }
            b'x' if digits(self.at, u8::is_ascii_hexdigit, 2) == 2 => self.at += 2,
            b'u' if bytes.get(self.at) == Some(&b'{') => {
                let count = digits(self.at + 1, u8::is_ascii_hexdigit, 8);
                if count == 0 || bytes.get(self.at + 1 + count) != Some(&b'}') {
                    return Err(self.problem(invalid));
                }
                self.at += count + 2;
            }
            b'0'..=b'9' => {
                let count = digits(self.at - 1, u8::is_ascii_digit, 3);
                let text = self.text.get(self.at - 1..self.at - 1 + count).unwrap_or_default();
                if text.parse::<u32>().is_ok_and(|value| value > 255) {
                    return Err(self.problem(invalid));
                }
                self.at += count - 1;
            }
            _ => return Err(self.problem(invalid)),
        }
        Ok(())
    }
}

/// Bytes above ASCII are letters.
fn is_letter(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || !byte.is_ascii()
}

/// The number of `=` in a long bracket that a text starts with.
fn long_bracket(text: &str) -> Option<usize> {
    let rest = text.strip_prefix('[')?;
    let level = rest.bytes().take_while(|byte| *byte == b'=').count();
    rest.as_bytes().get(level).filter(|byte| **byte == b'[').map(|_| level)
}

/// Whether LuaJIT reads a number, given in lower case.
fn is_number(text: &str) -> bool {
    let is_all = |text: &str, is_meant: fn(&u8) -> bool| text.bytes().all(|byte| is_meant(&byte));
    let integer = text.strip_suffix("ull").or_else(|| text.strip_suffix("ll"));
    let text = integer.or_else(|| text.strip_suffix('i')).unwrap_or(text);
    if let Some(bits) = text.strip_prefix("0b") {
        return !bits.is_empty() && is_all(bits, |byte| matches!(byte, b'0' | b'1'));
    }
    let (digits, exponent, is_digit): (&str, char, fn(&u8) -> bool) = match text.strip_prefix("0x") {
        Some(hex) => (hex, 'p', u8::is_ascii_hexdigit),
        None => (text, 'e', u8::is_ascii_digit),
    };
    let (mantissa, power) = match digits.split_once(exponent) {
        Some((mantissa, power)) => (mantissa, Some(power)),
        None => (digits, None),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let is_power = |power: &str| {
        let digits = power.strip_prefix(['+', '-']).unwrap_or(power);
        !digits.is_empty() && is_all(digits, u8::is_ascii_digit)
    };
    (!whole.is_empty() || !fraction.is_empty())
        && is_all(whole, is_digit)
        && is_all(fraction, is_digit)
        && power.is_none_or(is_power)
}
