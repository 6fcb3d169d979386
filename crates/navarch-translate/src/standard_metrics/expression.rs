//! CEL expressions for labels, in the form that stock Envoy's formatter takes.
//!
//! Istio's proxy evaluates them with an interpreter of its own, which knows more: conversions to text, and
//! what its other filters have found out. A formatter that Envoy cannot make would have it refuse the whole
//! listener; so what it does not know is looked for here.

/// Why an expression cannot be evaluated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    #[error("stock Envoy has no {0}()")]
    Function(String),
    #[error("stock Envoy does not join texts with +")]
    Concatenation,
    #[error("stock Envoy does not know {0}, which a filter of Istio's own proxy finds out")]
    Attribute(String),
    #[error("an expression with `)%` ends there for Envoy")]
    Delimiter,
    #[error("a text in it does not end")]
    Unfinished,
    #[error("there is no expression")]
    Nothing,
}

/// Functions that Istio's interpreter has and Envoy's formatter has not (Envoy 1.40: "No overload found in
/// reference resolve step").
const FUNCTIONS: [&str; 9] =
    ["string", "split", "join", "replace", "lowerAscii", "upperAscii", "charAt", "substring", "trim"];

/// Attributes that filters of Istio's proxy add.
const ATTRIBUTES: [&str; 6] = [
    "upstream_peer",
    "downstream_peer",
    "upstream_peer_id",
    "downstream_peer_id",
    "istio_operationId",
    "istio_responseClass",
];

/// A piece of an expression, as far as it has to be told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'a> {
    Name(&'a str),
    /// With its quotation marks.
    Text(&'a str),
    Space,
    Other(&'a str),
}

/// The expression as Envoy's formatter takes it.
///
/// # Errors
/// If Envoy cannot evaluate it.
pub fn for_envoy(expression: &str) -> Result<String, Unusable> {
    let expression = expression.trim();
    let mut tokens = Vec::new();
    let mut rest = expression;
    while !rest.is_empty() {
        let (token, length) = token(rest)?;
        tokens.push(token);
        rest = rest.get(length..).unwrap_or_default();
    }
    let tokens = without_conversion(&tokens);
    let words: Vec<Token<'_>> = tokens.iter().copied().filter(|token| *token != Token::Space).collect();
    for (index, word) in words.iter().enumerate() {
        let before = index.checked_sub(1).and_then(|index| words.get(index));
        let after = words.get(index + 1);
        check(before, *word, after)?;
    }
    let written = written(tokens);
    match () {
        () if written.is_empty() => Err(Unusable::Nothing),
        () if ends_early(&written) => Err(Unusable::Delimiter),
        () => Ok(written),
    }
}

fn check(before: Option<&Token<'_>>, word: Token<'_>, after: Option<&Token<'_>>) -> Result<(), Unusable> {
    let is_text = |token: Option<&Token<'_>>| matches!(token, Some(Token::Text(_)));
    match word {
        Token::Name(name) if after == Some(&Token::Other("(")) && FUNCTIONS.contains(&name) => {
            Err(Unusable::Function(name.to_owned()))
        }
        Token::Name(name) if ATTRIBUTES.contains(&name) => Err(Unusable::Attribute(name.to_owned())),
        Token::Other("+") if is_text(before) || is_text(after) => Err(Unusable::Concatenation),
        _ => Ok(()),
    }
}

/// Without `string(...)` around all of it: a label is a text anyway.
fn without_conversion<'t, 'a>(tokens: &'t [Token<'a>]) -> &'t [Token<'a>] {
    let [Token::Name("string"), Token::Other("("), inner @ .., Token::Other(")")] = tokens else {
        return tokens;
    };
    let mut depth = 0_usize;
    for token in inner {
        match token {
            Token::Other("(") => depth += 1,
            // The parenthesis that is closed is that of the conversion: `string(a) == string(b)`.
            Token::Other(")") if depth == 0 => return tokens,
            Token::Other(")") => depth -= 1,
            _ => {}
        }
    }
    inner
}

/// On one line. What Istio's interpreter calls `node` is `xds.node`.
fn written(tokens: &[Token<'_>]) -> String {
    let mut text = String::new();
    let mut before = Token::Space;
    for token in tokens {
        match token {
            Token::Name("node") if before != Token::Other(".") => text.push_str("xds.node"),
            Token::Name(part) | Token::Text(part) | Token::Other(part) => text.push_str(part),
            Token::Space => text.push(' '),
        }
        if *token != Token::Space {
            before = *token;
        }
    }
    text
}

/// Whether `%CEL(...)%` would end within the expression: at `)%`, or at `):` with digits and `%`.
fn ends_early(expression: &str) -> bool {
    expression.split(')').skip(1).any(|rest| {
        let rest =
            rest.strip_prefix(':').map_or(rest, |rest| rest.trim_start_matches(|c: char| c.is_ascii_digit()));
        rest.starts_with('%')
    })
}

/// The first token, and its bytes.
fn token(text: &str) -> Result<(Token<'_>, usize), Unusable> {
    let first = text.chars().next().unwrap_or(' ');
    let while_is = |is: fn(char) -> bool| text.find(|c: char| !is(c)).unwrap_or(text.len());
    let of = |length: usize| text.get(..length).unwrap_or(text);
    if first.is_whitespace() {
        return Ok((Token::Space, while_is(char::is_whitespace)));
    }
    if first == '\'' || first == '"' {
        let length = literal(text, first).ok_or(Unusable::Unfinished)?;
        return Ok((Token::Text(of(length)), length));
    }
    if first.is_alphabetic() || first == '_' {
        let length = while_is(|c| c.is_alphanumeric() || c == '_');
        return Ok((Token::Name(of(length)), length));
    }
    let length = first.len_utf8();
    Ok((Token::Other(of(length)), length))
}

/// The bytes of a text that begins with a quotation mark.
fn literal(text: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    for (index, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '\n' | '\r' => return None,
            c if c == quote => return Some(index + c.len_utf8()),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(expression: &str, expected: Result<&str, Unusable>) {
        assert_eq!(for_envoy(expression), expected.map(str::to_owned), "{expression}");
    }

    #[test]
    fn what_envoy_can_evaluate_stays() {
        for same in [
            "request.host",
            "request.headers['x-tier']",
            "response.code >= 500 ? 'bad' : 'good'",
            "has(request.headers['a']) ? request.headers['a'] : 'string('",
            "destination.port + 1",
            "xds.node.id",
            "metadata.node",
        ] {
            check(same, Ok(same));
        }
    }

    #[test]
    fn what_means_the_same_is_written_as_envoy_knows_it() {
        check(" string(destination.port) ", Ok("destination.port"));
        check("string((1 + 2) * 3)", Ok("(1 + 2) * 3"));
        check("node.metadata['APP']", Ok("xds.node.metadata['APP']"));
        check("request.host ==\n  'a'", Ok("request.host == 'a'"));
    }

    #[test]
    fn what_envoy_cannot_evaluate_is_said() {
        check("string(a) == string(b)", Err(Unusable::Function("string".into())));
        check("request.path.split('/')[1]", Err(Unusable::Function("split".into())));
        check("'a' + request.host", Err(Unusable::Concatenation));
        check("request.host + \"a\"", Err(Unusable::Concatenation));
        check("filter_state.upstream_peer.app", Err(Unusable::Attribute("upstream_peer".into())));
        check("(1)%2", Err(Unusable::Delimiter));
        check("true?(1):2%3", Err(Unusable::Delimiter));
        check("'it", Err(Unusable::Unfinished));
        check(" ", Err(Unusable::Nothing));
    }
}
